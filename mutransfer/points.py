"""What has been measured on one curve: trials gathered by learning rate, seed offsets removed, noise pooled.

The search and the fit both read a `Landscape`, so they cannot disagree on which point is best or how noisy it is.
Legend: P points (learning rates), S seeds, N finite trials.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from mutransfer.result import CurveStatus, Point
from mutransfer.trial import Observation

FloatArray = npt.NDArray[np.float64]

#: Points each side of the best must have, and finite ones before divergence.
POINTS_A_SIDE = 2
#: The outermost point of a side must be worse than the best by this many standard errors of the difference.
WORSE_BY_STDERRS = 2.0


def lr_key(lr_octaves: float) -> float:
    """The learning rate as it is stored and compared: octaves to four digits."""
    return round(lr_octaves, 4) + 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """The additive model `loss[p, s] = mean[p] + offset[s] + noise` on some trials.

    `variance` is the noise's (nats squared) on `degrees` degrees of freedom, None where there are none; `offset_sd` is
    the standard deviation of the offsets that seeds share over the curve, None with one seed.
    """

    means: FloatArray
    variance: float | None
    degrees: int
    offset_sd: float | None


def additive_noise(point_N: npt.NDArray[np.int64], seed_N: npt.NDArray[np.int64], loss_N: FloatArray) -> Noise:
    """Least squares of the additive model; offsets sum to zero over the seeds present. Points are numbered 0..P-1."""
    p, s, n = int(point_N.max()) + 1, int(seed_N.max()) + 1, len(loss_N)
    design = np.zeros((n, p + s))
    design[np.arange(n), point_N] = 1.0
    design[np.arange(n), p + seed_N] = 1.0
    solution, _, rank, _ = np.linalg.lstsq(design, loss_N, rcond=None)
    offsets = solution[p:]
    residual = loss_N - design @ solution
    degrees = n - int(rank)
    return Noise(
        means=solution[:p] + offsets.mean(),
        variance=float(residual @ residual) / degrees if degrees else None,
        degrees=degrees,
        offset_sd=float(offsets.std(ddof=1)) if s > 1 else None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape:
    """All finished trials of a curve, by learning rate (rising).

    `losses` are means in nats with seed offsets removed, +inf where half the seeds or more diverged: such a point ranks
    last and never enters a fit. `trials` are the finite trials of the other points, by rate. Two landscapes are never
    equal unless they are the same one, so that work on them can be cached.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    finite_seeds: tuple[int, ...]
    diverged_seeds: tuple[int, ...]
    trials: Mapping[float, Sequence[Observation]]
    noise: Noise | None
    points: tuple[Point, ...]

    @property
    def best(self) -> int | None:
        """Index of the lowest loss, None when nothing finite was measured."""
        finite = [index for index, loss in enumerate(self.losses) if loss < inf]
        return min(finite, key=lambda index: self.losses[index]) if finite else None

    def index(self, lr_octaves: float) -> int | None:
        """Where `lr_octaves` was measured, None where it was not."""
        key = lr_key(lr_octaves)
        return self.lrs.index(key) if key in self.lrs else None

    def diverged(self, index: int) -> bool:
        """Whether half the seeds or more diverged at this point."""
        return self.losses[index] == inf

    def stderr(self, index: int) -> float | None:
        """Standard error of a point's mean, from the pooled variance."""
        if self.noise is None or self.noise.variance is None or not self.finite_seeds[index]:
            return None
        return sqrt(self.noise.variance / self.finite_seeds[index])

    def side(self, direction: int) -> "Side":
        """What was measured on one side (-1 left, +1 right) of the best. Needs a best."""
        best = self.best
        if best is None:
            raise ValueError("a curve without a finite loss has no sides")
        order = range(best + 1, len(self.lrs)) if direction > 0 else range(best - 1, -1, -1)
        indices = list(order)
        broken = next((place for place, index in enumerate(indices) if self.diverged(index)), None)
        finite = indices if broken is None else indices[:broken]
        return Side(
            direction=direction,
            count=len(indices),
            finite=tuple(finite),
            diverged_at=None if broken is None else self.lrs[indices[broken]],
        )

    def is_clearly_worse(self, index: int) -> bool:
        """Whether a point is worse than the best by two pooled standard errors of the difference."""
        best = self.best
        if best is None or self.diverged(index):
            return True
        errors = [self.stderr(best), self.stderr(index)]
        stderr = sqrt(sum((e or 0.0) ** 2 for e in errors))
        difference = self.losses[index] - self.losses[best]
        return difference > 0.0 and difference >= WORSE_BY_STDERRS * stderr


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the best: `count` points in all, `finite` indices outward up to the first diverged rate."""

    direction: int
    count: int
    finite: tuple[int, ...]
    diverged_at: float | None

    @property
    def name(self) -> str:
        """`below` or `above` the best."""
        return "above" if self.direction > 0 else "below"

    @property
    def is_cut(self) -> bool:
        """Whether divergence leaves too few finite points on this side."""
        return self.diverged_at is not None and len(self.finite) < POINTS_A_SIDE


def landscape(observations: Iterable[Observation]) -> Landscape:
    """Gather observations, in any order, by learning rate."""
    groups: dict[float, list[Observation]] = {}
    for lr, _, row in sorted(((lr_key(o.lr_octaves), o.seed, o) for o in observations), key=itemgetter(0, 1)):
        groups.setdefault(lr, []).append(row)
    finite = {lr: [o for o in group if not o.diverged] for lr, group in groups.items()}
    usable = {lr: finite[lr] for lr, group in groups.items() if 2 * len(finite[lr]) > len(group)}
    noise = pooled_noise(usable)
    losses = dict.fromkeys(groups, inf)
    if noise is not None:
        losses.update(zip(usable, noise.means.tolist(), strict=True))
    return Landscape(
        lrs=tuple(groups),
        losses=tuple(losses.values()),
        finite_seeds=tuple(len(group) for group in finite.values()),
        diverged_seeds=tuple(len(groups[lr]) - len(finite[lr]) for lr in groups),
        trials=usable,
        noise=noise,
        points=tuple(_point(lr, groups[lr], finite[lr], losses[lr], noise) for lr in groups),
    )


def pooled_noise(trials: Mapping[float, Sequence[Observation]]) -> Noise | None:
    """The additive model over the finite trials of some rates; None without any."""
    rows = [(place, o.seed, o.loss_nats) for place, group in enumerate(trials.values()) for o in group]
    if not rows:
        return None
    seeds = {seed: place for place, seed in enumerate(sorted({seed for _, seed, _ in rows}))}
    return additive_noise(
        np.array([place for place, _, _ in rows]),
        np.array([seeds[seed] for _, seed, _ in rows]),
        np.array([loss for _, _, loss in rows], dtype=np.float64),
    )


def _point(
    lr: float, group: Sequence[Observation], finite: Sequence[Observation], loss: float, noise: Noise | None
) -> Point:
    measured = [o.loss_nats for o in finite if o.loss_nats is not None]
    mean = loss if loss < inf else (sum(measured) / len(measured) if measured else None)
    variance = None if noise is None else noise.variance
    stderr = None if variance is None or not measured else sqrt(variance / len(measured))
    return Point(
        lr_octaves=lr,
        loss_nats=None if mean is None else tidy(mean),
        stderr=None if stderr is None else tidy(stderr),
        seeds=len(group),
        diverged=len(group) - len(finite),
    )


def tidy(value: float) -> float:
    """Eight digits after the point: far below any noise, far above what another machine's sums differ by."""
    return round(float(value), 8) + 0.0


def shape(curve: Landscape) -> tuple[CurveStatus, str]:
    """Whether the measured points bracket an optimum, and a sentence saying why or why not."""
    if not curve.lrs:
        return CurveStatus.EMPTY, "nothing has finished"
    best = curve.best
    if best is None:
        return CurveStatus.EMPTY, f"diverged at every learning rate from 2^{curve.lrs[0]:g} to 2^{curve.lrs[-1]:g}"
    sides = [curve.side(-1), curve.side(+1)]
    for side in sides:
        if side.count < POINTS_A_SIDE:
            return (
                CurveStatus.UNBRACKETED,
                f"only {side.count} of 2 points lie {side.name} the best 2^{curve.lrs[best]:g}",
            )
        if side.diverged_at is None and not curve.is_clearly_worse(side.finite[-1]):
            outermost = curve.lrs[side.finite[-1]]
            return (
                CurveStatus.UNBRACKETED,
                f"the outermost rate {side.name}, 2^{outermost:g}, is not clearly worse than the best",
            )
    for side in sides:
        if side.is_cut:
            return (
                CurveStatus.EDGE_LIMITED,
                f"diverges at 2^{side.diverged_at:g}, right {side.name} the best 2^{curve.lrs[best]:g}",
            )
    return CurveStatus.BRACKETED, f"worse on both sides of 2^{curve.lrs[best]:g}"
