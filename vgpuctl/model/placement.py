"""Which GPU and which VF a new vGPU gets."""
