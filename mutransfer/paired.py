"""How a curve has changed between two runs with the same seeds: from differences trial by trial.

The baseline's fit gives the curve's shape, differences at the same seed and rate what was added to it:

    night(u) = baseline(u) + a + b u + c u^2,     difference = a + b u + c u^2 + noise

Seeds and the shape itself cancel, so the noise is what two runs of one trial differ by: nothing on one machine,
rounding grown large on another. It is estimated from the scatter of the differences themselves, with few degrees of
freedom, hence Student's t. Where the fits alone can be compared, their intervals are.
Legend: N pairs, K coefficients (lowest degree first), G grid of learning rates, `u` octaves from the fit's centre.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from mutransfer.nights import NightTrial
from mutransfer.points import FloatArray
from mutransfer.result import Curve, Interval
from mutransfer.student import t_quantile

#: Rates this close pair up: half the distance of the half-octave lattice.
PAIR_OCTAVES = 0.2501
#: Rates around an optimum without a fit that may be averaged.
REACH_OCTAVES = 1.0
MIN_RATES = 4
MIN_DEGREES = 3
_GRID = 301
#: A curve counts as no flatter than this share of the baseline's curvature when a tilt is turned into a shift.
_LEAST_CURVATURE = 0.25
_TWO_SIDED_95 = 0.025


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its standard error on `degrees` of freedom. `at_least`: the true size may be larger."""

    value: float
    stderr: float
    degrees: float
    at_least: bool = False

    def interval(self, tail: float) -> Interval:
        """The interval that each side's error probability is `tail` for."""
        reach = self.reach(tail)
        if reach == inf:
            return Interval(value=self.value, low=None, high=None)
        return Interval(value=self.value, low=self.value - reach, high=self.value + reach)

    def reach(self, tail: float) -> float:
        """Half the width of `interval`."""
        return 0.0 if self.stderr == 0.0 else t_quantile(tail, self.degrees) * self.stderr

    def is_beyond(self, tolerance: float, tail: float) -> bool:
        """Whether it differs from zero beyond chance, and by more than `tolerance`."""
        return bool(abs(self.value) > max(tolerance, self.reach(tail)))


@dataclass(frozen=True, kw_only=True)
class CurveChange:
    """Night minus baseline of one curve: where its optimum lies (octaves), and the loss there (nats)."""

    shift: Estimate | None
    loss: Estimate | None


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of independent estimates (Welch and Satterthwaite's degrees of freedom)."""
    va, vb = a.stderr**2, b.stderr**2
    spread = va**2 / a.degrees + vb**2 / b.degrees
    degrees = (va + vb) ** 2 / spread if spread else min(a.degrees, b.degrees)
    return Estimate(value=a.value - b.value, stderr=sqrt(va + vb), degrees=degrees, at_least=a.at_least or b.at_least)


def from_intervals(
    night: Interval | None, baseline: Interval | None, *, degrees: tuple[float, float]
) -> Estimate | None:
    """The change between two 95 % intervals, taken as independent; None where either is unbounded or missing.

    `degrees` are of the noise that each of the two was fitted with, in the same order.
    """
    a, b = _estimate(night, degrees[0]), _estimate(baseline, degrees[1])
    return None if a is None or b is None else difference(a, b)


def _estimate(interval: Interval | None, degrees: float) -> Estimate | None:
    half = _half_width(interval)
    if interval is None or half == inf:
        return None
    return Estimate(value=interval.value, stderr=half / t_quantile(_TWO_SIDED_95, degrees), degrees=degrees)


def _half_width(interval: Interval | None) -> float:
    if interval is None or interval.low is None or interval.high is None:
        return inf
    return max(interval.value - interval.low, interval.high - interval.value)


def seed_degrees(trials: Iterable[NightTrial]) -> int:
    """Degrees of freedom of the noise between seeds on one curve, at least 2."""
    finite = [trial for trial in trials if trial.loss_nats is not None]
    rates, seeds = {round(t.lr_octaves, 4) for t in finite}, {t.seed for t in finite}
    return max(2, len(finite) - len(rates) - len(seeds) + 1)


def curve_change(curve: Curve, baseline: Sequence[NightTrial], night: Sequence[NightTrial]) -> CurveChange:
    """How a curve has changed, from paired trials; empty where too few pair up. `curve` is the baseline's."""
    pairs = _pairs(baseline, night)
    if not curve.fit_coefficients or curve.fit_window_octaves is None or curve.fit_center_octaves is None:
        return CurveChange(shift=None, loss=_plain(curve, pairs))
    shape = _Shape(
        center=curve.fit_center_octaves,
        window=curve.fit_window_octaves,
        coefficients_K=np.array(curve.fit_coefficients),
    )
    low, high = shape.window
    inside = [(b, n) for b, n in pairs if low - PAIR_OCTAVES <= n.lr_octaves <= high + PAIR_OCTAVES]
    return _fitted(shape, inside)


def _pairs(baseline: Sequence[NightTrial], night: Sequence[NightTrial]) -> list[tuple[NightTrial, NightTrial]]:
    """(baseline, night) trials of equal seed at the nearest rates, each used once."""
    free = {(t.seed, t.lr_octaves): t for t in baseline if t.loss_nats is not None}
    found = []
    for trial in sorted((t for t in night if t.loss_nats is not None), key=lambda t: (t.seed, t.lr_octaves)):
        near = [key for key in free if key[0] == trial.seed and abs(key[1] - trial.lr_octaves) <= PAIR_OCTAVES]
        if near:
            found.append((free.pop(min(near, key=lambda key: abs(key[1] - trial.lr_octaves))), trial))
    return found


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """The baseline's fitted curve, a polynomial in octaves from its centre."""

    center: float
    window: tuple[float, float]
    coefficients_K: FloatArray

    def loss(self, u: float | FloatArray) -> FloatArray:
        return np.asarray(np.polynomial.polynomial.polyval(u, self.coefficients_K), dtype=np.float64)

    def curvature(self, u: float) -> float:
        second_K = np.polynomial.polynomial.polyder(self.coefficients_K, 2)
        return float(np.polynomial.polynomial.polyval(u, second_K))

    def grid(self) -> FloatArray:
        return np.linspace(self.window[0] - self.center, self.window[1] - self.center, _GRID)


@dataclass(frozen=True, kw_only=True)
class _Added:
    """What the night added to the curve: least squares of a + b u + c u^2, and the covariance of (a, b, c)."""

    coefficients_K: FloatArray
    covariance_KK: FloatArray
    degrees: int

    def stderr(self, row_K: FloatArray) -> float:
        return sqrt(max(0.0, float(row_K @ self.covariance_KK @ row_K)))


def _fitted(shape: _Shape, pairs: Sequence[tuple[NightTrial, NightTrial]]) -> CurveChange:
    added = _added(shape, pairs)
    if added is None:
        return CurveChange(shift=None, loss=None)
    u_G = shape.grid()
    before_G = shape.loss(u_G)
    after_G = before_G + np.vander(u_G, 3, increasing=True) @ added.coefficients_K
    old, new = _lowest(u_G, before_G), _lowest(u_G, after_G)
    curvature = max(shape.curvature(old), 0.0)
    flattest = max(min(curvature, shape.curvature(new) + 2.0 * added.coefficients_K[2]), _LEAST_CURVATURE * curvature)
    if flattest <= 0.0:
        return CurveChange(shift=None, loss=None)
    tilts = [added.stderr(np.array([0.0, 1.0, 2.0 * u])) for u in (old, new)]
    shift = Estimate(
        value=new - old, stderr=float(max(tilts) / flattest), degrees=added.degrees, at_least=new in (u_G[0], u_G[-1])
    )
    level = float(np.interp(new, u_G, after_G) - np.interp(old, u_G, before_G))
    errors = [added.stderr(np.array([1.0, u, u * u])) for u in (old, new)]
    return CurveChange(shift=shift, loss=Estimate(value=level, stderr=max(errors), degrees=added.degrees))


def _added(shape: _Shape, pairs: Sequence[tuple[NightTrial, NightTrial]]) -> _Added | None:
    rates = {round(baseline.lr_octaves, 4) for baseline, _ in pairs}
    degrees = len(pairs) - 3
    if len(rates) < MIN_RATES or degrees < MIN_DEGREES:
        return None
    u_N = np.array([night.lr_octaves - shape.center for _, night in pairs])
    was_N = np.array([baseline.lr_octaves - shape.center for baseline, _ in pairs])
    # Between rates that differ a little the curve itself differs: that is no change.
    d_N = _losses([n for _, n in pairs]) - shape.loss(u_N) - (_losses([b for b, _ in pairs]) - shape.loss(was_N))
    design_NK = np.vander(u_N, 3, increasing=True)
    inverse_KK = np.linalg.inv(design_NK.T @ design_NK)
    coefficients_K = inverse_KK @ (design_NK.T @ d_N)
    residual_N = d_N - design_NK @ coefficients_K
    variance = float(residual_N @ residual_N) / degrees
    return _Added(coefficients_K=coefficients_K, covariance_KK=variance * inverse_KK, degrees=degrees)


def _losses(trials: Sequence[NightTrial]) -> FloatArray:
    return np.array([trial.loss_nats for trial in trials], dtype=np.float64)


def _lowest(u_G: FloatArray, loss_G: FloatArray) -> float:
    """The lowest point of a curve on a grid, refined by the parabola through its neighbours."""
    index = int(loss_G.argmin())
    if index in (0, len(u_G) - 1):
        return float(u_G[index])
    left, middle, right = loss_G[index - 1 : index + 2]
    bend = left - 2.0 * middle + right
    step = float(u_G[1] - u_G[0])
    return float(u_G[index] + (0.5 * step * (left - right) / bend if bend > 0.0 else 0.0))


def _plain(curve: Curve, pairs: Sequence[tuple[NightTrial, NightTrial]]) -> Estimate | None:
    """The mean difference around the best rate of a curve without a fit."""
    finite = [(point.loss_nats, point.lr_octaves) for point in curve.points if point.loss_nats is not None]
    if not finite:
        return None
    best = min(finite)[1]
    near = [(b, n) for b, n in pairs if abs(b.lr_octaves - best) <= REACH_OCTAVES and b.lr_octaves == n.lr_octaves]
    if len(near) <= MIN_DEGREES:
        return None
    d_N = _losses([n for _, n in near]) - _losses([b for b, _ in near])
    return Estimate(value=float(d_N.mean()), stderr=float(d_N.std(ddof=1)) / sqrt(len(near)), degrees=len(near) - 1)
