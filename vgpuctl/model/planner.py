"""From what is and what should be to a plan."""
