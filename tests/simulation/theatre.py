"""Stages on which one history plays after the other; each finds its host as new."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.coverage import Coverage
from tests.simulation.history import History
from tests.simulation.settings import Setting, setting_of
from tests.simulation.verdict import problems
from tests.support.stage import Daemon, Saved, Stage


@dataclass
class Result:
    """What came of a seed."""

    seed: int
    found: list[str]
    trace: list[str]
    digest: str


@dataclass
class Theatre:
    """A directory with a stage for each setting."""

    directory: Path
    coverage: Coverage = field(default_factory=Coverage)
    _stages: dict[str, tuple[Stage, Saved]] = field(default_factory=dict)

    def play(self, seed: int) -> Result:
        """One seed's history, and what is wrong after it."""
        setting = setting_of(seed)
        stage, saved = self._stage(setting)
        stage.restore(saved)
        history = History(seed, stage, setting, self.coverage)
        try:
            try:
                history.play()
                history.settle()
                found = problems(history)
            except Exception as error:
                found = [f"{type(error).__name__}: {error}"]
                history.told.append("".join(traceback.format_exception(error)))
            return Result(seed, found, history.told, history.digest())
        finally:
            history.close()

    def close(self) -> None:
        """Every stage goes."""
        for stage, _ in self._stages.values():
            stage.close()

    def _stage(self, setting: Setting) -> tuple[Stage, Saved]:
        if setting.name not in self._stages:
            directory = self.directory / setting.name.replace(":", "-")
            directory.mkdir()
            stage = Stage(directory, setting.spec)
            stage.block_at_once()
            Daemon(stage).close()
            self._stages[setting.name] = stage, stage.save()
        return self._stages[setting.name]
