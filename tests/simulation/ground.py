"""Everything outside of the daemon, and what is wrong with it: cards, libvirt, the disk, other people."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.simulation.settings import FREE, GPUS, Setting
from tests.support.stage import Daemon, Stage
from vgpuctl import errors
from vgpuctl.host.watch import Hanging
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import MdevSource, vgpu_of_alias
from vgpuctl.model.gpu import ObservedVgpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.service.messages import RunStep

if TYPE_CHECKING:
    from tests.simulation.guests import Guests

_SYNCED = 2
"""`PRAGMA synchronous` is FULL: what was committed is on the disk."""


class Libvirt:
    """libvirt, which may not answer; `why` says why it does not."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.why: errors.VgpuctlError | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if self.why is not None and callable(found):
            raise self.why
        return found


class Disk:
    """A store's connection for writing; `between` is called in each transaction, after its first record."""

    def __init__(self, inner: Any, between: Callable[[], None]) -> None:
        self._inner = inner
        self._between = between
        self._is_first = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def execute(self, statement: str, *more: Any) -> Any:
        done = self._inner.execute(statement, *more)
        if statement.startswith("BEGIN"):
            self._is_first = True
        elif self._is_first and statement.startswith("INSERT INTO log"):
            self._is_first = False
            self._between()
        return done


def put_disk_under(daemon: Daemon, between: Callable[[], None]) -> None:
    """From now on the daemon writes to such a disk."""
    store = daemon.store.inner
    store._writer = Disk(store._writer, between)


@dataclass
class Ground:
    """What a history's daemons stand on."""

    stage: Stage
    setting: Setting
    dice: random.Random
    late: list[Callable[[], object]] = field(default_factory=list)
    """Writes that were given up, and that the kernel may still do."""
    stuck: list[RunStep] = field(default_factory=list)
    """Steps that read a GPU which does not answer."""
    full: int = 0
    """How many more commits find the disk full."""
    healing: int = 0
    """How many turns the present faults last."""
    strangers: list[dict[str, str]] = field(default_factory=list)
    """What processes that are no guests of ours have open."""
    swapped: dict[str, str] = field(default_factory=dict)
    """Cards that were taken out: their UUID, by address."""
    copied: set[tuple[str, UUID]] = field(default_factory=set)
    """Hostdevs that somebody put into another domain's XML: the domain, and the vGPU."""
    unseen: set[str] = field(default_factory=set)
    """Where a vGPU has gone since the daemon last looked."""
    ambiguous: set[str] = field(default_factory=set)
    """Where nobody can tell whose the vGPU is.

    hardware.md 1.4: one of the vendor framework is its VF and its type, so that another one that came
    between two looks is the same one; a write that hung is done when its place has long been given up.
    """

    guests: Guests | None = None
    """Who may be saved; set when there are any."""

    def __post_init__(self) -> None:
        stage = self.stage
        self.gone_type = ""
        self.libvirt = Libvirt(stage.libvirt)
        stage.hypervisor.inner = self.libvirt
        self.durable = stage.directory / "durable"
        shutil.rmtree(self.durable, ignore_errors=True)

    # -- the disk ---------------------------------------------------------------------------------

    def begin(self, daemon: Daemon) -> None:
        """A daemon starts on it."""
        put_disk_under(daemon, self._written)
        daemon.store.instead = lambda _name, *_args, **_more: self._keep_what_is_synced(daemon)

    def _written(self) -> None:
        if self.full:
            self.full -= 1
            raise sqlite3.OperationalError("database or disk is full")

    def _keep_what_is_synced(self, daemon: Daemon) -> None:
        """A commit that is not synced is lost when the power goes; so are those after it."""
        (level,) = daemon.store.inner._writer.execute("PRAGMA synchronous").fetchone()
        if level < _SYNCED and not self.durable.exists():
            self.durable.mkdir()
            for each in self.stage.directory.glob("state.db*"):
                shutil.copy(each, self.durable)

    def lose_power(self) -> None:
        """What was not synced is gone, and the host boots."""
        if self.durable.exists():
            for each in self.stage.directory.glob("state.db*"):
                each.unlink()
            for each in self.durable.iterdir():
                shutil.copy(each, self.stage.directory)
            shutil.rmtree(self.durable)
        self.reboot()

    # -- the host ---------------------------------------------------------------------------------

    def seen(self) -> None:
        """The daemon has looked."""
        self.unseen.clear()

    def control(self, action: str, **arguments: Any) -> dict[str, Any] | None:
        """Do something to the simulated host; None where it refuses."""
        try:
            return self.stage.sim.control(action, arguments)
        except errors.VgpuctlError:
            return None

    def reboot(self) -> None:
        """The host boots again: what is there then, others made."""
        self.control("reboot")
        self._all_is_foreign()
        self.late.clear()
        self.stuck.clear()
        self.strangers.clear()

    def gpus(self) -> tuple[str, ...]:
        """Where the cards stand now."""
        return tuple(str(each.address) for each in self.stage.sim.engine.state.boards)

    def swap(self) -> None:
        """Another card in the place of one, while the host is off."""
        at_home = [each for each in self.stage.sim.engine.state.boards if str(each.address) in GPUS]
        if at_home:
            board = self.dice.choice(at_home)
            self.swapped.setdefault(str(board.address), board.uuid)
            self.control("swap-gpu", gpu=str(board.address))
        self.reboot()

    def move(self) -> None:
        """A card into the free slot, or back from it, while the host is off."""
        for home, now in zip(GPUS, self.gpus(), strict=True):
            if now != home:
                self.control("move-gpu", gpu=now, address=home)
                self.reboot()
                return
        own = [each for each in GPUS if each not in self.swapped]
        if own:
            self.control("move-gpu", gpu=self.dice.choice(own), address=FREE)
        self.reboot()

    def is_moved(self) -> bool:
        """Whether a card stands where it did not at first."""
        return self.gpus() != GPUS

    def reload(self) -> bool:
        """The driver is reloaded, unless somebody has a card open."""
        gone = {str(each.parent) for each in self.vgpus()}
        if self.control("reload-driver") is None:
            return False
        self.unseen |= gone
        self._all_is_foreign()
        self.late.clear()
        return True

    def _all_is_foreign(self) -> None:
        self.stage.foreign = {(str(each.parent), str(each.mdev_uuid)) for each in self.vgpus()}

    def started_by_mdevctl(self) -> set[tuple[str, str]]:
        """The vGPUs of mdevctl's definitions, which it starts whenever their parent appears."""
        defined = {each.uuid for each in self.stage.sim.engine.state.definitions}
        return {(str(each.parent), str(each.mdev_uuid)) for each in self.vgpus() if each.mdev_uuid in defined}

    def fail(self, what: str, **more: Any) -> bool:
        """Something fails from now on, for some turns."""
        self.control("fail", what=what, **more)
        self.healing = self.dice.randint(1, 8)
        return True

    def silence(self, why: errors.VgpuctlError) -> bool:
        """libvirt answers nobody, for some turns."""
        self.libvirt.why = why
        self.stage.hypervisor.calls += 1
        self.healing = self.dice.randint(1, 8)
        return True

    def heal(self) -> None:
        self.control("heal")
        self.libvirt.why = None
        self.stage.hypervisor.calls += 1
        self.healing = 0

    def pass_time(self) -> None:
        """A turn goes by."""
        self.stage.sim.clock.advance(self.dice.choice((0, 1, 100)))
        if self.healing:
            self.healing -= 1
            if not self.healing:
                self.heal()
        if self.strangers and self.dice.random() < 0.2:
            self.control("release", **self.strangers.pop())

    # -- other people -----------------------------------------------------------------------------

    def make_foreign(self, gpu: str, *, autostart: bool = False) -> bool:
        """Somebody else makes a vGPU on the first free parent, which is often the one just chosen."""
        types = [*self.setting.types]
        self.dice.shuffle(types)
        if self.gone_type in types and self.dice.random() < 0.7:
            types.insert(0, self.gone_type)
        more = {"autostart": True} if autostart and self.setting.has_mdevs else {}
        tries = (self.control("foreign", gpu=gpu, type=each, **more) for each in types)
        made = next((each for each in tries if each is not None), None)
        if made is None:
            return False
        self.stage.foreign.add((made["parent"], str(made["uuid"])))
        if made["uuid"] is None and made["parent"] in self.unseen:
            self.ambiguous.add(made["parent"])
        return True

    def vgpus(self) -> tuple[ObservedVgpu, ...]:
        """Every vGPU, as the kernel has it: also where the daemon cannot look now."""
        return tuple(
            ObservedVgpu(
                gpu=board.address,
                parent=each.parent,
                framework=board.framework,
                type_id=each.type_id,
                type_name=each.type_name,
                mdev_uuid=each.uuid,
            )
            for board in self.stage.sim.engine.state.boards
            for each in board.vgpus
        )

    def take_away(self, vgpu: ObservedVgpu) -> bool:
        """Somebody removes a vGPU behind our back, if nobody has it open."""
        if self.stage.sim.engine.state.is_held(vgpu.parent, vgpu.mdev_uuid):
            return False
        try:
            if vgpu.mdev_uuid is not None:
                self.stage.sim.kernel.write(f"sys/bus/mdev/devices/{vgpu.mdev_uuid}/remove", "1")
            else:
                path = f"sys/bus/pci/devices/{vgpu.parent}/nvidia/current_vgpu_type"
                self.stage.sim.kernel.write(path, "0")
        except (OSError, Hanging):
            return False
        self.stage.foreign.discard((str(vgpu.parent), str(vgpu.mdev_uuid)))
        self.unseen.add(str(vgpu.parent))
        self.gone_type = str(vgpu.type_name)
        return True

    def take_any(self) -> bool:
        """Somebody removes one of the vGPUs."""
        vgpus = self.vgpus()
        return bool(vgpus) and self.take_away(self.dice.choice(vgpus))

    def turn_off_vfs(self, gpu: str) -> bool:
        """Somebody runs `sriov-manage -d`."""
        if not any(str(each.address) == gpu and each.vfs for each in self.stage.sim.engine.state.boards):
            return False
        self.unseen |= {str(each.parent) for each in self.vgpus()}
        result = self.stage.sim.kernel.sriov_manage(gpu, enable=False, timeout_s=60.0)
        if result is None or result.exit_status:
            return False
        kept = {(str(each.parent), str(each.mdev_uuid)) for each in self.vgpus()}
        self.stage.foreign &= kept
        return True

    def unpark(self) -> None:
        """A person runs sriov-manage again where it was interrupted, as the hint says."""
        for each in self.stage.sim.engine.state.boards:
            if each.parked:
                self.stage.sim.kernel.sriov_manage(str(each.address), enable=True, timeout_s=60.0)

    def open_by_a_stranger(self, parent: GpuAddress | None = None) -> bool:
        """A process that libvirt does not know opens a vGPU, on that parent where there is one."""
        vgpus = [each for each in self.vgpus() if each.parent == parent] or self.vgpus()
        if not vgpus:
            return False
        vgpu = self.dice.choice(vgpus)
        what = {"vgpu": str(vgpu.mdev_uuid)} if vgpu.mdev_uuid else {"parent": str(vgpu.parent)}
        if self.control("hold", **what) is None:
            return False
        self.strangers.append(what)
        return True

    def fall_off(self, gpu: str) -> bool:
        """A card falls off the bus."""
        self.unseen |= {str(each.parent) for each in self.vgpus()}
        if self.control("remove-gpu", gpu=gpu) is None:
            return False
        self.stage.foreign &= {(str(each.parent), str(each.mdev_uuid)) for each in self.vgpus()}
        return True

    def copy_hostdev(self) -> bool:
        """Somebody gives a domain what stands in another one's XML, with our alias or without."""
        libvirt = self.stage.libvirt
        domains = {each.name: each.config or () for each in libvirt.domains()}
        ours = [
            (name, each, vgpu)
            for name, config in domains.items()
            for each in config
            if (vgpu := vgpu_of_alias(each.alias)) is not None
        ]
        if not ours:
            return False
        name, hostdev, vgpu = self.dice.choice(ours)
        other = self.dice.choice([each for each in domains if each != name])
        if any(each.source == hostdev.source for each in domains[other]):
            return False
        copy = hostdev if self.dice.random() < 0.5 else replace(hostdev, alias=None)
        try:
            libvirt.attach(other, copy, frozenset({Affect.CONFIG}))
        except errors.VgpuctlError:
            return False
        self.stage.hypervisor.calls += 1
        self.copied.add((other, vgpu))
        return True

    def take_copies_out(self) -> None:
        """`virsh edit`, as the hint says: what somebody copied goes from where it is nobody's wish."""
        libvirt = self.stage.libvirt
        for domain in libvirt.domains():
            for each in domain.config or ():
                source = each.source
                vgpu = source.uuid if isinstance(source, MdevSource) else None
                if vgpu is not None and (domain.name, vgpu) in self.copied:
                    with suppress(errors.VgpuctlError):
                        libvirt.detach(domain.name, each, frozenset({Affect.CONFIG}))
        self.stage.hypervisor.calls += 1
        self.copied.clear()

    def end_late_writes(self) -> None:
        """Those in the kernel that can still be done are done."""
        late, self.late = self.late, []
        for write in late:
            with suppress(OSError, Hanging):
                write()
