"""What our optimizers share as torch optimizers: the closure of a step, and groups that are checked or not kept."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

Closure = Callable[[], float]


def evaluate(closure: Closure | None) -> float | None:
    """The loss of a step's closure, evaluated with gradients on; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class CheckedOptimizer(Optimizer, ABC):
    """Base class of optimizers that say which groups they accept."""

    @abstractmethod
    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for what the algorithm does not accept; the message names the option and its value."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as torch does; a group that is refused is not kept."""
        super().add_param_group(param_group)
        try:
            self.check_group(self.param_groups[-1])
        except ValueError:
            del self.param_groups[-1]
            raise
