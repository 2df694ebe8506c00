"""Sophia: momentum over a diagonal curvature, each entry clipped (Liu et al. 2023, arXiv 2305.14342).

For each parameter `W` with gradient `g`, curvature estimates `e` every `every` steps, the first before step 0:

    h <- beta2 h + (1 - beta2) e²            gnb: e is the gradient of the mean loss on labels drawn from the model
    h <- beta2 h + (1 - beta2) e             hutchinson: e = z * (H z), z random signs
    m <- beta1 m + (1 - beta1) g
    d = rho B h + eps                        gnb; B is the number of tokens behind e, as e² is B times too small
    d = max(rho h, eps)                      hutchinson, whose estimates may be negative
    W <- (1 - lr wd) W - lr clip(m / d, ±1)

No bias correction. The optimizer keeps `h` and the clock; who has the model computes `e` (optimizers.curvature):

    if optimizer.curvature_due:
        optimizer.update_curvature({parameter: e, ...}, tokens=B)
    optimizer.step()
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optimizers.elementwise import Batch, ElementwiseOptimizer, Group, clip_in_place, divide_into

GNB, HUTCHINSON = "gnb", "hutchinson"


def sophia_reference(
    W: Tensor, gradients: Iterable[Tensor], estimates: Sequence[Tensor], *, lr: float, betas: tuple[float, float],
    rho: float, eps: float, estimator: str, every: int, weight_decay: float, tokens: int,
) -> Tensor:  # fmt: skip
    """The weights after all `gradients`, straight from the equations in W's dtype: the oracle of the fast path."""
    m, h = torch.zeros_like(W), torch.zeros_like(W)
    for t, g in enumerate(gradients):
        if t % every == 0:
            e = estimates[t // every]
            h = betas[1] * h + (1 - betas[1]) * (e**2 if estimator == GNB else e)
        m = betas[0] * m + (1 - betas[0]) * g
        d = rho * tokens * h + eps if estimator == GNB else torch.clamp(rho * h, min=eps)
        W = (1 - lr * weight_decay) * W - lr * torch.sign(m) * torch.clamp(m.abs() / d, max=1.0)
    return W


class Sophia(ElementwiseOptimizer):
    """Sophia-G (`gnb`) and Sophia-H (`hutchinson`). `weight_decay` multiplies the LR; options may differ by group.

    The clock stands in the groups (`clock`, `curvature_at`, `tokens`), so that saving and copying keep it. A step
    without curvature is taken all the same: where `h` is 0 it moves by the full LR, as signs do.
    """

    slots = ("exp_avg", "hessian")

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.05,
        eps: float = 1e-15,
        estimator: str = GNB,
        every: int = 10,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "rho": rho,
            "eps": eps,
            "estimator": str(estimator),
            "every": every,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, {**options, "clock": 0, "curvature_at": -1, "tokens": 1})

    def check_group(self, group: Group) -> None:
        """As the base class; `rho` and `every` must be positive, and all groups share one estimator."""
        super().check_group(group)
        if not group["rho"] > 0.0 or not group["every"] >= 1:
            raise ValueError(f"rho {group['rho']} must be > 0 and every {group['every']} >= 1")
        if group["estimator"] not in (GNB, HUTCHINSON):
            raise ValueError(f"estimator must be {GNB} or {HUTCHINSON}, got {group['estimator']}")
        if group["estimator"] != self.estimator:
            raise ValueError(f"one estimator for all groups: {self.estimator}, not {group['estimator']}")

    def add_param_group(self, param_group: Group) -> None:
        """Add a group as torch does; it keeps the others' time, so that all get their curvature together."""
        if self.param_groups:
            param_group.setdefault("clock", self.param_groups[0]["clock"])
        super().add_param_group(param_group)

    @property
    def estimator(self) -> str:
        """Which estimates `update_curvature` takes: `gnb` or `hutchinson`."""
        return str(self.param_groups[0]["estimator"])

    @property
    def curvature_due(self) -> bool:
        """Whether the step to come is a multiple of `every` and no estimate has been given for it."""
        return any(_due(group) for group in self.param_groups)

    @torch.no_grad()
    def update_curvature(self, estimates: Mapping[Tensor, Tensor], *, tokens: int) -> None:
        """Take new estimates `e` by parameter, each of its parameter's shape; of groups that are not due none is read.

        `tokens` is the number of tokens whose mean loss the estimates come from. A parameter that is not named keeps
        its curvature. Raises ValueError when `tokens` is not positive.
        """
        if tokens < 1:
            raise ValueError(f"tokens must be >= 1, got {tokens}")
        for group in self.param_groups:
            if _due(group):
                group["tokens"], group["curvature_at"] = tokens, group["clock"]
                named = [p for p in group["params"] if p in estimates and p.numel()]
                self._move_curvature(named, [estimates[p] for p in named], group)

    def _move_curvature(self, parameters: list[Tensor], estimates: list[Tensor], group: Group) -> None:
        if not parameters:
            return
        curvatures, beta2 = [self.state_of(p)["hessian"] for p in parameters], group["betas"][1]
        if group["estimator"] == GNB:
            torch._foreach_mul_(curvatures, beta2)
            torch._foreach_addcmul_(curvatures, estimates, estimates, value=1.0 - beta2)
        else:
            torch._foreach_lerp_(curvatures, estimates, 1.0 - beta2)

    def after_step(self, group: Group) -> None:
        """Count the step, whether or not a parameter of the group had a gradient."""
        group["clock"] += 1

    def update(self, batch: Batch, group: Group) -> None:
        """One step on a batch, with rho B taken out of `d` into the clip and the learning rate: a pass fewer."""
        momenta, curvatures = batch.states
        scale = group["rho"] * (group["tokens"] if group["estimator"] == GNB else 1)
        torch._foreach_lerp_(momenta, batch.gradients, 1.0 - group["betas"][0])
        floored = torch._foreach_add if group["estimator"] == GNB else torch._foreach_clamp_min
        moves = divide_into(momenta, list(floored(curvatures, group["eps"] / scale)))
        clip_in_place(moves, scale)
        batch.decay(group)
        torch._foreach_add_(batch.parameters, moves, alpha=-group["lr"] / scale)


def _due(group: Group) -> bool:
    return bool(group["clock"] % group["every"] == 0 and group["curvature_at"] != group["clock"])
