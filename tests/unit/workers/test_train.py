"""The training loop: parametrizations that meet at base width, exact resumption, clipping, decay, divergence."""

import io
import math
from typing import Any

import pytest
import torch

from mutransfer.algorithms import OPTIONS
from mutransfer.trial import TrialResult, TrialSpec, TrialStatus
from tests.trials import small_trial, token_data
from workers.divergence import DivergenceMonitor
from workers.schedule import schedule_factor
from workers.train import Trainer

OPTIMIZERS = list(OPTIONS)
#: Every optimizer, and what changes how one is built: blocks, grafts, normalisation, a class and a law of one's own.
VARIANTS: dict[str, dict[str, Any]] = {
    **{name.value: {"optimizer": name} for name in OPTIONS},
    "lamb published": {"optimizer": "lamb", "rule": "published"},
    "sophia hutchinson": {"optimizer": "sophia", "options": {"estimator": "hutchinson", "every": 3}},
    "shampoo blocks": {"optimizer": "shampoo", "options": {"block_size": 8, "every": 3}},
    "shampoo one-sided": {"optimizer": "shampoo", "options": {"max_preconditioner_dim": 40, "graft": "adam"}},
    "soap derived": {
        "optimizer": "soap", "rule": "derived", "options": {"block_size": 8, "every": 3, "spectral_norm": False},
    },
    "muon normalised": {"optimizer": "muon", "options": {"spectral_norm": True, "coefficients": "polar_express"}},
    "adamw normalised": {"optimizer": "adamw", "options": {"spectral_norm": True}},
    "own": {"optimizer": "torch.optim:NAdam", "rule": "derived", "law": (0.5, 0.5)},
    "own normalised": {
        "optimizer": "torch.optim:RAdam", "rule": "derived", "law": (0.5, 0.5), "options": {"spectral_norm": True},
    },
}  # fmt: skip


def _finish(trial: TrialSpec) -> tuple[Trainer, TrialResult]:
    trainer = Trainer(trial, token_data())
    while not trainer.done:
        trainer.run(5)
    return trainer, trainer.finish()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_the_sp_run_at_base_width(variant: str) -> None:
    settings = {**VARIANTS[variant], "lr_octaves": -5.0, "train": {"weight_decay": 0.01}}
    # A law is a rule of μP: with an optimizer of one's own SP has none to give.
    sp = {**settings, "rule": "published", "law": None} if variant.startswith("own") else settings
    runs = [_finish(small_trial(**given, parametrization=p))[1] for p, given in (("sp", sp), ("mup", settings))]
    assert runs[0].history == runs[1].history
    assert runs[0].loss_nats == runs[1].loss_nats


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [1, 7])
def test_every_variant_resumes_bit_equal(variant: str, stop: int) -> None:
    _resumes(small_trial(**VARIANTS[variant], lr_octaves=-5.0), stop)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("readout", ["zero", "inverse_width", "multiplier"])
@pytest.mark.parametrize(
    "model",
    [{}, {"head_dim": None, "heads": 2}, {"norm_gain": True}, {"family": "llama", "queries_per_kv": 2}],
    ids=str,
)
def test_mup_equals_sp_bit_for_bit_at_base_width(optimizer: str, readout: str, model: dict[str, object]) -> None:
    changes = {"model": {**model, "init": {"readout": readout}}, "train": {"weight_decay": 0.01}}
    runs = [
        _finish(small_trial(optimizer=optimizer, parametrization=p, lr_octaves=-4.0, **changes)) for p in ("sp", "mup")
    ]
    (sp, sp_result), (mup, mup_result) = runs
    assert sp_result.loss_nats == mup_result.loss_nats
    assert sp_result.history == mup_result.history
    ours, theirs = sp.model.state_dict(), mup.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_mup_is_another_run_than_sp_above_base_width(optimizer: str) -> None:
    losses = [
        _finish(small_trial(optimizer=optimizer, parametrization=p, width=64, lr_octaves=-4.0))[1].loss_nats
        for p in ("sp", "mup")
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_readout_by_init_and_by_multiplier_are_one_run(optimizer: str) -> None:
    """Forms (b) and (c) differ by an exact change of variables: LR, ε, decay and clip weight must all follow it."""
    runs = []
    for readout in ("inverse_width", "multiplier"):
        trial = small_trial(
            optimizer=optimizer, width=64, lr_octaves=-5.0,
            model={"init": {"readout": readout}}, train={"clip": 0.5, "weight_decay": 0.02},
        )  # fmt: skip
        runs.append([p.train_loss_nats for p in _finish(trial)[1].history])
    assert runs[0] == pytest.approx(runs[1], abs=2e-5)


def _resumes(trial: TrialSpec, stop: int) -> None:
    whole = Trainer(trial, token_data())
    whole.run(stop)
    stream = io.BytesIO()  # the state must survive a file read with weights_only
    torch.save(whole.state_dict(), stream)
    stream.seek(0)
    resumed = Trainer(trial, token_data())
    resumed.load_state_dict(torch.load(stream, weights_only=True))
    for trainer in (whole, resumed):
        trainer.run(100)
    a, b = whole.finish(), resumed.finish()
    assert (a.loss_nats, a.history) == (b.loss_nats, b.history)
    assert b.resumed_from_step == stop
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_learns() -> None:
    _, result = _finish(small_trial(width=32, lr_octaves=-5.0, train={"steps": 80}))
    assert result.initial_loss_nats == pytest.approx(math.log(11), abs=1e-4)  # a zero readout guesses uniformly
    assert result.loss_nats is not None
    assert result.loss_nats < 1.2
    assert (result.steps, result.tokens) == (80, 80 * 4 * 16)


def test_tokens_per_parameter_sets_the_horizon() -> None:
    train = {"steps": None, "tokens_per_parameter": 0.5}
    trainer = Trainer(small_trial(train=train), token_data())
    assert trainer.steps == round(0.5 * trainer.parameters / (4 * 16))


def test_weight_decay_follows_the_schedule_and_not_the_learning_rate() -> None:
    """Rates so small that only decay moves the weights: what is left is the product of 1 - s_t λ."""
    train = {"weight_decay": 0.1, "steps": 5, "warmup": 0.0, "schedule": "linear"}
    trainer = Trainer(small_trial(lr_octaves=-60.0, train=train), token_data())
    before = trainer.model.get_parameter("embedding.weight").detach().clone()
    trainer.run(5)
    left = math.prod(1.0 - 0.1 * s for s in (1.0, 0.8, 0.6, 0.4, 0.2))
    torch.testing.assert_close(trainer.model.get_parameter("embedding.weight").detach(), before * left)


def test_clipping_weighs_each_gradient() -> None:
    trainer = Trainer(small_trial(width=64), token_data())
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    readout = trainer.model.get_parameter("readout.weight")
    assert readout.grad is not None
    readout.grad[0, 0] = 10.0  # weight sqrt(1 / 4): a norm of 5 in the sum
    trainer._clip(1.0)
    assert readout.grad[0, 0].item() == pytest.approx(2.0)
    trainer._clip(1.0)
    assert readout.grad[0, 0].item() == pytest.approx(2.0)  # already at the limit: untouched


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_huge_rate_is_a_diverged_result(optimizer: str) -> None:
    trial = small_trial(optimizer=optimizer, lr_octaves=30.0, train={"steps": 60, "clip": None})
    _, result = _finish(trial)
    assert result.status is TrialStatus.DIVERGED
    assert result.loss_nats is None
    assert result.reason


def test_divergence_stops_at_the_first_non_finite_loss() -> None:
    trainer = Trainer(small_trial(), token_data())
    with torch.no_grad():
        trainer.model.get_parameter("readout.weight").fill_(math.nan)
    assert trainer.run(10).train_loss_nats is None
    assert (trainer.done, trainer.step_index) == (True, 1)
    assert "nan at step 0" in trainer.finish().reason


def test_monitor_waits_for_warmup_and_smooths() -> None:
    monitor = DivergenceMonitor(vocab=11, warmup_steps=20)
    limit = math.log(11) + 0.5
    assert [monitor.check(step, limit + 1.0 if step else 1.0) for step in range(20)] == [""] * 20
    assert "rose above" in monitor.check(20, limit + 1.0)
    assert DivergenceMonitor(vocab=11, warmup_steps=0).check_final(2.5)
    assert not DivergenceMonitor(vocab=11, warmup_steps=0).check_final(2.3)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("wsd", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1 / 2]),
    ],
)
def test_schedules_by_hand(schedule: str, expected: list[float]) -> None:
    train = small_trial(train={"steps": 10, "warmup": 0.2, "schedule": schedule}).train
    assert [schedule_factor(train, step=step, steps=10) for step in range(10)] == pytest.approx(expected)


def test_cosine_is_half_way_down_in_the_middle() -> None:
    train = small_trial(train={"steps": 10, "warmup": 0.0, "schedule": "cosine"}).train
    assert schedule_factor(train, step=5, steps=10) == pytest.approx(0.5)
    assert schedule_factor(train, step=0, steps=10) == 1.0
