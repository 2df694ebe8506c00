"""What the recorded learning rate costs at a target: its loss there minus the best loss, with a 95 % interval.

Both losses come from the fit where the rate lies inside its window, so that their errors cancel; else from measured
means.
"""

from dataclasses import dataclass

import numpy as np

from mutransfer.fit import FittedCurve, measured_loss, percentile_interval
from mutransfer.points import FloatArray, Landscape
from mutransfer.result import CurveStatus, Regret


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss in nats with its bootstrap draws; None draws: the noise is unknown."""

    value: float
    draws_B: FloatArray | None


def diverged_at(points: Landscape, lr_octaves: float) -> tuple[int, int] | None:
    """(diverged, seeds) at a learning rate, None where it was not measured.

    A rate between two measured ones that both diverged counts as the lower of them, so that a sweep which never ran
    the recorded rate itself is judged by its neighbours.
    """
    index = points.index(lr_octaves)
    if index is None:
        neighbours = _neighbours(points, lr_octaves)
        if neighbours is None or not all(points.diverged(i) for i in neighbours):
            return None
        index = neighbours[0]
    return points.diverged_seeds[index], points.diverged_seeds[index] + points.finite_seeds[index]


def _neighbours(points: Landscape, lr_octaves: float) -> tuple[int, int] | None:
    above = next((i for i, lr in enumerate(points.lrs) if lr > lr_octaves), None)
    return None if not above else (above - 1, above)


def loss_at(fitted: FittedCurve, lr_octaves: float) -> Loss | None:
    """Loss of a curve at a rate: fitted in the window, measured or interpolated outside, None where unknown."""
    if fitted.fit is not None and fitted.fit.covers(lr_octaves):
        value, draws_B = fitted.fit.loss_at(lr_octaves)
        return Loss(value=value, draws_B=draws_B)
    index = fitted.points.index(lr_octaves)
    if index is not None:
        return None if fitted.points.diverged(index) else _measured(fitted, index)
    neighbours = _neighbours(fitted.points, lr_octaves)
    if neighbours is None or any(fitted.points.diverged(i) for i in neighbours):
        return None
    return _between(fitted, neighbours, lr_octaves)


def _measured(fitted: FittedCurve, index: int) -> Loss:
    value, draws_B = measured_loss(fitted.points, index, fitted.rng_seed)
    return Loss(value=value, draws_B=draws_B)


def _between(fitted: FittedCurve, neighbours: tuple[int, int], lr_octaves: float) -> Loss:
    low, high = neighbours
    left, right = fitted.points.lrs[low], fitted.points.lrs[high]
    share = (lr_octaves - left) / (right - left)
    a, b = _measured(fitted, low), _measured(fitted, high)
    draws_B = None
    if a.draws_B is not None and b.draws_B is not None:
        draws_B = (1.0 - share) * a.draws_B + share * b.draws_B
    return Loss(value=(1.0 - share) * a.value + share * b.value, draws_B=draws_B)


def _lowest(fitted: FittedCurve) -> Loss | None:
    """The fitted minimum, or the best measured point where there is no fit."""
    if fitted.fit is not None:
        return Loss(value=fitted.fit.loss, draws_B=fitted.fit.loss_B)
    best = fitted.points.best
    return None if best is None else _measured(fitted, best)


def regret(fitted: FittedCurve, recorded: float) -> Regret:
    """The regret of the recorded rate at one target, in nats; never negative.

    Without an optimum (unbracketed or unfinished) the best point bounds the minimum from above only: no upper bound.
    """
    at, lowest = loss_at(fitted, recorded), _lowest(fitted)
    if at is None or lowest is None:
        return Regret(width=fitted.axis_value, value=None, low=None, high=None)
    value = max(0.0, at.value - lowest.value)
    if at.draws_B is None or lowest.draws_B is None:
        return Regret(width=fitted.axis_value, value=value, low=None, high=None)
    interval = percentile_interval(value, np.maximum(0.0, at.draws_B - lowest.draws_B))
    known = fitted.curve.status in (CurveStatus.BRACKETED, CurveStatus.EDGE_LIMITED)
    return Regret(
        width=fitted.axis_value, value=interval.value, low=interval.low, high=interval.high if known else None
    )
