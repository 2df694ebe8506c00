"""The base of the optimizers that update entry by entry (ADOPT, LAMB, Sophia): what torch users expect of one.

Closures, groups, saving, missing and empty gradients and `maximize` are settled here once. A subclass sees a `Batch`:
parallel lists of tensors for torch's foreach kernels. On a GPU that is all parameters of a group that are at the same
step: one launch a formula. On a CPU it is as many small parameters, or as long a slice of a large one, as the caches
hold from a step's first formula to its last.

Steps are counted in plain integers, so torch.compile makes a graph for each step number; after as many as its
`recompile_limit` allows (8) it runs the step as it is.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from optimizers.base import CheckedOptimizer, Closure, evaluate

Group = dict[str, Any]

#: Entries of a CPU batch, 1 MiB in fp32: the fastest measured, between the cost of calls and that of leaving the cache.
ENTRIES = 262_144


@dataclass(frozen=True)
class Batch:
    """Tensors at the same step, in lists that run in parallel; parameters and states are changed in place.

    `step` counts the gradients that these parameters have seen before this one.
    """

    step: int
    parameters: list[Tensor]
    gradients: list[Tensor]
    states: list[list[Tensor]]

    def decay(self, group: Group) -> None:
        """Decoupled decay: `W <- (1 - lr * weight_decay) W`."""
        if group["weight_decay"]:
            torch._foreach_mul_(self.parameters, 1.0 - group["lr"] * group["weight_decay"])


class ElementwiseOptimizer(CheckedOptimizer):
    """Base class. `slots` names the states of a parameter, all of its shape and 0 at first.

    Raises ValueError for options out of range and for complex parameters, RuntimeError for sparse gradients.
    """

    slots: ClassVar[tuple[str, ...]]
    #: Whether a CPU batch may hold a slice of a parameter; not for updates that need its norm.
    sliced: ClassVar[bool] = True

    @abstractmethod
    def update(self, batch: Batch, group: Group) -> None:
        """Take one step on a batch, in place."""

    def after_step(self, group: Group) -> None:
        """Called once a group has stepped; for clocks of the group's own."""

    def check_group(self, group: Group) -> None:
        """Raise ValueError for what the algorithm does not accept; the message names the option and its value."""
        for name in ("lr", "weight_decay"):
            if not group[name] >= 0.0:
                raise ValueError(f"{name} must be >= 0, got {group[name]}")
        if not all(0.0 <= beta < 1.0 for beta in group["betas"]):
            raise ValueError(f"betas must be in [0, 1), got {group['betas']}")
        if not group["eps"] > 0.0:  # 0 / 0 where a gradient has always been exactly 0
            raise ValueError(f"eps must be > 0, got {group['eps']}")
        if any(parameter.is_complex() for parameter in group["params"]):
            raise ValueError("complex parameters are not supported: train their real and imaginary parts")

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """One step over all groups. Parameters without a gradient, or without elements, are left alone."""
        loss = evaluate(closure)
        for group in self.param_groups:
            ready = [p for p in group["params"] if p.grad is not None and p.numel()]
            for batch in self._batches(ready, group["maximize"]):
                self.update(batch, group)
            for parameter in ready:
                self.state[parameter]["step"] += 1
            self.after_step(group)
        return loss

    def state_of(self, parameter: Tensor) -> dict[str, Any]:
        """The parameter's state, made on first sight: `step` 0 and zeros."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = 0
            state.update({slot: torch.zeros_like(parameter) for slot in self.slots})
        return state

    def _batches(self, ready: list[Tensor], maximize: bool) -> Iterator[Batch]:
        for step, members in self._same_step(ready):
            rows = [[p, _dense(p), *(self.state[p][slot] for slot in self.slots)] for p in members]
            columns = [list(column) for column in zip(*rows, strict=True)]
            for parameters, gradients, *states in _cut(columns, sliced=self.sliced):
                signed = list(torch._foreach_neg(gradients)) if maximize else gradients
                yield Batch(step=step, parameters=parameters, gradients=signed, states=states)

    def _same_step(self, ready: list[Tensor]) -> list[tuple[int, list[Tensor]]]:
        """Parameters that one call may update: of one step, device and dtype."""
        alike: dict[tuple[int, torch.device, torch.dtype], list[Tensor]] = {}
        for p in ready:
            alike.setdefault((self.state_of(p)["step"], p.device, p.dtype), []).append(p)
        return [(step, members) for (step, _, _), members in alike.items()]


def divide_into(numerators: list[Tensor], divisors: list[Tensor]) -> list[Tensor]:
    """Quotients; on a CPU in the memory of `divisors`, which is in the cache."""
    if _on_cpu(divisors):
        return [torch.div(n, d, out=d) for n, d in zip(numerators, divisors, strict=True)]
    return list(torch._foreach_div(numerators, divisors))


def clip_in_place(tensors: list[Tensor], limit: float) -> None:
    """Clip to ± `limit`: on a CPU in one pass a tensor, else in two foreach launches."""
    if _on_cpu(tensors):
        for tensor in tensors:
            tensor.clamp_(-limit, limit)
    else:
        torch._foreach_clamp_min_(tensors, -limit)
        torch._foreach_clamp_max_(tensors, limit)


def _on_cpu(tensors: list[Tensor]) -> bool:
    return tensors[0].device.type == "cpu"


def _dense(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None or gradient.layout != torch.strided:
        raise RuntimeError("sparse gradients are not supported: build the embedding with sparse=False")
    return gradient


def _cut(columns: list[list[Tensor]], *, sliced: bool) -> Iterator[list[list[Tensor]]]:
    """`columns` as they are on a GPU; on a CPU batches of about ENTRIES: short rows together, long ones in slices."""
    if not _on_cpu(columns[0]):
        yield columns
        return
    batch: list[Sequence[Tensor]] = []
    filled = 0
    for row in _rows(columns, sliced=sliced):
        if batch and filled + row[0].numel() > ENTRIES:
            yield [list(column) for column in zip(*batch, strict=True)]
            batch, filled = [], 0
        batch.append(row)
        filled += row[0].numel()
    yield [list(column) for column in zip(*batch, strict=True)]


def _rows(columns: list[list[Tensor]], *, sliced: bool) -> Iterator[Sequence[Tensor]]:
    """The rows of `columns`, long ones flat and in slices where that is allowed and their memory order permits."""
    for row in zip(*columns, strict=True):
        if sliced and row[0].numel() > ENTRIES and all(t.is_contiguous() for t in row):
            yield from zip(*(t.view(-1).split(ENTRIES) for t in row), strict=True)
        else:
            yield row
