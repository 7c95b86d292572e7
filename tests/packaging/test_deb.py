"""The Debian packages: what is in them, and what installing, upgrading, removing and purging them does."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

from tests.packaging.conftest import Host, Package, run
from tests.support.hook import domain, mdev_hostdev
from tests.support.package import TOP
from tools.roots import PLACE
from vgpuctl import __version__
from vgpuctl.cli.main import cli

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900)]

HOOK = "/etc/libvirt/hooks/qemu.d/vgpuctl"
PYTHON = {"bookworm": "python3.11", "trixie": "python3.13"}
SERVE = """
vgpuctl daemon --simulate l40s --libvirt test:///default >/var/log/vgpuctl.log 2>&1 &
for i in $(seq 300); do vgpuctl host show >/dev/null 2>&1 && break; sleep 0.1; done
"""
CREATE = "vgpuctl vgpu create --profile designer --name render-1"
SYSTEMCTL = """
mkdir -p /run/systemd/system
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
echo "$*" >>/var/log/systemctl.log
case "$*" in *is-enabled*) echo enabled ;; esac
END
"""
"""systemd as its helpers see it when it runs: what it is told is written down."""


def test_what_is_in_it(package: Package) -> None:
    number = {"bookworm": "12", "trixie": "13"}[package.release]
    assert package.field("Version") == f"{__version__}+deb{number}"
    assert {PYTHON[package.release], "python3-libvirt", "libudev1", "systemd"} <= set(package.depends())
    listed = run("dpkg-deb", "--contents", package.file)
    assert "root/root" in listed
    paths = {re.sub(r"^\./(lib/)", r"./usr/\1", line.split()[5]) for line in listed.splitlines()}
    site = f"./usr/lib/vgpuctl/lib/{PYTHON[package.release]}/site-packages"
    assert {
        "./usr/bin/vgpuctl",
        "./usr/lib/vgpuctl/qemu_hook.py",
        "./usr/lib/systemd/system/vgpuctl.service",
        "./usr/lib/systemd/system/vgpuctl.socket",
        "./usr/lib/systemd/system/vgpuctl-ready.target",
        "./usr/lib/sysusers.d/vgpuctl.conf",
        "./usr/lib/tmpfiles.d/vgpuctl.conf",
        "./usr/lib/udev/rules.d/60-vgpuctl.rules",
        "./usr/share/bash-completion/completions/vgpuctl",
        "./usr/share/zsh/vendor-completions/_vgpuctl",
        "./usr/share/fish/vendor_completions.d/vgpuctl.fish",
        "./usr/share/man/man1/vgpuctl.1.gz",
        *(f"./usr/share/man/man1/vgpuctl-{each}.1.gz" for each in cli.list_commands(None)),
        *(f"{site}/vgpuctl/templates/{each.name}" for each in (TOP / "templates").iterdir()),
        *(f"{site}/vgpuctl/mdev_profiles/{each.name}" for each in (TOP / "mdev-profiles").glob("*.yaml")),
        *(f"./usr/share/doc/vgpuctl/{each.relative_to(TOP)}" for each in (TOP / "docs").rglob("*.md")),
    } <= paths
    assert [each for each in paths if each.endswith(".pyc") or each.startswith(f"{site}/bin")] == []
    outside = ("etc", "usr", "lib")
    assert {each.split("/")[1] for each in paths} <= {"", *outside}
    assert [each for each in paths if each.startswith("./etc/") and not each.endswith("/")] == []


def test_each_lintian_override_has_its_reason() -> None:
    lines = (TOP / "packaging/debian/vgpuctl.lintian-overrides").read_text().splitlines()
    reason = False
    for line in lines:
        assert reason or line.startswith("#"), f"no reason: {line}"
        reason = bool(line)


def test_an_installed_vgpuctl_works(package: Package, new_host: Host) -> None:
    """With nothing but what it says that it needs, and whatever its caller's environment tells Python."""
    said = new_host.install(package)
    assert "libvirtd (or virtqemud) was restarted" in said
    assert new_host.do("getent group vgpuctl vgpuctl-ro | cut -d: -f1").split() == ["vgpuctl", "vgpuctl-ro"]
    modes = new_host.do(f"stat -c '%a %U %n' /etc/vgpuctl/profiles /run/vgpuctl {HOOK}")
    assert modes.splitlines() == [
        "755 root /etc/vgpuctl/profiles",
        "755 root /run/vgpuctl",
        f"755 root {HOOK}",
    ]
    new_host.do("mkdir /srv/bad; echo 'raise SystemExit(3)' | tee /srv/bad/click.py >/srv/bad/libvirt.py")
    assert (
        new_host.do("cd /srv/bad && PYTHONPATH=/srv/bad vgpuctl --version")
        == f"vgpuctl, version {__version__}\n"
    )
    told = new_host.do(f"{SERVE} {CREATE} && vgpuctl vgpu list --no-headers;vgpuctl host show")
    assert re.search(r"(?m)^render-1 .* present ", told), told
    assert re.search(r"(?m)^libvirt_uri: +test:///default", told), told
    assert "render-1" not in new_host.do("vgpuctl vgpu list 2>&1", status=7)
    assert new_host.do("man --where vgpuctl-attach") == "/usr/share/man/man1/vgpuctl-attach.1.gz\n"
    assert new_host.do("whatis vgpuctl").startswith("vgpuctl (1)")


def test_nothing_compiles_python_at_run_time(host: Host) -> None:
    names = ("*.pyc",)
    before = host.found("/usr/lib/vgpuctl", *names)
    assert any("/vgpuctl/cli/__pycache__/main." in each for each in before)
    host.do(f"{SERVE} vgpuctl gpu list")
    new = set(host.found("/usr/lib/vgpuctl", *names)) - set(before)
    assert [each for each in new if "/site-packages/__pycache__/libvirt." not in each] == []


def test_systemd_rules_are_sound(package: Package, host: Host) -> None:
    host.do("systemd-analyze verify vgpuctl.service vgpuctl.socket vgpuctl-ready.target")
    if package.release != "bookworm":
        host.do("udevadm verify /usr/lib/udev/rules.d/60-vgpuctl.rules")


def test_a_gpu_that_the_driver_has_is_a_unit(host: Host) -> None:
    """As udev reads the rule for a device of this machine, whose driver stands for NVIDIA's."""
    drivers = sorted(Path("/sys/bus/pci/devices").glob("*/driver"))
    if not drivers:
        pytest.skip("no PCI device of this machine has a driver")
    device = drivers[0].parent
    ask = f"mount -t sysfs sysfs /sys && udevadm test {device.resolve()} 2>&1"
    unit = f"SYSTEMD_ALIAS=/vgpuctl/gpu/{device.name}"
    assert unit not in host.do(ask)
    host.do(f"sed -i s/nvidia/{drivers[0].resolve().name}/ /usr/lib/udev/rules.d/60-vgpuctl.rules")
    told = host.do(ask)
    assert unit in told
    assert re.search(r"\bTAGS=\S*:systemd:", told), told


def test_only_the_daemon_is_ever_restarted(package: Package, new_host: Host) -> None:
    """Of all that systemd is told: nothing of libvirt's, and no stop before the package goes."""
    new_host.do(SYSTEMCTL)

    def told() -> list[str]:
        words = new_host.do("cat /var/log/systemctl.log; : >/var/log/systemctl.log").splitlines()
        acts = [re.sub(r"--\S+ ", "", each) for each in words]
        return [each for each in acts if re.match(r"(try-)?(re)?(start|stop|load|kill|isolate|mask)", each)]

    new_host.install(package)
    assert told() == ["start vgpuctl.service", "start vgpuctl.socket"]
    new_host.install(package.newer())
    assert told() == ["restart vgpuctl.service", "start vgpuctl.socket"]
    new_host.do("dpkg --remove vgpuctl")
    assert told() == ["stop vgpuctl.socket", "stop vgpuctl.service"]


def test_state_and_hook_outlive_an_upgrade(package: Package, host: Host) -> None:
    host.do(f"{SERVE} {CREATE}; kill $!; wait $!")
    host.do("echo 'log_level = \"debug\"' >/etc/vgpuctl/vgpuctl.toml")
    # an upgrade that is cut off before the new version is configured
    host.do(f"dpkg --unpack {PLACE}/{package.newer().file.name}")
    assert host.found("/etc") == host.found("/etc", "*vgpuctl*")
    assert HOOK in host.found("/etc")
    assert host.do("dpkg --configure vgpuctl").count("vgpuctl: ") == 0
    assert host.do("dpkg-query -Wf '${Version}' vgpuctl") == package.newer().field("Version")
    assert "render-1" in host.do(f"{SERVE} vgpuctl vgpu list")
    assert host.do("cat /etc/vgpuctl/vgpuctl.toml") == 'log_level = "debug"\n'


def test_what_a_removal_leaves_and_what_a_purge_leaves(package: Package, new_host: Host) -> None:
    before = set(new_host.do(f"find / -xdev -path {PLACE} -prune -o -print").splitlines())
    new_host.install(package)
    new_host.do(f"{SERVE} {CREATE}; kill $!; wait $!")
    new_host.do("echo '# mine' >/etc/vgpuctl/profiles/mine.yaml")
    said = new_host.do("dpkg --remove vgpuctl")
    assert "not empty" not in said
    assert HOOK not in new_host.found("/etc")
    assert new_host.found("/usr") == []
    assert "/var/lib/vgpuctl/vgpuctl.db" in new_host.found("/var")
    said = new_host.do("dpkg --purge vgpuctl")
    assert "removing its state in /var/lib/vgpuctl" in said
    assert "/etc/vgpuctl/profiles stays" in said
    assert new_host.found() == ["/etc/vgpuctl"]
    new_host.do("rm -r /etc/vgpuctl")
    new = set(new_host.do(f"find / -xdev -path {PLACE} -prune -o -print").splitlines()) - before
    kept = r"/(etc/(group|gshadow|systemd|libvirt)|var/(cache|log|lib/(systemd|dpkg))|tmp|run)\b"
    assert [each for each in new if not re.match(kept, each)] == []


def test_the_hook_refuses_nothing_once_the_program_is_gone(package: Package, host: Host) -> None:
    vgpu = UUID(int=7, version=4)
    (package.file.parent / "win1.xml").write_text(domain("win1", UUID(int=9, version=4), mdev_hostdev(vgpu)))
    ask = f"{HOOK} win1 prepare begin - <{PLACE}/win1.xml"
    assert "not there" in host.do(ask, status=1)
    host.do(f"cp -p {HOOK} /srv/hook; dpkg --remove vgpuctl; install -D /srv/hook {HOOK}")
    assert host.do(ask) == ""


COMPLETE = r"""
import os, pty, re, select, sys
shell, *arguments = sys.argv[1:]
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(PS1="ready> ", TERM="dumb")
    os.execvp(shell, [shell, *arguments])
seen = b""
def until(text):
    global seen
    while text not in (plain := re.sub(rb"\x1b\[[^a-zA-Z]*[a-zA-Z]|\x1b[=>]|.\x08", b"", seen)):
        if not select.select([fd], [], [], 60)[0]:
            sys.exit(f"{text} does not come, only {seen}")
        seen += os.read(fd, 65536)
    seen = plain.partition(text)[2]
until(b"ready> ")
load = {
    "bash": b". /usr/share/bash-completion/bash_completion",
    "zsh": b"autoload -Uz compinit; compinit -u -D",
}[shell]
os.write(fd, load + b"; echo lo''aded\n")
until(b"loaded")
until(b"ready> ")
for typed, word in (
    (b"vgpuctl vg", b"vgpuctl vgpu "),
    (b"del", b"delete "),
    (b"rend", b"render-1 "),
    (b"\x15vgpuctl gpu sh", b"vgpuctl gpu show "),
    (b"0000:4", b"0000:41:00.0 "),
):
    os.write(fd, typed + b"\t")
    until(word)
"""


@pytest.mark.parametrize("shell", ["bash --norc -i", "zsh -f -i"])
def test_a_shell_completes(package: Package, host: Host, shell: str) -> None:
    """An interactive one, as users have it: commands, and names that the daemon knows."""
    (package.file.parent / "complete.py").write_text(COMPLETE)
    host.do(f"{SERVE} {CREATE} >/dev/null && python3 {PLACE}/complete.py {shell}")


def test_fish_completes(host: Host) -> None:
    """By the command with which fish shows what it would offer."""
    offered = host.do(
        f"{SERVE} {CREATE} >/dev/null && fish --command '"
        'for each in "vgpuctl vg" "vgpuctl vgpu del" "vgpuctl vgpu delete rend" "vgpuctl gpu show 0000:4"; '
        'complete --do-complete $each | string replace --regex \\t.\\* ""; end; true\''
    )
    assert offered.split() == ["vgpu", "delete", "render-1", "0000:41:00.0"]
