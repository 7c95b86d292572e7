"""Deterministic simulation: a seed is a history of a host, its daemons and its clients (docs/testing.md)."""
