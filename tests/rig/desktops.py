"""The guest as a vGPU host: vgpuctl as a service, libvirt's domains, and the witnesses beside it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import libvirt

from tests.rig.simulated import Nvsim
from vgpuctl.cli.main import run as command_line
from vgpuctl.client.client import Client
from vgpuctl.errors import VgpuctlError
from vgpuctl.host.libvirt import event_loop

T4, A16, A2 = "0000:41:00.0", "0000:61:00.0", "0000:81:00.0"
CARDS: Final = "t4:mdev@41,a16:sriov-mdev@61,a2:vendor-vfio@81"
TYPES: Final = {"mdev": "T4-4Q", "sriov-mdev": "A16-4Q", "vendor-vfio": "A2-4Q"}
OLD_MACHINE: Final = "pc-q35-6.0"
"""Its slots are native PCIe: a device that was plugged in, and no guest has touched, is let go of at once."""
NEW_MACHINE: Final = "q35"
"""Its slots are ACPI's: only an operating system lets go."""
MDEVS: Final = Path("/sys/bus/mdev/devices")
PCI: Final = Path("/sys/bus/pci/devices")
SOCKET: Final = "/run/vgpuctl/vgpuctl.sock"
PATIENCE_S: Final = 300.0
_LISTED_WITHIN_S: Final = 15.0
_POLL_S: Final = 0.7


class Failed(AssertionError):
    """A command ended otherwise than it should."""


def run(*command: str, status: int = 0, stdin: str = "", timeout_s: float = PATIENCE_S) -> str:
    """What a command prints on stdout."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s, cwd="/"
    )
    if done.returncode != status:
        text = f"{' '.join(command)} ended with {done.returncode}, not {status}:\n{done.stdout}{done.stderr}"
        raise Failed(text)
    return done.stdout


def vgpuctl(*words: str) -> Any:
    """What a command of vgpuctl's tells a program; in this process, without the start of a Python for it."""
    out, talk = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(talk):
        status = command_line([*words, "-o", "json"])
    if status:
        raise Failed(f"vgpuctl {' '.join(words)} ended with {status}:\n{out.getvalue()}{talk.getvalue()}")
    return json.loads(out.getvalue()) if out.getvalue() else None


def refused(**edit: Any) -> dict[str, Any]:
    """The problem with which vgpuctl refuses an edit, or with which its operation ends."""
    try:
        operation = Client(SOCKET).post("/v1/operations", edit, wait=PATIENCE_S)
    except VgpuctlError as error:
        return error.to_problem()
    problem: dict[str, Any] | None = operation["problem"]
    assert problem is not None, f"{edit} was not refused"
    return problem


def get(path: str, **query: Any) -> Any:
    """What the API answers: the same as the CLI's, without the start of a Python for it."""
    return Client(SOCKET).get(f"/v1/{path}", **query)


def vgpus(**where: Any) -> list[dict[str, Any]]:
    """The vGPUs with those fields, as vgpuctl shows them."""
    return [row for row in get("vgpus") if all(row[key] == value for key, value in where.items())]


def vgpu(name: str) -> dict[str, Any]:
    """The one of that name."""
    found: dict[str, Any] = get(f"vgpus/{name}")
    return found


def shown(name: str, **fields: Any) -> dict[str, Any]:
    """That vGPU once vgpuctl shows it with those fields: an observation may be a moment old."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        row = vgpu(name)
        if row | fields == row:
            return row
        assert time.monotonic() < deadline, f"not {fields}, but {row}"
        time.sleep(_POLL_S)


def until(happened: Callable[[], Any], what: str = "it") -> Any:
    """What `happened` says, once it says something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := happened()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(_POLL_S)
    return found


def listed_by_libvirt(name: str) -> None:
    """Wait until libvirt's node devices have that one.

    libvirt looks at a device once, when udev tells of it, and leaves out an mdev whose `mdev_type` is not
    there 0.1 s later, as on a machine with much to do; so udev tells again.
    """
    deadline = time.monotonic() + PATIENCE_S
    told = time.monotonic()
    while name not in run("virsh", "-q", "nodedev-list").split():
        assert time.monotonic() < deadline, f"libvirt does not list {name}"
        if time.monotonic() - told > _LISTED_WITHIN_S:
            run("udevadm", "trigger", "--action=add", "--subsystem-match=mdev")
            told = time.monotonic()
        time.sleep(0.2)


# -- what others see ------------------------------------------------------------------------------


def mdevctl_list() -> dict[str, tuple[str, str]]:
    """Parent and type of every mdev, as mdevctl tells."""
    rows = [line.split() for line in run("mdevctl", "list").splitlines() if line.strip()]
    return {row[0]: (row[1], row[2]) for row in rows}


def type_in_kernel(row: dict[str, Any]) -> str | None:
    """The type that the kernel shows where vgpuctl says that a vGPU stands; None where nothing does."""
    if row["framework"] == "vendor-vfio":
        current = (PCI / row["vf"] / "nvidia/current_vgpu_type").read_text().strip()
        return None if current == "0" else current
    link = MDEVS / str(row["mdev_uuid"] or row["uuid"]) / "mdev_type"
    return link.resolve().name.removeprefix("nvidia-") if link.exists() else None


def node_device(row: dict[str, Any]) -> str:
    """The name that libvirt's node devices have for a vGPU, or for its VF."""
    if row["framework"] == "vendor-vfio":
        return "pci_" + re.sub(r"[:.]", "_", row["vf"])
    parent = row["vf"] or row["gpu"]
    return "_".join(("mdev", row["uuid"].replace("-", "_"), re.sub(r"[:.]", "_", parent)))


def vfio_group(row: dict[str, Any]) -> Path:
    """The device node by which a vGPU is held."""
    device = PCI / row["vf"] if row["framework"] == "vendor-vfio" else MDEVS / row["uuid"]
    return Path("/dev/vfio") / (device / "iommu_group").resolve().name


def qemu_pid(domain: str) -> int:
    """The process in which a domain runs."""
    return int(Path(f"/run/libvirt/qemu/{domain}.pid").read_text())


def held_by(pid: int) -> set[str]:
    """The VFIO nodes that a process has open."""
    links = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(each))  # noqa: PTH115
    return {each for each in links if re.fullmatch(r"/dev/vfio/\d+", each)}


def hostdevs(xml: str) -> list[ET.Element]:
    """The hostdevs of a domain."""
    return ET.fromstring(xml).findall("devices/hostdev")  # libvirt's own


def alias_of(row: dict[str, Any]) -> str:
    """The alias by which a vGPU is found in a domain's XML."""
    return f"ua-vgpuctl-{row['uuid']}"


def hostdev_xml(row: dict[str, Any]) -> str:
    """A hostdev for a vGPU, as somebody who does not know vgpuctl would write it."""
    if row["framework"] == "vendor-vfio":
        domain, bus, slot, function = re.split(r"[:.]", row["vf"])
        where = f"domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'"
        kind = "type='pci' managed='no'"
    else:
        where, kind = f"uuid='{row['uuid']}'", "type='mdev' model='vfio-pci'"
    return f"<hostdev mode='subsystem' {kind}><source><address {where}/></source></hostdev>"


def domain_xml(name: str, machine: str = OLD_MACHINE, *, devices: str = "") -> str:
    """A domain without an operating system, and with room for two devices."""
    return f"""<domain type='kvm'><name>{name}</name>
<memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type></os><features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>
<controller type='pci' index='0' model='pcie-root'/>
<controller type='pci' index='1' model='pcie-root-port'/>
<controller type='pci' index='2' model='pcie-root-port'/>
<memballoon model='none'/>{devices}</devices></domain>"""


class Events:
    """What libvirt says of devices that guests let go of, as somebody else hears it."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self.removed: list[tuple[str, str]] = []
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._hear, None)

    def _hear(self, _connection: Any, domain: Any, alias: str, _opaque: Any) -> None:
        self.removed.append((domain.name(), alias))


# -- the host -------------------------------------------------------------------------------------


class Host:
    """Cards, a new libvirtd, and vgpuctl.service with an empty state; `with` leaves nothing behind."""

    def __init__(self, cards: str = CARDS, **parameters: object) -> None:
        self.nvsim = Nvsim()
        self._clean()
        # It may be behind by minutes: it waits a while for each device that came, and has gone since.
        run("systemctl", "restart", "libvirtd.service")
        self.nvsim.load(cards, **parameters)
        event_loop.ensure_running()
        self.connect()
        run("systemctl", "start", "vgpuctl.socket", "vgpuctl.service")

    def connect(self) -> None:
        """Open a connection to libvirt, and listen to its events."""
        self.libvirt = libvirt.open("qemu:///system")
        self.events = Events(self.libvirt)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self.libvirt.close()
        self._clean()

    def _clean(self) -> None:
        run("systemctl", "stop", "vgpuctl.socket", "vgpuctl.service")
        subprocess.run(["systemctl", "reset-failed", "vgpuctl.service"], check=False, capture_output=True)
        connection = libvirt.open("qemu:///system")
        for domain in connection.listAllDomains():
            is_kept = domain.isPersistent()
            if domain.isActive():
                domain.destroy()
            if is_kept:
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        connection.close()
        shutil.rmtree("/var/lib/vgpuctl", ignore_errors=True)
        for mdev in MDEVS.glob("*") if MDEVS.exists() else ():
            (mdev / "remove").write_text("1")
        for vf in PCI.glob("*/nvidia/current_vgpu_type"):
            if vf.read_text().strip() != "0":
                vf.write_text("0")
        self.nvsim.unload()

    def define(self, name: str, machine: str = OLD_MACHINE, *, devices: str = "") -> str:
        """Define a domain without an operating system; its XML, as libvirt keeps it."""
        return self.define_xml(domain_xml(name, machine, devices=devices))

    def define_xml(self, text: str) -> str:
        """Define a domain; its XML, as libvirt keeps it."""
        return self.xml(self.libvirt.defineXML(text).name())

    def xml(self, name: str, *, live: bool = False) -> str:
        """A domain's XML, from virsh."""
        return run("virsh", "-q", "dumpxml", name, *(() if live else ("--inactive",)))

    def start(self, name: str) -> int:
        """Start a domain; its process."""
        self.libvirt.lookupByName(name).create()
        return qemu_pid(name)

    def stop(self, name: str) -> None:
        """Pull its plug."""
        self.libvirt.lookupByName(name).destroy()


def main_pid() -> int:
    """The daemon's process."""
    return int(run("systemctl", "show", "-P", "MainPID", "vgpuctl.service"))


def kill_daemon() -> None:
    """Kill it, as the kernel does when memory runs out; returns when systemd has started another one."""
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: main_pid() not in (0, before), "the restart")
    until(lambda: _is_active("vgpuctl.service"), "being ready")


def _is_active(unit: str) -> bool:
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0
