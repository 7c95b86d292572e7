"""The configuration: files, command line, defaults; and what stands in the state directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vgpuctl import resources
from vgpuctl.daemon import config as module
from vgpuctl.daemon.config import Options, load
from vgpuctl.daemon.libvirt_choice import SYSTEM_URI, TEST_URI, answers, choose_uri
from vgpuctl.daemon.profiles import load_profiles
from vgpuctl.daemon.statedir import StateDirectory
from vgpuctl.errors import Conflict, InvalidInput, StoreFailure
from vgpuctl.model.document import Repair


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_command_line_wins_over_files_and_later_files_over_earlier(tmp_path: Path) -> None:
    main = write(tmp_path / "vgpuctl.toml", 'state_dir = "/a"\nsocket = "/a/s"\nlibvirt = "test:///one"\n')
    write(tmp_path / "conf.d/10.toml", 'libvirt = "test:///two"\nlog_level = "debug"\n')
    write(tmp_path / "conf.d/20.toml", 'log_level = "error"\n')
    config = load(Options(config=main, state_dir=Path("/b")), {})
    assert (config.state_dir, config.socket) == (Path("/b"), Path("/a/s"))
    assert (config.libvirt, config.log_level) == ("test:///two", "error")


def test_no_cards_to_simulate_are_not_the_cards_of_this_host(tmp_path: Path) -> None:
    assert load(Options(simulate=""), {}, default_file=tmp_path / "none.toml").simulate == ""


def test_the_policy_for_drift(tmp_path: Path) -> None:
    assert load(Options(), {}, default_file=tmp_path / "none.toml").repair is Repair.AUTO
    main = write(tmp_path / "vgpuctl.toml", 'repair = "ask"\n')
    assert load(Options(config=main), {}).repair is Repair.ASK
    write(tmp_path / "conf.d/10.toml", 'repair = "maybe"\n')
    with pytest.raises(InvalidInput, match="repair"):
        load(Options(config=main), {})


def test_every_fault_of_every_file_is_told(tmp_path: Path) -> None:
    main = write(tmp_path / "vgpuctl.toml", 'stat_dir = "/a"\nsocket = 1\n')
    write(tmp_path / "conf.d/10.toml", "log_level = ")
    write(tmp_path / "conf.d/20.toml", 'log_level = "loud"\nstate_dir = "relative"\n')
    with pytest.raises(InvalidInput) as caught:
        load(Options(config=main), {})
    found = {
        (Path(each["document"]).name, each["path"]): each["message"] for each in caught.value.facts["faults"]
    }
    assert set(found) == {
        ("vgpuctl.toml", "stat_dir"),
        ("vgpuctl.toml", "socket"),
        ("10.toml", ""),
        ("20.toml", "log_level"),
        ("20.toml", "state_dir"),
    }
    assert found["vgpuctl.toml", "stat_dir"] == 'unknown key; did you mean "state_dir"?'


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no configuration file"):
        load(Options(config=tmp_path / "none.toml"), {})
    assert load(Options(), {}, default_file=tmp_path / "none.toml").log_level == "info"


@pytest.mark.parametrize(
    ("uid", "environ", "state_dir", "socket"),
    [
        (0, {}, "/var/lib/vgpuctl", "/run/vgpuctl/vgpuctl.sock"),
        (0, {"STATE_DIRECTORY": "/srv/a:/srv/b"}, "/srv/a", "/run/vgpuctl/vgpuctl.sock"),
        (
            1000,
            {"XDG_STATE_HOME": "/h/state", "XDG_RUNTIME_DIR": "/run/user/1000"},
            "/h/state/vgpuctl",
            "/run/user/1000/vgpuctl/vgpuctl.sock",
        ),
        (1000, {"XDG_STATE_HOME": "/h/state"}, "/h/state/vgpuctl", "/h/state/vgpuctl/vgpuctl.sock"),
    ],
)
def test_where_things_are_by_default(  # noqa: PLR0917 -- parameters of one table
    uid: int,
    environ: dict[str, str],
    state_dir: str,
    socket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: uid)
    config = load(Options(), environ, default_file=tmp_path / "none.toml")
    assert (str(config.state_dir), str(config.socket)) == (state_dir, socket)


def profile(name: str, types: str) -> str:
    return f"apiVersion: vgpuctl/v1\nkind: Profile\nname: {name}\ntypes: [{types}]\n"


def test_the_administrators_profiles_win_and_a_broken_file_is_skipped(tmp_path: Path) -> None:
    write(tmp_path / "package/a.yaml", profile("a", "T4-1Q") + "---\n" + profile("b", "T4-2Q"))
    write(tmp_path / "etc/a.yaml", profile("a", "L4-1Q"))
    write(tmp_path / "etc/broken.yaml", profile("c", "L4-1Q") + "colour: red\n")
    write(tmp_path / "etc/other.yaml", "apiVersion: vgpuctl/v1\nkind: Vgpu\nname: v\ntype: T4-1Q\n")
    found = load_profiles([tmp_path / "package", tmp_path / "etc", tmp_path / "none"])
    assert {name: each.types for name, each in found.items()} == {"a": ("L4-1Q",), "b": ("T4-2Q",)}


def test_every_profile_that_comes_with_the_package_loads() -> None:
    files = list(resources.profiles_directory().glob("*.yaml"))
    assert len(load_profiles([resources.profiles_directory()])) >= len(files) > 0


def test_a_state_directory_has_one_daemon(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "s", is_simulated=True):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
        with pytest.raises(Conflict, match=f"pid {os.getpid()}"):
            StateDirectory(tmp_path / "s", is_simulated=True)
    StateDirectory(tmp_path / "s", is_simulated=True).close()


def test_a_note_that_lost_its_text_with_the_power_keeps_nobody_out(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "s", is_simulated=False).close()
    (tmp_path / "s/host").write_text("")
    StateDirectory(tmp_path / "s", is_simulated=False).close()
    with pytest.raises(Conflict, match="of a real host"):
        StateDirectory(tmp_path / "s", is_simulated=True)


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from vgpuctl.daemon.statedir import StateDirectory\n"
        "held = StateDirectory(Path(sys.argv[1]), is_simulated=True); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Conflict):
            StateDirectory(tmp_path, is_simulated=True)
        holder.send_signal(signal.SIGKILL)
    StateDirectory(tmp_path, is_simulated=True).close()


def test_wishes_for_simulated_gpus_are_never_carried_out_on_real_ones(tmp_path: Path) -> None:
    StateDirectory(tmp_path, is_simulated=True).close()
    with pytest.raises(Conflict, match="simulated host"):
        StateDirectory(tmp_path, is_simulated=False)
    StateDirectory(tmp_path, is_simulated=True).close()


def test_a_state_directory_that_others_can_write_is_refused(tmp_path):
    """The daemon is root, and would follow the links that somebody puts there."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o757)
    with pytest.raises(StoreFailure, match="by others"):
        StateDirectory(tmp_path / "s", is_simulated=True)
    assert list((tmp_path / "s").iterdir()) == []


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreFailure):
        StateDirectory(tmp_path, is_simulated=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreFailure, match="cannot be used"):
        StateDirectory(tmp_path / "file" / "s", is_simulated=False)


@pytest.mark.parametrize(
    ("given", "simulated", "alive", "chosen"),
    [
        ("test:///x", True, [], "test:///x"),
        (None, False, [], SYSTEM_URI),
        (None, True, [SYSTEM_URI, TEST_URI], TEST_URI),
        (None, True, ["qemu:///embed?root=/s/libvirt", TEST_URI], "qemu:///embed?root=/s/libvirt"),
        (None, True, [TEST_URI], TEST_URI),
        (None, True, [], None),
    ],
)
def test_which_libvirt(given: str | None, simulated: bool, alive: list[str], chosen: str | None) -> None:
    found = choose_uri(given, simulated=simulated, state_dir=Path("/s"), probe=lambda uri: uri in alive)
    assert found == chosen


def test_libvirt_is_asked_for_real() -> None:
    assert answers(TEST_URI)
    assert not answers("qemu+unix:///system?socket=/nonexistent/libvirt-sock")


def test_the_wait_for_gpus_has_bounds(tmp_path: Path) -> None:
    write(tmp_path / "c.toml", "wait_for_gpus_s = 5\n")
    assert load(Options(config=tmp_path / "c.toml"), {}).wait_for_gpus_s == 5
    write(tmp_path / "c.toml", "wait_for_gpus_s = -1\n")
    with pytest.raises(InvalidInput, match="wait_for_gpus_s"):
        load(Options(config=tmp_path / "c.toml"), {})
