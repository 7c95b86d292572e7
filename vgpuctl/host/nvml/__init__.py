"""NVML, in a helper process of its own."""
