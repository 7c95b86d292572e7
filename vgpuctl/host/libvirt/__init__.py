"""libvirt and domain XML."""
