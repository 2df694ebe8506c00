"""Several algorithms in one optimizer step, each parameter under exactly one of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from optimizers.base import Closure, evaluate


class Composite(Optimizer):
    """One torch optimizer made of several: one `step`, one `param_groups` list, one `state_dict`.

    The group dictionaries are the children's own, so a scheduler that writes `group["lr"]` reaches them.
    Raises ValueError when two children share a parameter.
    """

    def __init__(self, children: Sequence[Optimizer]) -> None:
        owned = [p for child in children for group in child.param_groups for p in group["params"]]
        if len({id(p) for p in owned}) != len(owned):
            raise ValueError("a parameter stands in two of the optimizers: each must have exactly one algorithm")
        self.children = tuple(children)
        super().__init__([{"params": [p]} for p in owned[:1]], {})
        self._adopt()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the children whole; torch's own way keeps groups and state only."""
        return Composite, (self.children,)

    def _adopt(self) -> None:
        """Show the children's groups as one list; torch reads it, the children own it."""
        self.param_groups = [group for child in self.children for group in child.param_groups]

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """Step every child on the same gradients; the closure, if any, runs once."""
        loss = evaluate(closure)
        for child in self.children:
            child.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all children."""
        for child in self.children:
            child.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once built: only a child knows which algorithm a new group should run."""
        if "children" in self.__dict__ and self.param_groups:
            raise ValueError("add the group to one of `children`: a composite cannot tell which algorithm it is for")
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The children's state dicts, in order."""
        return {"children": [child.state_dict() for child in self.children]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave. Raises ValueError when the number of children differs."""
        states = state_dict["children"]
        if len(states) != len(self.children):
            raise ValueError(f"{len(states)} optimizers were saved, there are {len(self.children)}")
        for child, state in zip(self.children, states, strict=True):
            child.load_state_dict(state)
        self._adopt()
