"""Real nights: networks train, the search asks, a mistake is planted in the code, and the first night after says so."""

from collections.abc import Mapping
from dataclasses import replace
import time

import pytest

import models.registry
from mutransfer.audit import AuditResult, judge_audit
from mutransfer.nights import FigureKind, NightData, NightTrial, Sensitivity
from mutransfer.parametrize import ModelScaling, model_scaling
from mutransfer.plan import TrialRequest
from mutransfer.regression import judge_night
from mutransfer.roles import ParameterRole
from mutransfer.spec import StudySpec
from mutransfer.trial import TrialResult, TrialSpec, trial_spec
from tests.studies import SyntheticStudy
from tests.trials import small_study, token_data
from workers.audit import audit_setting, run_audit
from workers.calibration import Calibration
from workers.train import Trainer

ARM = "adamw-mup"
DATA = token_data()


def study_spec() -> StudySpec:
    return small_study(
        model={"family": "mlp", "head_dim": None, "depth": 2}, train={"batch": 8, "steps": 30},
        widths={"base": 16, "proxy": [16], "targets": [64]}, search={"seeds": {"min": 2, "max": 2}},
    )  # fmt: skip


def night(*, audited: bool) -> NightData:
    spec = study_spec()
    results: dict[TrialRequest, TrialResult] = {}

    def answer(request: TrialRequest) -> float | None:
        trial = trial_spec(spec, spec.arms[0], request.axis_value, request.lr_octaves, request.seed)
        trainer = Trainer(trial, DATA)
        trainer.run(trainer.steps)
        results[request] = trainer.finish()
        return results[request].loss_nats

    result = SyntheticStudy(spec, answer).run()
    trials = tuple(_trial(request, found) for request, found in results.items())
    return NightData(result=result, trials=trials, audits=_audit(spec) if audited else {})


def _trial(request: TrialRequest, found: TrialResult) -> NightTrial:
    return NightTrial(
        arm=request.arm, axis_value=request.axis_value, lr_octaves=request.lr_octaves, seed=request.seed,
        loss_nats=found.loss_nats, tokens_per_second=found.tokens / found.device_seconds,
        calibration_gflops=found.calibration_gflops, device=found.device,
    )  # fmt: skip


def _audit(spec: StudySpec) -> Mapping[str, AuditResult]:
    setting = audit_setting(spec, spec.arms[0], steps=10, lr_octaves=-6.0)
    runs = run_audit(spec, setting, DATA, widths=(32, 64, 128, 256), seeds=2)
    return {ARM: judge_audit(runs, setting)}


def wrong_scaling(trial: TrialSpec, *, vocab: int) -> ModelScaling:
    """The rate of the readout is not divided by the width's ratio: what a lost `/ r_in` does."""
    right, r_width = model_scaling(trial, vocab=vocab), trial.width / trial.base_width
    wrong = tuple(
        replace(p, lr_multiplier=p.lr_multiplier * r_width) if p.info.role is ParameterRole.READOUT else p
        for p in right.parameters
    )
    return replace(right, parameters=wrong)


def test_a_wrong_multiplier_is_flagged_the_first_night_with_the_right_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, again = night(audited=True), night(audited=False)
    # Two nights on one machine repeat to the last digit; only their speeds differ, and those are another test's.
    unchanged = judge_night(again, baseline, sensitivity=Sensitivity(), past={})
    assert not [f for f in unchanged.figures if f.flagged and f.kind is not FigureKind.THROUGHPUT]
    assert all(trial.calibration_gflops for trial in baseline.trials)
    monkeypatch.setattr(models.registry, "model_scaling", wrong_scaling)
    judgement = judge_night(night(audited=True), baseline, sensitivity=Sensitivity(), past={})
    flagged = {figure.key: figure for figure in judgement.figures if figure.flagged}
    assert flagged["audit"].reason.startswith(
        f"the audit fails for {ARM}: readout.weight (the change of output goes as"
    )
    assert "2 of them an octave or more below the edge of stability" in flagged["diverged"].reason
    target = {f"optimum/{ARM}/64", f"loss/{ARM}/64", f"drift/{ARM}", f"throughput/{ARM}"}
    assert flagged.keys() <= {"audit", "diverged", *target}
    moved = {figure.key: figure.change for figure in judgement.figures}
    at_base, at_target = moved[f"optimum/{ARM}/16"], moved[f"optimum/{ARM}/64"]
    assert at_base is not None
    assert at_target is not None
    assert at_base.value == 0.0  # at base width every multiplier is 1
    assert at_target.value < -0.7


def test_calibration_measures_when_due_and_draws_no_random_numbers() -> None:
    import torch

    state = torch.get_rng_state()
    found = Calibration(torch.device("cpu"))
    assert found.gflops is None
    found.measure_when_due()
    first = found.gflops
    found.measure_when_due()  # within the second: nothing new
    assert first is not None
    assert found.gflops == first > 0.0
    with found.watching():
        time.sleep(0.05)  # off the CPU: others' time, on a machine full of them
    assert found.gflops < 0.5 * first
    assert torch.equal(torch.get_rng_state(), state)
