"""The verdict's rules, one by one and in their order."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mutransfer.fit import FittedCurve, fit_curve_full
from mutransfer.result import CurveRole, CurveStatus, Outcome, Tolerances, Verdict
from mutransfer.spec import Verification
from mutransfer.trial import Observation
from mutransfer.verdict import Question, judge_arm
from tests.curves import Loss, lattice, measured, parabola

X = -5.0


def question(**changes: Any) -> Question:
    """Proxies 32 and 64, targets 128 and 256, the default tolerances."""
    values: dict[str, Any] = {
        "axis": "width", "proxies": (32, 64), "targets": (128, 256), "verify": Verification.FULL,
        "tolerances": Tolerances(drift_octaves=1.0, regret_nats=0.01), "seeds_max": 4,
    }  # fmt: skip
    return Question(**{**values, **changes})


def fitted(
    width: int, loss: Loss, *, asked: Question | None = None, sd: float = 0.002, seeds: int = 2,
    lrs: list[float] | None = None, status: CurveStatus | None = None,
) -> FittedCurve:  # fmt: skip
    """A curve at half octaves around X with some noise, fitted."""
    rng = np.random.default_rng(width)

    def noisy(lr: float, seed: int) -> float | None:
        value = loss(lr, seed)
        return None if value is None else value + float(rng.normal(0, sd))

    rows = measured(noisy, lattice(X - 3, X + 3) if lrs is None else lrs, seeds=seeds)
    return _fit(width, rows, asked or question(), status)


def _fit(
    width: int, rows: tuple[Observation, ...], asked: Question, status: CurveStatus | None = None
) -> FittedCurve:  # fmt: skip
    role = CurveRole.TARGET if width in asked.targets else CurveRole.PROXY
    return fit_curve_full(rows, axis_value=width, width=width, depth=2, role=role, rng_seed=width, status=status)


def judged(
    losses: Mapping[int, Loss], *, asked: Question | None = None, recorded: float | None = X, sd: float = 0.002,
    statuses: Mapping[int, CurveStatus] | None = None,
) -> Verdict:  # fmt: skip
    """The verdict over curves with these losses."""
    asked = asked or question()
    curves = [fitted(w, f, asked=asked, sd=sd, status=(statuses or {}).get(w)) for w, f in losses.items()]
    return judge_arm(asked, curves, recorded=recorded)


def same(optimum: float = X, **changes: Loss) -> dict[int, Loss]:
    """All four widths with their optimum at X, each a little better than the last, but for `changes` (w128=...)."""
    curves = {w: parabola(optimum, floor=2.4 - 0.05 * i) for i, w in enumerate((32, 64, 128, 256))}
    return {**curves, **{int(name[1:]): loss for name, loss in changes.items()}}


# --- rule 3 ----------------------------------------------------------------------------------------------------------


def test_transfers_when_the_optimum_stays_and_the_recorded_rate_costs_nothing() -> None:
    verdict = judged(same())
    assert verdict.outcome is Outcome.TRANSFERS
    assert verdict.total_drift_octaves is not None
    assert verdict.total_drift_octaves.value == pytest.approx(0.0, abs=0.1)
    assert [r.width for r in verdict.regret_nats] == [128, 256]
    assert all(r.high is not None and r.high < 0.01 for r in verdict.regret_nats)
    assert verdict.wider_is_better is True
    assert (verdict.proxy, verdict.target, verdict.recorded_lr_octaves) == (64, 256, X)
    assert "inside ±1" in verdict.reasons[0]
    assert verdict.advice == ()


# --- rule 1: nothing can be said -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "proxy",
    [parabola(X - 3), lambda lr, seed: None, lambda lr, seed: 2.0 - 0.1 * lr],
    ids=["best at the lower end", "diverged everywhere", "falling to the end"],
)
def test_a_proxy_without_an_optimum_is_inconclusive(proxy: Loss) -> None:
    verdict = judged(same(w64=proxy), recorded=None)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no learning rate was recorded" in verdict.reasons[0]
    assert verdict.advice
    assert all(r.value is None for r in verdict.regret_nats)


@pytest.mark.parametrize("missing", [32, 64, 128, 256])
def test_a_missing_width_is_inconclusive(missing: int) -> None:
    losses = {w: f for w, f in same().items() if w != missing}
    verdict = judged(losses)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert f"width {missing} is missing" in " ".join(verdict.reasons)


def test_an_unfinished_width_is_inconclusive() -> None:
    verdict = judged(same(), statuses={256: CurveStatus.INCOMPLETE})
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons == ("width 256 is missing: its curve is not finished",)


@pytest.mark.parametrize("verify", [Verification.POINT, Verification.NONE])
def test_verification_that_is_not_full_is_inconclusive(verify: Verification) -> None:
    incomplete = {128: CurveStatus.INCOMPLETE, 256: CurveStatus.INCOMPLETE}
    verdict = judged(same(), asked=question(verify=verify), statuses=incomplete)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert len(verdict.reasons) == 1
    assert f"`{verify.value}`" in verdict.reasons[0]
    assert verdict.advice == ("set verify: full",)


def test_a_target_less_than_four_times_the_proxy_is_inconclusive() -> None:
    narrow = question(proxies=(32, 64), targets=(128, 255))
    losses = {(255 if w == 256 else w): f for w, f in same().items()}
    verdict = judged(losses, asked=narrow)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "less than 4 times" in verdict.reasons[0]
    assert "width 256 or more" in verdict.advice[0]


def test_no_target_is_inconclusive() -> None:
    verdict = judged({w: f for w, f in same().items() if w < 100}, asked=question(targets=()))
    assert (verdict.outcome, verdict.target) == (Outcome.INCONCLUSIVE, None)
    assert "there is no target" in verdict.reasons[0]


def test_inconclusive_comes_before_drifts() -> None:
    """The optimum moves by two octaves, but the ratio is 2: nothing may be said."""
    asked = question(targets=(128,))
    verdict = judged({32: parabola(X), 64: parabola(X), 128: parabola(X - 2)}, asked=asked)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.total_drift_octaves is not None
    assert verdict.total_drift_octaves.value == pytest.approx(-2.0, abs=0.1)  # reported all the same
    unverified = judged(same(w256=parabola(X - 2)), asked=question(verify=Verification.POINT))
    assert unverified.outcome is Outcome.INCONCLUSIVE


# --- rule 2: it drifts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [-2.0, 2.0])
def test_an_optimum_that_moved_by_more_than_the_tolerance_drifts(moved: float) -> None:
    flat = question(tolerances=Tolerances(drift_octaves=1.0, regret_nats=5.0))
    verdict = judged(same(w256=parabola(X + moved)), asked=flat)
    assert verdict.outcome is Outcome.DRIFTS
    assert verdict.total_drift_octaves is not None
    assert verdict.total_drift_octaves.value == pytest.approx(moved, abs=0.1)
    assert verdict.reasons == (f"{verdict.reasons[0].split(', wholly')[0]}, wholly outside ±1",)


@pytest.mark.parametrize("moved", [-1.05, 1.05])
def test_the_whole_interval_must_lie_outside(moved: float) -> None:
    """1.05 octaves with an interval that reaches inside: neither drifts nor transfers, however cheap it is."""
    flat = question(tolerances=Tolerances(drift_octaves=1.0, regret_nats=5.0))
    verdict = judged(same(w256=parabola(X + moved)), asked=flat, sd=0.01)
    drift = verdict.total_drift_octaves
    assert drift is not None
    assert drift.low is not None
    assert drift.high is not None
    assert abs(drift.value) > 1.0
    assert min(abs(drift.low), abs(drift.high)) < 1.0
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "neither inside nor outside ±1" in verdict.reasons[0]
    assert verdict.advice == ("add seeds: raise search.seeds.max above 4",)


def test_a_regret_is_judged_by_its_lower_bound() -> None:
    """0.55 octaves away costs 0.018 nats, but perhaps less than the tolerance: open, not drift."""
    verdict = judged(same(w256=parabola(X - 0.55)), sd=0.01)
    regret = verdict.regret_nats[1]
    assert regret.value is not None
    assert regret.low is not None
    assert regret.low <= 0.01 < regret.value
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_a_costly_rate_drifts_though_the_optimum_hardly_moved() -> None:
    """0.8 octaves is inside ±1, but costs 0.06 · 0.64 = 0.038 nats."""
    verdict = judged(same(w256=parabola(X - 0.8)))
    assert verdict.outcome is Outcome.DRIFTS
    assert verdict.reasons[0].startswith("the recorded rate costs 0.03")
    assert verdict.regret_nats[1].value == pytest.approx(0.0384, abs=0.005)


def test_the_regret_of_every_target_counts() -> None:
    verdict = judged(same(w128=parabola(X + 1)))
    assert verdict.outcome is Outcome.DRIFTS
    assert "width 128" in verdict.reasons[0]
    assert verdict.total_drift_octaves is not None
    assert abs(verdict.total_drift_octaves.value) < 0.1


def test_regret_outside_the_window_is_measured() -> None:
    """The optimum is 2.5 octaves below the recorded rate: 0.06 · 6.25 nats, from the means themselves."""
    verdict = judged(same(w256=parabola(X - 2.5)), asked=question(), recorded=X)
    lrs = lattice(X - 5, X + 1)
    moved = fitted(256, parabola(X - 2.5), lrs=lrs)
    assert moved.fit is not None
    assert not moved.fit.covers(X)
    verdict = judge_arm(question(), [*(fitted(w, f) for w, f in same().items() if w != 256), moved], recorded=X)
    regret = verdict.regret_nats[1]
    assert regret.value == pytest.approx(0.375, abs=0.01)
    assert regret.low is not None
    assert regret.high is not None
    assert 0.36 < regret.low < regret.high < 0.39


@pytest.mark.parametrize(("diverged", "outcome"), [(1, Outcome.DRIFTS), (2, Outcome.DRIFTS), (0, Outcome.TRANSFERS)])
def test_the_recorded_rate_diverging_in_half_its_seeds_drifts(diverged: int, outcome: Outcome) -> None:
    def loss(lr: float, seed: int) -> float | None:
        return None if lr == X and seed < diverged else parabola(X, floor=2.25)(lr, seed)

    verdict = judged(same(w256=loss))
    assert verdict.outcome is outcome
    if diverged:
        assert f"diverged at width 256 in {diverged} of 2 seeds" in verdict.reasons[0]
        assert verdict.wider_is_better is False


def test_a_minority_of_diverged_seeds_is_no_drift() -> None:
    def loss(lr: float, seed: int) -> float | None:
        return None if lr == X and seed == 0 else parabola(X, floor=2.25)(lr, seed)

    curves = [fitted(w, f, seeds=3) for w, f in same(w256=loss).items()]
    assert judge_arm(question(), curves, recorded=X).outcome is Outcome.TRANSFERS


# --- rule 4: what keeps it open --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [128, 256])
def test_an_unbracketed_target_never_transfers(width: int) -> None:
    """Flat at the target: the recorded rate costs nothing, and yet no optimum is known."""
    flat = fitted(width, lambda lr, seed: 2.3 + 0.0005 * (lr - X), lrs=lattice(X - 2, X + 2))
    assert flat.curve.status is CurveStatus.UNBRACKETED
    others = [fitted(w, f) for w, f in same().items() if w != width]
    verdict = judge_arm(question(), [*others, flat], recorded=X)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert f"width {width} is unbracketed" in verdict.reasons[0]
    assert "limit" in verdict.advice[0]
    assert next(r for r in verdict.regret_nats if r.width == width).high is None


def test_an_unbracketed_target_drifts_when_a_measured_point_is_clearly_better() -> None:
    falling = fitted(256, lambda lr, seed: 2.3 + 0.1 * (lr - X))
    assert falling.curve.status is CurveStatus.UNBRACKETED
    verdict = judge_arm(question(), [*(fitted(w, f) for w, f in same().items() if w != 256), falling], recorded=X)
    assert verdict.outcome is Outcome.DRIFTS
    assert verdict.total_drift_octaves is None
    assert verdict.regret_nats[1].low is not None
    assert verdict.regret_nats[1].low > 0.2


def test_a_regret_that_may_exceed_the_tolerance_is_open() -> None:
    verdict = judged(same(), sd=0.02)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "may cost more than 0.01 nats" in " ".join(verdict.reasons)
    assert verdict.advice == ("add seeds: raise search.seeds.max above 4",)


def test_a_rate_that_was_never_measured_at_the_target_is_open() -> None:
    """A sweep from elsewhere that does not reach the recorded rate."""
    asked = question()
    curves = [fitted(w, f) for w, f in same(w256=parabola(X + 0.4, floor=2.25)).items() if w != 256]
    far = fitted(256, parabola(X + 3), lrs=lattice(X + 0.5, X + 6), asked=asked)
    verdict = judge_arm(asked, [*curves, far], recorded=X)
    assert verdict.regret_nats[1].value is None
    assert verdict.outcome is Outcome.DRIFTS  # the optimum is three octaves away all the same
    near = fitted(256, parabola(X + 0.9, floor=2.25), lrs=lattice(X + 0.1, X + 4), asked=asked)
    verdict = judge_arm(asked, [*curves, near], recorded=X)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "was not measured" in " ".join(verdict.reasons)


def test_edge_limited_curves_give_bounds_by_subtraction_and_no_slope() -> None:
    edge = parabola(X, edge=0.2, floor=2.2)
    verdict = judged(same(w256=edge))
    assert verdict.total_drift_octaves is not None
    low, high = verdict.total_drift_octaves.low, verdict.total_drift_octaves.high
    assert low is not None
    assert high is not None
    assert -0.6 < low < -0.4  # to the next rate clearly worse, 0.5 below
    assert 0.4 < high < 0.6  # to the diverged one
    assert verdict.outcome is Outcome.TRANSFERS
    both = judged({32: edge, 64: parabola(X), 128: edge, 256: edge})
    assert both.slope_octaves_per_doubling is None


# --- reported besides ------------------------------------------------------------------------------------------------


def test_slope_is_octaves_per_doubling_over_all_widths() -> None:
    losses = {w: parabola(X - 0.5 * i) for i, w in enumerate((32, 64, 128, 256))}
    slope = judged(losses).slope_octaves_per_doubling
    assert slope is not None
    assert slope.value == pytest.approx(-0.5, abs=0.03)
    assert slope.low is not None
    assert slope.high is not None
    assert slope.low < -0.5 < slope.high
    assert slope.high - slope.low < 0.2


def test_optima_that_scatter_around_the_line_widen_the_slope() -> None:
    straight = judged({w: parabola(X - 0.5 * i) for i, w in enumerate((32, 64, 128, 256))}).slope_octaves_per_doubling
    scatter = (0.0, 0.6, -0.6, 0.0)
    bent = judged(
        {w: parabola(X - 0.5 * i + s) for (i, w), s in zip(enumerate((32, 64, 128, 256)), scatter, strict=True)}
    ).slope_octaves_per_doubling
    assert straight is not None
    assert bent is not None
    assert bent.low is not None
    assert bent.high is not None
    assert straight.low is not None
    assert straight.high is not None
    assert bent.high - bent.low > 4 * (straight.high - straight.low)


def test_wider_is_better_looks_at_the_recorded_rate() -> None:
    assert judged(same(w128=parabola(X, floor=2.5))).wider_is_better is False  # worse than width 64
    assert judged(same(w256=parabola(X, floor=2.3001))).wider_is_better is True  # within noise of width 128
    assert judged({w: f for w, f in same().items() if w != 128}).wider_is_better is None


def test_the_tolerances_are_the_study_s_own() -> None:
    strict = question(tolerances=Tolerances(drift_octaves=0.2, regret_nats=0.5))
    assert judged(same(w256=parabola(X - 0.5)), asked=strict).outcome is Outcome.DRIFTS
    lenient = question(tolerances=Tolerances(drift_octaves=3.0, regret_nats=1.0))
    assert judged(same(w256=parabola(X - 2)), asked=lenient).outcome is Outcome.TRANSFERS


def test_depth_is_named_as_the_axis() -> None:
    verdict = judged(same(w256=parabola(X - 2)), asked=question(axis="depth"))
    assert "from depth 64 to 256" in verdict.reasons[0]


# --- never, whatever the data ----------------------------------------------------------------------------------------


def _spoilt(kind: str) -> Callable[[float, int], float | None]:
    return {
        "diverged": lambda lr, seed: None,
        "rising": lambda lr, seed: 2.0 + 0.1 * (lr - X),
        "falling": lambda lr, seed: 2.0 - 0.1 * (lr - X),
        "flat": lambda lr, seed: 2.0,
    }[kind]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["diverged", "rising", "falling", "flat"]),
    width=st.sampled_from([64, 128, 256]),
    sd=st.sampled_from([0.0, 0.002, 0.02]),
    recorded=st.sampled_from([X, X - 3, X + 3, X + 0.25]),
)
def test_a_judged_curve_without_an_optimum_never_transfers(kind: str, width: int, sd: float, recorded: float) -> None:
    verdict = judged({**same(), width: _spoilt(kind)}, sd=sd, recorded=recorded)
    assert verdict.outcome is not Outcome.TRANSFERS
    assert verdict.reasons
