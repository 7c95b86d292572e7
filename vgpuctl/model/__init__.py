"""Pure values and decisions: what a card is, what fits on it, what must be done."""
