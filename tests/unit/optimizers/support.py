"""What the optimizer tests share: a list of shapes, reproducible gradients, and a run over them.

`TEST_DEVICE=cuda pytest tests/unit/optimizers` runs them on a GPU.
"""

from collections.abc import Callable, Sequence
import os
from typing import Any

import torch
from torch import Tensor

DEVICE = os.environ.get("TEST_DEVICE", "cpu")
if DEVICE != "cpu":
    torch.set_default_device(DEVICE)
SHAPES = ((16, 16), (48, 16), (16, 48), (5, 3), (7,), (2, 3, 4))


def normal(*shape: Any, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """torch.randn from a CPU generator, on DEVICE."""
    return torch.randn(*shape, generator=generator, dtype=dtype, device="cpu").to(DEVICE)


def tensors(
    shapes: Sequence[tuple[int, ...]] = SHAPES, *, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Normal random tensors on DEVICE, the same numbers in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return [(scale * normal(shape, generator=generator, dtype=torch.float64)).to(dtype) for shape in shapes]


def gradients(parameters: Sequence[Tensor], step: int) -> list[Tensor]:
    """Gradients that depend on the parameters, as real ones do, with noise of their own for each step."""
    shapes = [tuple(p.shape) for p in parameters]
    noise = tensors(shapes, seed=1000 + step, dtype=parameters[0].dtype)
    return [n + p.detach() for n, p in zip(noise, parameters, strict=True)]


def descend(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    steps: Sequence[int],
    *,
    sign: float = 1.0,
    before: Callable[[int], None] = lambda step: None,
) -> None:
    """Take the given steps; `before(step)` runs before each step's gradients are set."""
    for step in steps:
        before(step)
        for parameter, gradient in zip(parameters, gradients(parameters, step), strict=True):
            parameter.grad = sign * gradient
        optimizer.step()


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], *, tolerance: float) -> None:
    """Every pair agrees to `tolerance`, relative to its largest entry."""
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max(), (tuple(a.shape), float((a - b).abs().max()))
