"""vgpuctl installed in the rig as on a host: with systemd, libvirt, desktops."""
