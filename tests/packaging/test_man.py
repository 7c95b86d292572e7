"""The manual pages are what the commands say, and groff has nothing against them."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import click
import pytest

from vgpuctl.cli.main import Root, cli

SPEC = importlib.util.spec_from_file_location(
    "build_man", Path(__file__).parents[2] / "tools" / "build_man.py"
)
assert SPEC is not None
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)
PAGES = tool.build()


def rendered(name: str) -> str:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u", "-rLL=200n"],
        input=PAGES[name],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stderr == ""
    return " ".join(done.stdout.split()).translate({0x2212: "-", 0x2019: "'"})


def test_there_is_a_page_for_each_command() -> None:
    names = [name for section in Root.sections.values() for name in section]
    assert set(PAGES) == {"vgpuctl.1", *(f"vgpuctl-{name}.1" for name in names)}


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_a_page_says_all_that_the_help_says(name: str) -> None:
    root = click.Context(cli, info_name="vgpuctl")
    command = cli.get_command(root, name)
    assert command is not None
    page = rendered(f"vgpuctl-{name}.1")
    inner = dict(tool._inside(command, click.Context(command, info_name=name, parent=root)))
    for each, where in (inner or {command: click.Context(command, info_name=name, parent=root)}).items():
        assert where.command_path in page
        for option in each.params:
            if isinstance(option, click.Option) and (record := option.get_help_record(where)):
                assert record[0] in page
                assert " ".join(record[1].split()) in page
        for example in each.examples:
            assert " ".join(example.split()) in page
        assert " ".join((each.help or "").replace("\b", "").split()) in page
