"""A newcomer's hour: what README says to type for a lab, in a Debian that has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.test_commands import ROOT, blocks_of
from tests.rig.cache import key_of
from tests.rig.debian import archive
from tests.rig.payload import repository_files
from tools import roots

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.root, pytest.mark.timeout(1500)]

RELEASE = "trixie"
CLONE = "/root/vgpuctl"
SET_UP_BY = ("scripts", "requirements.lock", "setup.cfg", "pyproject.toml", "Makefile")
"""What decides what the lab installs; `make setup` does nothing where it is done already."""
OF_PIP = ("index-url", "proxy", "trusted-host", "default-timeout", "timeout")
MARK = "--- the forty"
LOOK = f"""
echo '{MARK}'
for each in $(virsh list --all --name); do virsh dumpxml "$each"; done
"""


def commands() -> tuple[list[str], list[str]]:
    """What is typed in the machine's shell, and then in the lab's."""
    (block,) = (each for each in blocks_of(ROOT / "README.md") if each.mark == "lab")
    lines = block.text.splitlines()
    (lab,) = (number for number, line in enumerate(lines) if line.startswith("make lab"))
    return lines[: lab + 1], lines[lab + 1 :]


def as_this_machine(shown: Path) -> dict[str, str]:
    """How this machine reaches its archives, for the root: files in `shown`, variables for pip."""
    told = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
    reaching = [line for line in told.stdout.splitlines() if re.match(r"(?i)Acquire::https?::", line)]
    # who types the commands says yes when apt asks
    (shown / "apt.conf").write_text("\n".join([*reaching, 'APT::Get::Assume-Yes "true";']) + "\n")
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    said = re.findall(r"(?m)^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", listed.stdout)
    variables = {f"PIP_{key.upper().replace('-', '_')}": value for key, value in said if key in OF_PIP}
    if "cert" in dict(said):
        shutil.copy(dict(said)["cert"], shown / "cert.pem")
        variables["PIP_CERT"] = f"{roots.PLACE}/cert.pem"
    return variables


class Newcomer:
    """Types commands in a root, in the clone."""

    def __init__(self, root: roots.Root, work: Path) -> None:
        self._root = root
        self._shown = work / "shown"
        for path in repository_files():
            (self._shown / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, self._shown / "clone" / path, follow_symlinks=False)
        self._variables = as_this_machine(self._shown)
        self.types(
            f"cp {roots.PLACE}/apt.conf /etc/apt/apt.conf.d/99this-machine; mkdir -p {CLONE} && "
            f"find {CLONE} -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -r {{}} + && "
            f"cp -r {roots.PLACE}/clone/. {CLONE}",
            at="/",
        )

    def types(self, command: str, stdin: str = "", at: str = CLONE) -> str:
        """What a command prints, on both streams; it has to succeed."""
        done = self._root.run(
            f"cd {at} && {command}", self._shown, network=True, stdin=stdin, **self._variables
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout + done.stderr


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    """In a root where all was typed that installs something; kept, by what it depends on."""
    if missing := [each for each in ("mmdebstrap", "unshare") if shutil.which(each) is None]:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"not installed: {', '.join(missing)}")
    before, _ = commands()
    bare = roots.made(RELEASE, "bare", (), tmp_path)

    def install(path: Path) -> None:
        typing = Newcomer(roots.Root(bare.below, path), tmp_path / "installing")
        typing.types("apt-get update", at="/")
        for command in before[:-1]:
            typing.types(command)
        typing.types("make setup")
        for each in ("work", "root"):
            shutil.rmtree(path / each, ignore_errors=True)

    key = key_of(RELEASE, archive(), *before, *(ROOT / each for each in SET_UP_BY))
    layer = roots.cache().layer(f"{RELEASE}-newcomer", key, install)
    return Newcomer(roots.Root(bare.below, layer).over(tmp_path), tmp_path)


def test_forty_desktops_have_their_vgpu(newcomer: Newcomer) -> None:
    before, inside = commands()
    assert inside.pop() == "exit"
    for command in before[:-1]:
        newcomer.types(command)
    said = newcomer.types(before[-1], stdin="\n".join([*inside, LOOK, "exit"]))

    recaps = [dict(re.findall(r"(\w+)=(\d+)", line)) for line in re.findall(r"(?m)^lab +: (.*)$", said)]
    assert [each["failed"] for each in recaps] == ["0"] * 3
    assert int(recaps[0]["changed"]) > 0, "--check foresees"
    assert [each["changed"] for each in recaps[1:]] == ["2", "0"]
    shown, _, domains = said.partition(MARK)
    assert len(re.findall(r"(?m)^win11-\d{3} .* present ", shown)) == 40
    vgpus = Counter(re.findall(r"<hostdev .*?<address uuid=.([0-9a-f-]{36})", domains, re.DOTALL))
    assert domains.count("<domain ") == domains.count("<hostdev ") == len(vgpus) == 40
    assert set(vgpus.values()) == {1}
