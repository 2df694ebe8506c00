"""Exponents from synthetic records with known answers, and what each check says about them."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

from mutransfer.audit import (
    AuditResult,
    AuditRun,
    AuditSetting,
    Check,
    LayerAudit,
    LayerTrace,
    Quantity,
    compare,
    fit_exponent,
    judge_audit,
    suspects,
    t975,
)
from mutransfer.errors import SpecError
from mutransfer.result import Interval
from mutransfer.roles import ParameterRole, parameter_info
from mutransfer.spec import ArmSpec, Parametrization

WIDTHS = (32, 64, 128, 256)
VOCAB = 10
STEPS = 8
Grows = Callable[[int], float]


def _flat(_width: int) -> float:
    return 1.0


def _trace(
    width: int, role: str = "hidden", *, name: str = "", weight: Grows | None = None, update: Grows = _flat,
    change: Grows = _flat, output: Grows | None = _flat, late: int = 0, steps: int = STEPS, algorithm: str = "adamw",
    shape: tuple[int, int] | None = None,
) -> LayerTrace:  # fmt: skip
    """A matrix that obeys every prediction, but for what is given; it moves after `late` idle steps."""
    sides = {"hidden": (width, width), "embedding": (VOCAB, width), "readout": (VOCAB, width)}[role]
    info = parameter_info(name or f"{role}.weight", ParameterRole(role), shape or sides)
    sigma = 1.0 / width if role == "readout" else 1.0 / sqrt(width)
    start = weight or ((lambda _: 1.0) if role == "embedding" else lambda w: sigma * (sqrt(w) + sqrt(info.d_out)))
    idle = (0.0,) * late
    return LayerTrace(
        info=info, algorithm=algorithm, weight=start(width),
        update=(*idle, *(t * update(width) for t in range(1, steps + 1))),
        output=None if output is None else (output(width),) * (late + steps),
        output_change=None if output is None else (*idle, *(t * change(width) for t in range(1, steps + 1))),
    )  # fmt: skip


def _audit(
    layers: Callable[[int], list[LayerTrace]], *, widths: tuple[int, ...] = WIDTHS, seeds: int = 2, steps: int = STEPS
) -> AuditResult:
    arm = ArmSpec(optimizer="adamw", parametrization=Parametrization.MUP)
    setting = AuditSetting(arm=arm, model="nanogpt", lr_octaves=-6.0, base_width=32, steps=steps)
    runs = [AuditRun(width=w, seed=s, layers=tuple(layers(w))) for w in widths for s in range(seeds)]
    return judge_audit(runs, setting)


def _one(role: str = "hidden", **changes: Any) -> LayerAudit:
    return _audit(lambda width: [_trace(width, role, **changes)]).layers[0]


def _checks(layer: LayerAudit) -> dict[str, str]:
    return {exponent.quantity.value: exponent.check.value for exponent in layer.exponents}


def test_a_model_that_obeys_passes_with_exponents_of_zero() -> None:
    result = _audit(lambda width: [_trace(width, role) for role in ("embedding", "hidden", "readout")])
    assert result.check is Check.PASS
    for layer in result.layers:
        for exponent in layer.exponents:
            assert exponent.measured is not None
            assert exponent.measured.value == pytest.approx(0.0, abs=1e-12)
            assert exponent.measured.low == pytest.approx(0.0, abs=1e-9)
    judged = [[exponent.quantity.value for exponent in layer.exponents] for layer in result.layers]
    assert judged[0] == judged[1] == ["weight", "update", "output", "output_change"]
    assert judged[2] == ["weight", "output_change"]  # a readout's update is judged by what it does to the logits


@pytest.mark.parametrize(
    ("quantity", "changes"),
    [("update", {"update": sqrt}), ("output", {"output": sqrt}), ("output_change", {"change": sqrt}),
     ("weight", {"weight": sqrt})],
)  # fmt: skip
def test_a_planted_exponent_is_measured_and_fails_alone(quantity: str, changes: dict[str, Grows]) -> None:
    layer = _one(**changes)
    found = next(exponent for exponent in layer.exponents if exponent.quantity.value == quantity)
    assert found.measured is not None
    assert found.measured.value == pytest.approx(0.5)
    assert {name for name, check in _checks(layer).items() if check == "fail"} == {quantity}
    assert found.levels[3] / found.levels[0] == pytest.approx(sqrt(8))  # type: ignore[operator]


def test_the_prediction_follows_the_shape() -> None:
    # d_out grows as width squared: sqrt(d_out / d_in) has the exponent 1/2.
    def layers(width: int) -> list[LayerTrace]:
        return [_trace(width, shape=(width * width, width), update=sqrt, weight=sqrt)]

    layer = _audit(layers).layers[0]
    predicted = {exponent.quantity: exponent.predicted for exponent in layer.exponents}
    assert predicted[Quantity.WEIGHT] == predicted[Quantity.UPDATE] == pytest.approx(0.5)
    assert predicted[Quantity.OUTPUT] == 0.0
    assert layer.check is Check.PASS


def test_a_readout_is_held_to_the_deviation_that_the_rules_ask_for() -> None:
    assert _checks(_one("readout"))["weight"] == "pass"

    def deviation(power: float) -> Grows:
        return lambda width: width**-power * (sqrt(width) + sqrt(VOCAB))

    assert _checks(_one("readout", weight=deviation(0.5)))["weight"] == "fail"  # SP
    assert _checks(_one("readout", weight=deviation(2.0)))["weight"] == "fail"  # 1/d_in and 1/r_in at once
    assert "weight" not in _checks(_one("readout", weight=lambda _: 0.0))  # nothing to check in zeros


def test_steps_before_the_first_change_do_not_count() -> None:
    late = {32: 0, 64: 1, 128: 3, 256: 2}
    layer = _audit(lambda width: [_trace(width, late=late[width], steps=12 - late[width])]).layers[0]
    assert (layer.first_step, layer.steps) == (4, 8)
    # Counted from their own start the series differ: t against t - 3. Only the common steps enter, whatever they say.
    measured = next(e for e in layer.exponents if e.quantity is Quantity.OUTPUT).measured
    assert measured is not None
    assert measured.value == pytest.approx(0.0)


def test_too_few_steps_decide_nothing() -> None:
    layer = _one(steps=7)
    assert layer.check is Check.UNDECIDED
    assert "7 steps since it first moved" in layer.exponents[1].reason


def test_a_matrix_that_never_moves_fails() -> None:
    def layers(width: int) -> list[LayerTrace]:
        return [_trace(width, update=_flat if width < 256 else lambda _: 0.0)]

    layer = _audit(layers).layers[0]
    assert (layer.check, layer.first_step) == (Check.FAIL, None)
    assert "never moved" in layer.exponents[-1].reason


def test_a_run_that_blows_up_fails_and_still_has_a_json_form() -> None:
    result = _audit(lambda width: [_trace(width, change=lambda w: np.inf if w == 256 else 1.0)])
    found = result.layers[0].exponents[-1]
    assert (found.check, found.measured, found.levels[3]) == (Check.FAIL, None, None)
    assert AuditResult.model_validate_json(result.model_dump_json()) == result


def test_a_matrix_that_no_module_applies_is_judged_by_its_weights() -> None:
    assert set(_checks(_one(output=None))) == {"weight", "update"}


def test_a_failure_comes_from_where_weights_fail() -> None:
    def layers(width: int, **first: Grows) -> list[LayerTrace]:
        return [_trace(width, name="a", **first), _trace(width, name="b", change=sqrt)]  # type: ignore[arg-type]

    result = _audit(lambda width: layers(width, update=sqrt, change=sqrt))
    assert [layer.check.value for layer in result.layers] == ["fail", "fail"]
    assert suspects(result) == ("a",)  # what b puts out follows from it
    assert suspects(_audit(layers)) == ("b",)
    assert suspects(_audit(lambda width: [_trace(width)])) == ()


# --- the ladder ------------------------------------------------------------------------------------------------------


def test_models_that_do_not_differ_are_no_ladder() -> None:
    result = _audit(lambda width: [_trace(width, shape=(64, 64) if width < 128 else (128, 128))])
    assert result.check is Check.FAIL
    assert "hidden.weight does not grow with width" in result.problems[0]


def test_a_parameter_that_changes_its_algorithm_is_found() -> None:
    result = _audit(lambda width: [_trace(width, algorithm="muon" if width < 256 else "adamw")])
    assert result.check is Check.FAIL
    assert "hidden.weight changes its algorithm" in result.problems[0]


def test_models_with_other_matrices_are_no_ladder() -> None:
    result = _audit(lambda width: [_trace(width, name=f"layers.{width // 256}.weight")])
    assert "at widths [256] have other matrices" in result.problems[0]
    assert (result.check, result.layers) == (Check.FAIL, ())


def test_two_widths_are_too_few() -> None:
    with pytest.raises(SpecError, match="3 widths or more"):
        _audit(lambda width: [_trace(width)], widths=(32, 64))


def test_a_missing_run_is_an_error() -> None:
    arm = ArmSpec(optimizer="adamw")
    setting = AuditSetting(arm=arm, model="mlp", lr_octaves=0.0, base_width=32, steps=STEPS)
    runs = [AuditRun(width=w, seed=s, layers=(_trace(w),)) for w in WIDTHS for s in range(2)]
    with pytest.raises(ValueError, match="7 runs are not one for each of 4 widths and 2 seeds"):
        judge_audit(runs[1:], setting)


# --- intervals -------------------------------------------------------------------------------------------------------


def test_interval_by_hand() -> None:
    """Three widths an octave apart, one seed, one step: residuals (1, -2, 1)/6 about slope 1/2, one degree left."""
    log_WST = np.array([0.0, 0.0, 1.0])[:, None, None]
    interval = fit_exponent(log_WST, np.array([5.0, 6.0, 7.0]))
    stderr = sqrt((1 + 4 + 1) / 36 / 1 / 2)
    assert interval.value == pytest.approx(0.5)
    assert interval.high == pytest.approx(0.5 + 12.706 * stderr)


def test_offsets_of_seeds_do_not_widen_the_interval_and_deviations_do() -> None:
    x_W = np.array([5.0, 6.0, 7.0, 8.0])
    offsets_S = np.array([0.0, 3.0])
    line_WST = (0.25 * x_W)[:, None, None] + offsets_S[:, None]
    assert fit_exponent(line_WST, x_W).high == pytest.approx(0.25)
    line_WST[0, 0] += 0.1
    assert fit_exponent(line_WST, x_W).high == pytest.approx(0.2613, abs=1e-4)  # 0.235 + 2.571 * 0.01025


def test_slopes_that_change_over_the_steps_widen_the_interval() -> None:
    x_W = np.array([5.0, 6.0, 7.0])
    log_WST = (x_W[:, None, None] * np.array([0.1, 0.3])).reshape(3, 1, 2)
    interval = fit_exponent(log_WST, x_W)
    assert interval.value == pytest.approx(0.2)
    assert interval.high == pytest.approx(0.2 + 1.959964 * sqrt(2) * 0.1)


def test_intervals_cover_the_truth() -> None:
    rng, x_W, hits = np.random.default_rng(0), np.log2(WIDTHS), 0
    for _ in range(1000):
        noise_WST = 0.2 * rng.standard_normal((4, 2, 1))
        interval = fit_exponent(0.3 * x_W[:, None, None] + rng.standard_normal((1, 2, 1)) + noise_WST, x_W)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 0.3 <= interval.high
    assert 930 <= hits <= 970  # 950 ± 3 standard errors


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000)])
def test_students_t(degrees: int, expected: float) -> None:
    assert t975(degrees) == pytest.approx(expected, rel=1.5e-3)


@pytest.mark.parametrize(
    ("low", "high", "check"),
    [(-0.1, 0.1, "pass"), (-0.2, 0.2, "pass"), (0.1, 0.3, "undecided"), (-0.5, 0.5, "undecided"), (0.21, 0.3, "fail"),
     (-0.9, -0.3, "fail"), (None, 0.1, "undecided"), (0.3, None, "fail")],
)  # fmt: skip
def test_checks_by_hand(low: float | None, high: float | None, check: str) -> None:
    # Predicted 1: everything is shifted by it.
    shifted = Interval(value=1.0, low=None if low is None else 1 + low, high=None if high is None else 1 + high)
    assert compare(shifted, 1.0, 0.2 + 1e-12) is Check(check)
