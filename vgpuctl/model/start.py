"""A domain's start and its end, as libvirt's hook tells of them, and what they mean for a hold.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation, Hold
from vgpuctl.model.domain import HostdevSource, alias_for
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class NamedVgpu:
    """A vGPU of ours in a domain's XML, and the device that stands there."""

    vgpu: UUID
    source: HostdevSource


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainStart:
    """libvirt is about to start a domain, and waits with the domain locked.

    `token` is of this one start; the hook tells it again when the domain has let go.
    """

    domain: str
    uuid: UUID
    token: str
    vgpus: tuple[NamedVgpu, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRelease:
    """libvirt has released everything of a domain; `saved` says that it has a managed-save image."""

    domain: str
    uuid: UUID
    token: str
    vgpus: tuple[UUID, ...]
    saved: bool


def hold_of(start: DomainStart, allocation: Allocation, boot_id: str) -> Hold:
    """The hold that a start takes, on the vGPU as it stands now."""
    return Hold(
        domain=start.domain,
        domain_uuid=start.uuid,
        token=start.token,
        boot_id=boot_id,
        gpu=allocation.gpu.address,
        parent=allocation.parent,
        type_id=allocation.type_id,
    )


def is_ended_by(allocation: Allocation, release: DomainRelease, boot_id: str) -> bool:
    """Whether a release is that of the start which holds the vGPU.

    A VF is reused: a release that comes late must not end the hold of whoever has it now (hardware.md
    1.4.13), so everything is compared.
    """
    hold = allocation.hold
    return (
        hold is not None
        and (hold.domain_uuid, hold.token) == (release.uuid, release.token)
        and hold.boot_id == boot_id
        and (hold.gpu, hold.parent, hold.type_id)
        == (allocation.gpu.address, allocation.parent, allocation.type_id)
    )


def is_stale(hold: Hold, boot_id: str, starts: Fact[Mapping[UUID, str]]) -> bool:
    """Whether the hook itself has noted the end of the start that a hold is of.

    It notes ends also while no daemon is there to be told.
    """
    if hold.saved:
        return False
    if hold.boot_id != boot_id:
        return True
    return not isinstance(starts, Unknown) and starts.get(hold.domain_uuid) != hold.token


def held(name: str, hold: Hold) -> errors.VgpuBusy:
    """Why nobody else can have a vGPU that a domain holds."""
    if hold.saved:
        return errors.VgpuBusy(
            f"vGPU {name} is not free: domain {hold.domain} needs it for its managed-save image",
            hint=f"start it and shut it down, or drop the image: virsh managedsave-remove {hold.domain}",
        )
    return errors.VgpuBusy(
        f"vGPU {name} is not free: domain {hold.domain} has it", hint=f"stop {hold.domain} first"
    )


def hold_seen(allocation: Allocation, snapshot: Snapshot) -> Hold | None:
    """The hold as libvirt shows it: ended, kept for a managed-save image, or as it was."""
    hold = allocation.hold
    if hold is None or isinstance(snapshot.domains, Unknown):
        return hold
    domain = next((each for each in snapshot.domains if each.uuid == hold.domain_uuid), None)
    if domain is None:
        return None
    if not domain.state.is_active:
        return replace(hold, saved=True) if domain.managed_save else None
    alias = alias_for(allocation.id)
    has_it = domain.live is None or any(each.alias == alias for each in domain.live)
    return replace(hold, saved=False) if has_it and hold.boot_id == snapshot.boot_id else None


class HookLife(StrEnum):
    """Whether libvirt calls the hook; it calls only what it found when it started."""

    LIVE = "live"
    UNSEEN = "unseen"
    """No domain has been started or stopped since libvirt was connected to: nothing is known."""
    NOT_CALLED = "not-called"
    NOT_INSTALLED = "not-installed"


@dataclass(frozen=True, slots=True)
class HookState:
    """Whether libvirt calls the hook; `domain` was started without a call, `path` is where it belongs."""

    life: HookLife
    path: str
    domain: str | None = None
