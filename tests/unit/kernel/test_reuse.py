"""What a plan says is known is what the plan asks for."""

from collections.abc import Collection, Mapping

import pytest

from mutransfer.plan import Phase, TrialRequest
from mutransfer.reuse import KnownResult, Reuse, known_trials
from mutransfer.trial import trial_key, trial_spec
from tests import study_builders as build
from tests.e2e.samples import Bowl, simulate

SPEC = build.spec(widths__proxy=[16, 32], search__seeds={"min": 1, "max": 2})
BOWLS = {
    arm.name: {value: Bowl(optimum=-5.3, floor=2.3, curvature=0.05, edge=-1.0) for value in SPEC.axis.values}
    for arm in SPEC.arms
}
PLAYED = simulate(SPEC, arms=BOWLS).trials


def key(request: TrialRequest) -> str:
    arm = next(arm for arm in SPEC.arms if arm.name == request.arm)
    spec = trial_spec(SPEC, arm, request.axis_value, request.lr_octaves, request.seed)
    return trial_key(spec, build.ENVIRONMENT)


def told(phases: Collection[Phase], *, expected: int = 1000) -> tuple[Reuse, set[TrialRequest]]:
    """What is known when the trials of some phases have run, and those trials' places."""
    chosen = {request: loss for phase, request, loss in PLAYED if phase in phases}
    stored = {key(request): KnownResult(loss_nats=loss, device_seconds=2.0) for request, loss in chosen.items()}

    def lookup(keys: Collection[str]) -> Mapping[str, KnownResult]:
        return {key: stored[key] for key in keys if key in stored}

    return known_trials(SPEC, build.ENVIRONMENT, lookup, expected=expected, basis="st_1"), {*chosen}


def test_all_of_a_study_that_has_run_is_known_and_nothing_else_is_expected() -> None:
    reuse, places = told([Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY])
    assert (reuse.trials_known, reuse.trials_total) == (len(places), len(places))
    assert reuse.device_seconds_saved == 2.0 * len({key(place) for place in places})


def test_after_the_search_the_targets_are_still_to_run() -> None:
    reuse, places = told([Phase.SEARCH])
    assert (reuse.trials_known, reuse.trials_total) == (len(places), 1000)


@pytest.mark.parametrize("expected", [84, 1])
def test_nothing_is_known_of_a_new_study(expected: int) -> None:
    reuse, _ = told([], expected=expected)
    first = len(SPEC.arms) * len(SPEC.axis.proxy) * len(SPEC.search.lr_octaves.coarse())
    assert (reuse.trials_known, reuse.trials_total) == (0, max(expected, first))
    assert reuse.device_seconds_saved == 0.0
