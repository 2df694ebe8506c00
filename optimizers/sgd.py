"""SGD with heavy-ball momentum, as torch's, and decoupled decay, as every algorithm here."""

import torch

from optimizers.base import Closure, evaluate


class SGD(torch.optim.SGD):
    """torch's SGD with decay on the weights rather than in the gradient, as everywhere here."""

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        """Shrink by `lr * weight_decay`, then step without decay. The closure sees the weights before both."""
        loss = evaluate(closure)
        decays = [group["weight_decay"] for group in self.param_groups]
        for group, decay in zip(self.param_groups, decays, strict=True):
            shrinking = [p for p in group["params"] if p.grad is not None]
            if decay and shrinking:
                torch._foreach_mul_(shrinking, 1.0 - group["lr"] * decay)
            group["weight_decay"] = 0.0
        try:
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss
