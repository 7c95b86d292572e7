"""The pure half of each vGPU framework: its rules and its hostdev address."""
