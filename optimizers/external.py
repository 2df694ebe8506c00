"""Optimizers of the user's own: any torch.optim.Optimizer, named by its class, with decay as everywhere here."""

from collections.abc import Callable, Sequence
import importlib
import inspect
from typing import Any

import torch
from torch.optim import Optimizer

from mutransfer.algorithms import RESERVED
from mutransfer.errors import SpecError
from optimizers.base import Closure
from optimizers.spectral import SpectrallyNormalised


def load(path: str) -> Callable[..., Optimizer]:
    """The class `package.module:Class`. Raises SpecError when it cannot be imported or is no torch optimizer."""
    module_name, _, name = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError.at("optimizer", f"cannot import {path!r} as package.module:Class: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise SpecError.at("optimizer", f"{path} is not a torch.optim.Optimizer class")
    made: Callable[..., Optimizer] = found
    return made


def build_external(groups: Sequence[dict[str, Any]]) -> Optimizer:
    """The optimizer that the groups' `class` names, normalised where they say so; their decay is taken off by us.

    Raises SpecError when the class refuses the options.
    """
    path = groups[0]["class"]
    options = {name: value for name, value in groups[0].items() if name not in RESERVED}
    kept = ("params", "names", "lr", "norm")
    cleaned = [{name: group[name] for name in kept if name in group} for group in groups]
    try:
        child = load(path)(cleaned, lr=groups[0]["lr"], **without_decay(path, options))
    except (TypeError, ValueError) as error:
        raise SpecError.at("arms.options", f"{path} refuses {options}: {error}") from error
    if "norm" in groups[0]:
        child = SpectrallyNormalised(child)
    return Decoupled(child, [group["weight_decay"] for group in groups])


def without_decay(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options that turn off the class's own decay, which defaults to something in AdamW and its kin."""
    if "weight_decay" in inspect.signature(load(path)).parameters:
        return {"weight_decay": 0.0, **options}
    return options


class Decoupled(Optimizer):
    """Any optimizer with decoupled decay before its step: `W <- (1 - lr * weight_decay) W`, group by group."""

    def __init__(self, child: Optimizer, weight_decays: Sequence[float]) -> None:
        self.child, self.weight_decays = child, tuple(weight_decays)
        super().__init__(child.param_groups, {})
        self._adopt()

    def _adopt(self) -> None:
        self.param_groups, self.state = self.child.param_groups, self.child.state

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the child whole; torch's own way keeps groups and state only."""
        return Decoupled, (self.child, self.weight_decays)

    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """Decay, then the child's step. A closure runs before the decay, and as often as the child asks."""
        if closure is None:
            self._decay()
            return self.child.step()
        pending = [self._decay]

        def first_decaying() -> float:
            loss = closure()
            if pending:
                pending.pop()()
            return loss

        return self.child.step(first_decaying)

    @torch.no_grad()
    def _decay(self) -> None:
        for group, decay in zip(self.param_groups, self.weight_decays, strict=True):
            for parameter in group["params"] if decay else ():
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * decay)

    def state_dict(self) -> dict[str, Any]:
        """The child's."""
        return self.child.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.child.load_state_dict(state_dict)
        self._adopt()
