"""A night against its baseline, from the equations: what is flagged, what is not, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, log, sqrt

import numpy as np
import pytest
from scipy import stats

from mutransfer.audit import AuditResult
from mutransfer.errors import ConflictError
from mutransfer.fit import fit_curve
from mutransfer.nights import Figure, FigureKind, Judgement, Method, NightData, NightTrial, Sensitivity
from mutransfer.paired import Estimate, curve_change, difference, from_intervals
from mutransfer.regression import judge_night
from mutransfer.result import CurveRole, Interval
from mutransfer.student import sign_tail, t_quantile, t_tail
from mutransfer.throughput import PRIOR_NIGHTS, PRIOR_SD, speed_figure
from mutransfer.trial import Observation
from tests.audit_builders import audit_of
from tests.studies import Answer, SyntheticStudy, drifting_sp, three_arm_study

STRICT = Sensitivity()
ARM = "adamw-mup"
RIGHT = audit_of({"a": 0.0})


@pytest.mark.parametrize("degrees", [1.0, 3.0, 7.5, 40.0])
@pytest.mark.parametrize("t", [-2.0, 0.0, 0.7, 3.0, 12.0])
def test_tails_of_students_t_are_scipys(t: float, degrees: float) -> None:
    assert t_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-9)


@pytest.mark.parametrize("tail", [0.5, 0.025, 1e-4])
def test_quantiles_are_scipys_and_infinite_without_freedom(tail: float) -> None:
    assert t_quantile(tail, 5.0) == pytest.approx(stats.t.isf(tail, 5.0), rel=1e-8, abs=1e-12)
    assert t_quantile(tail, 0.0) == inf


def test_the_sign_test_is_the_binomials_tail() -> None:
    assert sign_tail(8, 10) == pytest.approx((45 + 10 + 1) / 1024)
    assert sign_tail(0, 10) == 1.0


def test_an_estimate_is_beyond_only_when_both_chance_and_tolerance_are() -> None:
    sure = Estimate(value=0.2, stderr=0.01, degrees=50)
    assert sure.is_beyond(0.1, 1e-4)
    assert not sure.is_beyond(0.3, 1e-4)
    assert not Estimate(value=0.2, stderr=0.1, degrees=50).is_beyond(0.1, 1e-4)
    exact = Estimate(value=-0.2, stderr=0.0, degrees=3)
    assert exact.is_beyond(0.1, 1e-4)  # two runs that repeat to the last digit leave no chance


def test_numbers_of_numpy_make_plain_flags_that_json_takes() -> None:
    estimate = Estimate(value=0.2, stderr=np.float64(0.01), degrees=50)  # type: ignore[arg-type]
    assert estimate.is_beyond(0.1, 1e-4) is True
    assert estimate.is_beyond(0.3, 1e-4) is False


def test_differences_add_variances_and_join_degrees_as_welch_does() -> None:
    found = difference(Estimate(value=1.0, stderr=3.0, degrees=9), Estimate(value=0.25, stderr=4.0, degrees=16))
    assert (found.value, found.stderr) == (0.75, 5.0)
    assert found.degrees == pytest.approx(25.0**2 / (81 / 9 + 256 / 16))


def test_intervals_that_are_unbounded_are_not_compared() -> None:
    whole = Interval(value=1.0, low=0.5, high=1.5)
    assert from_intervals(whole, Interval(value=1.0, low=None, high=2.0), degrees=(5, 5)) is None
    found = from_intervals(whole, Interval(value=0.0, low=-0.5, high=0.3), degrees=(5, 5))
    assert found is not None
    assert (found.value, found.stderr) == (1.0, pytest.approx(0.5 * sqrt(2.0) / stats.t.isf(0.025, 5)))
    assert found.degrees == pytest.approx(10)


def test_each_interval_is_undone_by_its_own_degrees() -> None:
    found = from_intervals(
        Interval(value=1.0, low=0.7, high=1.3), Interval(value=0.0, low=-0.4, high=0.4), degrees=(4, 9)
    )
    night, baseline = (0.3 / stats.t.isf(0.025, 4)) ** 2, (0.4 / stats.t.isf(0.025, 9)) ** 2
    assert found is not None
    assert found.stderr == pytest.approx(sqrt(night + baseline))
    assert found.degrees == pytest.approx((night + baseline) ** 2 / (night**2 / 4 + baseline**2 / 9))


def _trials(losses: Mapping[float, float | None], seeds: int = 2, noise: Sequence[float] = (0.0,)) -> list[NightTrial]:
    """Two seeds a rate; seed offsets of 0.02, and `noise` in turn."""
    made = []
    for number, (lr, loss) in enumerate((lr, loss) for lr, loss in losses.items() for _ in range(seeds)):
        seed = number % seeds
        value = None if loss is None else loss + 0.02 * seed + noise[number % len(noise)]
        made.append(NightTrial(arm=ARM, axis_value=16, lr_octaves=lr, seed=seed, loss_nats=value))
    return made


RATES = [-7.0 + 0.5 * index for index in range(9)]


def _bowl(optimum: float, floor: float = 2.0) -> dict[float, float | None]:
    return {lr: floor + 0.06 * (lr - optimum) ** 2 for lr in RATES}


def _curve(trials: Sequence[NightTrial]):  # type: ignore[no-untyped-def]
    observations = [Observation(lr_octaves=t.lr_octaves, seed=t.seed, loss_nats=t.loss_nats) for t in trials]
    return fit_curve(observations, width=16, depth=2, role=CurveRole.PROXY, rng_seed=1)


def test_paired_differences_give_the_shift_and_the_loss_exactly_without_noise() -> None:
    before, after = _trials(_bowl(-5.0)), _trials(_bowl(-4.7, floor=2.01))
    found = curve_change(_curve(before), before, after)
    assert found.shift is not None
    assert found.loss is not None
    assert found.shift.value == pytest.approx(0.3, abs=1e-3)
    assert found.loss.value == pytest.approx(0.01, abs=1e-5)
    assert found.shift.stderr == pytest.approx(0.0, abs=1e-9)
    assert found.shift.degrees == 7 * 2 - 3  # seven rates of the window, two seeds, three coefficients


def test_the_error_of_a_shift_is_the_tilts_over_the_curvature() -> None:
    noise = [0.004, -0.003, 0.001, -0.004, 0.002]
    before, after = _trials(_bowl(-5.0)), _trials(_bowl(-5.0), noise=noise)
    curve = _curve(before)
    found = curve_change(curve, before, after)
    assert found.shift is not None
    inside = [t for t in after if abs(t.lr_octaves + 5.0) <= 1.51]
    base = {(t.lr_octaves, t.seed): t.loss_nats for t in before}
    u = np.array([t.lr_octaves + 5.0 for t in inside])
    d = np.array([float(t.loss_nats or 0.0) - float(base[t.lr_octaves, t.seed] or 0.0) for t in inside])
    design = np.vander(u, 3, increasing=True)
    covariance = np.linalg.inv(design.T @ design)
    coefficients = covariance @ design.T @ d
    variance = float(((d - design @ coefficients) ** 2).sum()) / (len(d) - 3)
    curvature = min(0.12, 0.12 + 2.0 * coefficients[2])
    moved = found.shift.value
    tilts = [
        sqrt(np.array([0.0, 1.0, 2.0 * x]) @ (variance * covariance) @ np.array([0.0, 1.0, 2.0 * x]))
        for x in (0.0, moved)
    ]
    assert found.shift.stderr == pytest.approx(max(tilts) / curvature, rel=1e-3)


def test_seeds_that_differ_do_not_pair_and_too_few_rates_are_not_compared() -> None:
    before = _trials(_bowl(-5.0))
    other = [
        NightTrial(arm=ARM, axis_value=16, lr_octaves=t.lr_octaves, seed=t.seed + 7, loss_nats=2.0) for t in before
    ]
    assert curve_change(_curve(before), before, other).shift is None
    assert curve_change(_curve(before), before, before[:6]).shift is None


def _night(answer: Answer, *, audits: Mapping[str, AuditResult] | None = None, speed: float = 1.0) -> NightData:
    study = SyntheticStudy(three_arm_study(search={"seeds": {"min": 2, "max": 2}}), answer)
    result = study.run()
    trials = tuple(
        NightTrial(
            arm=arm, axis_value=width, lr_octaves=seen.lr_octaves, seed=seen.seed, loss_nats=seen.loss_nats,
            tokens_per_second=1e4 * speed * (1.0 + 0.02 * (index % 5 - 2)), calibration_gflops=30.0, device="cpu",
        )
        for (arm, width), observations in study.observations.items() for index, seen in enumerate(observations)
    )  # fmt: skip
    return NightData(result=result, trials=trials, audits=audits or {})


@pytest.fixture(scope="module")
def baseline() -> NightData:
    return _night(drifting_sp(), audits={ARM: RIGHT})


def _judge(night: NightData, baseline: NightData | None) -> Judgement:
    return judge_night(night, baseline, sensitivity=STRICT, past={})


def _flagged(judgement: Judgement) -> list[Figure]:
    return [figure for figure in judgement.figures if figure.flagged]


def test_a_first_night_says_what_it_measured_and_flags_nothing(baseline: NightData) -> None:
    found = _judge(baseline, None)
    assert not found.flagged
    assert found.baseline_study is None
    keys = [figure.key for figure in found.figures]
    assert len(keys) == len(set(keys)) == 3 * (2 * 4 + 2) + 2
    assert all(figure.change is None for figure in found.figures)


def test_a_night_that_repeats_to_the_last_digit_flags_nothing(baseline: NightData) -> None:
    found = _judge(baseline, baseline)
    assert not found.flagged
    optima = [f for f in found.figures if f.kind is FigureKind.OPTIMUM and f.change is not None]
    assert optima
    assert all(f.method is Method.PAIRED and f.change is not None and f.change.value == 0.0 for f in optima)


def _shifted(octaves: float) -> Answer:
    """μP AdamW's curves moved; everything else is the baseline's."""
    plain = drifting_sp()

    def answer(request):  # type: ignore[no-untyped-def]
        moved = octaves if request.arm == ARM else 0.0
        return plain(replace(request, lr_octaves=request.lr_octaves - moved)) if moved else plain(request)

    return answer


def test_a_shift_of_half_an_octave_is_flagged_in_its_arm_alone_with_its_size(baseline: NightData) -> None:
    flags = _flagged(_judge(_night(_shifted(0.5)), baseline))
    assert {figure.arm for figure in flags} == {ARM}
    optima = [figure for figure in flags if figure.kind is FigureKind.OPTIMUM]
    assert {figure.axis_value for figure in optima} == {16, 32, 64, 128}
    for figure in optima:
        assert figure.change is not None
        assert figure.change.value == pytest.approx(0.5, abs=0.12)
        assert f"{ARM} at {figure.axis_value}: the optimum changed by +" in figure.reason


def test_the_share_of_false_alarms_is_divided_over_all_figures(baseline: NightData) -> None:
    night = _night(drifting_sp(sd=0.004))
    judgement = _judge(night, baseline)
    figure = next(f for f in judgement.figures if f.key == f"optimum/{ARM}/64")
    curve = next(c for arm in baseline.result.arms if arm.name == ARM for c in arm.curves if c.width == 64)
    ours = [[t for t in data.trials if (t.arm, t.axis_value) == (ARM, 64)] for data in (baseline, night)]
    change = curve_change(curve, *ours).shift
    assert change is not None
    count = 2 * 12 + 2 * 3 + 2  # optimum and loss of 12 curves, drift and throughput of 3 arms, diverged, audit
    assert figure.change == change.interval(STRICT.false_alarms / count / 2)
    assert figure.change.high is not None
    assert figure.change.high - change.value == pytest.approx(
        stats.t.isf(0.005 / 64, change.degrees) * change.stderr, rel=1e-6
    )  # fmt: skip


def test_a_slower_night_is_flagged_and_a_faster_one_is_not(baseline: NightData) -> None:
    slow = _flagged(_judge(_night(drifting_sp(), speed=0.8), baseline))
    assert {figure.kind for figure in slow} == {FigureKind.THROUGHPUT}
    assert all(f.change is not None and f.change.value == pytest.approx(-0.2, abs=0.01) for f in slow)
    assert not _judge(_night(drifting_sp(), speed=1.25), baseline).flagged


def test_throughput_knows_the_scatter_of_past_nights() -> None:
    def trials(speed: float) -> list[NightTrial]:
        return [
            NightTrial(
                arm=ARM, axis_value=16, lr_octaves=-5.0, seed=seed, loss_nats=2.0, tokens_per_second=speed,
                calibration_gflops=1.0,
            )
            for seed in range(8)
        ]  # fmt: skip

    tail = 1e-4
    calm = speed_figure(ARM, trials(0.88), trials(1.0), past=[0.001] * 60, tolerance=0.05, tail=tail)
    wild = speed_figure(ARM, trials(0.88), trials(1.0), past=[0.1, -0.1] * 30, tolerance=0.05, tail=tail)
    assert (calm.flagged, wild.flagged) == (True, False)
    between = (PRIOR_NIGHTS * 2 * PRIOR_SD**2 + 60 * log(1.001) ** 2) / (PRIOR_NIGHTS + 60)
    reach = stats.t.isf(2 * tail, PRIOR_NIGHTS + 60) * sqrt(between)
    assert calm.change is not None
    assert log(1.0 + float(calm.change.high or 0.0)) == pytest.approx(log(0.88) + reach, rel=1e-6)


def test_trials_that_newly_diverge_are_flagged_beyond_chance_or_far_below_the_edge(baseline: NightData) -> None:
    def diverging(keep: int, below: float) -> NightData:
        changed, left = [], keep
        for t in baseline.trials:
            hit = left > 0 and t.arm == ARM and t.loss_nats is not None and t.lr_octaves <= below
            left -= hit
            changed.append(
                NightTrial(
                    arm=t.arm, axis_value=t.axis_value, lr_octaves=t.lr_octaves, seed=t.seed,
                    loss_nats=None if hit else t.loss_nats,
                )
            )  # fmt: skip
        return NightData(result=baseline.result, trials=tuple(changed))

    def flag(night: NightData) -> bool:
        return next(f for f in _judge(night, baseline).figures if f.kind is FigureKind.DIVERGED).flagged

    assert not flag(diverging(1, -6.0))
    assert flag(diverging(2, -6.0))  # two, far below the edge at about -2.5
    assert not flag(diverging(0, 0.0))


def test_an_audit_that_passed_and_fails_is_flagged(baseline: NightData) -> None:
    same = drifting_sp()
    broken = _flagged(_judge(_night(same, audits={ARM: audit_of({"a": 1.0})}), baseline))
    assert [(figure.kind, figure.reason) for figure in broken] == [
        (
            FigureKind.AUDIT,
            f"the audit fails for {ARM}: a (the change of weight goes as width^1.00 instead of width^0.00)",
        )
    ]
    assert not _judge(_night(same, audits={ARM: RIGHT}), baseline).flagged


def test_nights_of_other_arms_are_refused(baseline: NightData) -> None:
    other = SyntheticStudy(three_arm_study(arms=[{"optimizer": "sgd", "parametrization": "sp"}]), lambda _r: 2.0)
    with pytest.raises(ConflictError, match="arms or axes differ"):
        _judge(NightData(result=other.result(), trials=()), baseline)


def test_a_judgement_survives_json(baseline: NightData) -> None:
    found = _judge(_night(_shifted(0.5)), baseline)
    assert Judgement.model_validate_json(found.model_dump_json()) == found
