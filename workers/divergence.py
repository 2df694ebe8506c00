"""When a run counts as diverged: a result of the experiment, never a failure of the system (verdict.md)."""

from dataclasses import dataclass, field
import math

#: The training loss is smoothed over this many steps.
SMOOTHING_STEPS = 10
#: How far above the start the smoothed loss may climb after warm-up, in nats per token.
MARGIN_NATS = 0.5


@dataclass(kw_only=True)
class DivergenceMonitor:
    """Watches training losses in nats per token; `vocab` sets the loss of a uniform guess, ln vocab."""

    vocab: int
    warmup_steps: int
    initial_loss_nats: float | None = None
    recent: list[float] = field(default_factory=list)

    def check(self, step: int, loss_nats: float) -> str:
        """Record the loss of update `step`; returns why the run has diverged, or an empty string."""
        if not math.isfinite(loss_nats):
            return f"the training loss became {loss_nats} at step {step}"
        if self.initial_loss_nats is None:
            self.initial_loss_nats = loss_nats
        self.recent = [*self.recent, loss_nats][-SMOOTHING_STEPS:]
        limit = max(self.initial_loss_nats, math.log(self.vocab)) + MARGIN_NATS
        smoothed = sum(self.recent) / len(self.recent)
        if step >= self.warmup_steps and len(self.recent) == SMOOTHING_STEPS and smoothed > limit:
            return f"the smoothed training loss {smoothed:.3f} rose above {limit:.3f} at step {step}"
        return ""

    def check_final(self, loss_nats: float) -> str:
        """Judge the held-out loss at the end; returns why the run has diverged, or an empty string."""
        if not math.isfinite(loss_nats):
            return f"the held-out loss is {loss_nats}"
        if loss_nats > math.log(self.vocab):
            return f"the held-out loss {loss_nats:.3f} is worse than a uniform guess, {math.log(self.vocab):.3f}"
        return ""
