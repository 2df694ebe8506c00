"""LAMB: Adam's direction at the norm of the weights (You et al. 2019, arXiv 1904.00962).

For each parameter `W` with gradient `g_t`, `t = 1, 2, ...` (all norms Frobenius):

    m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g²
    u = m' / (sqrt(v') + eps)             m' = m / (1 - beta1^t), v' = v / (1 - beta2^t) if bias_correction, else m, v
    u <- u + wd W                          only with decoupled_decay=False, as published
    r = |W| / |u|                          1 where either norm is 0; at most max_ratio
    W <- (1 - lr wd) W - lr r u            the first factor only with decoupled_decay=True
"""

from collections.abc import Iterable
import math
from typing import Any

import torch
from torch import Tensor

from optimizers.elementwise import Batch, ElementwiseOptimizer, Group


def lamb_reference(
    W: Tensor, gradients: Iterable[Tensor], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
    bias_correction: bool, max_ratio: float | None, decoupled_decay: bool,
) -> Tensor:  # fmt: skip
    """The weights after all `gradients`, straight from the equations in W's dtype: the oracle of the fast path."""
    m, v = torch.zeros_like(W), torch.zeros_like(W)
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        corrections = [1 - beta**t if bias_correction else 1.0 for beta in betas]
        u = (m / corrections[0]) / ((v / corrections[1]).sqrt() + eps)
        u = u if decoupled_decay else u + weight_decay * W
        r = float(W.norm() / u.norm()) if W.norm() > 0 and u.norm() > 0 else 1.0
        r = r if max_ratio is None else min(r, max_ratio)
        W = (1 - lr * weight_decay * decoupled_decay) * W - lr * r * u
    return W


class LAMB(ElementwiseOptimizer):
    """LAMB. `weight_decay` multiplies the LR; all options may differ by group.

    Defaults: `decoupled_decay`, as everywhere in this project: inside `u` decay would share the trust ratio, so that λ
    alone no longer set it. `bias_correction`, as in the paper's first versions and in Adam: it multiplies all of `u`
    by one number, which the ratio takes out again, so with decoupled decay it differs only in what ε is compared
    with. `max_ratio` None: the published clamp φ is the identity here, since the 10 of the usual code clamps |W|
    rather than the ratio; a hidden matrix of more than 100 rows exceeds it, so that it would break transfer.
    """

    slots = ("exp_avg", "exp_avg_sq")
    sliced = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        max_ratio: float | None = None,
        decoupled_decay: bool = True,
        maximize: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "max_ratio": max_ratio,
            "decoupled_decay": decoupled_decay,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def check_group(self, group: Group) -> None:
        """As the base class; `max_ratio` must be positive."""
        super().check_group(group)
        if group["max_ratio"] is not None and not group["max_ratio"] > 0.0:
            raise ValueError(f"max_ratio must be > 0 or None, got {group['max_ratio']}")

    def update(self, batch: Batch, group: Group) -> None:
        """One step on a batch of whole parameters."""
        directions = _adam_directions(batch, group)
        if group["weight_decay"] and not group["decoupled_decay"]:
            torch._foreach_add_(directions, batch.parameters, alpha=-group["weight_decay"])
        ratios = _trust_ratios(batch.parameters, directions, group["max_ratio"])
        if group["decoupled_decay"]:
            batch.decay(group)
        torch._foreach_mul_(ratios, group["lr"])
        torch._foreach_addcmul_(batch.parameters, directions, ratios)


def _adam_directions(batch: Batch, group: Group) -> list[Tensor]:
    """`-u`, by torch's fused Adam on weights of zero at a learning rate of 1; moves both moments.

    One pass over memory instead of six. A step of infinity is no bias correction: `1 - beta^inf = 1`. torch.compile
    cannot trace that kernel, and fuses the formulas itself.
    """
    if torch.compiler.is_compiling():
        return _adam_directions_plainly(batch, group)
    moments, squares = batch.states
    directions = [torch.zeros_like(m) for m in moments]
    gradients = [_like(g, m) for g, m in zip(batch.gradients, moments, strict=True)]
    step = float(batch.step + 1) if group["bias_correction"] else math.inf
    count = torch.tensor(step, device=directions[0].device)
    torch._fused_adam_(
        directions, gradients, moments, squares, [], [count] * len(directions),
        lr=1.0, beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=0.0, eps=group["eps"],
        amsgrad=False, maximize=False,
    )  # fmt: skip
    return directions


def _adam_directions_plainly(batch: Batch, group: Group) -> list[Tensor]:
    """`_adam_directions`, formula by formula."""
    moments, squares = batch.states
    beta1, beta2 = group["betas"]
    torch._foreach_lerp_(moments, batch.gradients, 1.0 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, batch.gradients, batch.gradients, value=1.0 - beta2)
    t = batch.step + 1 if group["bias_correction"] else math.inf
    divisors = torch._foreach_div(torch._foreach_sqrt(squares), math.sqrt(1.0 - beta2**t))
    torch._foreach_add_(divisors, group["eps"])
    directions = torch._foreach_div(moments, divisors)
    torch._foreach_mul_(directions, -1.0 / (1.0 - beta1**t))
    return list(directions)


def _like(gradient: Tensor, moment: Tensor) -> Tensor:
    """The gradient in the moment's memory order, which the fused kernel takes for granted."""
    return gradient if gradient.stride() == moment.stride() else torch.empty_like(moment).copy_(gradient)


def _trust_ratios(parameters: list[Tensor], directions: list[Tensor], max_ratio: float | None) -> list[Tensor]:
    """`|W| / |u|` for each, a scalar tensor; 1 where either is 0."""
    weights = torch.stack(torch._foreach_norm(parameters))
    updates = torch.stack(torch._foreach_norm(directions))
    ratios = torch.where((weights > 0) & (updates > 0), weights / updates, 1.0)
    return list((ratios if max_ratio is None else ratios.clamp(max=max_ratio)).unbind())
