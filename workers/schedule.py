"""Learning-rate schedules: the factor `s_t` in [0, 1] that the peak rate, and decoupled decay, are multiplied by."""

import math

from mutransfer.spec import TrainSpec

#: A wsd schedule (warm-up, stable, decay) spends this last fraction of its steps decaying to zero.
WSD_DECAY = 0.2


def schedule_factor(train: TrainSpec, *, step: int, steps: int) -> float:
    """`s_t` of update `step` (from 0) of `steps`: linear warm-up, then the schedule's own shape.

    The last update of a decaying schedule is small but not zero, so that no step is spent on nothing.
    """
    warmup = round(train.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    match train.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "wsd":
            return min(1.0, (steps - step) / max(1.0, WSD_DECAY * steps))
