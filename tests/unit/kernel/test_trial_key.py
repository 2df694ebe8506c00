"""What a content key may and may not depend on."""

import pytest

from mutransfer.trial import Environment, TrialSpec, trial_key
from tests.trials import small_trial

HERE = Environment(data_fingerprint="d", code_digest="c", torch_version="2.13.0", device_type="cpu")


def _key(trial: TrialSpec) -> str:
    return trial_key(trial, HERE)


def test_names_and_spelled_out_defaults_do_not_matter() -> None:
    trial = small_trial()
    renamed = trial.model_copy(update={"arm": trial.arm.model_copy(update={"name": "other"})})
    assert _key(renamed) == _key(trial)
    assert _key(small_trial(options={"eps": 1e-8})) == _key(trial)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_octaves": -6.5},
        {"seed": 1},
        {"width": 64},
        {"optimizer": "muon"},
        {"options": {"eps": 1e-9}},
        {"train": {"steps": 13}},
        {"model": {"qk_norm": True}},
        {"eval": {"tokens": 512}},
        {"data": {"tokenizer": "bytes"}},
    ],
    ids=str,
)
def test_what_changes_the_run_changes_the_key(changes: dict[str, object]) -> None:
    assert _key(small_trial(**changes)) != _key(small_trial())  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["data_fingerprint", "code_digest", "torch_version", "device_type", "nonce"])
def test_the_environment_is_part_of_the_key(field: str) -> None:
    elsewhere = HERE.model_copy(update={field: "other"})
    assert trial_key(small_trial(), elsewhere) != _key(small_trial())


def test_mup_at_base_width_is_the_sp_run_and_only_there() -> None:
    assert _key(small_trial(parametrization="mup")) == _key(small_trial(parametrization="sp"))
    assert _key(small_trial(parametrization="mup", width=64)) != _key(small_trial(parametrization="sp", width=64))


def test_sp_does_not_know_its_base_and_mup_does() -> None:
    other_base = {"widths": {"base": 32, "proxy": [16], "targets": [64]}}
    assert _key(small_trial(parametrization="sp", width=64, **other_base)) == _key(
        small_trial(parametrization="sp", width=64)
    )
    assert _key(small_trial(width=64, **other_base)) != _key(small_trial(width=64))
