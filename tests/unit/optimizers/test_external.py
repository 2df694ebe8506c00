"""An optimizer of the user's own trains by its measured law, with our decay, where the operator allows it."""

import copy
from typing import Any

import pytest
import torch

from models import build
from mutransfer.errors import SpecError
from mutransfer.parametrize import model_scaling
from mutransfer.trial import TrialSpec
from optimizers import build_optimizer
from optimizers.external import Decoupled, build_external
from tests.trials import small_trial, token_data
from workers.train import Trainer

NADAM = {"optimizer": "torch.optim:NAdam", "rule": "derived", "law": (0.5, 0.5)}


def _trial(**changes: Any) -> TrialSpec:
    return small_trial(**{**NADAM, **changes})


def test_the_law_gives_the_multipliers() -> None:
    scaled = {p.info.name: p for p in model_scaling(_trial(width=64), vocab=11).parameters}
    assert scaled["blocks.0.mlp.up.weight"].lr_multiplier == 1 / 4
    assert scaled["readout.weight"].lr_multiplier == 1 / 4
    assert scaled["embedding.weight"].lr_multiplier == 1.0
    muon = {p.info.name: p for p in model_scaling(_trial(width=64, law=(0.0, 0.0)), vocab=11).parameters}
    assert muon["embedding.weight"].lr_multiplier == 2.0
    sp = model_scaling(_trial(width=64, parametrization="sp", rule="published", law=None), vocab=11)
    assert {p.lr_multiplier for p in sp.parameters} == {1.0}


def test_a_law_replaces_the_rule_of_a_builtin_optimizer_on_its_own_matrices() -> None:
    trial = small_trial(optimizer="soap", rule="derived", law=(0.5, 0.5), options={"spectral_norm": False}, width=64)
    scaled = {p.info.name: p for p in model_scaling(trial, vocab=11).parameters}
    assert scaled["blocks.0.mlp.up.weight"].lr_multiplier == 1 / 4
    assert scaled["readout.weight"].lr_multiplier == 1 / 4  # AdamW's, as ever


def test_it_trains() -> None:
    trainer = Trainer(_trial(width=32, lr_octaves=-6.0, train={"batch": 8, "steps": 40}), token_data())
    trainer.run(40)
    result = trainer.finish()
    assert result.loss_nats is not None
    assert result.initial_loss_nats is not None
    assert result.loss_nats < result.initial_loss_nats - 0.5


def test_resuming_is_bit_equal() -> None:
    whole, first, second = (Trainer(_trial(), token_data()) for _ in range(3))
    whole.run(12)
    first.run(5)
    second.load_state_dict(first.state_dict())
    second.run(7)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_decay_is_ours() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    group = {"class": "torch.optim:AdamW", "params": [weight], "names": ["w"], "lr": 0.1, "weight_decay": 0.5}
    optimizer = build_external([group])
    assert isinstance(optimizer, Decoupled)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.95))  # and not AdamW's own 0.01 besides


def test_who_may_be_named() -> None:
    trial = _trial(optimizer="pytorch_optimizer:Lion")
    built = build(trial, vocab=11)
    with pytest.raises(SpecError, match="MUTRANSFER_MODEL_PACKAGES"):
        build_optimizer(built.module.named_parameters(), built.scaling, trial)
    build_optimizer(built.module.named_parameters(), built.scaling, trial, packages=["pytorch_optimizer"])
    wrong = _trial(options={"nonsense": 1})
    scaled = model_scaling(wrong, vocab=11)
    with pytest.raises(SpecError, match="refuses"):
        build_optimizer(built.module.named_parameters(), scaled, wrong)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rule": "published", "law": None}, "arms.0.rule"),
        ({"rule": "derived", "law": None}, "arms.0.rule"),
        ({"rule": "published"}, "arms.0.law"),
        ({"optimizer": "external"}, "arms.0.optimizer"),
        ({"optimizer": "nowhere"}, "arms.0.optimizer"),
    ],
)
def test_a_study_must_say_the_law(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        _trial(**changes)
    assert caught.value.problems[0].field == field


@pytest.mark.parametrize("name", ["class", "lr", "weight_decay", "names", "norm"])
def test_options_cannot_take_over_what_the_service_sets(name: str) -> None:
    with pytest.raises(SpecError, match="set by the service"):
        _trial(options={name: "pytorch_optimizer:Lion"})


def test_lists_as_options_train() -> None:
    trial = _trial(options={"betas": [0.9, 0.95]})
    built = build(trial, vocab=11)
    optimizer = build_optimizer(built.module.named_parameters(), built.scaling, trial)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)


def test_normalised_ones_keep_decay_and_know_lookups() -> None:
    trial = _trial(options={"spectral_norm": True}, train={"weight_decay": 0.1}, width=64)
    built = build(trial, vocab=11)
    optimizer = build_optimizer(built.module.named_parameters(), built.scaling, trial)
    norms = {name: group["norm"] for group in optimizer.param_groups for name in group["names"]}
    assert (norms["embedding.weight"], norms["blocks.0.mlp.up.weight"]) == ("rms", "spectral")
    before = {name: p.detach().clone() for name, p in built.module.named_parameters()}
    for parameter in built.module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in built.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), 0.9 * before[name])


def test_a_closure_runs_once_and_before_decay() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    group = {"class": "torch.optim:SGD", "params": [weight], "names": ["w"], "lr": 0.1, "weight_decay": 0.5}
    optimizer = build_external([group])
    seen = []

    def closure() -> float:
        seen.append(weight.detach().clone())
        optimizer.zero_grad()
        (weight.sum() * 2.0).backward()
        return 1.0

    assert copy.deepcopy(optimizer).param_groups[0]["lr"] == 0.1
    optimizer.step(closure)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], torch.ones(2, 2))
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.95 - 0.2))
