"""Measurements in the rig: a real kernel and libvirt, beside raw writes and mdevctl."""
