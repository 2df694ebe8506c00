"""The audit of real models: μP passes, SP fails, and a planted mistake is found in the layer where it was planted."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner
import yaml

import models.registry
from mutransfer.audit import AuditResult, Check, Quantity, judge_audit, suspects
from mutransfer.errors import SpecError
from mutransfer.parametrize import ModelScaling, ParameterScaling, model_scaling
from mutransfer.roles import ParameterRole
from mutransfer.spec import Parametrization, StudySpec
from mutransfer.trial import TrialSpec
from tests.trials import SMALL, merged, small_study, token_data
from workers.audit import audit_run, audit_setting, audit_trial, run_audit
from workers.cli import register
from workers.cli_audit import parse_widths
from workers.train import Trainer

MLP = {"family": "mlp", "head_dim": None, "depth": 2}
RATES = {
    "adamw": -6.0, "sgd": -4.0, "muon": -5.0,
    "adopt": -7.0, "lamb": -7.0, "sophia": -9.0, "shampoo": -6.0, "soap": -7.0,
}  # fmt: skip


def _study(optimizer: str = "adamw", parametrization: str = "mup", *, base: int = 64, **changes: Any) -> StudySpec:
    arms = [{"optimizer": optimizer, "parametrization": parametrization}]
    widths = {"base": base, "proxy": [base], "targets": [8 * base]}
    return small_study(**merged({"model": MLP, "train": {"batch": 8}, "arms": arms, "widths": widths}, changes))


def _audited(study: StudySpec, *, widths: tuple[int, ...], seeds: int) -> AuditResult:
    rate = RATES[study.arms[0].optimizer.value]
    setting = audit_setting(study, study.arms[0], steps=10, lr_octaves=rate)
    return judge_audit(run_audit(study, setting, token_data(), widths=widths, seeds=seeds), setting)


@pytest.mark.parametrize(
    ("optimizer", "drifts"),
    [("adamw", "layers.0.weight"), ("sgd", "embedding.weight"), ("muon", "readout.weight")],  # rule: r_in, r_out, r_in
)
def test_mup_passes_and_sp_fails_where_they_differ(optimizer: str, drifts: str) -> None:
    widths = (64, 128, 256, 512)
    mup = _audited(_study(optimizer), widths=widths, seeds=2)
    assert mup.check is Check.PASS, [(layer.name, layer.exponents) for layer in mup.layers if layer.check != "pass"]
    sp = _audited(_study(optimizer, "sp"), widths=widths, seeds=1)
    assert sp.check is Check.FAIL
    assert drifts in [layer.name for layer in sp.layers if layer.check is Check.FAIL]


@pytest.mark.parametrize(
    ("optimizer", "drifts", "quantity"),
    [
        ("adopt", "layers.0.weight", Quantity.UPDATE),
        ("lamb", "layers.0.weight", Quantity.UPDATE),
        ("sophia", "layers.0.weight", Quantity.UPDATE),
        ("shampoo", "readout.weight", Quantity.OUTPUT_CHANGE),
        ("soap", "readout.weight", Quantity.WEIGHT),  # normalised matrices need no rule: the readout's size is left
    ],
)
def test_every_other_optimizer_as_shipped_keeps_its_matrices_under_mup_and_drifts_under_sp(
    optimizer: str, drifts: str, quantity: Quantity
) -> None:
    """Behind a readout of 1/width the logits' exponent is one of finite width (docs/findings.md)."""
    widths = (64, 128, 256, 512)
    mup = _audited(_study(optimizer), widths=widths, seeds=2)
    assert [layer.name for layer in mup.layers[:-1] if layer.check is not Check.PASS] == []
    assert mup.layers[-1].check is not Check.FAIL
    sp = _audited(_study(optimizer, "sp"), widths=widths, seeds=2)
    found = next(layer for layer in sp.layers if layer.name == drifts).exponents
    assert next(exponent.check for exponent in found if exponent.quantity is quantity) is Check.FAIL


Plant = Callable[[ParameterScaling, float], ParameterScaling]


def _hidden_rate_not_divided(scaled: ParameterScaling, r_width: float) -> ParameterScaling:
    wrong = scaled.info.name == "layers.0.weight"
    return replace(scaled, lr_multiplier=scaled.lr_multiplier * r_width) if wrong else scaled


def _readout_shrunk_twice(scaled: ParameterScaling, r_width: float) -> ParameterScaling:
    """Initialised as `1/d_in` *and* multiplied by `1/r_in`."""
    wrong = scaled.info.role is ParameterRole.READOUT
    return replace(scaled, init_std=scaled.init_std / r_width) if wrong else scaled


def _readout_rate_of_order_one(scaled: ParameterScaling, r_width: float) -> ParameterScaling:
    wrong = scaled.info.role is ParameterRole.READOUT
    return replace(scaled, lr_multiplier=scaled.lr_multiplier * r_width) if wrong else scaled


def _embedding_rate_falls(scaled: ParameterScaling, r_width: float) -> ParameterScaling:
    wrong = scaled.info.role is ParameterRole.EMBEDDING
    return replace(scaled, lr_multiplier=scaled.lr_multiplier / r_width) if wrong else scaled


@pytest.mark.parametrize(
    ("plant", "readout", "layer", "quantity", "power"),
    [
        (_hidden_rate_not_divided, "zero", "layers.0.weight", "update", 1.0),
        (_readout_shrunk_twice, "multiplier", "readout.weight", "weight", -1.0),
        (_readout_rate_of_order_one, "zero", "readout.weight", "output_change", 1.0),
        (_embedding_rate_falls, "zero", "embedding.weight", "update", -1.0),
    ],
)
def test_a_planted_mistake_is_found_where_it_is(
    monkeypatch: pytest.MonkeyPatch, plant: Plant, readout: str, layer: str, quantity: str, power: float
) -> None:
    result = _audited_with(plant, monkeypatch, optimizer="adamw", readout=readout)
    assert result.check is Check.FAIL
    assert suspects(result) == (layer,)
    exponents = next(found for found in result.layers if found.name == layer).exponents
    measured = next(exponent.measured for exponent in exponents if exponent.quantity.value == quantity)
    assert measured is not None
    assert measured.value == pytest.approx(power, abs=0.25)


@pytest.mark.parametrize("optimizer", sorted(RATES.keys() - {"adamw"}))
def test_a_rate_that_does_not_fall_with_width_is_found_in_its_layer(
    monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    readout = "inverse_width" if optimizer == "lamb" else "zero"  # LAMB cannot leave zero
    result = _audited_with(_hidden_rate_not_divided, monkeypatch, optimizer=optimizer, readout=readout)
    assert result.check is Check.FAIL
    assert suspects(result) == ("layers.0.weight",)
    exponents = next(found for found in result.layers if found.name == "layers.0.weight").exponents
    failing = {exponent.quantity for exponent in exponents if exponent.check is Check.FAIL}
    assert failing == {Quantity.UPDATE, Quantity.OUTPUT_CHANGE}


def _audited_with(plant: Plant, monkeypatch: pytest.MonkeyPatch, *, optimizer: str, readout: str) -> AuditResult:
    """The audit of a μP arm whose code makes the mistake."""

    def wrong(trial: TrialSpec, *, vocab: int) -> ModelScaling:
        right, r_width = model_scaling(trial, vocab=vocab), trial.width / trial.base_width
        return replace(right, parameters=tuple(plant(scaled, r_width) for scaled in right.parameters))

    monkeypatch.setattr(models.registry, "model_scaling", wrong)
    study = _study(optimizer, base=32, model={"init": {"readout": readout}})
    return _audited(study, widths=(32, 64, 128, 256), seeds=2)


def test_probing_does_not_touch_the_training() -> None:
    study = _study(model={"init": {"readout": "inverse_width"}})
    setting = audit_setting(study, study.arms[0], steps=4)
    probed, plain = (Trainer(audit_trial(study, setting, width=64, seed=1), token_data()) for _ in range(2))
    audit_run(probed, steps=4)
    plain.run(4)
    ours, theirs = probed.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_rising_loss_does_not_end_a_run() -> None:
    study = _study(parametrization="sp")
    setting = audit_setting(study, study.arms[0], steps=14, lr_octaves=2.0)
    trainer = Trainer(audit_trial(study, setting, width=64, seed=0), token_data())
    run = audit_run(trainer, steps=14)
    updates = run.layers[-1].update
    assert trainer.reason == ""
    assert len(set(updates)) == len(updates) == 15


def test_steps_are_counted_from_when_everything_has_moved() -> None:
    def steps(readout: str) -> int:
        study = _study(model={"init": {"readout": readout}})
        setting = audit_setting(study, study.arms[0], steps=3)
        run = audit_run(Trainer(audit_trial(study, setting, width=64, seed=0), token_data()), steps=3)
        return len(run.layers[0].update)

    assert (steps("inverse_width"), steps("zero")) == (3, 4)


def test_the_audited_trial_is_the_studys_at_a_constant_rate() -> None:
    study = _study(train={"steps": None, "tokens_per_parameter": 20, "weight_decay": 0.1, "clip": 0.7})
    trial = audit_trial(study, audit_setting(study, study.arms[0], steps=8), width=128, seed=1)
    assert (trial.width, trial.base_width, trial.seed, trial.depth) == (128, 64, 1, 2)
    assert (trial.train.schedule, trial.train.warmup, trial.train.clip) == ("constant", 0.0, 0.7)
    assert trial.train.kappa == 1.0  # as in the compute-optimal study, though the audit counts steps
    assert trial.lr_octaves == -8.0 + 5.0 / 4  # a quarter up the grid from -8 to -3


def test_widths_unless_given_are_the_studys_or_doublings_of_its_base() -> None:
    assert _study(widths={"proxy": [64, 128], "targets": [256]}).default_audit_widths == (64, 128, 256)
    assert _study().default_audit_widths == (64, 128, 256, 512)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUTRANSFER_HOME", str(tmp_path / "home"))
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 300)
    path = tmp_path / "study.yaml"
    document = merged(SMALL, {"model": {**MLP, "context": 8}, "data": {"source": "text:text.txt"}})
    arms = [{"optimizer": "adamw", "parametrization": p} for p in ("mup", "sp")]
    path.write_text(yaml.safe_dump({**document, "arms": arms, "train": {"batch": 8, "steps": 10}}))
    return path


def _invoke(*arguments: str) -> Any:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["audit", *arguments])


def test_the_command_prints_a_row_a_layer_and_sp_may_fail(study_file: Path) -> None:
    found = _invoke(str(study_file), "--widths", "16,64,256", "--arm", "adamw-sp", "--seeds", "1")
    assert found.exit_code == 0, found.output
    for name in ("embedding.weight", "layers.0.weight", "layers.1.weight", "readout.weight"):
        assert name in found.output
    assert "fail: layers.0.weight" in found.output


def test_the_command_exits_1_when_a_mup_arm_fails(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unscaled(trial: TrialSpec, *, vocab: int) -> ModelScaling:
        arm = trial.arm.model_copy(update={"parametrization": Parametrization.SP})
        return model_scaling(trial.model_copy(update={"arm": arm}), vocab=vocab)

    monkeypatch.setattr(models.registry, "model_scaling", unscaled)
    found = _invoke(str(study_file), "--widths", "16,64,256", "--json")
    assert found.exit_code == 1
    result = AuditResult.model_validate(json.loads(found.stdout))
    assert (result.check, result.widths, result.arm.name) == (Check.FAIL, (16, 64, 256), "adamw-mup")


@pytest.mark.parametrize("text", ["32,64", "32,64,x", "0,32,64", "32,32,64"])
def test_bad_widths_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--widths"):
        parse_widths(text)


def test_an_unknown_arm_and_impossible_widths_name_the_field(study_file: Path) -> None:
    assert "--arm" in str(_invoke(str(study_file), "--arm", "nobody").exception)
    study_file.write_text(yaml.safe_dump(SMALL))  # heads of size 8
    assert "width 20 is not divisible" in str(_invoke(str(study_file), "--widths", "16,20,32").exception)
