"""A polynomial through noisy means, with as much curvature beyond a cubic as the data ask for, and replicas of it.

Model, with `u` the distance to the centre in half windows and `n[p]` trials behind mean `p`:

    mean[p] = sum_k c[k] u[p]^k + noise,   noise ~ N(0, sigma^2 / n[p])
    c[0..base] free,   c[k] ~ N(0, tau^2) for base < k <= degree

A cubic alone is biased on a curve that is steep on one side, and inflating the noise by what it misses makes quiet
curves needlessly wide. Here the higher coefficients say what the cubic misses: `tau` is averaged over a grid by its
marginal likelihood, and `sigma` has a scaled inverse chi-squared posterior from the variance between seeds (`degrees`
of freedom) and the residuals together. Replicas are draws of that posterior: a mixture of multivariate t.
Legend: B draws, T values of tau, P points, K coefficients (lowest degree first), G grid of learning rates.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import sqrt

import numpy as np

from mutransfer.points import FloatArray

DRAWS = 2000
MAX_DEGREE = 6
MIN_CUBIC_POINTS = 6
#: tau as a share of the spread of the means: from a plain cubic to one that follows every point.
TAU_SHARES = (1e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
#: Where the noise is unknown or zero, it is taken as this share of the spread to start from.
_LEAST_NOISE = 1e-4
_TINY = 1e-300
_GRID = 31


@dataclass(frozen=True, kw_only=True)
class Means:
    """What is fitted: means in nats at `u_P`, each over `trials_P` trials with pooled `variance` on `degrees`."""

    u_P: FloatArray
    loss_P: FloatArray
    trials_P: FloatArray
    variance: float
    degrees: int


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The coefficients' posterior at each `tau` (T of them), with weights that sum to one.

    `factor_TKK` is a root of the covariance over sigma^2: `factor.T @ factor`; `variance_T` is sigma^2's scale.
    """

    weight_T: FloatArray
    mean_TK: FloatArray
    factor_TKK: FloatArray
    variance_T: FloatArray
    degrees: int

    @property
    def mean_K(self) -> FloatArray:  # noqa: N802 - shape suffix
        """The posterior mean over all `tau`."""
        mean_K: FloatArray = self.weight_T @ self.mean_TK
        return mean_K


def posterior(means: Means) -> Posterior:
    """Ridge regression at each `tau`, weighted by marginal likelihood. Needs four points or more."""
    points = len(means.u_P)
    base, degree = (3 if points >= MIN_CUBIC_POINTS else 2), min(MAX_DEGREE, points - 1)
    spread = float(np.ptp(means.loss_P)) or 1.0
    sigma2 = max(means.variance, (_LEAST_NOISE * spread) ** 2)
    ratio_T = (np.array(TAU_SHARES) * spread) ** 2 / sigma2
    root_P = np.sqrt(means.trials_P)
    design_PK = np.vander(means.u_P, degree + 1, increasing=True) * root_P[:, None]
    level = float(means.loss_P.mean())
    y_P = (means.loss_P - level) * root_P
    is_shrunk_K = np.arange(degree + 1) > base
    lower_TKK = np.linalg.cholesky(design_PK.T @ design_PK + np.eye(degree + 1) * is_shrunk_K / ratio_T[:, None, None])
    factor_TKK = np.linalg.inv(lower_TKK)
    half_TK = factor_TKK @ (design_PK.T @ y_P)
    degrees = means.degrees + points - base - 1
    residual_T = np.maximum(0.0, y_P @ y_P - (half_TK**2).sum(axis=1))
    squares_T = np.maximum(means.degrees * means.variance + residual_T, _TINY)
    mean_TK = (half_TK[:, None, :] @ factor_TKK)[:, 0, :]
    mean_TK[:, 0] += level
    log_determinant_T = np.log(np.diagonal(lower_TKK, axis1=1, axis2=2)).sum(axis=1)
    likelihood_T = -log_determinant_T - 0.5 * (degree - base) * np.log(ratio_T) - 0.5 * degrees * np.log(squares_T)
    weight_T = np.exp(likelihood_T - likelihood_T.max())
    return Posterior(
        weight_T=weight_T / weight_T.sum(), mean_TK=mean_TK, factor_TKK=factor_TKK,
        variance_T=squares_T / degrees, degrees=degrees,
    )  # fmt: skip


def draw_coefficients(found: Posterior, rng_seed: int) -> FloatArray:
    """`DRAWS` draws of the coefficients (B, K): each `tau` in proportion to its weight."""
    noise_BK = t_noise(rng_seed, found.mean_TK.shape[1], found.degrees)
    bounds = np.round(np.cumsum([0.0, *found.weight_T]) * DRAWS).astype(int)
    drawn_BK = np.empty_like(noise_BK)
    for t, (start, end) in enumerate(pairwise(bounds)):
        scaled_KK = sqrt(found.variance_T[t]) * found.factor_TKK[t]
        drawn_BK[start:end] = found.mean_TK[t] + noise_BK[start:end] @ scaled_KK
    # Shuffled: draws of two curves are paired by place, and must not pair small tau with small tau.
    shuffled_BK: FloatArray = drawn_BK[np.random.default_rng(rng_seed).permutation(DRAWS)]
    return shuffled_BK


@lru_cache(maxsize=128)
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
    """Where each polynomial in u is least on [low, high]: the least of a grid, refined by the parabola around it."""
    grid_G = np.linspace(low, high, _GRID)
    loss_BG = coefficients_BK @ np.vander(grid_G, coefficients_BK.shape[1], increasing=True).T
    least_B = loss_BG.argmin(axis=1)
    inner_B = np.clip(least_B, 1, _GRID - 2)
    rows_B = np.arange(len(coefficients_BK))
    left_B, mid_B, right_B = (loss_BG[rows_B, inner_B + shift] for shift in (-1, 0, 1))
    bend_B = left_B - 2.0 * mid_B + right_B
    shift_B = np.where(bend_B > 0.0, 0.5 * (left_B - right_B) / np.where(bend_B > 0.0, bend_B, 1.0), 0.0)
    refined_B = grid_G[inner_B] + np.clip(shift_B, -1.0, 1.0) * (grid_G[1] - grid_G[0])
    at_end_B = (least_B == 0) | (least_B == _GRID - 1)
    minimum_B: FloatArray = np.where(at_end_B, grid_G[least_B], refined_B)
    return minimum_B


def values(coefficients_BK: FloatArray, u_B: FloatArray) -> FloatArray:
    """Each polynomial at its own u."""
    values_B = np.zeros_like(u_B)
    for column_B in coefficients_BK.T[::-1]:
        values_B = values_B * u_B + column_B
    return values_B
