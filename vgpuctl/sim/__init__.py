"""A simulated host: the traps of the hardware without the hardware."""
