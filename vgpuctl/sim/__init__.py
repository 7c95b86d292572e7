"""A simulated host: a pure machine behind the low ports, in memory or in a process of its own."""
