"""Use cases and the decision loop."""
