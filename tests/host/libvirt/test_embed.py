"""qemu:///embed: the QEMU driver in the process, as the simulated daemon uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.libvirtd import run_without_kvm

pytestmark = pytest.mark.root

PROGRAM = """
import os, signal, sys
from uuid import UUID
import libvirt
from vgpuctl.host.libvirt.connection import LibvirtHypervisor
from vgpuctl.host.libvirt.event_loop import ensure_running
from vgpuctl.host.libvirt.example_domain import example_domain
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Hostdev, MdevSource, alias_for

root, act = sys.argv[1:]
uri = f"qemu:///embed?root={root}"
hypervisor = LibvirtHypervisor(uri)
id = UUID("5bfcd486-c5eb-43e4-a5ee-97366690106f")
hostdev = Hostdev(MdevSource(id), alias_for(id))
# Two threads that open the first embedded connection at once race inside libvirt: one finds it half made.
hypervisor.info()
if act == "attach":
    libvirt.open(uri).defineXML(example_domain("linux", "desk", kind="qemu"))
    hypervisor.attach("desk", hostdev, frozenset({Affect.CONFIG}))
    os._exit(0)
(desk,) = hypervisor.domains()
assert desk.config == (hostdev,), desk
assert hypervisor.info().can_attach_config
hypervisor.detach("desk", hostdev, frozenset(Affect))
assert hypervisor.domains()[0].config == ()
hypervisor.close()
print("well")
"""


def test_a_cold_attach_is_there_after_the_process_is_gone(tmp_path: Path) -> None:
    """ecosystem.md B0.3: definitions of qemu:///embed survive on disk."""
    run_without_kvm(PROGRAM, str(tmp_path), "attach")
    assert run_without_kvm(PROGRAM, str(tmp_path), "look").endswith("well\n")
