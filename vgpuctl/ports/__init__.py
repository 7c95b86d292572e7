"""Protocols of the outside world, and the frozen records that they pass; one file a noun."""
