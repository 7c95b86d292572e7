"""The daemon's configuration: a TOML file, the files beside it in conf.d, and the command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vgpuctl.api.faults import Fault, dotted, faults_of, refuse
from vgpuctl.errors import InvalidInput
from vgpuctl.model.document import Repair

CONFIG_FILE = Path("/etc/vgpuctl/vgpuctl.toml")
AT_START = ("state_dir", "socket", "root", "libvirt", "simulate", "wait_for_gpus_s")
"""Settings that count when the daemon starts; a reload leaves them, and says so where one differs."""


def _to_path(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError("names nobody's home directory") from error
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


_FilePath = Annotated[Path, BeforeValidator(_to_path)]


class ConfigFile(BaseModel):
    """What stands in vgpuctl.toml; every key may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    state_dir: _FilePath | None = None
    socket: _FilePath | None = None
    root: _FilePath | None = None
    profiles_dir: _FilePath = Path("/etc/vgpuctl/profiles")
    libvirt: str | None = None
    simulate: str | None = None
    repair: Literal["auto", "ask", "never"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    wait_for_gpus_s: Annotated[int, Field(ge=0, le=3600)] = 30


@dataclass(frozen=True, slots=True)
class Options:
    """What was given on the command line; None where nothing was."""

    simulate: str | None = None
    libvirt: str | None = None
    state_dir: Path | None = None
    socket: Path | None = None
    config: Path | None = None
    root: Path | None = None
    log_level: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What holds: the command line over the files over the defaults.

    `root` is where the host's files begin (`/`, or a copy of them); it does not move the daemon's own.
    """

    state_dir: Path
    socket: Path
    root: Path
    profiles_dir: Path
    libvirt: str | None
    simulate: str | None
    repair: Repair
    log_level: str
    wait_for_gpus_s: int

    @property
    def store_file(self) -> Path:
        """Where the store is."""
        return self.state_dir / "vgpuctl.db"

    @property
    def hook_dir(self) -> Path:
        """What the daemon and libvirt's hook leave for each other; the hook looks below /run/vgpuctl."""
        return self.socket.parent / "hook"


def load(options: Options, environ: Mapping[str, str], *, default_file: Path = CONFIG_FILE) -> Config:
    """The configuration in force; InvalidInput with every fault of every file."""
    found = read_files(options.config or default_file, required=options.config is not None)
    return Config(
        state_dir=_absolute(options.state_dir) or found.state_dir or default_state_dir(environ),
        socket=_absolute(options.socket) or found.socket or default_socket(environ),
        root=_absolute(options.root) or found.root or Path("/"),
        profiles_dir=found.profiles_dir,
        libvirt=options.libvirt or found.libvirt,
        # Cards that a script forgot to name must not be those of this host.
        simulate=found.simulate if options.simulate is None else options.simulate,
        repair=Repair(found.repair),
        log_level=options.log_level or found.log_level,
        wait_for_gpus_s=found.wait_for_gpus_s,
    )


def read_files(path: Path, *, required: bool) -> ConfigFile:
    """`path` and then `conf.d/*.toml` beside it, by name; a later file wins."""
    merged: dict[str, Any] = {}
    faults: list[Fault] = []
    files = [path, *sorted(path.parent.glob("conf.d/*.toml"))]
    for each in files:
        try:
            values = tomllib.loads(each.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if each == path and required:
                raise InvalidInput(f"there is no configuration file {path}") from None
            continue
        except OSError as error:
            raise InvalidInput(f"{each} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            faults.append(Fault("", str(error), str(each)))
            continue
        try:
            ConfigFile.model_validate(values)
        except ValidationError as error:
            faults += [Fault(dotted(where), text, str(each)) for where, text in faults_of(error, ConfigFile)]
        merged |= values
    if faults:
        raise refuse("", faults)
    return ConfigFile.model_validate(merged)


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """`/var/lib/vgpuctl` for root; systemd's StateDirectory wins; else below XDG_STATE_HOME."""
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/vgpuctl")
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(home) / "vgpuctl"


def default_socket(environ: Mapping[str, str]) -> Path:
    """`/run/vgpuctl/vgpuctl.sock` for root, else below XDG_RUNTIME_DIR."""
    if os.geteuid() == 0:
        return Path("/run/vgpuctl/vgpuctl.sock")
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "vgpuctl/vgpuctl.sock"
    return default_state_dir(environ) / "vgpuctl.sock"


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()
