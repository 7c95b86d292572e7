"""The effect half of each vGPU framework; the pure half is in model/frameworks."""
