"""When a trial waits for its own actor, with the private names of Tune that this stands on, and when it is killed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution._internal import TrackedActor
from ray.tune.execution.tune_controller import TuneController

from workers import tune_runner


class _Actors:
    """The one question that is asked of Tune's actor manager."""

    def __init__(self, *created: Any) -> None:
        self._created = created

    def is_actor_started(self, actor: Any) -> bool:
        return actor in self._created


@pytest.fixture
def reused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials for which Tune itself would have taken an idle actor."""
    trials: list[str] = []

    def reuse(_self: Any, trial: str) -> bool:
        trials.append(trial)
        return True

    monkeypatch.setattr(TuneController, "_maybe_reuse_cached_actor", reuse)  # raises where Tune has it no longer
    return trials


def test_a_trial_waits_for_its_own_actor_while_that_starts(reused: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    starting, running, unplaced = (TrackedActor(number) for number in range(3))
    controller = object.__new__(tune_runner._LetActorsStart)
    controller._trial_to_actor = {"starting": starting, "running": running, "unplaced": unplaced}
    controller._actor_manager = _Actors(starting, running)  # type: ignore[assignment]
    controller._started_actors = [running]  # type: ignore[assignment]
    now = 1000.0
    monkeypatch.setattr(tune_runner, "time", SimpleNamespace(monotonic=lambda: now))
    answers = {
        trial: controller._maybe_reuse_cached_actor(trial) for trial in ("starting", "running", "unplaced", "new")
    }
    assert answers == {"starting": False, "running": True, "unplaced": True, "new": True}
    assert reused == ["running", "unplaced", "new"]
    now += tune_runner.START_SECONDS
    assert controller._maybe_reuse_cached_actor("starting"), "stuck with its node: Tune's own way"


@pytest.mark.parametrize(
    ("silent", "trained", "limit", "why"),
    [
        (29.0, 500.0, None, ""),
        (31.0, 40.0, None, "reported nothing for 30 s"),
        (1.0, 59.0, 60.0, ""),
        (1.0, 61.0, 60.0, "trained for longer than 60 s (MUTRANSFER_TRIAL_LIMIT_SECONDS)"),
    ],
)
def test_a_trial_is_killed_for_its_silence_or_its_length(
    silent: float, trained: float, limit: float | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tune_runner.RunPlan(
        study="s", epoch=1, data_fingerprint="", checkpoints=Path(), cache=Path(), model_packages=(), cpus=1, gpus=0,
        max_concurrent=None, checkpoint_seconds=60.0, trial_timeout_seconds=30.0, trial_limit_seconds=limit,
    )  # fmt: skip
    now = 1000.0
    monkeypatch.setattr(tune_runner, "time", SimpleNamespace(monotonic=lambda: now))
    watch = tune_runner._Watch(None, plan, None)  # type: ignore[arg-type]
    assert watch._overdue(tune_runner._Live(actor=None, heard_at=now - silent, started_at=now - trained)) == why
