"""ADOPT: Adam whose second moment does not know the current gradient (Taniguchi et al. 2024, arXiv 2411.02853).

For each parameter `W` with gradient `g_t`, `t = 0, 1, ...`:

    t = 0:   v <- g²                                    nothing else: no step, no decay
    t >= 1:  u = clip(g / max(sqrt(v), eps), ± t^(1/4))  v without this gradient
             m <- beta1 m + (1 - beta1) u
             W <- (1 - lr wd) W - lr m
             v <- beta2 v + (1 - beta2) g²

No bias correction. An entry whose first gradient is exactly 0 (behind a zero readout) starts from `v = 0`, so that its
first updates are as large as the clip allows.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from optimizers.elementwise import Batch, ElementwiseOptimizer, Group, clip_in_place, divide_into


def adopt_reference(
    W: Tensor, gradients: Iterable[Tensor], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> Tensor:
    """The weights after all `gradients`, straight from the equations in W's dtype: the oracle of the fast path."""
    m, v = torch.zeros_like(W), torch.zeros_like(W)
    for t, g in enumerate(gradients):
        if t == 0:
            v = g**2
            continue
        u = torch.clamp(g / torch.clamp(v.sqrt(), min=eps), -(t**0.25), t**0.25)
        m = betas[0] * m + (1 - betas[0]) * u
        W = (1 - lr * weight_decay) * W - lr * m
        v = betas[1] * v + (1 - betas[1]) * g**2
    return W


class ADOPT(ElementwiseOptimizer):
    """ADOPT. `weight_decay` multiplies the LR; all options may differ by group."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, options)

    def update(self, batch: Batch, group: Group) -> None:
        """One step on a batch."""
        momenta, squares = batch.states
        beta1, beta2 = group["betas"]
        if batch.step:
            batch.decay(group)
            _descend(batch.parameters, _units(batch, squares, group["eps"]), momenta, lr=group["lr"], beta=beta1)
            torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, batch.gradients, batch.gradients, value=1.0 - beta2 if batch.step else 1.0)


def _units(batch: Batch, squares: list[Tensor], eps: float) -> list[Tensor]:
    """`u`: gradients over the root of what is known of their squares, clipped."""
    roots = list(torch._foreach_sqrt(squares))
    torch._foreach_clamp_min_(roots, eps)
    units = divide_into(batch.gradients, roots)
    clip_in_place(units, batch.step**0.25)
    return units


def _descend(parameters: list[Tensor], units: list[Tensor], momenta: list[Tensor], *, lr: float, beta: float) -> None:
    """`m <- beta m + (1 - beta) u`, `W <- W - lr m`: one pass of torch's fused SGD, which wants plain memory order.

    torch.compile cannot trace that kernel, and fuses the formulas itself.
    """
    tensors = (*parameters, *units, *momenta)
    if not torch.compiler.is_compiling() and all(tensor.is_contiguous() for tensor in tensors):
        torch._fused_sgd_(
            parameters, units, momenta, lr=lr, momentum=beta, dampening=beta, weight_decay=0.0,
            nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip
    else:
        torch._foreach_lerp_(momenta, units, 1.0 - beta)
        torch._foreach_add_(parameters, momenta, alpha=-lr)
