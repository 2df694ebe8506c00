"""The update law of an optimizer nobody derived: from measured norms to a rule.

An optimizer's raw update at learning rate 1 has `||U||_2 = Theta(d_out^a * d_in^b)`; the spectral condition then gives
the multiplier `d_out^(1/2 - a) * d_in^(-1/2 - b)` (scaling.from_update_law). `fit_law` estimates (a, b) from norms over
a grid of shapes whose sides vary independently: on a width ladder only a + b could be told.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mutransfer.base import Value
from mutransfer.errors import ScalingError
from mutransfer.quantiles import t975

#: A measured exponent is taken for the simplest fraction (smallest denominator, up to this) that lies near enough.
MOST_DENOMINATOR = 4
#: Near enough: finite sides bias exponents by a few hundredths, whatever the interval says.
SNAP_TOLERANCE = 0.06
#: An interval wider than this on either side tells no fraction from the next.
WIDEST_SNAPPED = 0.25


class ShapeNorm(Value):
    """The spectral norm of one raw update: `norm = ||dW||_2 / lr` of a `(d_out, d_in)` matrix, for one seed."""

    d_out: int
    d_in: int
    seed: int
    norm: float


class Exponent(Value):
    """One exponent with its 95 % interval, and the simple fraction it is taken for (None when none lies near)."""

    value: float
    low: float
    high: float
    snapped: str | None

    @property
    def number(self) -> float:
        """The snapped exponent, or the measured one."""
        return float(Fraction(self.snapped)) if self.snapped is not None else self.value


class UpdateLaw(Value):
    """`||U||_2 = Theta(d_out^out * d_in^in)`, as measured; `misfit` is the RMS residual of log2 norm, in octaves."""

    out_exponent: Exponent
    in_exponent: Exponent
    misfit_octaves: float

    @property
    def rule(self) -> str:
        """The multiplier relative to base, as a formula in r_out and r_in."""
        return formula(0.5 - self.out_exponent.number, -0.5 - self.in_exponent.number)


def fit_law(norms: Sequence[ShapeNorm]) -> UpdateLaw:
    """Least squares of log norm on log d_out and log d_in, one fit a seed; intervals by Student's t.

    The standard error is the larger of that between seeds and that of the residuals of the mean surface, so that a law
    that is no power law shows. Raises ScalingError with fewer than two seeds or shapes that do not vary on both sides.
    """
    seeds = sorted({n.seed for n in norms})
    shapes = sorted({(n.d_out, n.d_in) for n in norms})
    if len(seeds) < 2:
        raise ScalingError(f"an interval needs at least two seeds, there is {len(seeds)}")
    if min(len({s[0] for s in shapes}), len({s[1] for s in shapes})) < 2 or len(shapes) < 4:
        raise ScalingError(f"d_out and d_in must vary independently, these shapes do not: {shapes}")
    table = _table(norms, seeds, shapes)
    design = np.array([[1.0, np.log2(d_out), np.log2(d_in)] for d_out, d_in in shapes])
    fits = np.linalg.lstsq(design, table.T, rcond=None)[0].T
    centre = fits.mean(axis=0)
    residuals = table.mean(axis=0) - design @ centre
    freedom = len(shapes) - 3
    scale = float(np.sqrt(residuals @ residuals / freedom))
    surface = scale * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    between = fits.std(axis=0, ddof=1) / np.sqrt(len(seeds))
    widths = np.maximum(between * t975(len(seeds) - 1), surface * t975(freedom))
    return UpdateLaw(
        out_exponent=_exponent(float(centre[1]), float(widths[1])),
        in_exponent=_exponent(float(centre[2]), float(widths[2])),
        misfit_octaves=float(np.sqrt(np.mean(residuals**2))),
    )


def _table(norms: Sequence[ShapeNorm], seeds: Sequence[int], shapes: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """log2 norms, `(seeds, shapes)`. Raises ScalingError for a hole or a norm that is not a positive number."""
    found = {(n.seed, n.d_out, n.d_in): n.norm for n in norms}
    table: NDArray[np.float64] = np.array([[found.get((seed, *shape), np.nan) for shape in shapes] for seed in seeds])
    if not np.all(np.isfinite(table)) or np.any(table <= 0.0):
        raise ScalingError("an update vanished, was not finite or is missing: use another learning rate or more steps")
    logs: NDArray[np.float64] = np.log2(table)
    return logs


def _exponent(value: float, half_width: float) -> Exponent:
    snapped = _simplest(value) if half_width < WIDEST_SNAPPED else None
    return Exponent(
        value=value, low=value - half_width, high=value + half_width, snapped=None if snapped is None else str(snapped)
    )  # fmt: skip


def _simplest(value: float) -> Fraction | None:
    """The fraction of smallest denominator within SNAP_TOLERANCE of `value`."""
    for denominator in range(1, MOST_DENOMINATOR + 1):
        found = Fraction(round(value * denominator), denominator)
        if abs(float(found) - value) <= SNAP_TOLERANCE:
            return found
    return None


def formula(out_power: float, in_power: float) -> str:
    """Powers of r_out and r_in as a fraction: `sqrt(r_out / r_in)`, `1 / r_in`, `1`."""
    powers = {"r_out": Fraction(out_power).limit_denominator(100), "r_in": Fraction(in_power).limit_denominator(100)}
    if powers["r_out"] == -powers["r_in"] == Fraction(1, 2):
        return "sqrt(r_out / r_in)"
    above = [_power(name, power) for name, power in powers.items() if power > 0]
    below = [_power(name, -power) for name, power in powers.items() if power < 0]
    bottom = f"({' * '.join(below)})" if len(below) > 1 else "".join(below)
    return (" * ".join(above) or "1") + (f" / {bottom}" if bottom else "")


def _power(name: str, power: Fraction) -> str:
    if power == 1:
        return name
    return f"sqrt({name})" if power == Fraction(1, 2) else f"{name}^({power})"
