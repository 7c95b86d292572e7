"""The rules of a card: what may be done to it, and what it is afterwards."""
