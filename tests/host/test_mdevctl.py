"""mdevctl's directory, on a tree of real files."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from uuid import UUID

import pytest
from scripted_kernel import ScriptedKernel, failure

from vgpuctl.errors import KernelRefused, ReadBackMismatch
from vgpuctl.host.mdevctl import definitions, disable_autostart
from vgpuctl.host.sysfs import RootedFiles
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import DeviceId
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.step import DisableAutostart

ID = UUID("b5d0a1f0-1f6e-4c2b-8a2e-0c8d3f1e2a77")
T4 = PciAddress(0, 0x41, 0, 0)
PATH = f"etc/mdevctl.d/{T4}/{ID}"
STEP = DisableAutostart(
    vgpu=ID, name="a", gpu=GpuIdentity(T4, DeviceId(0x10DE, 0x1EB8, 0x10DE, 0), None), parent=str(T4)
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What mdevctl's package and an administrator leave: definitions, scripts, and a stray file."""
    directory = tmp_path / "etc/mdevctl.d"
    (directory / "scripts.d/callouts").mkdir(parents=True)
    (directory / str(T4)).mkdir()
    (directory / "README").write_text("not a parent")
    (directory / str(T4) / "notes").write_text("no UUID")
    (directory / str(T4) / str(UUID(int=1))).write_text("no JSON")
    body = {"mdev_type": "nvidia-222", "start": "auto", "attrs": [{"nvidia/vgpu_params": "x=1"}]}
    (tmp_path / PATH).write_text(json.dumps(body))
    return tmp_path


def test_definitions_are_read_and_what_is_none_is_passed_over(tree: Path, tmp_path: Path):
    (found,) = definitions(RootedFiles(tree))  # type: ignore[arg-type, misc]
    assert (found.uuid, found.parent, found.type_name, found.autostart) == (ID, str(T4), "nvidia-222", True)
    assert definitions(RootedFiles(tmp_path / "elsewhere")) == ()  # type: ignore[arg-type]


def test_a_directory_that_cannot_be_read_is_unknown():
    kernel = ScriptedKernel(files={PATH: failure(errno.EACCES)})
    assert isinstance(definitions(kernel), Unknown)


def test_switching_off_keeps_the_rest_and_is_done_twice_without_harm(tree: Path):
    files = RootedFiles(tree)
    for _ in range(2):
        disable_autostart(files, STEP)  # type: ignore[arg-type]
        assert json.loads((tree / PATH).read_text()) == {
            "mdev_type": "nvidia-222",
            "start": "manual",
            "attrs": [{"nvidia/vgpu_params": "x=1"}],
        }
    (tree / PATH).unlink()
    disable_autostart(files, STEP)  # type: ignore[arg-type]
    assert not (tree / PATH).exists()


def test_what_cannot_be_switched_off_says_so():
    with pytest.raises(ReadBackMismatch, match="no definition"):
        disable_autostart(ScriptedKernel(files={PATH: "x"}), STEP)

    class ReadOnly(ScriptedKernel):
        def replace(self, path: str, text: str) -> None:
            raise failure(errno.EROFS)

    class Deaf(ScriptedKernel):
        def replace(self, path: str, text: str) -> None:
            pass

    text = '{"start": "auto"}'
    with pytest.raises(KernelRefused, match="Read-only") as refused:
        disable_autostart(ReadOnly(files={PATH: text}), STEP)
    assert "mdevctl modify" in (refused.value.hint or "")
    with pytest.raises(ReadBackMismatch, match="still says"):
        disable_autostart(Deaf(files={PATH: text}), STEP)
