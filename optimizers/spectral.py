"""Explicit spectral normalisation: any optimizer's direction, with a norm that meets the spectral condition.

    W <- (1 - lr wd) W - lr sqrt(d_out / d_in) U / ||U||_2        W stored (d_out, d_in), a vector as (d, 1)
    W <- (1 - lr wd) W - lr U / max over rows of RMS(row of U)    lookups, stored (rows, width)

with `U` the child's update (Qiu et al. 2025, arXiv 2512.05620). A lookup reads one row at a time, so what is the
spectral norm for a matrix is the largest row's RMS for it. A group says which by its key `norm`: "spectral" (the
default) or "rms". Legend: `S` matrices of shape `(M, N)` in a batch, `K` vectors of a Krylov basis.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.base import Closure, evaluate
from optimizers.blocks import is_better_alone
from optimizers.roots import finite_eigh

#: The child steps at this LR and its move is read off the weights: against a move this large their own rounding is
#: nothing, and a power of two adds none.
PROBE_LR = 2.0**20

#: Iterates of each start vector. Measured: matrices of independent entries, whose spectrum is flat, come out 0.1 to 2 %
#: too low; those of rank 4, as gradients nearly are, exact to rounding.
POWERS = 8

NORMS = ("spectral", "rms")


def spectral_norm(U: Tensor, v: Tensor, *, powers: int = POWERS) -> tuple[Tensor, Tensor]:
    """The largest singular values `(S,)` of `U (S, M, N)` and their right vectors `(S, N)`.

    Power iteration from `v`, the last step's vector, and from the longest row, lest `v` be orthogonal to a new top
    direction; then the best combination of all iterates (Rayleigh-Ritz), so the value is never too high.
    """
    longest = torch.linalg.vector_norm(U, dim=-1).argmax(dim=-1)
    row = U[torch.arange(len(U), device=U.device), longest]
    iterates = [_unit_rows(torch.stack([v, row], dim=1))]
    for _ in range(powers - 1):
        iterates.append(_unit_rows((iterates[-1] @ U.mT) @ U))  # rows, not columns: twice as fast on a CPU
    Q_SNK = torch.linalg.qr(torch.cat(iterates, dim=1).mT)[0]
    B_SMK = U @ Q_SNK
    values, vectors = finite_eigh(B_SMK.mT @ B_SMK)
    return values[:, -1].clamp(min=0.0).sqrt(), (Q_SNK @ vectors[..., -1:]).squeeze(-1)


def _unit_rows(X: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(X, dim=-1, keepdim=True)
    return X / torch.where(norms == 0.0, 1.0, norms)


def largest_row_rms(U: Tensor) -> Tensor:
    """The largest RMS `(S,)` of a row, for `U (S, M, N)`."""
    norms: Tensor = torch.linalg.vector_norm(U, dim=-1)
    return norms.amax(dim=-1) / math.sqrt(U.shape[-1])


class SpectrallyNormalised(Optimizer):
    """Wraps an optimizer whose update is proportional to its LR. Its groups are the child's own dictionaries.

    The child runs without decay; decay is decoupled, whatever the child's own is. The child keeps its state.
    Raises ValueError for parameters with more than two dimensions and for an unknown `norm`.
    """

    def __init__(self, child: Optimizer) -> None:
        self.child = child
        self._vectors: dict[Tensor, Tensor] = {}
        for group in child.param_groups:
            _check_group(group)
        super().__init__(child.param_groups, child.defaults)
        self._adopt()

    def _adopt(self) -> None:
        """Show the child's groups and state as ours: it replaces both when it loads."""
        self.param_groups, self.state = self.child.param_groups, self.child.state

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the child whole; torch's own way keeps groups and state only."""
        return _rebuild, (self.child, self._vectors)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the group to the child."""
        if any(param_group is group for group in self.child.param_groups):
            super().add_param_group(param_group)
            return
        _check_group(param_group)
        self.child.add_param_group(param_group)
        self._adopt()

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """One step. What the child leaves in place (no gradient, a zero update) only decays, if it has a gradient."""
        loss = evaluate(closure)
        before = {p: p.clone() for group in self.param_groups for p in group["params"] if p.grad is not None}
        with _at_probe_lr(self.param_groups):
            self.child.step()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p in before and p.numel()]
            for batch in _batches(moved):
                self._move(batch, [before[p] for p in batch], group)
        return loss

    @torch.compiler.disable  # Dynamo mistakes vectors kept for one shape for those of the next
    def _move(self, batch: Sequence[Tensor], before: Sequence[Tensor], group: dict[str, Any]) -> None:
        """Replace what the child did to the weights of equal shape by the normalised step."""
        pieces = [_difference(p, b) for p, b in zip(batch, before, strict=True)]
        U = pieces[0].unsqueeze(0) if len(pieces) == 1 else torch.stack(pieces)
        is_lookup = group.get("norm", "spectral") == "rms" and batch[0].ndim == 2
        norms = largest_row_rms(U) if is_lookup else self._spectral_norms(batch, U)
        size = group["lr"] * (1.0 if is_lookup else math.sqrt(U.shape[-2] / U.shape[-1]))
        factors = torch.where(norms == 0.0, 0.0, size / norms)
        moves = U.mul_(factors[:, None, None])
        for parameter, start, move in zip(batch, before, moves, strict=True):
            start.mul_(1.0 - group["lr"] * group.get("weight_decay", 0.0))
            parameter.copy_(start.add_(move.view_as(start)))

    def _spectral_norms(self, batch: Sequence[Tensor], U: Tensor) -> Tensor:
        starts = [self._vectors[p] if p in self._vectors else _first_vector(U) for p in batch]
        norms, vectors = spectral_norm(U, torch.stack(starts))
        self._vectors.update(zip(batch, vectors, strict=True))
        return norms

    def state_dict(self) -> dict[str, Any]:
        """The child's state and, parameter by parameter, the top right singular vector of its last update."""
        return {"child": self.child.state_dict(), "vectors": [self._vectors.get(p) for p in self._parameters()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.child.load_state_dict(state_dict["child"])
        self._adopt()
        pairs = zip(self._parameters(), state_dict["vectors"], strict=True)
        self._vectors = {p: vector.to(p.device, copy=True) for p, vector in pairs if vector is not None}

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


def _rebuild(child: Optimizer, vectors: dict[Tensor, Tensor]) -> SpectrallyNormalised:
    optimizer = SpectrallyNormalised(child)
    optimizer._vectors = vectors
    return optimizer


def _check_group(group: dict[str, Any]) -> None:
    if (norm := group.get("norm", "spectral")) not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    parameters = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
    for parameter in parameters:
        if parameter.ndim not in (1, 2):
            raise ValueError(f"only matrices and vectors can be normalised, not shape {tuple(parameter.shape)}")


@contextmanager
def _at_probe_lr(groups: Sequence[dict[str, Any]]) -> Iterator[None]:
    """All groups at `PROBE_LR` and without decay, for a while."""
    kept = [(group["lr"], group.get("weight_decay")) for group in groups]
    try:
        for group, (_, decay) in zip(groups, kept, strict=True):
            group.update({"lr": PROBE_LR} if decay is None else {"lr": PROBE_LR, "weight_decay": 0.0})
        yield
    finally:
        for group, (lr, decay) in zip(groups, kept, strict=True):
            group.update({"lr": lr} if decay is None else {"lr": lr, "weight_decay": decay})


def _difference(after: Tensor, before: Tensor) -> Tensor:
    """As a matrix, in single precision or better."""
    dtype = torch.promote_types(after.dtype, torch.float32)
    U = after.to(dtype) - before.to(dtype)
    return U.unsqueeze(-1) if U.ndim == 1 else U


def _batches(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Parameters of one shape together, but large ones on a CPU alone."""
    by_shape: dict[tuple[Any, ...], list[Tensor]] = {}
    for index, p in enumerate(parameters):
        alone = index if is_better_alone(p.numel(), p.device) else -1
        by_shape.setdefault((alone, p.shape, p.dtype, p.device), []).append(p)
    return list(by_shape.values())


def _first_vector(U: Tensor) -> Tensor:
    """Random, and the same in every run."""
    generator = torch.Generator().manual_seed(U.shape[-1])
    return torch.randn(U.shape[-1], generator=generator, device="cpu").to(U)
