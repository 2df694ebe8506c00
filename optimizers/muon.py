"""Muon: momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

For each matrix with gradient `G`, momentum `mu` and learning rate `lr`:

    M <- mu M + (1 - mu) G                        (an EMA, as torch.optim.Muon)
    N  = (1 - mu) G + mu M   with Nesterov, else M
    O  = newton_schulz(N)                          singular values near 1, singular vectors kept
    W <- (1 - lr wd) W - lr * factor(shape) * O

`factor` is one of `mutransfer.scaling.muon_factor`. Every parameter must be a matrix; embeddings, readout and vectors
train by another algorithm beside it (optimizers.composite).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mutransfer.algorithms import MuonScale
from mutransfer.scaling import muon_factor

#: The quintic of Jordan et al.: steepest at zero, singular values end in about [0.7, 1.2] after five steps.
QUINTIC = (3.4445, -4.7750, 2.0315)


def newton_schulz_reference(G: Tensor, *, steps: int, eps: float) -> Tensor:
    """Plain Newton–Schulz on one matrix in its own dtype, straight from the definition: the oracle of the fast path."""
    a, b, c = QUINTIC
    X: Tensor = G.mT if G.shape[0] > G.shape[1] else G
    X = X / X.norm().clamp(min=eps)
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if G.shape[0] > G.shape[1] else X


def newton_schulz(G: Tensor, *, steps: int, eps: float, dtype: torch.dtype) -> Tensor:
    """Orthogonalise a matrix `(m, n)` or a stack `(s, m, n)`, computing in `dtype`; returns G's shape and dtype.

    Works on the transpose of tall matrices, so the Gram matrix has the smaller side; the polynomial is two fused
    multiply-adds a step (addmm/baddbmm), not three kernels.
    """
    a, b, c = QUINTIC
    tall = G.shape[-2] > G.shape[-1]
    X = (G.mT if tall else G).to(dtype)
    X = X / torch.linalg.matrix_norm(X, keepdim=True).clamp(min=eps)
    addmm = torch.baddbmm if X.ndim == 3 else torch.addmm
    for _ in range(steps):
        A = X @ X.mT
        B = addmm(A, A, A, beta=b, alpha=c)
        X = addmm(X, B, X, beta=a)
    return (X.mT if tall else X).to(G.dtype)


def compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 on CUDA, as published; fp32 elsewhere (bf16 products take seconds a step on a CPU)."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


class Muon(Optimizer):
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
            "newton_schulz_steps": newton_schulz_steps,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as torch does. Raises ValueError for a parameter that is not a matrix."""
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.ndim != 2:
                del self.param_groups[-1]
                raise ValueError(f"Muon trains matrices; this parameter has shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step over all groups. Parameters without a gradient, or without elements, are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
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
        options = {"steps": group["newton_schulz_steps"], "eps": group["eps"], "dtype": compute_dtype(stack[0].device)}
        if len(stack) == 1:
            updates = [newton_schulz(directions[0], **options)]
        else:
            updates = list(newton_schulz(torch.stack(directions), **options))
        rate = group["lr"] * muon_factor(MuonScale(group["scale"]), *stack[0].shape)
        for parameter, update in zip(stack, updates, strict=True):
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-rate)


def _stacks(matrices: list[Tensor]) -> list[list[Tensor]]:
    """Same-shaped matrices together on CUDA, where one batched product beats many; one by one on a CPU."""
    by_shape: dict[tuple[Any, ...], list[Tensor]] = {}
    for index, matrix in enumerate(matrices):
        alone = index if matrix.device.type != "cuda" else -1
        by_shape.setdefault((alone, matrix.shape, matrix.dtype, matrix.device), []).append(matrix)
    return list(by_shape.values())
