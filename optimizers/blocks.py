"""Matrices cut into blocks, equal blocks of a group's parameters stacked, and refreshes spread over steps.

Shampoo and SOAP precondition every block on its own, so blocks of one shape are one batch of matrix products. Legend:
`S` blocks in a stack, `M, N` rows and columns of a block, `rows` positions in a stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]
State = dict[str, Tensor]

#: A CPU runs blocks up to this size faster in one batch (fewer calls), larger ones one by one (they stay in its cache).
CPU_STACK_NUMEL = 128 * 128


def splits(dim: int, block_size: int | None, *, active: bool) -> list[slice]:
    """Cut a side into `ceil(dim / block_size)` pieces, the last one shorter; an inactive side is left whole."""
    size = dim if block_size is None or not active else min(block_size, dim)
    return [slice(start, min(start + size, dim)) for start in range(0, dim, size)]


def active_sides(shape: Sequence[int], max_preconditioner_dim: int) -> tuple[bool, bool]:
    """Which sides (output = rows, input = columns) get a preconditioner: those of at most `max_preconditioner_dim`."""
    rows, columns = shape
    return rows <= max_preconditioner_dim, columns <= max_preconditioner_dim


def plan_slots(costs: Sequence[float], every: int) -> list[int]:
    """Give each job one of `every` slots, dearest job first, each to the slot that is cheapest so far.

    The dearest slot then costs at most the mean plus one job. Ties go to the lower index: a restart plans alike.
    """
    load = [0.0] * every
    slots = [0] * len(costs)
    for job in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        slots[job] = min(range(every), key=load.__getitem__)
        load[slots[job]] += costs[job]
    return slots


@dataclass(frozen=True, eq=False)
class Block:
    """A rectangle of one parameter, number `index` of it. `active` says which sides have a preconditioner."""

    parameter: Tensor
    index: int
    rows: slice
    columns: slice
    active: tuple[bool, bool]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def of(self, matrix: Tensor) -> Tensor:
        """The part of a matrix, shaped as the parameter, that lies in the block (a view)."""
        return matrix[self.rows, self.columns]

    def gradient(self) -> Tensor:
        """The gradient's part (a view)."""
        assert self.parameter.grad is not None  # noqa: S101 - asked only of parameters that have one
        return self.of(self.parameter.grad)


@dataclass(eq=False)
class Stack:
    """Blocks of one shape, dtype and device in one group, and their state: tensors `(S, ...)`, allocated once."""

    group: Group
    blocks: list[Block]
    state: State = field(default_factory=dict)
    #: Per active side, the slot of each block; see `due`.
    slots: dict[str, list[int]] = field(default_factory=dict)

    @property
    def sides(self) -> dict[str, int]:
        """The active sides and their dimensions: `left` is the output side (rows), `right` the input side."""
        block = self.blocks[0]
        return {
            side: dim for side, dim, active in zip(("left", "right"), block.shape, block.active, strict=True) if active
        }

    @property
    def dtype(self) -> torch.dtype:
        """What the state is kept and computed in: at least single precision."""
        return torch.promote_types(self.blocks[0].parameter.dtype, torch.float32)

    def zeros(self, *shape: int) -> Tensor:
        """A state tensor `(S, *shape)`."""
        return torch.zeros(len(self.blocks), *shape, dtype=self.dtype, device=self.blocks[0].parameter.device)

    def gather(self, rows: Sequence[int]) -> Tensor:
        """The gradients `(S, M, N)` of some blocks: a view of one, a copy of several."""
        pieces = [self.blocks[row].gradient() for row in rows]
        return (pieces[0].unsqueeze(0) if len(pieces) == 1 else torch.stack(pieces)).to(self.dtype)

    def due(self, side: str, update: int, rows: Sequence[int]) -> list[int]:
        """Places in `rows` of the blocks whose `side` is refreshed at `update`: when `(update + slot) % every == 0`."""
        slots, every = self.slots[side], self.group["every"]
        return [place for place, row in enumerate(rows) if (update + slots[row]) % every == 0]


def blocks_of(parameter: Tensor, group: Group) -> list[Block]:
    """The blocks of a parameter, row by row; none when it has no elements."""
    if not parameter.numel():
        return []
    active = active_sides(parameter.shape, group["max_preconditioner_dim"])
    down, across = (
        splits(dim, group["block_size"], active=on) for dim, on in zip(parameter.shape, active, strict=True)
    )
    rectangles = [(rows, columns) for rows in down for columns in across]
    return [Block(parameter, i, rows, columns, active) for i, (rows, columns) in enumerate(rectangles)]


def stacks_of(group: Group) -> list[Stack]:
    """The stacks of a group, in order of first appearance."""
    by_key: dict[tuple[Any, ...], Stack] = {}
    for parameter in group["params"]:
        for block in blocks_of(parameter, group):
            rows, columns = block.shape
            alone = len(by_key) if is_better_alone(rows * columns, parameter.device) else -1
            key = (alone, block.shape, block.active, parameter.dtype, parameter.device)
            by_key.setdefault(key, Stack(group, [])).blocks.append(block)
    return list(by_key.values())


def is_better_alone(numel: int, device: torch.device) -> bool:
    """Whether matrices of `numel` elements are faster one by one than in a batch: large ones on a CPU."""
    return device.type == "cpu" and numel > CPU_STACK_NUMEL


def assign_slots(stacks: Sequence[Stack]) -> None:
    """Spread the refreshes of all sides (cost: dimension cubed) over the steps, over groups of equal `every`."""
    jobs: dict[int, list[tuple[Stack, str, int]]] = {}
    for stack in stacks:
        for side in stack.sides:
            stack.slots[side] = [0] * len(stack.blocks)
            if stack.group["stagger"]:
                jobs.setdefault(stack.group["every"], []).extend((stack, side, i) for i in range(len(stack.blocks)))
    for every, members in jobs.items():
        slots = plan_slots([float(stack.sides[side]) ** 3 for stack, side, _ in members], every)
        for (stack, side, i), slot in zip(members, slots, strict=True):
            stack.slots[side][i] = slot
