"""docs/reference is what tools/build_reference.py makes of the code."""

from __future__ import annotations

import importlib.util
import json
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
