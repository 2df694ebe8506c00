"""From the points of one curve to its optimum, with 95 % intervals (verdict.md, The fit).

Equal-weight cubic (quadratic below six points) over the points within 1.5 octaves of the best. The variance is pooled
over those points after removing the offsets that seeds share, and raised to the residual mean square where that is
larger: a curve that the polynomial cannot follow is honestly wide. Intervals are percentiles of a parametric bootstrap
whose noise is scaled by a draw of the variance (Student's t), because two seeds leave few degrees of freedom.
Intervals hold for the study's own seeds: an offset that all rates of a curve share moves its loss, not its optimum.
Legend: B bootstrap draws, P points, K coefficients (lowest degree first).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite, sqrt

import numpy as np

from mutransfer.points import FloatArray, Landscape, landscape, shape, tidy
from mutransfer.result import Curve, CurveRole, CurveStatus, Interval
from mutransfer.trial import Observation

#: Reach of the fit around the best point, in octaves; the second is for curves measured at whole octaves only.
WINDOW_OCTAVES = 1.5
WIDE_WINDOW_OCTAVES = 2.0
#: Fewest points for a fit, and for a cubic.
MIN_POINTS = 4
MIN_CUBIC_POINTS = 6
DRAWS = 4000
_EDGE = 1e-9
_TAIL = 2.5


@dataclass(frozen=True, kw_only=True)
class PolynomialFit:
    """A polynomial in `lr_octaves - center` and `DRAWS` bootstrap replicas of it, with the minimum of each.

    Minima are sought inside `window` only. `sigma` is the standard deviation of one trial that the draws used.
    """

    center: float
    window: tuple[float, float]
    coefficients_K: FloatArray
    coefficients_BK: FloatArray
    optimum: float
    optimum_B: FloatArray
    loss: float
    loss_B: FloatArray
    sigma: float
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


@lru_cache(maxsize=64)
def t_noise(rng_seed: int, columns: int, degrees: int) -> FloatArray:
    """`(DRAWS, columns)` standard normals, each row scaled by one draw of `sqrt(degrees / chi2(degrees))`.

    Equal arguments give the equal array, bit for bit; it is shared and must not be written to.
    """
    rng = np.random.default_rng([rng_seed, columns, degrees])
    normal = rng.standard_normal((DRAWS, columns))
    if degrees > 0:
        normal *= np.sqrt(degrees / rng.chisquare(degrees, size=(DRAWS, 1)))
    normal.setflags(write=False)
    return normal


def minimum(coefficients_BK: FloatArray, low: float, high: float) -> FloatArray:
    """Where each polynomial (degree 2 or 3, in x) is least on [low, high]: its local minimum there, or else an end."""
    padded = np.zeros((len(coefficients_BK), 4))
    padded[:, : coefficients_BK.shape[1]] = coefficients_BK
    c0, c1, c2, c3 = padded.T
    discriminant = c2 * c2 - 3.0 * c1 * c3
    root = np.sqrt(np.maximum(discriminant, 0.0))
    # The root of the derivative with positive curvature, in the form that does not cancel.
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.where(c2 > 0.0, -c1 / (c2 + root), (root - c2) / (3.0 * c3))
    has_inner = (discriminant > 0.0) & np.isfinite(inner) & (inner >= low) & (inner <= high)
    at_low = c0 + low * (c1 + low * (c2 + low * c3))
    at_high = c0 + high * (c1 + high * (c2 + high * c3))
    return np.where(has_inner, inner, np.where(at_low <= at_high, low, high))


def _values(coefficients_BK: FloatArray, x_B: FloatArray) -> FloatArray:
    powers_BK = x_B[:, None] ** np.arange(coefficients_BK.shape[1])
    values_B: FloatArray = (coefficients_BK * powers_BK).sum(axis=1)
    return values_B


def fit_window(curve: Landscape) -> tuple[float, ...]:
    """The learning rates that enter the fit: finite, near the best, and not beyond a diverged one."""
    best = curve.best
    if best is None:
        return ()
    inside = sorted([best, *curve.side(-1).finite, *curve.side(+1).finite])
    center = curve.lrs[best]
    for reach in (WINDOW_OCTAVES, WIDE_WINDOW_OCTAVES):
        window = tuple(curve.lrs[i] for i in inside if abs(curve.lrs[i] - center) <= reach + 1e-6)
        if len(window) >= MIN_POINTS:
            break
    return window


def fit_landscape(curve: Landscape, *, rng_seed: int) -> PolynomialFit | None:
    """Fit the points around the best of a curve; None when there are fewer than four."""
    window = fit_window(curve)
    if curve.best is None or len(window) < MIN_POINTS:
        return None
    local = landscape(o for o in curve.trials if round(o.lr_octaves, 4) in window)
    center = curve.lrs[curve.best]
    x_P = np.array(window) - center
    degree = 3 if len(window) >= MIN_CUBIC_POINTS else 2
    design_PK = np.vander(x_P, degree + 1, increasing=True)
    inverse_KP = np.linalg.pinv(design_PK)
    loss_P = np.array(local.losses)
    coefficients_K = inverse_KP @ loss_P
    variance, degrees = _variance(local, loss_P - design_PK @ coefficients_K, len(window) - degree - 1)
    sd_P = np.sqrt(variance / np.array(local.finite_seeds))
    noise_BP = t_noise(rng_seed, len(window), degrees) * sd_P
    coefficients_BK = coefficients_K + noise_BP @ inverse_KP.T
    return _with_minima(coefficients_K, coefficients_BK, center, (float(x_P[0]), float(x_P[-1])), variance, local)


def _variance(local: Landscape, residual_P: FloatArray, residual_degrees: int) -> tuple[float, int]:
    """Variance of one trial and its degrees of freedom: pooled over seeds, or the residual mean square if larger."""
    noise = local.noise
    pooled = noise.variance if noise is not None else None
    per_mean = float(residual_P @ residual_P) / residual_degrees if residual_degrees else 0.0
    residual = per_mean * float(np.mean(local.finite_seeds))
    if noise is None or pooled is None:
        return residual, residual_degrees
    return max(pooled, residual), noise.degrees


def _with_minima(
    coefficients_K: FloatArray, coefficients_BK: FloatArray, center: float, span: tuple[float, float],
    variance: float, local: Landscape,
) -> PolynomialFit:  # fmt: skip
    low, high = span
    all_BK = np.vstack([coefficients_K[None, :], coefficients_BK])
    optimum_B = minimum(all_BK, low, high)
    loss_B = _values(all_BK, optimum_B)
    noise = local.noise
    pooled = noise.variance if noise is not None else None
    return PolynomialFit(
        center=center,
        window=(center + low, center + high),
        coefficients_K=coefficients_K,
        coefficients_BK=coefficients_BK,
        optimum=center + float(optimum_B[0]),
        optimum_B=center + optimum_B[1:],
        loss=float(loss_B[0]),
        loss_B=loss_B[1:],
        sigma=sqrt(variance),
        seed_sd=None if pooled is None else sqrt(pooled),
        offset_sd=noise.offset_sd if noise is not None else None,
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
