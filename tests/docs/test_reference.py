"""docs/reference is what tools/build_reference.py makes of the code."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

from vgpuctl.api.documents import parse_documents
from vgpuctl.api.openapi import describe
from vgpuctl.daemon.config import read_files
from vgpuctl.errors import VgpuctlError
from vgpuctl.surface import RESOURCES, ROUTES

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("build_reference", ROOT / "tools" / "build_reference.py")
assert SPEC is not None
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)
PAGES = tool.build()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == PAGES[name], "run make docs"


def test_there_is_no_other_page() -> None:
    assert {each.name for each in (ROOT / "docs" / "reference").iterdir()} == set(PAGES)


@pytest.mark.parametrize("kind", tool.EXAMPLES)
def test_an_example_is_a_document(kind: str) -> None:
    (document,) = parse_documents(tool.EXAMPLES[kind], kind)
    assert type(document).__name__ == f"{kind}Document"


def test_a_key_that_nobody_describes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads(json.dumps(tool.KEYS))
    del said["VgpuShape"]["owner"]
    said["GpuShape"]["colour"] = "Of the card."
    monkeypatch.setattr(tool, "KEYS", said)
    with pytest.raises(SystemExit, match=r"GpuShape\.colour, VgpuShape\.owner"):
        tool.build()


def test_nothing_is_left_out() -> None:
    """Each route, resource, field, error and command of the code stands in its page."""
    api, errors, cli = PAGES["api.md"], PAGES["errors.md"], PAGES["cli.md"]
    assert [each for each in ROUTES if f"| {each.method} | `{each.path}` |" not in api] == []
    assert [each for each in RESOURCES if f"\n### {each}\n" not in api] == []
    fields = [field.name for each in RESOURCES.values() for field in each.fields]
    assert [each for each in fields if f"| `{each}` |" not in api] == []
    assert [each for each in VgpuctlError._by_code if f"| `{each}` |" not in errors] == []
    assert all(f"### vgpuctl {name}\n" in cli for name in tool.cli.list_commands(None))
    assert set(describe()["paths"]) == {each.path for each in ROUTES}


def test_the_example_of_the_configuration_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "vgpuctl.toml"
    file.write_text(tool.CONFIGURATION_EXAMPLE)
    assert set(read_files(file, required=True).model_fields_set) == {"repair", "wait_for_gpus_s", "log_level"}


def test_troubleshooting_has_every_code() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## By code")[2]
    listed = [line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("| `")]
    assert sorted(listed) == sorted({"internal", *VgpuctlError._by_code})


# Troubleshooting ------------------------------------------------------------------------------------

TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text()
PROGRAM = [*(ROOT / "vgpuctl").rglob("*.py"), ROOT / "packaging" / "libvirt" / "qemu_hook.py"]
CATALOGUE = {
    "`echo: write error: Input/output error`": "`Input/output error` on `create`",
    "`write error: Invalid argument`": "`Invalid argument` on `create`",
    "`No space left on device`": "`No space left on device`",
    "`Cannot obtain unbindLock": "`Cannot obtain unbindLock`",
    "`vfio ... error getting device": "`vfio ... error getting device",
    "`[nvidia-vgpu-vfio] <uuid>: start failed.": "`[nvidia-vgpu-vfio] <uuid>: start failed.",
    "`vmiop_log: ...": "`init_device_instance failed",
    "`Failed to get VM UUID": "`Failed to get VM UUID",
    "guest `RmInitAdapter failed!": "`RmInitAdapter failed!",
    "VM works once per host boot": "a VM starts only once per boot",
    "orphan mdev after failed start": "an mdev remains after a failed start",
    "vGPU refuses to start with ECC on": "does not start with ECC on",
    "migration stops half-way": "migration ends half-way",
    "creatable list empty": "the list of creatable types is empty",
    "Cloud Hypervisor": "Cloud Hypervisor",
    "mixed-size write fails": "mixed-size mode says `Enabled`",
    "HGX multi-GPU vGPU": "HGX: multi-GPU vGPUs",
}
"""How a row of the failure catalogue (hardware.md 6.3) begins, and what troubleshooting has of it."""


def section(text: str, start: str, end: str) -> list[list[str]]:
    """The rows of the tables between two places of a page, without their heads."""
    lines = [each for each in text.partition(start)[2].partition(end)[0].splitlines() if each[:2] == "| "]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", each)[1:-1]] for each in lines]
    return [each for each in rows if each[0] not in ("message", "Symptom")]


def test_troubleshooting_has_the_failure_catalogue() -> None:
    hardware = (ROOT / "docs" / "hardware.md").read_text()
    listed = [row[0] for row in section(hardware, "### 6.3", "Pain points")]
    assert [each for each in listed if not each.startswith(tuple(CATALOGUE))] == []
    assert len(listed) == len(CATALOGUE)
    first = [row[0] for row in section(TROUBLES, "## By message", "## By code")]
    assert [each for each in CATALOGUE.values() if not any(each in cell for cell in first)] == []


def test_every_trouble_has_a_remedy() -> None:
    rows = section(TROUBLES, "## By message", "## By code") + section(TROUBLES, "## By code", "\n## ")
    assert [row[0] for row in rows if not all(row)] == []


def test_a_message_of_ours_is_in_the_program() -> None:
    """Each part of a quoted message, between its `...`, is in a text of the program."""
    texts = {
        node.value
        for path in PROGRAM
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    quoted = [row[0] for row in section(TROUBLES, "From vgpuctl:", "From the kernel")]
    parts = [
        each.strip() for cell in quoted for each in "...".join(re.findall(r"`([^`]+)`", cell)).split("...")
    ]
    assert len(parts) > 40
    assert [each for each in parts if each and not any(each in text for text in texts)] == []
