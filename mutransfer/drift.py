"""How the optimum moves along the axis: in all, and per doubling. Draws of different widths are independent."""

from collections.abc import Sequence
from math import log2, sqrt

import numpy as np

from mutransfer.fit import FittedCurve, percentile_interval
from mutransfer.points import FloatArray, tidy
from mutransfer.polynomial import DRAWS, t_noise
from mutransfer.result import CurveStatus, Interval

#: The stream of the scatter of optima around the slope's line.
_SLOPE_RNG_SEED = 1


def total_drift(proxy: FittedCurve, target: FittedCurve) -> Interval | None:
    """`opt(target) - opt(proxy)` in octaves; None when either has no optimum.

    A bound is None where either optimum is unbounded on the side that matters. With an edge-limited curve, whose
    interval has no distribution, the bounds themselves are subtracted.
    """
    a, b = proxy.curve.optimum_octaves, target.curve.optimum_octaves
    if a is None or b is None:
        return None
    if proxy.fit is not None and target.fit is not None:
        joint = percentile_interval(target.fit.optimum - proxy.fit.optimum, target.fit.optimum_B - proxy.fit.optimum_B)
        low, high = joint.low, joint.high
    else:
        low = None if b.low is None or a.high is None else tidy(b.low - a.high)
        high = None if b.high is None or a.low is None else tidy(b.high - a.low)
    return Interval(
        value=tidy(b.value - a.value),
        low=None if b.low is None or a.high is None else low,
        high=None if b.high is None or a.low is None else high,
    )


def slope(curves: Sequence[FittedCurve]) -> Interval | None:
    """Octaves per doubling of the axis: least squares over all bracketed curves, None with fewer than two.

    With three or more, optima that scatter around the line by more than their own intervals widen it accordingly.
    """
    fitted = [c for c in curves if c.fit is not None and c.curve.status is CurveStatus.BRACKETED]
    if len(fitted) < 2:
        return None
    x_W = np.log2([float(c.axis_value) for c in fitted])
    x_W = x_W - x_W.mean()
    optimum_W = np.array([c.fit.optimum for c in fitted if c.fit is not None])
    optimum_BW = np.stack([c.fit.optimum_B for c in fitted if c.fit is not None], axis=1)
    weights_W = x_W / float(x_W @ x_W)
    value = float(weights_W @ optimum_W)
    optimum_BW = optimum_BW + _scatter(x_W, optimum_W, optimum_BW, value)
    interval = percentile_interval(value, optimum_BW @ weights_W)
    unbounded = any(half is None for c in fitted for half in _bounds(c))
    return Interval(value=interval.value, low=None, high=None) if unbounded else interval


def _bounds(fitted: FittedCurve) -> tuple[float | None, float | None]:
    optimum = fitted.curve.optimum_octaves
    return (None, None) if optimum is None else (optimum.low, optimum.high)


def _scatter(x_W: FloatArray, optimum_W: FloatArray, optimum_BW: FloatArray, slope_value: float) -> FloatArray:
    """Noise that raises the optima's variance to the residual mean square around the line, where that is larger."""
    degrees = len(x_W) - 2
    if degrees < 1:
        return np.zeros((DRAWS, len(x_W)))
    residual_W = optimum_W - optimum_W.mean() - slope_value * x_W
    excess = float(residual_W @ residual_W) / degrees - float(optimum_BW.var(axis=0).mean())
    noise_BW: FloatArray = t_noise(_SLOPE_RNG_SEED, len(x_W), 0) * sqrt(max(0.0, excess))
    return noise_BW


def widened(interval: Interval, slope_interval: Interval | None, *, doublings: float) -> Interval:
    """An optimum's interval carried `doublings` beyond the last width measured; unbounded without a slope."""
    if doublings <= 0.0:
        return interval
    down = None if slope_interval is None or slope_interval.low is None else min(0.0, slope_interval.low)
    up = None if slope_interval is None or slope_interval.high is None else max(0.0, slope_interval.high)
    return Interval(
        value=interval.value,
        low=None if interval.low is None or down is None else tidy(interval.low + down * doublings),
        high=None if interval.high is None or up is None else tidy(interval.high + up * doublings),
    )


def doublings(start: int, end: int) -> float:
    """log2 of the ratio of two values of the axis."""
    return log2(end / start)
