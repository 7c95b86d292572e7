"""What docs/security.md says that the daemon needs, done under the shipped unit: each row, and no other."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.rig.desktops import (
    MDEVS,
    PCI,
    SOCKET,
    Host,
    get,
    hostdevs,
    main_pid,
    refused,
    run,
    shown,
    type_in_kernel,
    until,
    vgpu,
    vgpuctl,
    vgpus,
)
from tests.rig.hands import Vfio, read

TOP = Path(__file__).parents[3]
PAGE = TOP / "docs/security.md"
UNIT = TOP / "packaging/systemd/vgpuctl.service"
PLAIN, CUT = "0000:41:00.0", "0000:61:00.0"
CARDS = "t4:mdev@41,h100:vendor-vfio@61"
TYPE, WITH_PARAMETERS = "T4-4Q", "tuned"
PROFILE = f"""\
apiVersion: vgpuctl/v1
kind: Profile
name: {WITH_PARAMETERS}
types: [{TYPE}]
params: {{frame_rate_limiter: 0}}
"""


@dataclass(frozen=True)
class Row:
    """Of a table of the page."""

    what: str
    rest: str


def rows(head: str) -> list[Row]:
    """The rows of the table whose first column has that name."""
    table = PAGE.read_text().split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [Row(*(part.strip() for part in line.strip("|").split("|", 1))) for line in table]


OPERATIONS = rows("what it does")
OPEN = rows("directive")


def set_in_unit(directive: str) -> list[str]:
    """The words that the unit gives to a directive."""
    return [
        word.lstrip("-")
        for line in re.findall(rf"(?m)^{directive}=(.*)$", UNIT.read_text())
        for word in line.split()
    ]


# The host ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host(CARDS) as made:
        yield made


def makes_and_removes(_host: Host) -> None:
    vgpuctl("vgpu", "create", "--type", TYPE, "--name", "made")
    assert type_in_kernel(row := vgpu("made")) is not None
    vgpuctl("vgpu", "delete", "made")
    assert type_in_kernel(row) is None


def writes_parameters(_host: Host) -> None:
    run("vgpuctl", "apply", "-f", "-", "--yes", stdin=PROFILE)
    vgpuctl("vgpu", "create", "--profile", WITH_PARAMETERS, "--name", "tuned-1")
    parameters = MDEVS / vgpu("tuned-1")["uuid"] / "nvidia/vgpu_params"
    assert "frame_rate_limiter=0" in read(parameters)
    vgpuctl("vgpu", "delete", "tuned-1")


def turns_vfs_on_and_off(_host: Host) -> None:
    """And what did it was no child of the daemon's."""
    document = f"{{apiVersion: vgpuctl/v1, kind: Gpu, name: '{CUT}', vfs: %s}}"
    run("vgpuctl", "apply", "-f", "-", "--yes", stdin=document % "true")
    assert int(read(PCI / CUT / "sriov_numvfs")) > 0
    run("vgpuctl", "apply", "-f", "-", "--yes", stdin=document % "false")
    assert int(read(PCI / CUT / "sriov_numvfs")) == 0
    log = run("journalctl", "-b", "--no-pager", "-o", "json", "-u", "vgpuctl-sriov-manage-*")
    units = [json.loads(line).get("UNIT", "") for line in log.splitlines()]
    assert any(each.startswith(f"vgpuctl-sriov-manage-{CUT.replace(':', '-')}-") for each in units), units
    assert f"sriov-manage -e {CUT}, for vgpuctl" in log


def reads_nvml(_host: Host) -> None:
    models = {each["address"]: each["model"] for each in get("gpus")}
    assert models == {PLAIN: "Tesla T4", CUT: "NVIDIA H100 PCIe"}
    assert get("host")["unknown"] == {}


def changes_mig(_host: Host) -> None:
    vgpuctl("mig", "apply", "--gpu", CUT, "--layout", "2g.20gb:1", "--yes")
    (gpu,) = (each for each in get("gpus") if each["address"] == CUT)
    assert [each["profile"] for each in gpu["gpu_instances"]] == ["2g.20gb"]
    vgpuctl("mig", "disable", CUT, "--yes")


def sees_who_holds(_host: Host) -> None:
    vgpuctl("vgpu", "create", "--type", TYPE, "--name", "held")
    holder = Vfio(MDEVS / vgpu("held")["uuid"])
    try:
        command = Path("/proc/self/comm").read_text().strip()
        shown("held", holders=[{"pid": os.getpid(), "command": command, "domain": None}])
    finally:
        holder.close()
    shown("held", holders=[])
    vgpuctl("vgpu", "delete", "held")


def reads_the_kernel_log(host: Host) -> None:
    """hardware.md 1.4.10: the driver says its code there alone."""
    host.nvsim.fail("create", "0x1a", 9, PLAIN)
    try:
        problem = refused(action="create-vgpu", type=TYPE)
    finally:
        host.nvsim.fail("create", "0x1a", 0, PLAIN)
    assert "0x1a" in problem["detail"].lower(), problem


def hears_uevents(_host: Host) -> None:
    """Its netlink socket has joined the kernel's or udev's group."""
    inodes = {
        match[1]
        for each in Path(f"/proc/{main_pid()}/fd").iterdir()
        if (match := re.match(r"socket:\[(\d+)\]", os.readlink(each)))  # noqa: PTH115
    }
    listening = {
        fields[9]
        for fields in map(str.split, Path("/proc/net/netlink").read_text().splitlines()[1:])
        if fields[1] == "15" and int(fields[3], 16)
    }
    assert inodes & listening


def edits_domains(host: Host) -> None:
    before = host.define("desk")
    vgpuctl("attach", "desk", "--type", TYPE)
    assert len(hostdevs(host.xml("desk"))) == 1
    vgpuctl("detach", "desk")
    assert host.xml("desk") == before


def gives_its_socket(_host: Host) -> None:
    """Without vgpuctl.socket it makes the same one itself.  The last case: the unit stays away."""
    run("systemctl", "mask", "--runtime", "--now", "vgpuctl.socket")
    try:
        run("systemctl", "restart", "vgpuctl.service")
        found = Path(SOCKET).stat()
        assert (Path(SOCKET).group(), oct(found.st_mode & 0o777)) == ("vgpuctl", "0o660")
        reader = ("setpriv", "--reuid=nobody", "--regid=vgpuctl-ro", "--clear-groups")
        run(*reader, "vgpuctl", "gpu", "list")
    finally:
        run("systemctl", "unmask", "--runtime", "vgpuctl.socket")


def leaves_notes_for_the_hook(_host: Host) -> None:
    assert (Path(SOCKET).parent / "hook/book").stat().st_mtime > 0
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert json.loads((Path(SOCKET).parent / "hook/book").read_text())["boot_id"] == boot


def switches_an_autostart_off(_host: Host) -> None:
    uuid = str(uuid4())
    kinds = PCI / PLAIN / "mdev_supported_types"
    (kind,) = (each.name for each in kinds.iterdir() if read(each / "name").endswith(TYPE))
    mdev = ("--uuid", uuid, "--parent", PLAIN, "--type", kind)
    run("mdevctl", "define", *mdev, "--auto")
    run("mdevctl", "start", *mdev)
    try:
        until(lambda: vgpus(state="foreign"), "the foreign vGPU")
        vgpuctl("adopt", uuid, "--disable-autostart", "--yes")
        definition = Path("/etc/mdevctl.d") / PLAIN / uuid
        assert json.loads(definition.read_text())["start"] == "manual"
        vgpuctl("vgpu", "delete", f"adopted-{uuid}")
    finally:
        run("mdevctl", "undefine", "--uuid", uuid)


def keeps_its_state(_host: Host) -> None:
    kept = Path("/var/lib/vgpuctl")
    assert (kept / "vgpuctl.db").stat().st_size > 0
    assert oct(kept.stat().st_mode & 0o777) == "0o700"


def tells_the_journal(_host: Host) -> None:
    """With fields, which can be asked for."""
    vgpuctl("vgpu", "create", "--type", TYPE, "--name", "told")
    operation = vgpuctl("operation", "list")[0]["id"]
    vgpuctl("vgpu", "delete", "told")
    lines = run("journalctl", "-b", "--no-pager", "-o", "json", f"VGPUCTL_OPERATION={operation}").splitlines()
    entries = [json.loads(line) for line in lines]
    ids = dict(
        re.findall(r"(?m)^\| ([a-z ]+) \| `([0-9a-f]{32})` \|$", (TOP / "docs/service.md").read_text())
    )
    (done,) = (each for each in entries if each.get("MESSAGE_ID") == ids["step done"])
    assert (done["VGPUCTL_VGPU"], done["VGPUCTL_GPU"]) == ("told", PLAIN)
    assert (done["PRIORITY"], done["SYSLOG_IDENTIFIER"]) == ("6", "vgpuctl")
    assert (done["_SYSTEMD_UNIT"], done["_PID"]) == ("vgpuctl.service", str(main_pid()))
    (admitted,) = (each for each in entries if each.get("MESSAGE_ID") == ids["operation admitted"])
    assert (admitted["VGPUCTL_USER"], admitted["VGPUCTL_UID"]) == ("root", "0")
    (ended,) = (each for each in entries if each.get("MESSAGE_ID") == ids["operation ended"])
    assert ended["VGPUCTL_STATE"] == "succeeded"


CASES: dict[str, Callable[[Host], None]] = {
    "makes and removes vGPUs": makes_and_removes,
    "writes their parameters": writes_parameters,
    "turns VFs on and off": turns_vfs_on_and_off,
    "reads cards, types, GPU instances": reads_nvml,
    "changes MIG mode and GPU instances": changes_mig,
    "sees who holds a vGPU open": sees_who_holds,
    "reads why the driver refused": reads_the_kernel_log,
    "hears of devices that come and go": hears_uevents,
    "reads and edits domains": edits_domains,
    "leaves notes for libvirt's hook": leaves_notes_for_the_hook,
    "switches off an autostart of mdevctl, when asked": switches_an_autostart_off,
    "keeps its state": keeps_its_state,
    "tells the journal": tells_the_journal,
    "gives its socket to the group": gives_its_socket,
}


@pytest.mark.rig
@pytest.mark.parametrize("operation", [each.what for each in OPERATIONS])
def test_the_unit_lets_it(host: Host, operation: str) -> None:
    CASES[operation](host)


@pytest.mark.rig
def test_each_directive_that_is_open_is_explained(host: Host) -> None:
    """Whatever systemd holds against the unit; and its figure is the one in the page."""
    del host
    asked = ("systemd-analyze", "security", "--no-pager")
    found = json.loads(run(*asked, "--json=short", "vgpuctl.service"))
    held_against = [each["name"] for each in found if float(each["exposure"] or 0) > 0]
    assert {"PrivateDevices=", "CapabilityBoundingSet=~CAP_SYS_ADMIN"} <= set(held_against)
    assert [name for name in held_against if not is_explained(name)] == []
    level = re.search(r"Overall exposure level for vgpuctl.service: ([\d.]+)", run(*asked, "vgpuctl.service"))
    assert level is not None
    assert f"exposure level of {level[1]} " in PAGE.read_text()


def is_explained(name: str) -> bool:
    """A directive as systemd-analyze names it: `A=`, `A=/B=` or, for some of its words, `A=~X_(Y|Z*)`."""
    directives, _, words = name.partition("=~")
    if not words:
        return any(f"`{each}`" in row.what for each in re.findall(r"\w+", directives) for row in OPEN)
    prefix, _, choices = words.rstrip(")").partition("(")
    any_of = "|".join(re.escape(prefix + each).replace(r"\*", r"\w*") for each in choices.split("|"))
    return any(re.search(f"`({any_of})`", f"{row.what} {row.rest}") for row in OPEN + OPERATIONS)


# The page and the unit --------------------------------------------------------------------------------


def test_every_row_has_a_case() -> None:
    assert [each.what for each in OPERATIONS] == list(CASES)


@pytest.mark.parametrize(
    ("directive", "words"),
    [
        ("CapabilityBoundingSet", r"CAP_\w+"),
        ("RestrictAddressFamilies", r"AF_\w+"),
        ("ReadWritePaths", r"/etc/mdevctl\.d"),
        ("DeviceAllow", r"(?<=DeviceAllow=)char-\*|(?<=char-\* )rw"),
    ],
)
def test_the_unit_gives_what_the_rows_need_and_no_more(directive: str, words: str) -> None:
    needed = {word for each in OPERATIONS for word in re.findall(words, each.rest)}
    assert needed == set(set_in_unit(directive))
