"""What the optimizers' tests share: reproducible matrices, gradients and distances between trajectories."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from tests.unit.optimizers.support import normal


def matrix(shape: tuple[int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal entries on DEVICE; the same numbers in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return normal(shape, generator=generator, dtype=torch.float64).to(dtype)


def gradients_for(shape: tuple[int, int], steps: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """One gradient a step."""
    return [matrix(shape, 100 + step, dtype) for step in range(steps)]


def run(optimizer: Optimizer, parameter: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """The parameter after a step on each gradient. Gradients are copied: some oracles write into them."""
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter


def descend(optimizer: Optimizer, parameters: Sequence[Tensor], steps: int, first: int = 0) -> None:
    """Steps `first`, `first + 1`, ... on gradients that depend on the step and, weakly, on the weights."""
    for step in range(first, first + steps):
        for number, parameter in enumerate(parameters):
            noise = matrix((parameter.shape[0], parameter.shape[1]), 1000 * step + number, parameter.dtype)
            parameter.grad = noise + 0.1 * parameter.detach()
        optimizer.step()


def distance(ours: Tensor, theirs: Tensor, start: Tensor) -> float:
    """How far two end points are apart, relative to the way travelled (Frobenius norms)."""
    return float((ours - theirs).norm() / (theirs - start).norm())


Factory = Callable[[Sequence[Tensor]], Optimizer]


def check_resumes_bit_for_bit(build: Factory, shapes: Sequence[tuple[int, int]], steps: int = 13) -> None:
    """Saved after `steps` and loaded into a fresh optimizer, the run goes on as if never interrupted."""
    whole, halves = ([matrix(shape, i) for i, shape in enumerate(shapes)] for _ in range(2))
    descend(build(whole), whole, 2 * steps)
    first = build(halves)
    descend(first, halves, steps)
    second = build(halves)
    second.load_state_dict(first.state_dict())
    descend(second, halves, steps, first=steps)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
