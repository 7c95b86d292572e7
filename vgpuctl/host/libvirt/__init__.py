"""libvirt: domains, their XML, and a connection that comes back by itself."""
