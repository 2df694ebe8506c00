"""Shampoo (Gupta et al. 2018, arXiv 1802.09568), with the options of Anil et al. 2020 (arXiv 2002.09018).

For a matrix `W (M, N)`, its gradient `G` at step t = 1, 2, ...; `e` the exponent of each active side:

    L <- b2 L + (1 - b2) G G'     R <- b2 R + (1 - b2) G' G    "ema", used as L / (1 - b2^t);  or
    L <- L + G G'                 R <- R + G' G                "sum"
    m <- b1 m + (1 - b1) G        D = m / (1 - b1^t)
    U = (L + eps I)^-e  D  (R + eps I)^-e
    W <- (1 - lr wd) W - lr s U   s = 1, or ||graft direction|| / ||U||

The roots are renewed every `every` steps; eps is absolute, or relative to the largest eigenvalue of its matrix. With
`every > 1`, roots of the first `every` steps are damped as well: they have seen few directions, and would multiply what
the next gradients bring by up to `eps ** -2e` (measured, 8 gradients a step on width 64: updates 60 times too long). A
matrix larger than `block_size` is preconditioned block by block. A side of more than `max_preconditioner_dim` is left
alone (no power on that side, no blocks along it); with neither side active U is D.

Momentum sits on the gradient, before the roots, as in Meta's Distributed Shampoo (arXiv 2309.06497): then all of it is
seen through the newest roots, and the graft's norm is that of a step the other optimizer would really make.

Grafting takes the Frobenius norm, over the whole matrix (not its blocks), of Adam's direction with `graft_betas` and
`graft_eps`, or of SGD's, which is D: an average of gradients, not torch's sum of them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from optimizers.blocks import Stack, State, active_sides, splits
from optimizers.blockwise import Batch, BlockOptimizer, Move, check_betas
from optimizers.roots import inverse_root


def shampoo_reference(
    W: Tensor,
    gradients: Sequence[Tensor],
    *,
    lr: float = 1e-3,
    momentum: float = 0.9,
    beta2: float = 0.99,
    statistics: str = "ema",
    exponent: float = 0.25,
    eps: float = 1e-6,
    eps_mode: str = "relative",
    graft: str = "none",
    graft_betas: tuple[float, float] = (0.9, 0.99),
    graft_eps: float = 1e-8,
    block_size: int | None = None,
    max_preconditioner_dim: int = 8192,
    weight_decay: float = 0.0,
) -> Tensor:
    """One matrix after all gradients, the statistics and roots from scratch at every step: the oracle of the fast path.

    Roots at every step; O(len(gradients)^2) products.
    """
    W = W.clone()
    for t in range(1, len(gradients) + 1):
        seen = list(gradients[:t])
        D = _average(seen, momentum)
        U = torch.empty_like(W)
        on = active_sides(W.shape, max_preconditioner_dim)
        for r in splits(W.shape[0], block_size, active=on[0]):
            for c in splits(W.shape[1], block_size, active=on[1]):
                grams = [[G[r, c] @ G[r, c].T for G in seen], [G[r, c].T @ G[r, c] for G in seen]]
                U[r, c] = D[r, c]
                for side in (0, 1):
                    if on[side]:
                        A = sum(grams[side]) if statistics == "sum" else _average(grams[side], beta2)
                        root = _root_by_svd(torch.as_tensor(A), exponent, eps, eps_mode)
                        U[r, c] = root @ U[r, c] if side == 0 else U[r, c] @ root
        if graft != "none":
            direction = D if graft == "sgd" else _adam_reference(seen, graft_betas, graft_eps)
            U = U * (direction.norm() / U.norm())
        W = (1 - lr * weight_decay) * W - lr * U
    return W


def _average(terms: Sequence[Tensor], beta: float) -> Tensor:
    """The bias-corrected moving average of all terms: weights `beta ** age`, normalised."""
    weights = [beta**age for age in reversed(range(len(terms)))]
    total = torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum(dim=0)
    return total / sum(weights)


def _adam_reference(gradients: Sequence[Tensor], betas: tuple[float, float], eps: float) -> Tensor:
    return _average(gradients, betas[0]) / (_average([G**2 for G in gradients], betas[1]).sqrt() + eps)


def _root_by_svd(A: Tensor, exponent: float, eps: float, eps_mode: str) -> Tensor:
    U, values, _ = torch.linalg.svd(A)
    raised = values + (eps * values[0] if eps_mode == "relative" else eps)
    root: Tensor = (U * raised**-exponent) @ U.T
    return root


class Shampoo(BlockOptimizer):
    """Shampoo over matrices only. Decay multiplies the LR; every option can be given per group."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        momentum: float = 0.9,
        beta2: float = 0.99,
        statistics: str = "ema",
        exponent: float = 0.25,
        eps: float = 1e-6,
        eps_mode: str = "relative",
        graft: str = "none",
        graft_betas: tuple[float, float] = (0.9, 0.99),
        graft_eps: float = 1e-8,
        block_size: int | None = None,
        max_preconditioner_dim: int = 8192,
        every: int = 1,
        stagger: bool = True,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "beta2": beta2,
            "statistics": statistics,
            "exponent": exponent,
            "eps": eps,
            "eps_mode": eps_mode,
            "graft": graft,
            "graft_betas": graft_betas,
            "graft_eps": graft_eps,
            "block_size": block_size,
            "max_preconditioner_dim": max_preconditioner_dim,
            "every": every,
            "stagger": stagger,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for an option out of range."""
        super().check_group(group)
        b1, b2 = group["graft_betas"]
        check_betas(momentum=group["momentum"], beta2=group["beta2"], graft_beta1=b1, graft_beta2=b2)
        for name in ("exponent", "eps", "graft_eps"):
            if not group[name] > 0.0:
                raise ValueError(f"{name} must be > 0, got {group[name]}")
        for name, choices in _CHOICES.items():
            if group[name] not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {group[name]!r}")

    def new_state(self, stack: Stack) -> State:
        """Momentum, the graft's averages where it needs any, and per active side the statistics and their root."""
        state = {name: stack.zeros(*stack.blocks[0].shape) for name in _averages(stack.group)}
        for side, dim in stack.sides.items():
            state[side] = stack.zeros(dim, dim)
            state[f"{side}_root"] = stack.zeros(dim, dim)
        return state

    def move(self, batch: Batch) -> Move:
        """One update of a batch of blocks, not yet grafted."""
        for side in batch.stack.sides:
            _add_statistics(batch, side)
            _renew_root(batch, side)
        D = _running_average(batch, "momentum", batch.group["momentum"])
        return Move(batch, _precondition(D, batch.state), _graft_square(batch, D))

    def rescale(self, moves: Sequence[Move]) -> None:
        """Give every matrix the graft's norm: `||graft|| / ||U||` over all its blocks, 0 where U is 0."""
        by_device: dict[torch.device, list[Move]] = {}
        for move in moves:
            if move.graft_square is not None:
                by_device.setdefault(move.U.device, []).append(move)
        for neighbours in by_device.values():
            _graft(neighbours)


_CHOICES = {"statistics": ("ema", "sum"), "eps_mode": ("absolute", "relative"), "graft": ("none", "adam", "sgd")}


def _averages(group: dict[str, Any]) -> list[str]:
    """The moving averages a group keeps. Adam's first moment is the momentum where the two decay alike."""
    names = ["momentum"]
    if group["graft"] == "adam":
        names += ["graft_avg_sq"] + ["graft_avg"] * (group["graft_betas"][0] != group["momentum"])
    return names


def _running_average(batch: Batch, name: str, beta: float) -> Tensor:
    """Take the gradients into an average; bias-corrected."""
    average = batch.state[name].lerp_(batch.G, 1.0 - beta)
    return average / (1.0 - beta**batch.step)


def _add_statistics(batch: Batch, side: str) -> None:
    A, B = (batch.G, batch.G.mT) if side == "left" else (batch.G.mT, batch.G)
    if batch.group["statistics"] == "sum":
        batch.state[side].baddbmm_(A, B)
    else:
        beta = batch.group["beta2"]
        batch.state[side].baddbmm_(A, B, beta=beta, alpha=1.0 - beta)


def _renew_root(batch: Batch, side: str) -> None:
    """The inverse power of one side's statistics, for those blocks whose turn it is."""
    places, group = batch.due(side), batch.group
    if places == []:
        return
    correction = 1.0 if group["statistics"] == "sum" else 1.0 - group["beta2"] ** batch.step
    is_relative, eps = group["eps_mode"] == "relative", group["eps"]
    batch.state[f"{side}_root"][places] = inverse_root(
        batch.state[side][places] / correction,
        exponent=group["exponent"],
        eps=0.0 if is_relative else eps,
        relative=_damping(batch.step, group["every"]) + (eps if is_relative else 0.0),
    )


def _damping(step: int, every: int) -> float:
    """What the first roots add to every eigenvalue, relative to the largest; 0 when roots are renewed at every step.

    They will serve up to `every` gradients after having seen `step`, so that share of what comes is unknown to them.
    """
    return every / (step + every) if every > 1 and step <= every else 0.0


def _precondition(D: Tensor, state: State) -> Tensor:
    D = state["left_root"] @ D if "left_root" in state else D
    return D @ state["right_root"] if "right_root" in state else D


def _graft_square(batch: Batch, D: Tensor) -> Tensor | None:
    """Squared Frobenius norms `(S,)` of the graft's direction on each block; None without a graft."""
    match batch.group["graft"]:
        case "none":
            return None
        case "sgd":
            return D.square().sum(dim=(-2, -1))
    b1, b2 = batch.group["graft_betas"]
    first = D if "graft_avg" not in batch.state else _running_average(batch, "graft_avg", b1)
    squares = batch.state["graft_avg_sq"].mul_(b2).addcmul_(batch.G, batch.G, value=1.0 - b2)
    second = (squares / (1.0 - b2**batch.step)).sqrt_().add_(batch.group["graft_eps"])
    norms: Tensor = (first / second).square().sum(dim=(-2, -1))
    return norms


def _graft(moves: Sequence[Move]) -> None:
    """Scale moves on one device, whose blocks may share matrices, to the graft's norm."""
    graft = torch.cat([move.graft_square for move in moves if move.graft_square is not None])
    squares = torch.stack([graft, torch.cat([move.U.square().sum(dim=(-2, -1)) for move in moves])])
    owners = [block.parameter for move in moves for block in move.batch.blocks]
    numbers = {parameter: number for number, parameter in enumerate(dict.fromkeys(owners))}
    owner = torch.tensor([numbers[parameter] for parameter in owners], device=squares.device)
    if len(numbers) < len(owners):
        squares = squares.new_zeros(2, len(numbers)).index_add_(1, owner, squares)[:, owner]
    factors = torch.where(squares[1] > 0.0, (squares[0] / squares[1]).sqrt(), 0.0)
    for move, factor in zip(moves, torch.split(factors, [len(move.U) for move in moves]), strict=True):
        move.U.mul_(factor[:, None, None])
