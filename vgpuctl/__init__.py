"""vgpuctl: NVIDIA virtual GPUs on libvirt/KVM hypervisors, from a wish to a desktop."""

__version__ = "0.1.0"
