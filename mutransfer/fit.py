"""From the points of one curve to its optimum, with 95 % intervals (verdict.md, The fit).

A polynomial over the half-octave points within 1.5 octaves of the optimum: a cubic (quadratic below six points) with
as much beyond it as the data ask for (mutransfer.polynomial). Noise is pooled over those points, after removing the
offsets that seeds share. Intervals are percentiles of replicas drawn with t-scaled noise, because two seeds leave few
degrees of freedom. `python -m benchmarks.coverage` measures how often they hold the truth.
Intervals hold for the study's own seeds: an offset that all rates of a curve share moves its loss, not its optimum.
Legend: B draws, P points, K coefficients (lowest degree first).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite, sqrt

import numpy as np

from mutransfer.points import FloatArray, Landscape, Noise, landscape, pooled_noise, shape, tidy
from mutransfer.polynomial import (
    Means,
    draw_coefficients,
    minimum,
    posterior,
    t_noise,
    values,
)
from mutransfer.result import Curve, CurveRole, CurveStatus, Interval
from mutransfer.trial import Observation

#: Reach of the fit around the optimum, in octaves; the others are for curves measured at whole octaves only.
WINDOW_OCTAVES = 1.5
SPARSE_WINDOWS_OCTAVES = (2.0, 3.0)
#: Points a window should hold, and the fewest for a fit.
WANTED_POINTS = 5
MIN_POINTS = 4
_RECENTRINGS = 4
_EDGE = 1e-9
_TAIL = 2.5


@dataclass(frozen=True, kw_only=True)
class PolynomialFit:
    """A polynomial in `lr_octaves - center` and `DRAWS` bootstrap replicas of it, with the minimum of each.

    Minima are sought inside `window` only.
    """

    center: float
    window: tuple[float, float]
    coefficients_K: FloatArray
    coefficients_BK: FloatArray
    optimum: float
    optimum_B: FloatArray
    loss: float
    loss_B: FloatArray
    seed_sd: float | None
    offset_sd: float | None

    def covers(self, lr_octaves: float) -> bool:
        """Whether a learning rate lies inside the window of the fit."""
        return self.window[0] - _EDGE <= lr_octaves <= self.window[1] + _EDGE

    def loss_at(self, lr_octaves: float) -> tuple[float, FloatArray]:
        """Fitted loss at a learning rate, and its draws."""
        powers_K = (lr_octaves - self.center) ** np.arange(len(self.coefficients_K))
        return float(self.coefficients_K @ powers_K), self.coefficients_BK @ powers_K

    def optimum_interval(self) -> Interval:
        """Where the minimum lies. A bound is None when more than its share of draws end at the edge of the window."""
        low, high = np.percentile(self.optimum_B, [_TAIL, 100.0 - _TAIL])
        at_low, at_high = self.window[0] + _EDGE, self.window[1] - _EDGE
        return Interval(
            value=tidy(self.optimum),
            low=None if low <= at_low else tidy(min(low, self.optimum)),
            high=None if high >= at_high else tidy(max(high, self.optimum)),
        )

    def loss_interval(self) -> Interval:
        """The loss at the minimum."""
        return percentile_interval(self.loss, self.loss_B)


def percentile_interval(value: float, draws_B: FloatArray) -> Interval:
    """The 95 % percentile interval of draws, never excluding the value itself."""
    low, high = np.percentile(draws_B, [_TAIL, 100.0 - _TAIL])
    return Interval(value=tidy(value), low=tidy(min(low, value)), high=tidy(max(high, value)))


def half_width(interval: Interval) -> float:
    """Half the width of an interval, infinite when a side is unbounded."""
    if interval.low is None or interval.high is None:
        return inf
    return (interval.high - interval.low) / 2.0


def fit_landscape(curve: Landscape, *, rng_seed: int) -> PolynomialFit | None:
    """Fit the points around the optimum of a curve; None when there are fewer than four."""
    center, window = locate(curve)
    if len(window) < MIN_POINTS:
        return None
    return _fit(curve, center, window, rng_seed)


def fit_window(curve: Landscape) -> tuple[float, ...]:
    """The learning rates that enter the fit, rising."""
    return locate(curve)[1]


@lru_cache(maxsize=8)
def locate(curve: Landscape) -> tuple[float, tuple[float, ...]]:
    """(centre, learning rates) of the fit's window.

    The centre starts at the best point and moves to the one nearest the fitted optimum: a window around a best point
    that noise has put half an octave off would bias a curve that is steep on one side.
    """
    best = curve.best
    if best is None:
        return 0.0, ()
    inside = [curve.lrs[i] for i in sorted([best, *curve.side(-1).finite, *curve.side(+1).finite])]
    center, seen = curve.lrs[best], set[float]()
    window = _around(inside, center)
    while len(window) >= MIN_POINTS and center not in seen and len(seen) < _RECENTRINGS:
        seen.add(center)
        found = posterior(_means(curve, center, window))
        low, high = (window[0] - center) / WINDOW_OCTAVES, (window[-1] - center) / WINDOW_OCTAVES
        optimum = center + WINDOW_OCTAVES * float(minimum(found.mean_K[None, :], low, high)[0])
        center = min(inside[1:-1] or inside, key=lambda lr: abs(lr - optimum))
        window = _around(inside, center)
    return center, window


def _around(inside: Sequence[float], center: float) -> tuple[float, ...]:
    """Points within reach of the centre; farther ones only when points lie too sparsely for a fit."""
    for reach in (WINDOW_OCTAVES, *SPARSE_WINDOWS_OCTAVES):
        window = tuple(lr for lr in inside if abs(lr - center) <= reach + 1e-6)
        if len(window) >= WANTED_POINTS:
            break
    return window


def _window_noise(curve: Landscape, window: Sequence[float]) -> Noise:
    """Means and noise of the window's points alone: at the edge of stability it says nothing about the optimum."""
    noise = pooled_noise({lr: curve.trials[lr] for lr in window})
    assert noise is not None  # noqa: S101 - a window holds finite points
    return noise


def _means(curve: Landscape, center: float, window: Sequence[float]) -> Means:
    noise = _window_noise(curve, window)
    return Means(
        u_P=(np.array(window) - center) / WINDOW_OCTAVES,
        loss_P=noise.means,
        trials_P=np.array([len(curve.trials[lr]) for lr in window], dtype=np.float64),
        variance=0.0 if noise.variance is None else noise.variance,
        degrees=noise.degrees,
    )


def _fit(curve: Landscape, center: float, window: Sequence[float], rng_seed: int) -> PolynomialFit:
    found = posterior(_means(curve, center, window))
    all_BK = np.vstack([found.mean_K[None, :], draw_coefficients(found, rng_seed)])
    low, high = (window[0] - center) / WINDOW_OCTAVES, (window[-1] - center) / WINDOW_OCTAVES
    u_B = minimum(all_BK, low, high)
    loss_B = values(all_BK, u_B)
    optimum_B = center + WINDOW_OCTAVES * u_B
    per_octave_BK = all_BK / WINDOW_OCTAVES ** np.arange(all_BK.shape[1])
    noise = _window_noise(curve, window)
    return PolynomialFit(
        center=center,
        window=(window[0], window[-1]),
        coefficients_K=per_octave_BK[0],
        coefficients_BK=per_octave_BK[1:],
        optimum=float(optimum_B[0]),
        optimum_B=optimum_B[1:],
        loss=float(loss_B[0]),
        loss_B=loss_B[1:],
        seed_sd=None if noise.variance is None else sqrt(noise.variance),
        offset_sd=noise.offset_sd,
    )


@dataclass(frozen=True, kw_only=True)
class FittedCurve:
    """A curve as the result shows it, with what the verdict needs besides: its points and the draws of its fit."""

    axis_value: int
    curve: Curve
    points: Landscape
    fit: PolynomialFit | None
    rng_seed: int


def fit_curve_full(
    observations: Iterable[Observation], *, axis_value: int, width: int, depth: int, role: CurveRole, rng_seed: int,
    status: CurveStatus | None = None,
) -> FittedCurve:  # fmt: skip
    """Fit one curve. `status` overrides what the points say (INCOMPLETE while trials are missing).

    The same observations, in any order, and the same `rng_seed` give the same curve bit for bit.
    """
    points = landscape(observations)
    found = shape(points)[0] if status is None else status
    fit = fit_landscape(points, rng_seed=rng_seed) if found is CurveStatus.BRACKETED else None
    if found is CurveStatus.BRACKETED and fit is None:
        found = CurveStatus.INCOMPLETE
    curve = Curve(
        width=width,
        depth=depth,
        role=role,
        status=found,
        optimum_octaves=_optimum(points, found, fit),
        loss_nats=_loss(points, found, fit, rng_seed),
        points=points.points,
        fit_coefficients=() if fit is None else tuple(tidy(c) for c in fit.coefficients_K),
        fit_center_octaves=None if fit is None else fit.center,
        fit_window_octaves=None if fit is None else fit.window,
        seed_stderr_nats=_seed_sd(points, fit),
        seed_offset_nats=_offset_sd(points, fit),
        stability_edge_octaves=stability_edge(points),
    )
    return FittedCurve(axis_value=axis_value, curve=curve, points=points, fit=fit, rng_seed=rng_seed)


def fit_curve(
    observations: Iterable[Observation], *, width: int, depth: int, role: CurveRole, rng_seed: int,
    status: CurveStatus | None = None,
) -> Curve:  # fmt: skip
    """The curve of one arm at one size, as the result shows it (see `fit_curve_full`)."""
    return fit_curve_full(
        observations, axis_value=width, width=width, depth=depth, role=role, rng_seed=rng_seed, status=status
    ).curve


def _optimum(points: Landscape, status: CurveStatus, fit: PolynomialFit | None) -> Interval | None:
    if fit is not None:
        return fit.optimum_interval()
    if status is not CurveStatus.EDGE_LIMITED or points.best is None:
        return None
    return Interval(value=points.lrs[points.best], low=_edge_bound(points, -1), high=_edge_bound(points, +1))


def _edge_bound(points: Landscape, direction: int) -> float | None:
    """How far the optimum may lie on one side of an edge-limited best: to the first rate diverged or clearly worse."""
    side = points.side(direction)
    worse = next((points.lrs[i] for i in side.finite if points.is_clearly_worse(i)), None)
    return worse if worse is not None else side.diverged_at


def _loss(points: Landscape, status: CurveStatus, fit: PolynomialFit | None, rng_seed: int) -> Interval | None:
    if fit is not None:
        return fit.loss_interval()
    if status is not CurveStatus.EDGE_LIMITED or points.best is None:
        return None
    value, draws_B = measured_loss(points, points.best, rng_seed)
    return Interval(value=tidy(value), low=None, high=None) if draws_B is None else percentile_interval(value, draws_B)


def measured_loss(points: Landscape, index: int, rng_seed: int) -> tuple[float, FloatArray | None]:
    """Mean loss of a measured point and draws of it; no draws where one seed each leaves the noise unknown."""
    value, stderr = points.losses[index], points.stderr(index)
    if stderr is None or points.noise is None or not isfinite(value):
        return value, None
    noise_BP = t_noise(rng_seed, len(points.lrs) + 16, points.noise.degrees)
    return value, value + stderr * noise_BP[:, index]


def _seed_sd(points: Landscape, fit: PolynomialFit | None) -> float | None:
    if fit is not None:
        return None if fit.seed_sd is None else tidy(fit.seed_sd)
    variance = None if points.noise is None else points.noise.variance
    return None if variance is None else tidy(sqrt(variance))


def _offset_sd(points: Landscape, fit: PolynomialFit | None) -> float | None:
    offset = fit.offset_sd if fit is not None else None if points.noise is None else points.noise.offset_sd
    return None if offset is None else tidy(offset)


def stability_edge(points: Landscape) -> float | None:
    """The largest learning rate at which no seed diverged, None when there is none."""
    stable = [lr for lr, diverged in zip(points.lrs, points.diverged_seeds, strict=True) if not diverged]
    return max(stable, default=None)
