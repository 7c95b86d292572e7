"""The role, on this machine, in a mount namespace in which all that it writes to is overlaid."""

from __future__ import annotations

import json
import os
import stat
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.ansible.controller import ENVIRONMENT, Controller, Run
from tests.rig.payload import wheel
from tests.support.daemon import TOP
from vgpuctl.api.documents import parse_documents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OVERLAID = ("/etc", "/opt", "/usr/local", "/var/cache")
OVERLAY = """
mount -t tmpfs tmpfs "$LAYERS"
for each in $OVERLAID; do
    mkdir -p "$LAYERS$each/upper" "$LAYERS$each/work"
    mount -t overlay overlay -o "lowerdir=$each,upperdir=$LAYERS$each/upper,workdir=$LAYERS$each/work" "$each"
done
number=0
for mode in --check '' ''; do
    RESULTS="$PWD/results-$number" ansible-playbook -i hosts playbook.yml $mode
    number=$((number + 1))
done
for each in $OVERLAID; do cp -a "$LAYERS$each/upper" "$(basename "$each")"; done
"""
PLAYBOOK = """
- hosts: hv
  gather_facts: false
  environment: {{PYTHONPATH: "{packages}"}}
  roles:
    - role: vgpuctl.vgpuctl.vgpuctl
      vars:
        vgpuctl_wheel: {wheel}
        vgpuctl_wheel_needs: []
        vgpuctl_pip_arguments: --no-deps --no-index
        vgpuctl_config: {{simulate: "t4,l40s", log_level: debug, wait_for_gpus_s: 0}}
        vgpuctl_profiles: [{{name: cad, types: [L40S-8Q, T4-8Q], description: "CAD: fast"}}]
        vgpuctl_operators: [daemon]
        vgpuctl_readers: [games]
        vgpuctl_start: false
"""


def needed(directory: Path) -> Path:
    """What the wheel needs: the packages of this environment but for vgpuctl; nothing comes from an index."""
    directory.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith(("vgpuctl", "__editable__", "pip", "setuptools")):
            (directory / each.name).symlink_to(each)
    return directory


@pytest.mark.thorough
@pytest.mark.root
def test_it_installs_a_wheel_and_the_second_time_changes_nothing(controller: Controller, tmp_path: Path):
    """All but what needs a systemd that runs."""
    here = controller.directory
    (here / "playbook.yml").write_text(
        PLAYBOOK.format(wheel=wheel(tmp_path), packages=needed(tmp_path / "needed"))
    )
    (here / "hosts").write_text(
        f"hv ansible_connection=local ansible_python_interpreter={ENVIRONMENT / 'bin/python'}\n"
    )
    (here / "layers").mkdir()
    # Else systemctl would ask the systemd of this machine, which sees the real /etc.
    controller.env |= {"SYSTEMD_OFFLINE": "1", "LAYERS": str(here / "layers"), "OVERLAID": " ".join(OVERLAID)}
    done = controller.run("unshare", "--mount", "sh", "-euc", OVERLAY)
    assert done.returncode == 0, done.stdout + done.stderr
    checked, ran, again = (
        Run(0, "", [json.loads(each) for each in (here / f"results-{number}").read_text().splitlines()])
        for number in range(3)
    )
    assert set(checked.changed) < set(ran.changed)
    assert again.changed == []

    etc = here / "etc"
    configuration = tomllib.loads((etc / "vgpuctl/vgpuctl.toml").read_text())
    assert configuration == {"simulate": "t4,l40s", "log_level": "debug", "wait_for_gpus_s": 0}
    (profile,) = parse_documents((etc / "vgpuctl/profiles/ansible.yaml").read_bytes(), "ansible.yaml")
    assert (profile.name, profile.types, profile.description) == ("cad", ("L40S-8Q", "T4-8Q"), "CAD: fast")
    units = etc / "systemd/system"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (units, units / "vgpuctl.service")}
    assert modes == {"system": 0o755, "vgpuctl.service": 0o644}
    assert (units / "multi-user.target.wants/vgpuctl.service").is_symlink()
    assert (units / "sockets.target.wants/vgpuctl.socket").is_symlink()
    assert (
        "ExecStart=/opt/vgpuctl/bin/vgpuctl daemon" in (units / "vgpuctl.service.d/program.conf").read_text()
    )
    assert os.access(here / "opt/vgpuctl/bin/vgpuctl", os.X_OK)
    assert (here / "local/bin/vgpuctl").readlink() == Path("/opt/vgpuctl/bin/vgpuctl")
    assert os.access(etc / "libvirt/hooks/qemu.d/vgpuctl", os.X_OK)
    program = (here / "local/lib/vgpuctl/qemu_hook.py").read_bytes()
    assert program == (TOP / "packaging/libvirt/qemu_hook.py").read_bytes()
    laid_down = {
        "tmpfiles.d/vgpuctl.conf": "tmpfiles",
        "sysusers.d/vgpuctl.conf": "sysusers",
        "udev/rules.d/60-vgpuctl.rules": "udev",
    }
    for path, kind in laid_down.items():
        assert (etc / path).read_bytes() == (TOP / f"packaging/systemd/vgpuctl.{kind}").read_bytes()
    share = here / "local/share"
    assert "complete -o nosort" in (share / "bash-completion/completions/vgpuctl").read_text()
    assert (share / "zsh/site-functions/_vgpuctl").read_text().startswith("#compdef vgpuctl")
    assert (
        "complete --no-files --command vgpuctl"
        in (share / "fish/vendor_completions.d/vgpuctl.fish").read_text()
    )
    groups = {each.split(":")[0]: each.split(":")[3] for each in (etc / "group").read_text().splitlines()}
    assert (groups["vgpuctl"], groups["vgpuctl-ro"]) == ("daemon", "games")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ("{vgpuctl_config: {log_level: loud}}", "loud"),
        ("{vgpuctl_config: {log: debug}}", "log. Supported parameters include"),
        ("{vgpuctl_wheel: a.whl, vgpuctl_package: a.deb}", "not both"),
    ],
)
def test_wrong_variables_are_refused_before_anything_is_done(controller: Controller, variables, says):
    play = f"- hosts: hv\n  gather_facts: false\n  roles: [vgpuctl.vgpuctl.vgpuctl]\n  vars: {variables}\n"
    run = controller.play(play)
    assert run.status != 0
    assert says in run.output
    assert run.changed == []
    assert len(run.results) <= 2
