"""Sophia's curvature estimates: unbiased by hand, reproducible, silent for everyone else; and training with them."""

from collections.abc import Callable
import io
from typing import Any

import pytest
import torch
from torch import Tensor
import torch.nn.functional as F

from mutransfer.errors import SpecError
from optimizers import curvature
from optimizers.composite import Composite
from optimizers.curvature import CurvatureBatch, gnb_gradients, hutchinson_products, sample_labels, sophias
from optimizers.sophia import Sophia
from tests.trials import small_trial, token_data
from workers.train import Trainer

ESTIMATORS = ["gnb", "hutchinson"]
MLP = {"family": "mlp", "head_dim": None}
PROBABILITIES = torch.tensor([0.5, 0.2, 0.0, 0.3])


def _batch(logits: Callable[[Tensor], Tensor], y_BT: Tensor, *, step: int = 0, x_BT: Tensor | None = None) -> Any:
    return CurvatureBatch(logits=logits, x_BT=y_BT if x_BT is None else x_BT, y_BT=y_BT, seed=3, step=step)


def _bias_only(bias_V: Tensor) -> Callable[[Tensor], Tensor]:
    """A model whose logits are its bias: its Gauss-Newton matrix and Hessian are both diag(p) - p p^T."""
    return lambda x_BT: bias_V.expand(*x_BT.shape, -1)


def _trainer(estimator: str, model: dict[str, Any]) -> Trainer:
    options = {"estimator": estimator, "every": 4}
    return Trainer(small_trial(optimizer="sophia", options=options, model=model), token_data())


def test_labels_follow_the_models_distribution() -> None:
    logits_NV = PROBABILITIES.log().expand(20_000, -1)
    labels_N = sample_labels(logits_NV, torch.Generator().manual_seed(0))
    torch.testing.assert_close(labels_N.bincount(minlength=4) / 20_000, PROBABILITIES, atol=0.015, rtol=0.0)
    assert 2 not in labels_N
    assert torch.equal(labels_N, sample_labels(logits_NV, torch.Generator().manual_seed(0)))


def test_an_impossible_label_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by the smallest and the largest random number there is."""
    for number, expected in ((0.0, 1), (1.0 - 2**-24, 3)):
        monkeypatch.setattr(torch, "rand", lambda *shape, generator, device, number=number: torch.full(shape, number))
        logits_NV = torch.tensor([[0.0, 0.4, 0.2, 0.4, 0.0]]).log()
        assert sample_labels(logits_NV, torch.Generator()).item() == expected


def test_gnb_times_tokens_is_the_gauss_newton_diagonal_in_the_mean() -> None:
    bias_V = torch.tensor([0.4, -0.3, 0.9], requires_grad=True)
    p_V = bias_V.detach().softmax(-1)
    y_BT = torch.zeros(2, 8, dtype=torch.int64)
    squares = [gnb_gradients([bias_V], _batch(_bias_only(bias_V), y_BT, step=s))[0] ** 2 for s in range(1500)]
    torch.testing.assert_close(16 * torch.stack(squares).mean(0), p_V * (1 - p_V), rtol=0.15, atol=0.0)


def test_hutchinson_is_z_times_hz_by_hand() -> None:
    bias_V = torch.tensor([0.4, -0.3, 0.9], requires_grad=True)
    p_V = bias_V.detach().softmax(-1)
    hessian_VV = torch.diag(p_V) - torch.outer(p_V, p_V)
    y_BT = torch.tensor([[0, 1], [2, 2]])
    seen = set()
    for step in range(30):
        (product_V,) = hutchinson_products([bias_V], _batch(_bias_only(bias_V), y_BT, step=step))
        signs = [torch.tensor(z) for z in ([1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0])]
        matches = [k for k, z in enumerate(signs) if torch.allclose(product_V, z * (hessian_VV @ z), atol=1e-6)]
        assert len(matches) == 1
        seen.update(matches)
    assert seen == {0, 1, 2, 3}


def test_hutchinson_on_a_decoder_is_the_change_of_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """H z against a finite difference along z."""
    trainer = Trainer(small_trial(model={"init": {"readout": "inverse_width"}}), token_data())
    parameters = list(trainer.model.parameters())
    x_BT, y_BT = (torch.from_numpy(a) for a in trainer.data.batch(0, 0, batch=4, context=16))
    generator = torch.Generator().manual_seed(5)
    signs = [curvature._signs(p, generator) for p in parameters]
    given = iter(signs)
    monkeypatch.setattr(curvature, "_signs", lambda parameter, generator: next(given))
    products = hutchinson_products(parameters, _batch(trainer.model, y_BT, x_BT=x_BT))

    def gradients(shift: float) -> list[Tensor]:
        moved = {n: p + shift * z for (n, p), z in zip(trainer.model.named_parameters(), signs, strict=True)}
        logits = torch.func.functional_call(trainer.model, moved, (x_BT,))
        loss = F.cross_entropy(logits.flatten(0, 1), y_BT.flatten())
        return list(torch.autograd.grad(loss, parameters))

    for up, down, z, product in zip(gradients(1e-3), gradients(-1e-3), signs, products, strict=True):
        change = (up - down) / 2e-3
        assert (z * product - change).norm() < 0.02 * change.norm()


@pytest.mark.parametrize(("estimator", "family"), [("gnb", {}), ("gnb", MLP), ("hutchinson", {})], ids=str)
def test_it_learns_and_training_gradients_are_not_disturbed(
    estimator: str, family: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(estimator, {**family, "init": {"readout": "inverse_width"}})
    before, after = [], []
    inner = trainer._update_curvature

    def spied(x_BT: Tensor, y_BT: Tensor) -> None:
        before.append([p.grad.clone() for p in trainer.model.parameters() if p.grad is not None])
        inner(x_BT, y_BT)
        after.append([p.grad for p in trainer.model.parameters() if p.grad is not None])
        assert all(torch.equal(a, b) for a, b in zip(before[-1], after[-1], strict=True))

    monkeypatch.setattr(trainer, "_update_curvature", spied)
    trainer.run(12)
    result = trainer.finish()
    assert len(before) == 12
    assert result.loss_nats is not None
    assert result.initial_loss_nats is not None
    assert result.loss_nats < result.initial_loss_nats
    hessians = [trainer.optimizer.state[p]["hessian"] for p in trainer.model.parameters()]
    assert all(h.abs().sum() > 0 and torch.isfinite(h).all() for h in hessians)
    assert trainer.optimizer.param_groups[0]["tokens"] == 4 * 16


def test_a_model_without_second_derivative_is_refused_by_hutchinson() -> None:
    """The MLP's embedding bag has none."""
    with pytest.raises(SpecError, match=r"arms.options.estimator: .* use the estimator gnb \(.*_embedding_bag"):
        _trainer("hutchinson", MLP).run(1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_resumed_run_ends_bit_equal(estimator: str, stop: int) -> None:
    """Stopped before, at and after the step at which curvature is due."""
    whole = _trainer(estimator, {})
    whole.run(stop)
    stream = io.BytesIO()
    torch.save(whole.state_dict(), stream)
    stream.seek(0)
    resumed = _trainer(estimator, {})
    resumed.load_state_dict(torch.load(stream, weights_only=True))
    for trainer in (whole, resumed):
        trainer.run(100)
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_draws_depend_on_seed_and_step_alone() -> None:
    def draw(seed: int, step: int) -> float:
        empty = torch.zeros(1, 1)
        batch = CurvatureBatch(logits=lambda x: x, x_BT=empty, y_BT=empty, seed=seed, step=step)
        return float(torch.rand(1, generator=batch.generator(), device="cpu"))

    assert draw(1, 2) == draw(1, 2)
    assert len({draw(1, 2), draw(1, 3), draw(2, 2), draw(2, 1)}) == 4


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_two_sophias_share_one_computation(estimator: str) -> None:
    """As in a composite: what each gets is what one optimizer over all parameters gets."""
    trainer = Trainer(small_trial(model={"init": {"readout": "inverse_width"}}), token_data())
    x_BT, y_BT = (torch.from_numpy(a) for a in trainer.data.batch(0, 0, batch=4, context=16))
    parameters, calls = list(trainer.model.parameters()), list[int]()

    def logits(ids_BT: Tensor) -> Tensor:
        calls.append(1)
        out: Tensor = trainer.model(ids_BT)
        return out

    one = Sophia(parameters, estimator=estimator)
    two = [Sophia(parameters[:3], estimator=estimator), Sophia(parameters[3:], estimator=estimator)]
    for optimizers in ([one], two):
        curvature.update_curvature(optimizers, _batch(logits, y_BT, x_BT=x_BT))
        curvature.update_curvature(optimizers, _batch(logits, y_BT, x_BT=x_BT))  # not due again: no computation
    assert len(calls) == 2
    shared = {**two[0].state, **two[1].state}
    assert all(torch.equal(one.state[p]["hessian"], shared[p]["hessian"]) for p in parameters)


def test_sophia_is_found_within_composites_and_wrappers_and_nowhere_else() -> None:
    one, two = torch.zeros(2), torch.zeros(2)
    sophia = Sophia([one])
    assert sophias(Composite([torch.optim.AdamW([two]), sophia])) == (sophia,)
    assert sophias(sophia) == (sophia,)
    wrapped = torch.optim.SGD([torch.zeros(2)])
    wrapped.child = sophia  # type: ignore[attr-defined]
    assert sophias(Composite([wrapped])) == (sophia,)
    assert sophias(torch.optim.AdamW([two])) == ()
    assert Trainer(small_trial(), token_data())._sophias == ()
