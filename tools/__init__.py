"""What builds parts of the repository, and its packages."""
