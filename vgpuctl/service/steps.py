"""The steps of operations as they begin and end, each in its lane, or are cut off by a kill."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.record import OperationState, StepEnded, StepStarted
from vgpuctl.model.step import GPU_WIDE, CreateVgpu, Lane, Step
from vgpuctl.service.ledger import Operation, StepRun
from vgpuctl.service.messages import RunStep, StepDone
from vgpuctl.service.observations import Observations
from vgpuctl.service.places import Places
from vgpuctl.service.run import Run
from vgpuctl.service.turn import Turn


class Steps:
    """Begins the steps that `runs` have lined up, and takes down what came of them.

    `lanes` are those in which a step runs; this alone changes them.
    """

    def __init__(
        self,
        turn: Turn,
        observations: Observations,
        places: Places,
        runs: Mapping[UUID, Run],
        lanes: set[Lane],
    ) -> None:
        self._turn = turn
        self._observations = observations
        self._places = places
        self._runs = runs
        self._lanes = lanes
        self._interrupted: list[tuple[Operation, StepRun]] = []
        self.is_draining = False

    def dispatch(self) -> None:
        """Begin every step whose needs are done and whose lane is free."""
        if self.is_draining:
            return
        boot_id = self._observations.boot_id
        for run in self._runs.values():
            for step in list(run.pending.values()):
                if not run.done.issuperset(step.needs) or not self._is_free(run, step):
                    continue
                del run.pending[step.number]
                run.running[step.number] = step
                self._lanes.add(run.lane_of(step))
                self._observations.stir(step.lane)
                self._turn.record(
                    StepStarted(operation=run.operation, round=run.round, step=step, boot_id=boot_id)
                )
                self._turn.do(RunStep(run.operation, run.round, step))

    def _is_free(self, run: Run, step: Step) -> bool:
        """Whether a step may begin: its lane is free, and no start's step runs beside it."""
        lane = step.lane
        if run.is_start or lane in self._lanes:
            return run.is_start
        return not any(each.startswith(f"{lane}/start/") for each in self._lanes)

    def end(self, run: Run, item: StepDone) -> None:
        """A step has ended, well or not."""
        step = run.running.pop(item.number)
        begun = self._turn.ledger.operations[item.operation].run(item.number, item.round)
        boot_id = begun.boot_id if begun is not None else ""
        self._lanes.discard(run.lane_of(step))
        self._turn.record(
            StepEnded(operation=item.operation, round=item.round, number=item.number, problem=item.problem)
        )
        if item.problem is None:
            run.done.add(item.number)
            run.changed = True
            self._places.settle(step.effect, boot_id)
        else:
            run.failure = run.failure or item.problem
            run.failed |= run.scope if isinstance(step.effect, GPU_WIDE) else {step.effect.name}
            self._call_off(run, item.number)
            if isinstance(step.effect, CreateVgpu):
                run.avoid.add(step.effect.parent)
                is_fresh = step.effect.vgpu in run.fresh
                if item.problem.get("code") != errors.Conflict.code:
                    self._places.doubt(run.operation, step.effect, boot_id, is_fresh=is_fresh)
                elif is_fresh:
                    self._places.free(step.effect.vgpu)

    def _call_off(self, run: Run, failed: int) -> None:
        """Drop what cannot be done after a step failed.

        Forwards nothing more is begun.  Backwards, and where there is no way back, the rest is as welcome
        as before: one vGPU that fails must not keep the others away.
        """
        operation = self._turn.ledger.operations[run.operation]
        if operation.state is OperationState.RUNNING and not operation.goes_forward:
            run.pending.clear()
            return
        gone = {failed}
        for step in list(run.pending.values()):
            if gone.intersection(step.needs):
                gone.add(step.number)
                del run.pending[step.number]

    # -- after a crash ----------------------------------------------------------------------------

    def take_up(self, operation: Operation) -> None:
        """Note which steps a killed daemon was in the middle of, and which creations are in doubt."""
        created: dict[UUID, StepRun] = {}
        for each in operation.runs:
            if each.state == "running":
                self._interrupted.append((operation, each))
            if isinstance(each.step.effect, CreateVgpu):
                created[each.step.effect.vgpu] = each
        for each in created.values():
            assert isinstance(each.step.effect, CreateVgpu)
            is_conflict = (each.problem or {}).get("code") == errors.Conflict.code
            if each.state in ("running", "failed") and not is_conflict:
                self._places.doubt(operation.id, each.step.effect, each.boot_id, is_fresh=False)

    def end_interrupted(self) -> None:
        """Close the steps that a killed daemon had begun; what came of them, the host will tell."""
        text = "the daemon ended while this step ran; the host was read back and planned anew"
        problem = errors.StepInterrupted(text).to_problem()
        interrupted, self._interrupted = self._interrupted, []
        for operation, begun in interrupted:
            self._turn.record(
                StepEnded(
                    operation=operation.id, round=begun.round, number=begun.step.number, problem=problem
                )
            )
