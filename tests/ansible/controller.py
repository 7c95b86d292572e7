"""ansible-playbook as a controller has it, with this host as the managed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.daemon import TOP

ENVIRONMENT = TOP / ".venv-ansible"
SOURCE = TOP / "ansible/ansible_collections/vgpuctl/vgpuctl"
TIMEOUT_S = 600
MANAGED_PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
"""Of the managed host, and so not ours: modules have nothing but its standard library."""


class Run:
    """What a playbook came to."""

    def __init__(self, status: int, output: str, results: list[dict[str, Any]]) -> None:
        self.status = status
        self.output = output
        self.results = results

    def __getitem__(self, task: str) -> dict[str, Any]:
        """The one result of the task of that name."""
        (found,) = (each for each in self.results if each["task"] == task)
        return found

    @property
    def changed(self) -> list[str]:
        """The tasks that changed something."""
        return [each["task"] for each in self.results if each.get("changed")]


class Controller:
    """A directory for playbooks and inventories; the collections lie in `collections`."""

    def __init__(self, directory: Path, collections: Path, **environ: str) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
            "HOME": str(ENVIRONMENT / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_CALLBACK_PLUGINS": str(TOP / "tests/ansible/callback"),
            "ANSIBLE_CONNECTION_PLUGINS": str(TOP / "tests/ansible/connection"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
            "RESULTS": str(directory / "results"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        }
        (directory / "hosts").write_text(
            f"hv ansible_connection=local ansible_python_interpreter={MANAGED_PYTHON}\n"
        )

    def run(self, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.env,
            cwd=cwd or self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    def play(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook: one of the collection by its name, or the text of one."""
        if "\n" in playbook:
            (self.directory / "playbook.yml").write_text(playbook)
            playbook = "playbook.yml"
        results = Path(self.env["RESULTS"])
        results.write_text("")
        done = self.run("ansible-playbook", "-i", "hosts", playbook, *arguments)
        lines = results.read_text().splitlines()
        return Run(done.returncode, done.stdout + done.stderr, [json.loads(each) for each in lines])

    def tasks(self, socket: Path, tasks: str, *arguments: str) -> Run:
        """Run tasks, each a line `name: {module: options}` of YAML, against the daemon of that socket."""
        head = (
            "- hosts: hv\n  gather_facts: false\n  module_defaults:\n"
            f"    group/vgpuctl.vgpuctl.daemon: {{socket: {socket}}}\n  tasks:\n"
        )
        body = "".join(f"    {line}\n" for line in tasks.strip().splitlines())
        return self.play(head + body, *arguments)
