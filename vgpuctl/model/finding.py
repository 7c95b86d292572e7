"""Findings: named states in which something is not as it should be, and what may be done about each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from vgpuctl.model.document import Repair


class Drift(StrEnum):
    """The ways in which what is differs from what should be; the codes are stable."""

    NOT_MADE = "not-made"
    VGPU_VANISHED = "vgpu-vanished"
    VF_GONE = "vf-gone"
    VF_TAKEN = "vf-taken"
    LEFT_TO_MDEVCTL = "left-to-mdevctl"
    ALSO_AUTOSTARTED = "also-autostarted"
    UNWISHED = "unwished"
    FOREIGN_VGPU = "foreign-vgpu"
    DRIVER_RELOADED = "driver-reloaded"
    VFS_DIFFER = "vfs-differ"
    MIG_MODE_DIFFERS = "mig-mode-differs"
    GPU_INSTANCES_DIFFER = "gpu-instances-differ"
    CARD_MOVED = "card-moved"
    CARD_CHANGED = "card-changed"
    GPU_GONE = "gpu-gone"
    GPU_UNREADABLE = "gpu-unreadable"
    GPU_NOT_READY = "gpu-not-ready"
    DOMAIN_GONE = "domain-gone"
    HOSTDEV_MISSING = "hostdev-missing"
    HOSTDEV_CHANGED = "hostdev-changed"
    HOSTDEV_STRAY = "hostdev-stray"
    HOSTDEV_FOREIGN = "hostdev-foreign"
    HOSTDEV_UNOWNED = "hostdev-unowned"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a state is, the most that is done about it, and what a person can do ({name}, {gpu}).

    `unasked` is what the daemon does about it by itself, where it does.
    """

    doc: str
    most: Repair
    advice: str
    unasked: str = ""


_SHOWN = "`vgpuctl repair {name}` shows what mends it, and does it"

MEANINGS = {
    Drift.NOT_MADE: Meaning(
        "a vGPU is wished and was not made in this boot", Repair.AUTO, _SHOWN, "it is made by itself"
    ),
    Drift.VGPU_VANISHED: Meaning(
        "a vGPU was made in this boot and is gone: somebody removed it", Repair.AUTO, _SHOWN
    ),
    Drift.VF_GONE: Meaning("the VF on which a vGPU stood is gone", Repair.AUTO, _SHOWN),
    Drift.VF_TAKEN: Meaning(
        "the vGPU is gone, and somebody else's stands on its VF", Repair.AUTO, _SHOWN, "it gets another VF"
    ),
    Drift.LEFT_TO_MDEVCTL: Meaning(
        "a vGPU is not there, and mdevctl or libvirt's nodedev is to start it",
        Repair.ASK,
        "`mdevctl start`, `vgpuctl repair {name}`, or `vgpuctl adopt {name} --disable-autostart`",
    ),
    Drift.ALSO_AUTOSTARTED: Meaning(
        "mdevctl starts a vGPU that only vgpuctl is to start", Repair.ASK, "somebody set it again; " + _SHOWN
    ),
    Drift.UNWISHED: Meaning(
        "a vGPU of ours stands there and no document wishes it", Repair.NEVER, "`vgpuctl vgpu prune`"
    ),
    Drift.FOREIGN_VGPU: Meaning(
        "a vGPU that nobody here made", Repair.NEVER, "`vgpuctl vgpu list --foreign`, `vgpuctl adopt`"
    ),
    Drift.DRIVER_RELOADED: Meaning(
        "the VFs of a GPU are off, with vGPUs made on them in this boot: the driver was reloaded, "
        "or somebody turned them off",
        Repair.ASK,
        "`vgpuctl repair {gpu}`, when whoever did it is done",
    ),
    Drift.VFS_DIFFER: Meaning(
        "the VFs of a GPU are not on, or not off, as its document says",
        Repair.AUTO,
        "`vgpuctl repair {gpu}`",
        "after a boot they are turned on by themselves",
    ),
    Drift.MIG_MODE_DIFFERS: Meaning(
        "MIG mode of a GPU is not on, or not off, as its document says; never changed under a vGPU or an "
        "open handle",
        Repair.AUTO,
        "`vgpuctl repair {gpu}`, once nothing stands on the card",
        "after a boot it is turned on by itself where that resets nothing",
    ),
    Drift.GPU_INSTANCES_DIFFER: Meaning(
        "the GPU instances of a GPU are not those of its document",
        Repair.AUTO,
        "`vgpuctl repair {gpu}`",
        "missing ones are cut by themselves, those that are too many stay",
    ),
    Drift.CARD_MOVED: Meaning(
        "a card stands in another slot", Repair.AUTO, "`vgpuctl repair {gpu}`", "its vGPUs follow it"
    ),
    Drift.CARD_CHANGED: Meaning(
        "another card stands where vGPUs have their place",
        Repair.NEVER,
        "put the card back, or `vgpuctl gpu replace {gpu} NEW`",
    ),
    Drift.GPU_GONE: Meaning(
        "a GPU is not on the host: it fell off the bus, or was taken out",
        Repair.NEVER,
        "see the kernel log for Xid 79; put it back, or `vgpuctl gpu replace {gpu} NEW`",
    ),
    Drift.GPU_UNREADABLE: Meaning(
        "a GPU does not answer, or not in time", Repair.NEVER, "see `journalctl -k`; nothing is done to it"
    ),
    Drift.GPU_NOT_READY: Meaning(
        "a GPU with places on it offers no vGPUs: no driver, no types, parked or passed through",
        Repair.NEVER,
        "`vgpuctl gpu show {gpu}` says why",
    ),
    Drift.DOMAIN_GONE: Meaning(
        "libvirt has no such domain any more, and a document wishes a vGPU for it",
        Repair.NEVER,
        "define the domain again, or `vgpuctl detach DOMAIN`",
    ),
    Drift.HOSTDEV_MISSING: Meaning("a domain does not have its vGPU in its XML", Repair.ASK, _SHOWN),
    Drift.HOSTDEV_CHANGED: Meaning(
        "a hostdev of ours names another device now, or is managed by libvirt", Repair.ASK, _SHOWN
    ),
    Drift.HOSTDEV_STRAY: Meaning(
        "a hostdev of ours stands in a domain that does not wish the vGPU", Repair.ASK, _SHOWN
    ),
    Drift.HOSTDEV_FOREIGN: Meaning(
        "somebody else's hostdev, in another domain, names a vGPU of ours",
        Repair.NEVER,
        "take it out with `virsh edit DOMAIN`, or both domains start with one vGPU",
    ),
    Drift.HOSTDEV_UNOWNED: Meaning(
        "a hostdev with our alias is of a vGPU that is not known here: the store was lost",
        Repair.NEVER,
        "`vgpuctl adopt --all` where the vGPU is there; else take it out with `virsh edit DOMAIN`",
    ),
}
"""Every state, for the decision, its readers, and the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One state of one thing.  `subject` is a vGPU's name, a GPU's address or a domain's name.

    `names` are the vGPUs and keys of documents that it is about.  `repair` is what is done about it.
    `user` is who uses it, or was last seen to; `since` when it was first seen, None for never before.
    """

    code: Drift
    subject: str
    detail: str
    repair: Repair
    gpu: str | None = None
    names: tuple[str, ...] = ()
    user: str | None = None
    since: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes two findings the same one."""
        return self.code, self.subject

    @property
    def hint(self) -> str:
        """What is done about it unasked, and what a person can do."""
        meaning = MEANINGS[self.code]
        unasked = meaning.unasked if self.repair is Repair.AUTO else ""
        advice = meaning.advice.format(name=self.subject, gpu=self.gpu or "GPU")
        return "; ".join(filter(None, (unasked, advice)))
