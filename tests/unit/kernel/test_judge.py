"""Whole studies from first request to verdict, and sweeps from elsewhere; same trials, same document."""

import random

import pytest

from mutransfer.errors import SpecError
from mutransfer.judge import CurveData, judge_csv, judge_study, recorded_lr
from mutransfer.plan import Phase, Progress, TrialRequest, requests
from mutransfer.result import Cost, CurveRole, CurveStatus, Outcome, StudyRef, StudyResult
from tests.curves import lattice, parabola
from tests.studies import SyntheticStudy, drifting_sp, three_arm_study
from tests.trials import small_study


@pytest.fixture(scope="module")
def study() -> SyntheticStudy:
    """A finished study of three arms."""
    done = SyntheticStudy(three_arm_study(), drifting_sp())
    done.run()
    return done


def test_sp_drifts_and_mup_transfers(study: SyntheticStudy) -> None:
    result = study.result()
    outcomes = {arm.name: arm.verdict.outcome for arm in result.arms}
    assert outcomes == {
        "adamw-sp": Outcome.DRIFTS, "adamw-mup": Outcome.TRANSFERS, "muon-mup": Outcome.TRANSFERS,
    }  # fmt: skip
    sp = result.arms[0].verdict
    assert sp.total_drift_octaves is not None
    assert sp.total_drift_octaves.value == pytest.approx(-2.0, abs=0.1)
    assert sp.slope_octaves_per_doubling is not None
    assert sp.slope_octaves_per_doubling.value == pytest.approx(-1.0, abs=0.05)
    assert [(c.width, c.role) for c in result.arms[0].curves] == [
        (16, CurveRole.PROXY), (32, CurveRole.PROXY), (64, CurveRole.TARGET), (128, CurveRole.TARGET),
    ]  # fmt: skip
    assert all(c.status is CurveStatus.BRACKETED for arm in result.arms for c in arm.curves)


def test_the_recorded_rate_is_the_optimum_at_the_largest_proxy_to_a_hundredth(study: SyntheticStudy) -> None:
    curve = next(c for c in study.result().arms[1].curves if c.width == 32)
    assert curve.optimum_octaves is not None
    assert study.recorded["adamw-mup"] == round(curve.optimum_octaves.value, 2)
    assert study.recorded["adamw-mup"] == pytest.approx(-5.0, abs=0.1)
    assert recorded_lr(curve.model_copy(update={"optimum_octaves": None})) is None


def test_the_same_trials_in_any_order_give_the_same_document_bit_for_bit(study: SyntheticStudy) -> None:
    first = study.result(state="completed")
    curves = [study.data(arm, value) for arm, value in study.observations]
    random.Random(0).shuffle(curves)
    mixed = [
        CurveData(arm=c.arm, axis_value=c.axis_value, observations=tuple(reversed(c.observations))) for c in curves
    ]
    again = judge_study(study.spec, mixed, recorded=study.recorded, study=first.study, cost=first.cost)
    assert again.model_dump_json() == first.model_dump_json()


def test_the_document_survives_json(study: SyntheticStudy) -> None:
    result = study.result()
    assert StudyResult.model_validate_json(result.model_dump_json()) == result


def test_every_phase_of_a_running_study_can_be_judged() -> None:
    running = SyntheticStudy(three_arm_study(), drifting_sp())
    empty = running.result()
    assert [arm.curves for arm in empty.arms] == [(), (), ()]
    for phase in (Phase.SEARCH, Phase.TRANSFER):
        running.run_phase(phase)
        result = running.result()
        assert {arm.verdict.outcome for arm in result.arms} == {Outcome.INCONCLUSIVE}
        assert all("is missing" in reason for arm in result.arms for reason in arm.verdict.reasons)
    statuses = {c.width: c.status for c in result.arms[1].curves}
    assert statuses == {
        16: CurveStatus.BRACKETED, 32: CurveStatus.BRACKETED, 64: CurveStatus.INCOMPLETE, 128: CurveStatus.INCOMPLETE,
    }  # fmt: skip


def test_an_arm_that_never_finds_an_optimum_stops_after_its_search() -> None:
    spec = three_arm_study(search={"lr_octaves": {"limit": [-10, -2]}})
    answer = drifting_sp()
    lost = SyntheticStudy(spec, lambda r: 3.0 + 0.1 * r.lr_octaves if r.arm == "adamw-mup" else answer(r))
    result = lost.run()
    arm = next(a for a in result.arms if a.name == "adamw-mup")
    assert lost.recorded["adamw-mup"] is None
    assert arm.verdict.outcome is Outcome.INCONCLUSIVE
    assert "no learning rate was recorded" in arm.verdict.reasons[0]
    assert {r.axis_value for r in lost.asked if r.arm == "adamw-mup"} == {16, 32}


def test_point_verification_asks_for_neighbours_only_and_stays_inconclusive() -> None:
    study = SyntheticStudy(three_arm_study(verify="point"), drifting_sp())
    result = study.run()
    at_target = sorted({r.lr_octaves for r in study.asked if (r.arm, r.axis_value) == ("adamw-mup", 128)})
    x = study.recorded["adamw-mup"]
    assert x is not None
    assert at_target == [pytest.approx(x - 1), x, pytest.approx(x + 1)]
    assert {arm.verdict.outcome for arm in result.arms} == {Outcome.INCONCLUSIVE}
    assert all(len(arm.verdict.reasons) == 1 for arm in result.arms)


def test_no_verification_trains_the_recorded_rate_alone() -> None:
    study = SyntheticStudy(three_arm_study(verify="none"), drifting_sp())
    study.run()
    at_target = {r.lr_octaves for r in study.asked if (r.arm, r.axis_value) == ("adamw-mup", 128)}
    assert at_target == {study.recorded["adamw-mup"]}


def test_a_study_over_depth_names_depths() -> None:
    spec = small_study(
        widths={"base": 16, "proxy": [16], "targets": []}, depth={"base": 2, "proxy": [2], "targets": [4, 8]}
    )
    result = SyntheticStudy(spec, lambda r: parabola(-5.0, floor=2.4 - 0.01 * r.axis_value)(r.lr_octaves, 0)).run()
    assert result.axis == "depth"
    assert [(c.width, c.depth) for c in result.arms[0].curves] == [(16, 2), (16, 4), (16, 8)]
    assert (result.arms[0].verdict.proxy, result.arms[0].verdict.target) == (2, 8)
    assert result.arms[0].verdict.outcome is Outcome.TRANSFERS
    assert "from depth 2 to 8" in result.arms[0].verdict.reasons[0]


def test_trials_that_failed_for_good_leave_the_rest_judged(study: SyntheticStudy) -> None:
    key = ("adamw-mup", 128)
    lost = {(round(x, 4), 1) for x in (study.recorded["adamw-mup"] or 0.0,)}
    rows = tuple(o for o in study.observations[key] if (o.lr_octaves, o.seed) not in lost)
    assert len(rows) == len(study.observations[key]) - 1
    curves = [study.data(arm, value) for arm, value in study.observations if (arm, value) != key]
    curves.append(CurveData(arm=key[0], axis_value=key[1], observations=rows, unavailable=lost))
    result = judge_study(
        study.spec, curves, recorded=study.recorded, study=StudyRef(id="x", name="x", state="completed"),
        cost=Cost(device_seconds=0, tokens=0, trials=0, reused=0),
    )  # fmt: skip
    assert result.arms[1].verdict.outcome is Outcome.TRANSFERS


# --- requests --------------------------------------------------------------------------------------------------------


def test_requests_come_longest_first_and_curve_by_curve() -> None:
    spec = three_arm_study()
    first = requests(spec, Phase.SEARCH, Progress())
    assert [r.axis_value for r in first] == sorted((r.axis_value for r in first), reverse=True)
    assert len(first) == len(set(first)) == 3 * 2 * 6 * 2  # arms, proxies, rates, seeds
    pending = frozenset(r for r in first if r.arm == "muon-mup")
    rest = requests(spec, Phase.SEARCH, Progress(pending=pending))
    assert {r.arm for r in rest} == {"adamw-sp", "adamw-mup"}


def test_transfer_trains_the_recorded_rate_and_verify_does_not_repeat_it() -> None:
    spec = three_arm_study()
    recorded = {"adamw-sp": None, "adamw-mup": -5.03, "muon-mup": -4.0}
    transfer = requests(spec, Phase.TRANSFER, Progress(recorded=recorded))
    assert {(r.arm, r.axis_value, r.lr_octaves) for r in transfer} == {
        ("adamw-mup", 64, -5.03), ("adamw-mup", 128, -5.03), ("muon-mup", 64, -4.0), ("muon-mup", 128, -4.0),
    }  # fmt: skip
    study = SyntheticStudy(spec, drifting_sp())
    study.recorded = dict(recorded)
    study.run_phase(Phase.TRANSFER)
    verify = requests(spec, Phase.VERIFY, study.progress())
    assert TrialRequest("adamw-mup", 128, -5.03, 0) not in verify
    assert TrialRequest("adamw-mup", 128, -6.03, 0) in verify
    assert requests(spec, Phase.VERDICT, study.progress()) == ()


# --- sweeps from elsewhere -------------------------------------------------------------------------------------------


def _csv(optimum: dict[int, float], *, step: float = 0.5, arm: str = "adam-sp") -> str:
    rng = random.Random(4)
    rows = ["arm,width,lr,seed,loss"]
    for width, best in optimum.items():
        for lr in lattice(-9, -2, step):
            for seed in (0, 1):
                loss = "" if lr > best + 2.5 else f"{2.0 + 0.06 * (lr - best) ** 2 + rng.gauss(0, 0.002):.6f}"
                rows.append(f"{arm},{width},{2.0**lr!r},{seed},{loss}")
    return "\n".join(rows) + "\n"


def test_sweeps_are_judged_with_the_largest_proxy_four_times_below_the_target() -> None:
    result = judge_csv(_csv({32: -5.0, 64: -5.4, 128: -6.0, 256: -7.0}))
    (arm,) = result.arms
    assert (arm.verdict.proxy, arm.verdict.target) == (64, 256)
    assert arm.verdict.outcome is Outcome.DRIFTS
    assert arm.parametrization.value == "sp"
    assert result.cost.trials == 4 * 15 * 2
    assert judge_csv(_csv({32: -5.0, 64: -5.4, 128: -6.0, 256: -7.0})) == result  # the id too is the content's
    steady = judge_csv(_csv({32: -5.0, 64: -5.03, 128: -5.1, 256: -4.95}, arm="mine"))
    assert steady.arms[0].verdict.outcome is Outcome.TRANSFERS
    assert judge_csv(_csv({32: -5.0, 256: -5.0}), proxy=32).arms[0].verdict.proxy == 32


def test_sweeps_at_whole_octaves_are_judged_too() -> None:
    result = judge_csv(_csv({32: -5.0, 64: -5.2, 256: -6.8}, step=1.0))
    assert result.arms[0].verdict.outcome is Outcome.DRIFTS


def test_sweeps_without_a_wide_enough_target_are_inconclusive() -> None:
    verdict = judge_csv(_csv({64: -5.0, 128: -5.0})).arms[0].verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "less than 4 times" in verdict.reasons[0]


def test_tolerances_of_sweeps_can_be_set() -> None:
    text = _csv({64: -5.0, 256: -5.5})
    assert judge_csv(text).arms[0].verdict.outcome is Outcome.DRIFTS  # 0.015 nats
    lenient = judge_csv(text, regret_tolerance_nats=0.1, drift_tolerance_octaves=2.0)
    assert lenient.arms[0].verdict.outcome is Outcome.TRANSFERS


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "line 1", "missing column arm, width, lr, seed, loss"),
        ("arm,width,lr,seed\n", "line 1", "missing column loss"),
        ("arm,width,lr,seed,loss\n", "line 2", "no trial"),
        ("arm,width,lr,seed,loss\na,64,0.1,0,2.0\na,64,zero,0,2.0\n", "line 3, column lr", "'zero' is not a learning"),
        ("arm,width,lr,seed,loss\na,64,-0.1,0,2.0\n", "line 2, column lr", "above 0"),
        ("arm,width,lr,seed,loss\na,64,nan,0,2.0\n", "line 2, column lr", "above 0"),
        ("arm,width,lr,seed,loss\na,6.4,0.1,0,2.0\n", "line 2, column width", "whole number"),
        ("arm,width,lr,seed,loss\na,64,0.1,x,2.0\n", "line 2, column seed", "whole number"),
        ("arm,width,lr,seed,loss\na,64,0.1,0,high\n", "line 2, column loss", "not a loss"),
        ("arm,width,lr,seed,loss\n,64,0.1,0,2.0\n", "line 2, column arm", "no name"),
        ("arm,width,lr,seed,loss\na,64,0.1,0,2\na,64,0.1,0,3\n", "line 3", "stand on a line above"),
        ("arm,width,lr,seed,loss\na,64,0.1,0," + "9" * 200_000, "line 2", "field larger than"),
        ("arm,width,lr,seed,loss\na,64\n", "line 2, column lr", "not a learning rate"),
    ],
)
def test_faults_in_sweeps_name_line_and_column(text: str, where: str, what: str) -> None:
    with pytest.raises(SpecError) as caught:
        judge_csv(text)
    assert (where, True) in [(p.field, what in p.message) for p in caught.value.problems]


def test_every_fault_of_a_sweep_is_found_in_one_go() -> None:
    with pytest.raises(SpecError) as caught:
        judge_csv("arm,width,lr,seed,loss\na,x,0.1,0,2\na,64,y,0,2\n")
    assert [p.field for p in caught.value.problems] == ["line 2, column width", "line 3, column lr"]


def test_a_proxy_that_was_not_swept_is_refused() -> None:
    with pytest.raises(SpecError, match="no width 48: it has 64, 256"):
        judge_csv(_csv({64: -5.0, 256: -5.0}), proxy=48)


def test_divergence_may_be_written_in_many_ways() -> None:
    rows = ["arm, width, lr, seed, loss"]
    words = ["", "nan", "inf", "diverged", "NaN"]
    rows += [f"a,64,{2.0**-i},0,{word}" for i, word in enumerate(words)]
    curve = judge_csv("\n".join(rows)).arms[0].curves[0]
    assert curve.status is CurveStatus.EMPTY
    assert sum(p.diverged for p in curve.points) == len(words)
