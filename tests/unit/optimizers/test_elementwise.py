"""Slices, memory order and GPU-style batches are only ways of computing: none of them changes a result."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import Optimizer

from optimizers import elementwise
from optimizers.adopt import ADOPT
from optimizers.lamb import LAMB
from optimizers.sophia import Sophia
from tests.unit.optimizers.support import assert_close, descend, tensors

BUILDERS: dict[str, Callable[..., Optimizer]] = {
    "adopt": lambda p: ADOPT(p, lr=0.1, weight_decay=0.1),
    "lamb": lambda p: LAMB(p, lr=0.1, weight_decay=0.1),
    "sophia": lambda p: Sophia(p, lr=0.1, weight_decay=0.1),
    "sophia-h": lambda p: Sophia(p, lr=0.1, weight_decay=0.1, estimator="hutchinson"),
}
STEPS = range(3)


@pytest.fixture(params=BUILDERS)
def build(request: pytest.FixtureRequest) -> Callable[..., Optimizer]:
    return BUILDERS[request.param]


def _run(build: Callable[..., Optimizer], parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    optimizer = build(parameters)
    if isinstance(optimizer, Sophia):
        estimates = tensors([tuple(p.shape) for p in parameters], seed=8)
        optimizer.update_curvature(dict(zip(parameters, estimates, strict=True)), tokens=10)
    descend(optimizer, parameters, STEPS)
    return parameters


def test_slices_add_up_to_the_parameter(build: Callable[..., Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(10, 10), (7,), (3, 33)]
    whole = _run(build, tensors(shapes))
    monkeypatch.setattr(elementwise, "ENTRIES", 16)
    assert_close(_run(build, tensors(shapes)), whole, tolerance=1e-6)


def test_batches_as_on_a_gpu_give_the_same(build: Callable[..., Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_cpu = _run(build, tensors())
    monkeypatch.setattr(elementwise, "_on_cpu", lambda tensors: False)
    assert_close(_run(build, tensors()), as_on_a_cpu, tolerance=1e-6)


@pytest.mark.parametrize("entries", [8, 1000])
def test_memory_order_does_not_matter(
    build: Callable[..., Optimizer], entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transposed and a strided parameter, whose gradients lie in another order."""
    plain = _run(build, tensors([(6, 4), (6, 4)]))
    monkeypatch.setattr(elementwise, "ENTRIES", entries)
    transposed, strided = tensors([(6, 4), (6, 4)])
    transposed = transposed.mT.contiguous().mT
    strided = torch.zeros(6, 8)[:, ::2].copy_(strided)
    assert_close(_run(build, [transposed, strided]), plain, tolerance=1e-6)


def test_sparse_and_complex_are_refused(build: Callable[..., Optimizer]) -> None:
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse=False"):
        build(embedding.parameters()).step()
    with pytest.raises(ValueError, match="complex"):
        build([torch.zeros(2, dtype=torch.complex64)])


def test_a_refused_group_is_not_kept() -> None:
    optimizer = ADOPT([torch.zeros(2)])
    with pytest.raises(ValueError, match="eps must be > 0, got 0"):
        optimizer.add_param_group({"params": [torch.zeros(2)], "eps": 0.0})
    assert len(optimizer.param_groups) == 1
