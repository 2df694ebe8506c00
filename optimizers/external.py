"""Optimizers of the user's own: any torch.optim.Optimizer, named by its class, with decay as everywhere here."""

from collections.abc import Callable, Sequence
import importlib
import inspect
from typing import Any

import torch
from torch.optim import Optimizer

from mutransfer.errors import SpecError

#: Keys of our groups that are not options of the class.
_OURS = ("class", "algorithm", "names", "norm")


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
    """The optimizer that the groups' `class` names; each group's decay is taken off its weights by us.

    Raises SpecError when the class refuses the options.
    """
    path = groups[0]["class"]
    options = {name: value for name, value in groups[0].items() if name not in (*_OURS, "params", "lr", "weight_decay")}
    cleaned = [{"params": g["params"], "lr": g["lr"], "names": g["names"]} for g in groups]
    try:
        child = load(path)(cleaned, lr=groups[0]["lr"], **_without_decay(path, options))
    except (TypeError, ValueError) as error:
        raise SpecError.at("arms.options", f"{path} refuses {options}: {error}") from error
    return Decoupled(child, [group["weight_decay"] for group in groups])


def _without_decay(path: str, options: dict[str, Any]) -> dict[str, Any]:
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
        self.param_groups = self.child.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Decay, then the child's step."""
        for group, decay in zip(self.param_groups, self.weight_decays, strict=True):
            for parameter in group["params"] if decay else ():
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * decay)
        return self.child.step() if closure is None else self.child.step(closure)

    def state_dict(self) -> dict[str, Any]:
        """The child's."""
        return self.child.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.child.load_state_dict(state_dict)
        self._adopt()
