"""Muon: momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

For each matrix with gradient `G`, momentum `mu` and learning rate `lr`:

    M <- mu M + (1 - mu) G                        (an EMA, as torch.optim.Muon)
    N  = (1 - mu) G + mu M   with Nesterov, else M
    O  = newton_schulz(N)                          singular values near 1, singular vectors kept
    W <- (1 - lr wd) W - lr * factor(shape) * O

`newton_schulz` applies odd quintics `p(x) = a x + b x^3 + c x^5` to the singular values: one quintic over and over
(Jordan), or Polar Express (Amsel et al. 2025, arXiv 2505.16932), each the best for what the one before has left.
`factor` is one of `mutransfer.scaling.muon_factor`. Every parameter must be a matrix; embeddings, readout and vectors
train by another algorithm beside it (optimizers.composite).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mutransfer.algorithms import MuonScale
from mutransfer.scaling import muon_factor
from optimizers.base import CheckedOptimizer, Closure, evaluate
from optimizers.blocks import is_better_alone

#: The quintic of Jordan et al.: steepest at zero, singular values end in about [0.7, 1.2] after five steps.
QUINTIC = (3.4445, -4.7750, 2.0315)

#: Optimal one after the other; singular values from 1e-3 of the Frobenius norm up end in [0.84, 1.15].
POLAR_EXPRESS = (
    (8.1566, -22.4833, 15.8788),
    (4.0429, -2.8089, 0.5000),
    (3.8917, -2.7725, 0.5061),
    (3.2858, -2.3681, 0.4645),
    (2.3465, -1.7098, 0.4232),
)

#: Polar Express divides by a little more than the norm, since rounding up past 1 would diverge.
POLAR_EXPRESS_SAFETY = 1.02


def polynomials(coefficients: str, steps: int) -> tuple[float, list[tuple[float, float, float]]]:
    """What the Frobenius norm is multiplied by before dividing, and the `(a, b, c)` of each step.

    Raises ValueError for unknown coefficients and for more than Polar Express's five steps.
    """
    match coefficients:
        case "quintic":
            return 1.0, [QUINTIC] * steps
        case "polar_express" if steps <= len(POLAR_EXPRESS):
            return POLAR_EXPRESS_SAFETY, list(POLAR_EXPRESS[:steps])
        case "polar_express":
            raise ValueError(f"newton_schulz_steps must be at most 5 with polar_express, got {steps}")
    raise ValueError(f"coefficients must be quintic or polar_express, got {coefficients!r}")


def newton_schulz_reference(G: Tensor, *, steps: int, eps: float, coefficients: str = "quintic") -> Tensor:
    """Plain iteration on one matrix in its own dtype, straight from the definition: the oracle of the fast path."""
    safety, triples = polynomials(coefficients, steps)
    X: Tensor = G.mT if G.shape[0] > G.shape[1] else G
    X = X / (safety * X.norm()).clamp(min=eps)
    for a, b, c in triples:
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if G.shape[0] > G.shape[1] else X


def newton_schulz(G: Tensor, *, steps: int, eps: float, dtype: torch.dtype, coefficients: str = "quintic") -> Tensor:
    """Orthogonalise a matrix `(m, n)` or a stack `(s, m, n)`, computing in `dtype`; returns G's shape and dtype.

    Works on the transpose of tall matrices, so the Gram matrix has the smaller side; the polynomial is two fused
    multiply-adds a step (addmm/baddbmm), not three kernels.
    """
    safety, triples = polynomials(coefficients, steps)
    tall = G.shape[-2] > G.shape[-1]
    X = (G.mT if tall else G).to(dtype)
    X = X / (safety * torch.linalg.matrix_norm(X, keepdim=True)).clamp(min=eps)
    addmm = torch.baddbmm if X.ndim == 3 else torch.addmm
    for a, b, c in triples:
        A = X @ X.mT
        B = addmm(A, A, A, beta=b, alpha=c)
        X = addmm(X, B, X, beta=a)
    return (X.mT if tall else X).to(G.dtype)


def compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 on CUDA, as published; fp32 elsewhere (bf16 products take seconds a step on a CPU)."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


class Muon(CheckedOptimizer):
    """Muon over matrices only. Options as `mutransfer.algorithms.MuonOptions`; `weight_decay` multiplies the LR."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        scale: MuonScale | str = MuonScale.SPECTRAL,
        coefficients: str = "quintic",
        newton_schulz_steps: int = 5,
        eps: float = 1e-7,
        maximize: bool = False,
    ) -> None:
        if lr < 0.0 or weight_decay < 0.0 or not 0.0 <= momentum < 1.0:
            raise ValueError(f"lr {lr}, weight_decay {weight_decay} must be >= 0 and momentum {momentum} in [0, 1)")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "scale": str(MuonScale(scale)),
            "coefficients": str(coefficients),
            "newton_schulz_steps": newton_schulz_steps,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a parameter that is not a matrix, and for polynomials that do not exist."""
        polynomials(group["coefficients"], group["newton_schulz_steps"])
        for parameter in group["params"]:
            if parameter.ndim != 2:
                raise ValueError(f"Muon trains matrices; this parameter has shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """One step over all groups. Parameters without a gradient, or without elements, are left alone."""
        loss = evaluate(closure)
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None and p.numel()]
            for stack in _stacks(matrices):
                self._step_stack(stack, group)
        return loss

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """The matrix to orthogonalise: momentum, after this gradient has entered it."""
        assert parameter.grad is not None  # noqa: S101 - step() passes only parameters that have one
        gradient = -parameter.grad if group["maximize"] else parameter.grad
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1.0 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum

    def _step_stack(self, stack: list[Tensor], group: dict[str, Any]) -> None:
        directions = [self._direction(p, group) for p in stack]
        options = {
            "steps": group["newton_schulz_steps"],
            "eps": group["eps"],
            "coefficients": group["coefficients"],
            "dtype": compute_dtype(stack[0].device),
        }
        if len(stack) == 1:
            updates = [newton_schulz(directions[0], **options)]
        else:
            updates = list(newton_schulz(torch.stack(directions), **options))
        rate = group["lr"] * muon_factor(MuonScale(group["scale"]), *stack[0].shape)
        for parameter, update in zip(stack, updates, strict=True):
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-rate)


def _stacks(matrices: list[Tensor]) -> list[list[Tensor]]:
    """Same-shaped matrices together where one batched product beats many: on CUDA, and small ones on a CPU."""
    by_shape: dict[tuple[Any, ...], list[Tensor]] = {}
    for index, matrix in enumerate(matrices):
        alone = index if is_better_alone(matrix.numel(), matrix.device) else -1
        by_shape.setdefault((alone, matrix.shape, matrix.dtype, matrix.device), []).append(matrix)
    return list(by_shape.values())
