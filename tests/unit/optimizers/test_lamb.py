"""LAMB against two packages, its plain reference, and by hand. Weights' norms stay below 10, where both clamp them."""

import importlib
import itertools
from typing import Any

import pytest
import torch

from optimizers.elementwise import Batch
from optimizers.lamb import LAMB, _adam_directions, _adam_directions_plainly, lamb_reference
from tests.unit.optimizers.support import assert_close, descend, tensors

PUBLISHED = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}


@pytest.mark.parametrize("package", ["torch_optimizer", "pytorch_optimizer"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_parity_with_packages_over_25_steps(package: str) -> None:
    """The published form: decay within the trust ratio, no bias correction."""
    ours, theirs = tensors(scale=0.1), tensors(scale=0.1)
    peer: Any = importlib.import_module(package).Lamb
    options = {"debias": False} if package == "torch_optimizer" else {"weight_decouple": False, "adam_debias": True}
    descend(LAMB(ours, **PUBLISHED, bias_correction=False, decoupled_decay=False), ours, range(25))
    descend(peer(theirs, **PUBLISHED, eps=1e-6, **options), theirs, range(25))
    assert_close(ours, theirs, tolerance=1e-6)


@pytest.mark.parametrize(
    ("bias_correction", "max_ratio", "decoupled_decay"),
    list(itertools.product([True, False], [None, 0.5], [True, False])),
)
def test_it_equals_its_reference(bias_correction: bool, max_ratio: float | None, decoupled_decay: bool) -> None:
    options: dict[str, Any] = {
        "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.3,
        "bias_correction": bias_correction, "max_ratio": max_ratio, "decoupled_decay": decoupled_decay,
    }  # fmt: skip
    (start,) = tensors([(12, 9)], dtype=torch.float64)
    given = tensors([(12, 9)] * 20, seed=3, dtype=torch.float64)
    weight = start.clone()
    optimizer = LAMB([weight], **options)
    for gradient in given:
        weight.grad = gradient
        optimizer.step()
    assert_close([weight], [lamb_reference(start, given, **options)], tolerance=1e-12)


def test_a_step_has_the_norm_of_the_weights_times_the_learning_rate() -> None:
    (weight,) = tensors([(20, 30)])
    start = weight.clone()
    weight.grad = 1e4 * torch.ones_like(weight)
    LAMB([weight], lr=0.01).step()
    assert float((weight - start).norm() / start.norm()) == pytest.approx(0.01, rel=1e-4)


def test_zero_weights_step_as_adam_does() -> None:
    """Trust ratio 1 where a norm is 0."""
    weight, adam = torch.zeros(3, 3), torch.zeros(3, 3)
    weight.grad, adam.grad = torch.ones(3, 3), torch.ones(3, 3)
    LAMB([weight], lr=0.1, eps=1e-6).step()
    torch.optim.Adam([adam], lr=0.1, eps=1e-6).step()
    torch.testing.assert_close(weight, adam)


def test_bias_correction_is_taken_out_by_the_ratio() -> None:
    """One number times u: with decoupled decay only the comparison with eps is left of it."""
    with_it, without = tensors(), tensors()
    descend(LAMB(with_it, eps=1e-12, bias_correction=True), with_it, range(5))
    descend(LAMB(without, eps=1e-12, bias_correction=False), without, range(5))
    assert_close(with_it, without, tolerance=1e-5)


@pytest.mark.parametrize("bad", [{"max_ratio": 0.0}, {"betas": (0.9, 1.0)}, {"eps": 0.0}])
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LAMB(tensors(), **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bias_correction", [True, False])
def test_the_formulas_that_are_compiled_are_the_fused_kernel(bias_correction: bool) -> None:
    """In either memory order of the gradient."""
    runs = []
    for directions_of in (_adam_directions, _adam_directions_plainly):
        (gradient,) = tensors([(6, 4)])
        states = [[torch.zeros(6, 4)], [torch.zeros(6, 4)]]
        group = {"betas": (0.9, 0.99), "eps": 1e-3, "bias_correction": bias_correction}
        batch = Batch(step=2, parameters=[torch.ones(6, 4)], gradients=[gradient.T.contiguous().T], states=states)
        runs.append([*directions_of(batch, group), *states[0], *states[1]])
    assert_close(*runs, tolerance=1e-6)
