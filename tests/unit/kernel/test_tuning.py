"""Hyperparameters of one arm: where overrides act, what a sample is, which one is best, what a study may ask."""

from typing import Any

import pytest

from mutransfer.errors import SpecError
from mutransfer.plan import Phase, estimate, phase_values
from mutransfer.spec import Hyperparameter
from mutransfer.trial import Environment, Observation, trial_key, trial_spec
from mutransfer.tuning import DIVERGED_NATS, Sample, answered, best, parse_label, tuned_arm, values_of
from tests.trials import small_study

ENVIRONMENT = Environment(data_fingerprint="d", code_digest="c", torch_version="t", device_type="cpu")
TPE = {"algorithm": "tpe", "parameters": {"weight_decay": {"low": 1e-4, "high": 0.1}}, "samples": 12}


def _asking(**parameters: Any) -> dict[str, Any]:
    return {**TPE, "parameters": parameters}


def test_overrides_act_where_they_belong_and_leave_no_trace() -> None:
    overrides = {"weight_decay": 0.02, "embedding_std": 0.5, "embedding_lr_factor": 2.0, "readout_lr_factor": 0.5}
    study = small_study(arms=[{"optimizer": "adamw", "overrides": overrides}])
    trial = trial_spec(study, study.arms[0], 64, -5.0, 0)
    assert (trial.train.weight_decay, trial.model.init.embedding_std) == (0.02, 0.5)
    options = trial.arm.resolved_options()
    assert (options.embedding_lr_factor, options.readout_lr_factor) == (2.0, 0.5)
    plain = small_study(
        train={"weight_decay": 0.02}, model={"init": {"embedding_std": 0.5}},
        arms=[{"optimizer": "adamw", "options": {"embedding_lr_factor": 2.0, "readout_lr_factor": 0.5}}],
    )  # fmt: skip
    same = trial_spec(plain, plain.arms[0], 64, -5.0, 0)
    assert trial_key(trial, ENVIRONMENT) == trial_key(same, ENVIRONMENT)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [({"weight_decay": 5}, "arms.0.overrides.weight_decay"), ({"embedding_std": 0}, "arms.0.overrides.embedding_std")],
)
def test_overrides_must_be_possible(overrides: dict[str, float], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        small_study(arms=[{"optimizer": "adamw", "overrides": overrides}])
    assert caught.value.problems[0].field == field
    assert small_study(arms=[{"optimizer": "adamw", "overrides": {"weight_decay": 0}}])


def test_values_of_a_trial_are_those_it_was_planned_with() -> None:
    study = small_study(search=TPE)
    arm = tuned_arm(study.arms[0], {"adamw-mup": {"weight_decay": 0.03}})
    assert values_of(study, trial_spec(study, arm, 16, -5.0, 0)) == {Hyperparameter.WEIGHT_DECAY: 0.03}
    assert tuned_arm(study.arms[0], {}) == study.arms[0]


def test_the_best_sample_ignores_divergence_and_failure() -> None:
    def sample(index: int, loss: float | None) -> Sample:
        return Sample(index=index, lr_octaves=-5.0, values={}, loss_nats=loss)

    assert best([sample(0, 2.5), sample(1, 2.1), sample(2, None), sample(3, DIVERGED_NATS)]) == sample(1, 2.1)
    assert best([sample(0, DIVERGED_NATS), sample(1, None)]) is None
    diverged = Observation(lr_octaves=-5.0, seed=0, loss_nats=None)
    assert answered(sample(0, None), [diverged]).loss_nats == DIVERGED_NATS
    assert parse_label("adamw-mup#12") == ("adamw-mup", 12)
    assert parse_label("adamw-mup") is None


def test_the_plan_counts_samples_at_the_largest_proxy() -> None:
    study = small_study(search=TPE)
    assert phase_values(study, Phase.TUNE) == (16,)
    assert phase_values(small_study(), Phase.TUNE) == ()
    first = estimate(study, vocab=11).curves[0]
    assert (first.phase, first.axis_value, first.trials_expected, first.trials_max) == ("tune", 16, 12, 12)


@pytest.mark.parametrize(
    ("search", "field", "said"),
    [
        ({"algorithm": "tpe"}, "search.parameters", "needs at least one"),
        ({"parameters": {"weight_decay": {"low": 0.1, "high": 0.2}}}, "search.parameters", "use tpe, gp or cmaes"),
        (_asking(weight_decay={"low": 0.2, "high": 0.1}), "search.parameters.weight_decay.low", "empty"),
        (_asking(weight_decay={"low": 0.2, "high": 2}), "search.parameters.weight_decay.high", "below 1"),
        (_asking(dropout={"low": 0.2, "high": 2}), "search.parameters.dropout", "weight_decay"),
    ],
)
def test_what_a_search_may_not_ask(search: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        small_study(search=search)
    [problem] = caught.value.problems
    assert problem.field == field
    assert said in problem.message
