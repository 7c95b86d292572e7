"""Talks to a daemon over its socket; standard library only."""
