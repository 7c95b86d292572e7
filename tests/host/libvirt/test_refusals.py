"""Which of libvirt's errors say that nobody is there."""

from __future__ import annotations

import libvirt
import pytest

from vgpuctl.host.libvirt.refusals import is_connection_lost


class Said(libvirt.libvirtError):
    def __init__(self, code: int, domain: int) -> None:
        super().__init__("said")
        self.err = (code, domain, "said", 2, None, None, None, -1, -1)


@pytest.mark.parametrize(
    ("code", "domain", "is_lost"),
    [
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, True),  # the socket is not there
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, True),  # "client socket is closed"
        (libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_FROM_DOMAIN, True),
        (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_FROM_NONE, True),
        # libvirtd's own helpers: a read-only /etc, a limit of locked memory, a module that is not there
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_NONE, False),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_NONE, False),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, False),
        (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_RPC, False),
    ],
)
def test_nobody_is_there(code: int, domain: int, is_lost: bool) -> None:
    assert is_connection_lost(Said(code, domain)) is is_lost
