"""A guest's guest: the guest's own kernel and busybox, which print the PCI devices that they see."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_IMAGES: Final = Path("/var/lib/libvirt/images")
_KERNEL: Final = _IMAGES / "vmlinuz"
_INITRD: Final = _IMAGES / "initrd"
_MEM_64, _IS_MEMORY = 0x100000, 0x200
_LAST_WORD: Final = "that is all"
_INIT: Final = f"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
cd /sys/bus/pci/devices
for device in *; do
    read -r vendor <$device/vendor
    [ "$vendor" = 0x10de ] || continue
    echo "found $device"
    for file in vendor device subsystem_vendor subsystem_device resource; do
        /bin/busybox sed "s/^/$file /" $device/$file
    done
done
[ -d /sys/firmware/efi ] && echo firmware is EFI
echo {_LAST_WORD}
/bin/busybox poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One device: `vendor_device` and `subsystem` as `10de:2235`; size in bytes and width of its BARs."""

    vendor_device: str
    subsystem: str
    bars: dict[int, tuple[int, bool]]


@contextmanager
def rare_timer_interrupts() -> Iterator[None]:
    """OVMF's timer ticks once a second, not once in 10 ms.

    The rig's own QEMU (7.2) aborts when a guest of its guest writes CR8 while another interrupt waits, which
    OVMF does at the end of each interrupt: on a busy machine one waits every time.
    """
    file = Path("/sys/module/kvm/parameters/min_timer_period_us")
    before = file.read_text()
    file.write_text("1000000")
    yield
    file.write_text(before)


class LinuxGuest:
    """What the domain of that name boots, and what it said on its serial console."""

    def __init__(self, name: str, *, efi: bool) -> None:
        self._log = _IMAGES / f"{name}.log"
        self._log.unlink(missing_ok=True)
        if not _INITRD.exists():
            _build()
        firmware = " firmware='efi'" if efi else ""
        ports = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, 5))
        self.xml = f"""<domain type='kvm'><name>{name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
<os{firmware}><type arch='x86_64' machine='q35'>hvm</type><kernel>{_KERNEL}</kernel><initrd>{_INITRD}</initrd>
<cmdline>console=ttyS0 mitigations=off nokaslr quiet panic=1</cmdline></os><features><acpi/><apic/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>
<controller type='pci' index='0' model='pcie-root'/>{ports}<memballoon model='none'/>
<serial type='file'><source path='{self._log}'/><target port='0'/></serial></devices></domain>"""

    def said(self) -> str:
        """All that it said, once it has come to the end; empty before."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return text if _LAST_WORD in text else ""

    def seen(self) -> list[Seen]:
        """The NVIDIA devices that it sees."""
        found = []
        for part in re.split(r"^found ", self.said(), flags=re.MULTILINE)[1:]:
            ids = dict(re.findall(r"^(\w+) 0x([0-9a-f]{4})\s*$", part, flags=re.MULTILINE))
            bars = {}
            lines = re.findall(r"^resource 0x(\w+) 0x(\w+) 0x(\w+)", part, flags=re.MULTILINE)
            for number, (start, end, flags) in enumerate(lines[:6]):
                if int(flags, 16) & _IS_MEMORY:
                    size = int(end, 16) - int(start, 16) + 1
                    bars[number] = (size, bool(int(flags, 16) & _MEM_64))
            found.append(
                Seen(
                    f"{ids['vendor']}:{ids['device']}",
                    f"{ids['subsystem_vendor']}:{ids['subsystem_device']}",
                    bars,
                )
            )
        return found


def _build() -> None:
    """Put kernel and initramfs where QEMU may read them."""
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for name in ("bin", "dev", "proc", "sys"):
            (root / name).mkdir()
        shutil.copy("/bin/busybox", root / "bin")
        (root / "init").write_text(_INIT)
        (root / "init").chmod(0o755)
        shutil.copy("/boot/vmlinuz", _KERNEL)
        subprocess.run(f"find . | cpio -o -H newc --quiet > {_INITRD}", shell=True, check=True, cwd=root)
