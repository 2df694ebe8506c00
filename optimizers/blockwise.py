"""The base of optimizers that precondition matrices block by block: SOAP and Shampoo.

It gives what torch users expect (closure, groups, saving, missing gradients) and hands a subclass one stack of blocks
at a time. The tensors in `optimizer.state[parameter]["blocks"]` are views of the stacks, so that saving sees every
parameter's own state and a step copies nothing but gradients.

A parameter's clock, `state["step"]`, starts at its first gradient that is not all zeros: until then there is nothing
to precondition by, and `eps ** -exponent` or a basis of a zero matrix would rule the next steps. So a first step looks
at its data, which breaks a graph of torch.compile: compile `step` after it, or with `dynamic=False`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.base import CheckedOptimizer, Closure, evaluate
from optimizers.blocks import Block, Group, Stack, State, assign_slots, stacks_of


@dataclass
class Batch:
    """Blocks of one stack that are at the same step, `rows` of it; `state` holds theirs alone, to be changed in place.

    `step` counts non-zero gradients, this one included. `G` is `(S, M, N)`.
    """

    stack: Stack
    rows: list[int]
    step: int
    state: State
    G: Tensor

    @property
    def group(self) -> Group:
        """The options."""
        return self.stack.group

    @property
    def blocks(self) -> list[Block]:
        """The blocks, in order."""
        return [self.stack.blocks[row] for row in self.rows]

    def due(self, side: str) -> slice | list[int]:
        """Which of the batch refresh `side` at this step: all at the first, later those whose turn it is."""
        places = self.stack.due(side, self.step - 1, self.rows)
        return slice(None) if self.step == 1 or len(places) == len(self.rows) else places


@dataclass
class Move:
    """What to add to the blocks of a batch, per unit of learning rate; `graft_square` is the wished squared norm."""

    batch: Batch
    U: Tensor
    graft_square: Tensor | None = None


class BlockOptimizer(CheckedOptimizer):
    """Base class. Raises ValueError for parameters that are not matrices and for options out of range."""

    #: Built at the next step when None: at first, and after loading, a new group, copying or unpickling.
    _stacks: list[Stack] | None = None

    def check_group(self, group: Group) -> None:
        """Raise ValueError for what the algorithm does not accept; the message names the option and its value."""
        for parameter in group["params"]:
            if parameter.ndim != 2:
                raise ValueError(f"only matrices are trained; this parameter has shape {tuple(parameter.shape)}")
        for name in ("lr", "weight_decay"):
            if not group[name] >= 0.0:
                raise ValueError(f"{name} must be >= 0, got {group[name]}")
        for name in ("every", "max_preconditioner_dim", "block_size"):
            if group[name] is not None and not group[name] >= 1:
                raise ValueError(f"{name} must be >= 1, got {group[name]}")

    @abstractmethod
    def new_state(self, stack: Stack) -> State:
        """The state of a stack before its first gradient."""

    @abstractmethod
    def move(self, batch: Batch) -> Move | None:
        """Take the gradients in; the move to make, or None to leave the weights alone."""

    def rescale(self, moves: Sequence[Move]) -> None:
        """Scale a group's moves in place, once all are known. For updates whose norm is the whole matrix's."""

    def rate(self, batch: Batch) -> float:
        """The factor on the move. Decay, `1 - lr * weight_decay`, is applied to the weights before it."""
        return float(batch.group["lr"])

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; the stacks are built anew. Raises ValueError for what `check_group` refuses."""
        super().add_param_group(param_group)
        self._stacks = None

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """One step over all groups. Parameters without a gradient, or without elements, are left alone."""
        loss = evaluate(closure)
        stacks = self._ready_stacks()
        moving = self._tick()
        for group in self.param_groups:
            moves = [m for stack in stacks if stack.group is group for m in self._moves(stack, moving)]
            self.rescale(moves)
            for move in moves:
                self._apply(move)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave. The state keeps its own precision, which torch would cast to the parameters'."""
        super().load_state_dict(state_dict)
        indices = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, parameter in zip(indices, parameters, strict=True):
            if index in state_dict["state"]:
                self.state[parameter] = dict(state_dict["state"][index])
        self._stacks = None

    def _tick(self) -> dict[Tensor, int]:
        """The parameters that move in this step, and the number of the step for each."""
        moving = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None or not p.numel() or not (self.state[p]["step"] or bool(p.grad.any())):
                    continue
                self.state[p]["step"] += 1
                moving[p] = self.state[p]["step"]
        return moving

    def _moves(self, stack: Stack, moving: dict[Tensor, int]) -> list[Move]:
        """One batch for each step number found in the stack: as a rule one, and the whole stack."""
        by_step: dict[int, list[int]] = {}
        for row, block in enumerate(stack.blocks):
            if block.parameter in moving:
                by_step.setdefault(moving[block.parameter], []).append(row)
        moves = [self._run(stack, rows, step) for step, rows in by_step.items()]
        return [move for move in moves if move is not None]

    def _run(self, stack: Stack, rows: list[int], step: int) -> Move | None:
        if len(rows) == len(stack.blocks):
            return self.move(Batch(stack, rows, step, stack.state, stack.gather(rows)))
        part = {name: tensor[rows] for name, tensor in stack.state.items()}
        move = self.move(Batch(stack, rows, step, part, stack.gather(rows)))
        for name, tensor in part.items():
            stack.state[name][rows] = tensor
        return move

    def _apply(self, move: Move) -> None:
        group = move.batch.group
        targets = [block.of(block.parameter) for block in move.batch.blocks]
        if group["weight_decay"]:
            torch._foreach_mul_(targets, 1.0 - group["lr"] * group["weight_decay"])
        sign = 1.0 if group["maximize"] else -1.0  # moves are odd in the gradient, so its sign can wait until here
        torch._foreach_add_(targets, list(move.U.unbind()), alpha=sign * self.rate(move.batch))

    def _ready_stacks(self) -> list[Stack]:
        if self._stacks is None:
            stacks = [stack for group in self.param_groups for stack in stacks_of(group)]
            for stack in stacks:
                stack.state = self.new_state(stack)
            _take_over(self.state, stacks)
            assign_slots(stacks)
            self._stacks = stacks
        return self._stacks


def _take_over(state: Any, stacks: Sequence[Stack]) -> None:
    """Copy saved state into the stacks, and make the parameters' state views of them."""
    saved = {block.parameter: state[block.parameter] for stack in stacks for block in stack.blocks}
    for parameter, old in saved.items():
        state[parameter] = {"step": old.get("step", 0), "blocks": {}}
    for stack in stacks:
        for row, block in enumerate(stack.blocks):
            views = {name: tensor[row] for name, tensor in stack.state.items()}
            for name, value in saved[block.parameter].get("blocks", {}).get(block.index, {}).items():
                views[name].copy_(value)
            state[block.parameter]["blocks"][block.index] = views


def check_betas(**betas: float) -> None:
    """Raise ValueError for a decay rate outside [0, 1)."""
    for name, beta in betas.items():
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{name} must be in [0, 1), got {beta}")
