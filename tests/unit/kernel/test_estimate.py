"""What a study is said to cost before it runs."""

from typing import Any

import pytest

from mutransfer.plan import AUDIT_STEP_RATIO, estimate
from mutransfer.spec import StudySpec
from tests.studies import SyntheticStudy, drifting_sp, three_arm_study


def test_numbers_of_one_curve_by_hand() -> None:
    """Width 16, depth 2, vocabulary 11: 2·12·16² hidden weights, 11·16 in the readout, (11 + 16)·16 looked up."""
    found = estimate(three_arm_study(), vocab=11, flops_per_second=1e6, seconds_per_step=0.5)
    curve = found.curves[0]
    assert (curve.phase, curve.axis_value, curve.arms, curve.steps) == ("search", 16, 3, 12)
    multiplied = 2 * 12 * 16**2 + 11 * 16
    assert curve.parameters == multiplied + 27 * 16
    assert curve.tokens_per_trial == 12 * 4 * 16
    operations = 6 * multiplied * 768 + 2 * multiplied * 256
    assert curve.seconds_per_trial == pytest.approx(12 * 0.5 + operations / 1e6, abs=1e-3)


def test_totals_are_sums_over_curves_and_arms() -> None:
    found = estimate(three_arm_study(), vocab=11)
    assert found.trials_expected == sum(3 * c.trials_expected for c in found.curves)
    assert found.tokens_max == sum(3 * c.trials_max * c.tokens_per_trial for c in found.curves)
    assert found.device_seconds_expected == pytest.approx(
        sum(3 * c.trials_expected * c.seconds_per_trial for c in found.curves)
    )
    assert [(c.phase, c.axis_value) for c in found.curves] == [
        ("search", 16), ("search", 32), ("transfer", 64), ("transfer", 128), ("verify", 64), ("verify", 128),
    ]  # fmt: skip


def test_the_audit_is_told_apart() -> None:
    """Three arms, two seeds, ten steps of 64 tokens at widths 16 and 32 and 64."""
    spec = three_arm_study(audit={"widths": [16, 32, 64]})
    found = estimate(spec, vocab=11, flops_per_second=1e6, seconds_per_step=0.5)
    multiplied = sum(2 * 12 * width**2 + 11 * width for width in (16, 32, 64))
    assert found.audit_seconds == pytest.approx(3 * 2 * 10 * AUDIT_STEP_RATIO * (1.5 + 6 * multiplied * 64 / 1e6))
    plain = estimate(three_arm_study(), vocab=11, flops_per_second=1e6, seconds_per_step=0.5)
    assert found == plain.model_copy(update={"audit_seconds": found.audit_seconds})
    assert plain.audit_seconds == 0.0


@pytest.mark.parametrize(
    "changes",
    [{}, {"verify": "point"}, {"verify": "none"}, {"search": {"algorithm": "grid"}}, {"search": {"seeds": {"max": 2}}}],
    ids=["full", "point", "none", "grid", "two seeds"],
)
def test_a_study_takes_about_what_is_expected_and_never_more_than_the_most(changes: dict[str, Any]) -> None:
    spec: StudySpec = three_arm_study(**changes)
    found = estimate(spec, vocab=11)
    study = SyntheticStudy(spec, drifting_sp(sd=0.01))
    study.run()
    assert 0.7 * found.trials_expected <= len(study.asked) <= 1.3 * found.trials_expected
    assert len(study.asked) <= found.trials_max


def test_a_model_of_the_user_s_own_is_guessed() -> None:
    spec = three_arm_study(model={"family": "mine:build", "head_dim": None})
    assert estimate(spec, vocab=11).curves[0].parameters == 2 * 12 * 16**2 + 2 * 11 * 16


def test_tokens_a_parameter_lengthen_wide_trials() -> None:
    spec = three_arm_study(train={"steps": None, "tokens_per_parameter": 20})
    steps = [c.steps for c in estimate(spec, vocab=11).curves if c.phase != "verify"]
    assert steps == sorted(steps)
    assert steps[0] == round(20 * estimate(spec, vocab=11).curves[0].parameters / 64)
