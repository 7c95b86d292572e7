"""What builds parts of the repository and its packages, and what the scripts share."""
