"""Which of Tune's private names the runner stands on, and when a trial waits for its own actor."""

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
