"""The use cases: what the API asks, in one class.  Every refusal is a VgpuctlError."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import Document, ProfileDocument, Repair, Wish
from vgpuctl.model.edit import Edit
from vgpuctl.model.fact import Unknown
from vgpuctl.model.natural import natural
from vgpuctl.model.plan import Problem
from vgpuctl.model.planner import plan
from vgpuctl.model.record import Requester
from vgpuctl.model.situation import Situation, find_gpu, profile_named
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.start import DomainRelease, DomainStart
from vgpuctl.model.typename import nearest
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.hook import HookDesk
from vgpuctl.ports.host import Host
from vgpuctl.ports.store import Store
from vgpuctl.service import views
from vgpuctl.service.boot import Outlook
from vgpuctl.service.change import find_domain
from vgpuctl.service.ledger import Operation, operation_of
from vgpuctl.service.loop import Loop, look
from vgpuctl.service.messages import CancelRequested, PauseRequested, ReleaseTold, StartAsked, Submitted
from vgpuctl.service.proposal import ShownPlan
from vgpuctl.service.scene import Scene
from vgpuctl.service.views import View, drift

LOOK_S = 3.0
"""How long a reader waits for a fresh observation before it gets the last one."""
RESTORE_S = 300.0
"""How long a start waits for restores that go on."""
RELEASE_S = 5.0
"""How long libvirt's hook is kept when a domain ends."""
ADMIT_S = 120.0
"""How long a change may wait for an observation, and for others who work on the same."""
_NEWEST = 1000
"""Of so many operations one is found by the first characters of its id."""
_ID_START = re.compile("[0-9a-fA-F-]{4,}")


class Service:
    """One host's daemon, without its sockets."""

    def __init__(
        self,
        host: Host,
        store: Store,
        clock: Clock,
        catalog: Catalog,
        *,
        file_profiles: dict[str, ProfileDocument],
        repair: Repair = Repair.AUTO,
        hooks: HookDesk | None = None,
    ) -> None:
        self._hooks = hooks
        self._host = host
        self._store = store
        self._clock = clock
        self._catalog = catalog
        self._loop = Loop(host, store, clock, catalog, file_profiles, repair=repair, hooks=hooks)

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what a killed daemon left, and begin to look at the host."""
        self._loop.start()

    def first_restore(self, gpus_s: float) -> Outlook | None:
        """Wait until everything that is wished was restored or cannot be; how it stands then.

        GPUs that are not ready yet are waited for `gpus_s` in all, restores that go on RESTORE_S.  None
        when the host could not be observed, or when the daemon is stopping.
        """
        loop, begun = self._loop, self._clock.monotonic_s()
        loop.is_starting = True
        loop.wake()
        try:
            with loop.changed:
                while not loop.is_stopping:
                    found = loop.engine.outlook
                    if found is not None and found.is_settled:
                        return found
                    limit_s = gpus_s if found is not None and not found.restoring else RESTORE_S
                    left_s = begun + limit_s - self._clock.monotonic_s()
                    if left_s <= 0:
                        return found
                    loop.changed.wait(left_s)
                return None
        finally:
            loop.is_starting = False

    def stop(self) -> None:
        """Let running steps end, and stop."""
        self._loop.stop()

    def wake(self, *, by_vgpu: bool = False) -> None:
        """Something happened on the host, to a vGPU alone when `by_vgpu`: look soon."""
        self._loop.wake(by_vgpu=by_vgpu)

    def set_file_profiles(self, profiles: dict[str, ProfileDocument]) -> None:
        """Take other profiles from files; what exists stays as it is."""
        with self._loop.changed:
            self._loop.file_profiles = profiles
            self._loop.engine.ledger.file_profiles = profiles

    def set_repair(self, repair: Repair) -> None:
        """Take another policy of the host's for drift."""
        with self._loop.changed:
            self._loop.repair = repair
            self._loop.engine.set_repair(repair)
        self._loop.wake()

    def seconds_since_last_turn(self) -> float:
        """How long the decision loop has not come round."""
        return self._clock.monotonic_s() - self._loop.beat_s

    # -- reads ------------------------------------------------------------------------------------

    def host(self) -> View:
        """The `host` resource."""
        scene = self._scene(judge=True)
        with self._loop.changed:
            paused, revision = self._loop.engine.ledger.paused, self._loop.revision
            unsaved = self._loop.store_failure
        hook = self._hooks.state() if self._hooks is not None else None
        return scene.host(paused=paused, revision=revision, hook=hook, unsaved=unsaved)

    def gpus(self) -> list[View]:
        """Every `gpu`."""
        scene = self._scene(judge=True)
        return [scene.gpu(each) for each in scene.snapshot.gpus]

    def gpu(self, reference: str) -> View:
        """One `gpu`, by address, UUID or index."""
        scene = self._scene(judge=True)
        return scene.gpu(find_gpu(scene.snapshot, reference))

    def types(self, *, gpu: str | None, creatable: bool, catalog: bool) -> list[View]:
        """`type`s: of the catalogue, of one GPU, or of every GPU."""
        if catalog:
            return [
                views.type_view(each, model.name) for model in self._catalog.models() for each in model.types
            ]
        scene = self._scene()
        gpus = [find_gpu(scene.snapshot, gpu)] if gpu is not None else list(scene.snapshot.gpus)
        return [row for each in gpus for row in scene.types_of(each, creatable=creatable)]

    def profiles(self) -> list[View]:
        """Every `profile`."""
        scene = self._scene()
        profiles = scene.wishes.profiles()
        return [scene.profile(profiles[name]) for name in sorted(profiles, key=natural)]

    def profile(self, name: str) -> View:
        """One `profile`."""
        scene = self._scene()
        return scene.profile(profile_named(scene.wishes, name))

    def vgpus(self, *, foreign: bool = False) -> list[View]:
        """Every `vgpu`; with `foreign`, those that are not ours."""
        rows = self._scene(judge=True).vgpus()
        return [each for each in rows if each["state"] == "foreign"] if foreign else rows

    def vgpu(self, reference: str) -> View:
        """One `vgpu`, by name, id, mdev UUID or VF."""
        rows = self.vgpus()
        wanted = reference.lower()
        for row in rows:
            if row["name"] == reference or wanted in (row["uuid"], row["mdev_uuid"], row["vf"]):
                return row
        near = nearest(reference, [row["name"] for row in rows])
        raise errors.VgpuNotFound(
            f"no vGPU {reference!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else "vgpuctl vgpu list shows them",
        )

    def domains(self) -> list[View]:
        """Every `domain`."""
        scene = self._scene()
        if not isinstance(scene.snapshot.domains, tuple):
            raise errors.LibvirtUnreachable(scene.snapshot.domains.reason, hint="is libvirtd running?")
        domains = sorted(scene.snapshot.domains, key=lambda each: natural(each.name))
        return [scene.domain(each) for each in domains]

    def domain(self, reference: str) -> View:
        """One `domain`, by name or UUID."""
        scene = self._scene()
        return scene.domain(find_domain(scene.snapshot, reference))

    def domain_xml(self, reference: str, *, live: bool) -> str:
        """A domain's XML, straight from libvirt."""
        return self._host.domain_xml(reference, live=live)

    def documents(self) -> list[Document]:
        """Every document in force, by kind and name."""
        return [wish.document for wish in self.wishes()]

    def wishes(self) -> list[Wish]:
        """Every document in force with its generation, by kind and name."""
        with self._loop.changed:
            return [wish for _, wish in sorted(self._loop.engine.ledger.wishes.items())]

    def revision(self) -> int:
        """The log's last revision."""
        return self._loop.revision

    def capture(self) -> dict[str, Any]:
        """What sysfs, NVML and libvirt say, redacted."""
        return self._host.capture()

    # -- changes ----------------------------------------------------------------------------------

    def plan(self, edit: Edit, who: Requester) -> View:
        """What an edit would do: the `plan`; its changes hold documents, as values or None."""
        shown = self._loop.ask(lambda ticket: Submitted(ticket, who, edit, dry_run=True), ADMIT_S)
        assert isinstance(shown, ShownPlan)
        change = shown.change
        changes = []
        for key in sorted({*change.put, *change.drop}):
            before, after = shown.before.get(key), change.put.get(key)
            if before is None or before.document != after:
                changes.append(
                    {"key": str(key), "before": before.document if before else None, "after": after}
                )
        return views.plan_view(shown, self._loop.revision, changes)

    def submit(
        self,
        edit: Edit | None,
        who: Requester,
        *,
        plan_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> View:
        """Admit an edit, or exactly a shown plan; the `operation` that carries it out.

        The same idempotency key gives the same operation again; IdempotencyKeyReused for another request.
        """

        def request(ticket: int) -> Submitted:
            return Submitted(ticket, who, edit, plan_id=plan_id, idempotency_key=idempotency_key)

        if idempotency_key is not None:
            before = self._store.operation_by_key(idempotency_key)
            if before is not None:
                old = operation_of(self._store.operation_entries(before))
                request(0).check_asked(old.started.asked if old is not None else None)
                return self.operation(str(before))
        operation = self._loop.ask(request, ADMIT_S)
        return self.operation(str(operation))

    def operation(self, reference: str) -> View:
        """One `operation`, by its id or by as much of it as no other one begins with."""
        key = self._operation_id(reference)
        with self._loop.changed:
            found = self._loop.engine.ledger.operations.get(key)
            if found is not None:
                return views.operation_view(found, self._loop.engine.planned(key))
        old = operation_of(self._store.operation_entries(key))
        if old is None:
            raise errors.OperationNotFound(
                f"no operation {reference}", hint="vgpuctl operation list shows the newest"
            )
        return views.operation_view(old)

    def _operation_id(self, reference: str) -> UUID:
        try:
            return UUID(reference)
        except ValueError:
            pass
        newest = self._store.operations(_NEWEST) if _ID_START.fullmatch(reference) else ()
        found = [each for each in newest if str(each).startswith(reference.lower())]
        if len(found) == 1:
            return found[0]
        no_start = "not an id, nor the first characters of one, at least four"
        why = f"{len(found)} begin with it" if found else no_start
        raise errors.OperationNotFound(
            f"no operation {reference!r}: {why}", hint="vgpuctl operation list shows the newest"
        )

    def operations(self, limit: int) -> list[View]:
        """The newest `operation`s, newest first."""
        return [self.operation(str(each)) for each in self._store.operations(limit)]

    def wait(self, reference: str, timeout_s: float) -> View:
        """The `operation` once it has ended, or as it is after `timeout_s`."""
        view = self.operation(reference)
        key = UUID(view["id"])

        def ended() -> bool:
            found: Operation | None = self._loop.engine.ledger.operations.get(key)
            return found is None or found.state.has_ended or self._loop.has_stopped

        with self._loop.changed:
            if ended():
                return view if view["ended_at"] else self.operation(reference)
            self._loop.changed.wait_for(ended, timeout_s)
        return self.operation(reference)

    def cancel(self, reference: str, who: Requester) -> View:
        """Stop an operation and undo it."""
        operation = UUID(self.operation(reference)["id"])
        self._loop.ask(lambda ticket: CancelRequested(ticket, operation, who), ADMIT_S)
        return self.operation(reference)

    def pause(self, who: Requester) -> View:
        """Stop background changes, until resume, across restarts."""
        self._loop.ask(lambda ticket: PauseRequested(ticket, paused=True, requester=who), ADMIT_S)
        return self.host()

    def resume(self, who: Requester) -> View:
        """Let background changes go on."""
        self._loop.ask(lambda ticket: PauseRequested(ticket, paused=False, requester=who), ADMIT_S)
        self._loop.wake()
        return self.host()

    # -- libvirt's hook ---------------------------------------------------------------------------

    def start_domain(self, start: DomainStart, limit_s: float) -> View:
        """Whether libvirt may start a domain, once what it needs is there; if not, `why`.

        Raises Unavailable, StoreFailure and DeadlineExceeded when that cannot be said.
        """
        starts = self._hooks.starts() if self._hooks is not None else Unknown("there is no hook")
        try:
            self._loop.ask(lambda ticket: StartAsked(ticket, start, starts), limit_s)
        except (errors.DeadlineExceeded, errors.StoreFailure):
            raise
        except errors.VgpuctlError as error:
            if error.code in (errors.Unavailable.code, errors.VgpuctlError.code):
                raise
            return {
                "allowed": False,
                "code": error.code,
                "why": "; ".join(filter(None, (str(error), error.hint))),
            }
        return {"allowed": True}

    def release_domain(self, release: DomainRelease) -> View:
        """A domain has let go of what it held."""
        self._loop.ask(lambda ticket: ReleaseTold(ticket, release), RELEASE_S)
        self._loop.wake()
        return {}

    # -- events -----------------------------------------------------------------------------------

    def events(self, since: int, limit: int) -> list[View]:
        """Log entries above a revision, oldest first."""
        with self._loop.changed:
            known = dict(self._loop.engine.ledger.operations)
        return [views.event_view(each, known) for each in self._store.entries(since, limit)]

    def wait_events(self, since: int, timeout_s: float) -> list[View]:
        """Log entries above a revision, as soon as there are any; empty after `timeout_s`."""
        with self._loop.changed:
            self._loop.changed.wait_for(lambda: self._loop.revision > since, timeout_s)
        return self.events(since, 1000)

    # -- the picture ------------------------------------------------------------------------------

    def _scene(self, *, judge: bool = False) -> Scene:
        """A picture of now; of a moment ago where the host does not let itself be observed in time.

        With `judge`, what is not as wished is worked out too, and why.
        """
        try:
            look(self._loop, LOOK_S)
        except (errors.DeadlineExceeded, errors.StoreFailure):
            pass  # the last picture: a disk that is full, or a host that hangs, is no reason to show none
        with self._loop.changed:
            engine = self._loop.engine
            snapshot: Snapshot | None = engine.snapshot
            wishes = engine.ledger.in_force()
            allocations = engine.places(snapshot) if snapshot is not None else {}
            busy, paused = engine.busy(), engine.ledger.paused
            outlook = engine.outlook or Outlook()
            found = engine.differing(snapshot) if judge and snapshot is not None else ()
        if snapshot is None:
            raise errors.DeadlineExceeded("the host has not been observed yet", hint="try again shortly")
        found = tuple(each for each in found if not busy.intersection((each.subject, *each.names)))
        scene = Scene(
            snapshot, wishes, allocations, self._catalog, busy, findings=found, repair=self._loop.repair
        )
        if not judge:
            return scene
        settled = frozenset({*scene.wished} - busy)
        if not settled:
            return scene
        result = plan(
            Situation(
                snapshot=snapshot,
                wishes=wishes,
                allocations=allocations,
                catalog=self._catalog,
                now=self._clock.now(),
                new_id=lambda _name: UUID(int=0),
                scope=settled,
            )
        )
        problems = [*result.problems, *drift(result, paused=paused)]
        told = {each.subject for each in problems}
        absent = {**outlook.awaited, **outlook.missing}
        problems += [Problem(name, error) for name, error in absent.items() if name in settled - told]
        problems.sort(key=lambda each: natural(each.subject))
        return replace(scene, problems=tuple(problems), steps=result.steps)
