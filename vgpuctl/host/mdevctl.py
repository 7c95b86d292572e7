"""mdevctl's directory: which mdevs somebody else starts, and how that is switched off."""

from __future__ import annotations

from uuid import UUID

from vgpuctl.errors import KernelRefused, ReadBackMismatch
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.mdevctl import DIRECTORY, MdevDefinition, parse, started_by_hand
from vgpuctl.model.step import DisableAutostart
from vgpuctl.ports.kernel import Kernel


def definitions(kernel: Kernel) -> Fact[tuple[MdevDefinition, ...]]:
    """Every definition; none where mdevctl is not installed.  A file that is no definition is none."""
    found = []
    try:
        for parent in kernel.list(DIRECTORY):
            for name in _below(kernel, f"{DIRECTORY}/{parent}"):
                try:
                    uuid = UUID(name)
                    found.append(parse(parent, uuid, kernel.read(f"{DIRECTORY}/{parent}/{name}")))
                except ValueError:
                    continue
    except FileNotFoundError:
        return tuple(found)
    except OSError as error:
        return Unknown(f"/{DIRECTORY}: {error.strerror}")
    return tuple(found)


def _below(kernel: Kernel, directory: str) -> tuple[str, ...]:
    """What lies in a parent's directory; beside those lie `scripts.d` and the like."""
    try:
        return kernel.list(directory)
    except NotADirectoryError:
        return ()


def disable_autostart(kernel: Kernel, step: DisableAutostart) -> None:
    """Set the definition to start by hand, and read it back; one that is gone or manual is done."""
    path = f"{DIRECTORY}/{step.parent}/{step.vgpu}"
    try:
        text = kernel.read(path)
        if parse(step.parent, step.vgpu, text).autostart:
            kernel.replace(path, started_by_hand(text))
            text = kernel.read(path)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise ReadBackMismatch(f"/{path} is no definition of mdevctl: {error}", path=path) from error
    except OSError as error:
        raise KernelRefused(
            f"/{path} could not be changed: {error.strerror}",
            hint=f"mdevctl modify -u {step.vgpu} -p {step.parent} --manual does the same",
            path=path,
            errno=error.errno,
        ) from error
    if parse(step.parent, step.vgpu, text).autostart:
        raise ReadBackMismatch(f"/{path} still says that mdevctl starts it", path=path)
