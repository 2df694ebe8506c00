"""SOAP: Adam in the slowly turning eigenbasis of Shampoo (Vyas et al. 2024, arXiv 2409.11321, algorithm 3).

For a matrix `W (M, N)` with gradient `G`; both sides active (`max_preconditioner_dim`), else that side's `Q` is `I`:

    first gradient:  L = (1 - b) G G',  R = (1 - b) G' G,  QL, QR = their eigenvectors;  W stays
    then, t = 1, 2, ...
        m <- b1 m + (1 - b1) G            v <- b2 v + (1 - b2) (QL' G QR)^2
        W <- (1 - lr wd) (W - lr sqrt(1 - b2^t) / (1 - b1^t) QL [QL' m QR / (sqrt(v) + eps)] QR')
        L <- b L + (1 - b) G G'           R <- b R + (1 - b) G' G
        every `every` steps: v and Q sorted by falling q' L q, then QL = qr(L QL), and the same for QR

with `b` the `shampoo_beta` (default b2). A matrix larger than `block_size` is trained as its blocks. With `stagger`
every side of every block has its own turn within `every` steps, so that no step pays for all.
Between turns the basis stands still, so `m` is kept rotated (`QL' m QR`) and only turned when the basis turns: two
products a step fewer. `soap_reference` keeps it plain.
"""

from collections.abc import Iterable, Sequence
import math
from typing import Any

import torch
from torch import Tensor

from optimizers.blocks import Stack, State, active_sides
from optimizers.blockwise import Batch, BlockOptimizer, Move, check_betas
from optimizers.roots import eigenbasis, power_iteration_qr


def soap_reference(
    W: Tensor,
    gradients: Sequence[Tensor],
    *,
    lr: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    shampoo_beta: float | None = None,
    eps: float = 1e-8,
    every: int = 10,
    max_preconditioner_dim: int = 8192,
    weight_decay: float = 0.0,
    slots: tuple[int, int] = (0, 0),
) -> Tensor:
    """One matrix after all gradients, straight from the equations above: the oracle of the fast path.

    `slots` are the turns of the two sides: refreshed after update `t` when `(t + slot) % every == 0`.
    """
    W, (b1, b2) = W.clone(), betas
    b = b2 if shampoo_beta is None else shampoo_beta
    active = active_sides(W.shape, max_preconditioner_dim)
    first = gradients[0]
    moments = [(1 - b) * first @ first.T, (1 - b) * first.T @ first]
    Q = [eigenbasis(A) if on else torch.eye(len(A), dtype=A.dtype) for A, on in zip(moments, active, strict=True)]
    m, v = torch.zeros_like(W), torch.zeros_like(W)
    for t, G in enumerate(gradients[1:], start=1):
        m = b1 * m + (1 - b1) * G
        v = b2 * v + (1 - b2) * (Q[0].T @ G @ Q[1]) ** 2
        step = lr * math.sqrt(1 - b2**t) / (1 - b1**t)
        W = W - step * Q[0] @ (Q[0].T @ m @ Q[1] / (v.sqrt() + eps)) @ Q[1].T
        W = W - lr * weight_decay * W
        moments = [b * moments[0] + (1 - b) * G @ G.T, b * moments[1] + (1 - b) * G.T @ G]
        for side in (0, 1):
            if active[side] and (t + slots[side]) % every == 0:
                order = (Q[side] * (moments[side] @ Q[side])).sum(dim=0).argsort(descending=True)
                v = v.index_select(side, order)
                Q[side] = torch.linalg.qr(moments[side] @ Q[side][:, order])[0]
    return W


class SOAP(BlockOptimizer):
    """SOAP over matrices only. Decay multiplies the LR; every option can be given per group."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        shampoo_beta: float | None = None,
        eps: float = 1e-8,
        every: int = 10,
        max_preconditioner_dim: int = 8192,
        block_size: int | None = None,
        stagger: bool = True,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "shampoo_beta": shampoo_beta,
            "eps": eps,
            "every": every,
            "max_preconditioner_dim": max_preconditioner_dim,
            "block_size": block_size,
            "stagger": stagger,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for an option out of range."""
        super().check_group(group)
        b1, b2 = group["betas"]
        check_betas(beta1=b1, beta2=b2, shampoo_beta=_shampoo_beta(group))
        if not group["eps"] > 0.0:
            raise ValueError(f"eps must be > 0, got {group['eps']}: a zero gradient would give 0 / 0")

    def new_state(self, stack: Stack) -> State:
        """Rotated moments, and per active side the statistics and their basis."""
        state = {"exp_avg": stack.zeros(*stack.blocks[0].shape), "exp_avg_sq": stack.zeros(*stack.blocks[0].shape)}
        for side, dim in stack.sides.items():
            state[side] = stack.zeros(dim, dim)
            state[f"{side}_basis"] = stack.zeros(dim, dim)
        return state

    def move(self, batch: Batch) -> Move | None:
        """One update; the first gradient only sets up the bases."""
        if batch.step == 1:
            _add_statistics(batch)
            for side in batch.stack.sides:
                batch.state[f"{side}_basis"].copy_(eigenbasis(batch.state[side]))
            return None
        U = _adam(batch)
        _add_statistics(batch)
        for side in batch.stack.sides:
            _refresh(batch, side)
        return Move(batch, U)

    def rate(self, batch: Batch) -> float:
        """The LR with Adam's bias corrections; decay comes after the move, so it shrinks the move, too."""
        group, t = batch.group, batch.step - 1
        b1, b2 = group["betas"]
        decayed = group["lr"] * (1.0 - group["lr"] * group["weight_decay"])
        return float(decayed * math.sqrt(1.0 - b2**t) / (1.0 - b1**t))


def _shampoo_beta(group: dict[str, Any]) -> float:
    beta = group["shampoo_beta"]
    return float(group["betas"][1] if beta is None else beta)


def _rotate(X: Tensor, state: State) -> Tensor:
    """Into the basis: `QL' X QR`."""
    X = state["left_basis"].mT @ X if "left_basis" in state else X
    return X @ state["right_basis"] if "right_basis" in state else X


def _rotate_back(X: Tensor, state: State) -> Tensor:
    """Out of the basis: `QL X QR'`."""
    X = state["left_basis"] @ X if "left_basis" in state else X
    return X @ state["right_basis"].mT if "right_basis" in state else X


def _adam(batch: Batch) -> Tensor:
    """Adam's direction in the basis, rotated back, without bias corrections (see `SOAP.rate`)."""
    state, (b1, b2) = batch.state, batch.group["betas"]
    rotated = _rotate(batch.G, state)
    state["exp_avg"].lerp_(rotated, 1.0 - b1)
    state["exp_avg_sq"].mul_(b2).addcmul_(rotated, rotated, value=1.0 - b2)
    return _rotate_back(state["exp_avg"] / state["exp_avg_sq"].sqrt().add_(batch.group["eps"]), state)


def _add_statistics(batch: Batch) -> None:
    beta, G = _shampoo_beta(batch.group), batch.G
    for side in batch.stack.sides:
        A, B = (G, G.mT) if side == "left" else (G.mT, G)
        batch.state[side].baddbmm_(A, B, beta=beta, alpha=1.0 - beta)


def _refresh(batch: Batch, side: str) -> None:
    """Turn the basis of one side of those blocks whose turn it is, and both moments with it."""
    places = batch.due(side)
    if places == []:
        return
    state, basis = batch.state, f"{side}_basis"
    m, v, old = (state[name][places] for name in ("exp_avg", "exp_avg_sq", basis))
    new, order = power_iteration_qr(state[side][places], old)
    if side == "left":
        m, v = new.mT @ (old @ m), v.gather(-2, order.unsqueeze(-1).expand_as(v))
    else:
        m, v = (m @ old.mT) @ new, v.gather(-1, order.unsqueeze(-2).expand_as(v))
    for name, value in (("exp_avg", m), ("exp_avg_sq", v), (basis, new)):
        state[name][places] = value
