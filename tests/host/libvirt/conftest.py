from tests.support.libvirtd import libvirtd, libvirtd_session

__all__ = ["libvirtd", "libvirtd_session"]
