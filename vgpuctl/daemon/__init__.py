"""The composition root: wires concrete adapters, runs under systemd."""
