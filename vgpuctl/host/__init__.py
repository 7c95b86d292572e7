"""Adapters to the real thing: sysfs, NVML, libvirt, SQLite, open VFIO handles."""
