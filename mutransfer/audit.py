r"""The audit: rules are checked, not trusted. From measurements along a ladder of widths to a verdict a layer.

Every matrix `h = W x` of a study's models is measured at several widths over the first steps at a constant learning
rate. A quantity that obeys the condition grows as `width**p` with a known p; the audit fits the exponent and compares.

| matrix | weight at the start | change of weight | output, change of output |
|---|---|---|---|
| both sides grow | `||W_0||_2`: p of `sqrt(d_out / d_in)` | `||W_t - W_0||_2`: same p | RMS: 0 |
| lookup | row RMS: 0 | row RMS: 0 | RMS: 0 |
| a constant side (readout) | `||W_0||_2 / (sigma (sqrt(d_in) + sqrt(d_out)))`: 0 | by its output | change only: 0 |

`sigma` is the standard deviation that the rules ask for, `1 / d_in` for a readout up to a constant, so a readout that
shrinks twice is seen before the first step. A fresh readout's logits shrink with width by design and are not judged.

The interval covers seeds and steps. Logarithms are averaged over the counted steps, a line with one slope and an offset
a seed is fitted, and its half-width is Student's t over the residuals (seeds and lack of fit) together with 1.96
standard deviations of the slopes of single steps, in quadrature: steps of one run are not independent, so more steps
never narrow it. Steps before the first change of a matrix do not count (a zero readout keeps those behind it waiting).

Legend of array suffixes: W widths (rising), S seeds, T counted steps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import hypot, isfinite, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mutransfer.base import Value
from mutransfer.errors import SpecError
from mutransfer.quantiles import Z975, t975
from mutransfer.result import Interval
from mutransfer.roles import ParameterInfo, ParameterRole
from mutransfer.spec import ArmSpec

FloatArray = NDArray[np.float64]

TOLERANCE = 0.2
MIN_WIDTHS = 3
MIN_STEPS = 8


class Quantity(StrEnum):
    """What is measured of a matrix (see the table above)."""

    WEIGHT = "weight"
    UPDATE = "update"
    OUTPUT = "output"
    OUTPUT_CHANGE = "output_change"


class Check(StrEnum):
    """How an exponent compares with its prediction."""

    PASS = "pass"  # noqa: S105 - the interval lies inside prediction ± tolerance
    FAIL = "fail"  # the interval lies wholly outside, or the quantity cannot be had
    UNDECIDED = "undecided"  # the interval straddles a border, or there are too few steps


class Exponent(Value):
    """One quantity of one layer: its exponent in width, the prediction, and the levels it was fitted to.

    `levels` are geometric means over seeds and counted steps, one a width; None where nothing finite was measured.
    """

    quantity: Quantity
    predicted: float
    measured: Interval | None
    check: Check
    levels: tuple[float | None, ...]
    reason: str = ""


class LayerAudit(Value):
    """One matrix. Steps are counted from `first_step`, the first at which it had moved at every width and seed."""

    name: str
    role: ParameterRole
    algorithm: str
    first_step: int | None
    steps: int
    check: Check
    exponents: tuple[Exponent, ...]


class AuditResult(Value):
    """The audit of one arm, version 1. `check` is the worst of the layers; `problems` of the ladder make it fail."""

    version: Literal[1] = 1
    arm: ArmSpec
    model: str
    lr_octaves: float
    widths: tuple[int, ...]
    base_width: int
    seeds: int
    steps: int
    tolerance: float
    check: Check
    problems: tuple[str, ...]
    layers: tuple[LayerAudit, ...]


@dataclass(frozen=True, kw_only=True)
class LayerTrace:
    """One matrix over one run. `weight` is at the start, as it acts (with its forward multiplier).

    The series hold one value a step, the first after one step; outputs are None for a matrix that no module applies.
    """

    info: ParameterInfo
    algorithm: str
    weight: float
    update: tuple[float, ...]
    output: tuple[float, ...] | None = None
    output_change: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class AuditRun:
    """Every matrix of one model over one run, in module order."""

    width: int
    seed: int
    layers: tuple[LayerTrace, ...]


@dataclass(frozen=True, kw_only=True)
class AuditSetting:
    """What was asked: steps to count at `lr_octaves`, the log2 of the base learning rate."""

    arm: ArmSpec
    model: str
    lr_octaves: float
    base_width: int
    steps: int
    tolerance: float = TOLERANCE


def judge_audit(runs: Sequence[AuditRun], setting: AuditSetting) -> AuditResult:
    """Judge the runs of one arm: every width with every seed.

    Raises SpecError for fewer than three widths, ValueError for an incomplete grid.
    """
    grid = _grid(runs)
    problems = tuple(_ladder_problems(grid))
    same = not any(_differing_names(grid))
    count = len(grid[0][0].layers) if same else 0
    layers = tuple(
        _layer([[run.layers[index] for run in row] for row in grid], grid, setting) for index in range(count)
    )
    return AuditResult(
        arm=setting.arm, model=setting.model, lr_octaves=setting.lr_octaves, base_width=setting.base_width,
        widths=tuple(row[0].width for row in grid), seeds=len(grid[0]), steps=setting.steps,
        tolerance=setting.tolerance, problems=problems, layers=layers,
        check=Check.FAIL if problems else worst(layer.check for layer in layers),
    )  # fmt: skip


def worst(checks: Iterable[Check]) -> Check:
    """FAIL if any fails, else UNDECIDED if any is, else PASS."""
    found = set(checks)
    return next((check for check in (Check.FAIL, Check.UNDECIDED) if check in found), Check.PASS)


def suspects(result: AuditResult) -> tuple[str, ...]:
    """Where a failure comes from: layers whose own weights fail, or, when none do, all layers that fail.

    A layer that moves too much changes the outputs of everything behind it as well.
    """
    own = (Quantity.WEIGHT, Quantity.UPDATE)
    failed = [(layer.name, e.quantity) for layer in result.layers for e in layer.exponents if e.check is Check.FAIL]
    names = [name for name, quantity in failed if quantity in own] or [name for name, _ in failed]
    return tuple(dict.fromkeys(names))


# --- the ladder ------------------------------------------------------------------------------------------------------


def _grid(runs: Sequence[AuditRun]) -> list[list[AuditRun]]:
    """Runs by rising width and seed."""
    widths, seeds = sorted({run.width for run in runs}), sorted({run.seed for run in runs})
    if len(widths) < MIN_WIDTHS:
        raise SpecError.at("widths", f"an exponent needs {MIN_WIDTHS} widths or more, these are {widths}")
    by_place = {(run.width, run.seed): run for run in runs}
    if len(by_place) != len(runs) or len(runs) != len(widths) * len(seeds):
        raise ValueError(f"{len(runs)} runs are not one for each of {len(widths)} widths and {len(seeds)} seeds")
    return [[by_place[width, seed] for seed in seeds] for width in widths]


def _differing_names(grid: list[list[AuditRun]]) -> list[int]:
    """Widths whose models have other matrices than the narrowest one's."""
    names = [layer.info.name for layer in grid[0][0].layers]
    return [row[0].width for row in grid if [layer.info.name for layer in row[0].layers] != names]


def _ladder_problems(grid: list[list[AuditRun]]) -> Iterable[str]:
    """What makes a ladder no ladder, whatever the exponents say."""
    if others := _differing_names(grid):
        yield f"the models at widths {others} have other matrices than the one at width {grid[0][0].width}"
        return
    widths = [row[0].width for row in grid]
    for layers in zip(*(row[0].layers for row in grid), strict=True):
        sides = [(layer.info.d_in, layer.info.d_out) for layer in layers]
        if any(a == b for a, b in pairwise(sides)):
            yield f"{layers[0].info.name} does not grow with width: (d_in, d_out) = {sides} at widths {widths}"
        algorithms = [layer.algorithm for layer in layers]
        if len(set(algorithms)) > 1:
            yield f"{layers[0].info.name} changes its algorithm along the ladder: {algorithms} at widths {widths}"


# --- one layer -------------------------------------------------------------------------------------------------------


def _layer(traces: list[list[LayerTrace]], grid: list[list[AuditRun]], setting: AuditSetting) -> LayerAudit:
    log_width_W = np.log2([row[0].width for row in grid])
    first = _first_step(traces)
    exponents = tuple(_exponents(traces, log_width_W, first, setting))
    sample = traces[0][0]
    window = _window(traces, first, setting.steps)
    return LayerAudit(
        name=sample.info.name, role=sample.info.role, algorithm=sample.algorithm, exponents=exponents,
        first_step=first, steps=window.stop - window.start, check=worst(exponent.check for exponent in exponents),
    )  # fmt: skip


def _first_step(traces: list[list[LayerTrace]]) -> int | None:
    """The first step (from 1) at which the matrix has moved in every run; None when it never does in some run."""
    firsts = [next((t for t, x in enumerate(trace.update, 1) if x != 0.0), None) for row in traces for trace in row]
    moved = [first for first in firsts if first is not None]
    return max(moved) if len(moved) == len(firsts) else None


def _window(traces: list[list[LayerTrace]], first: int | None, steps: int) -> slice:
    """The counted entries of a series: `steps` of them from the first, or as many as the shortest run has."""
    if first is None:
        return slice(0, 0)
    length = min(len(trace.update) for row in traces for trace in row)
    return slice(first - 1, min(length, first - 1 + steps))


def _exponents(
    traces: list[list[LayerTrace]], log_width_W: FloatArray, first: int | None, setting: AuditSetting
) -> Iterable[Exponent]:
    infos = [row[0].info for row in traces]
    window = _window(traces, first, setting.steps)
    grown = _shape_exponent(infos, log_width_W)
    constant = _has_constant_side(infos)
    weight_WST = np.array([[[_weight(trace, constant)] for trace in row] for row in traces])
    if weight_WST.any():  # a matrix that starts at zero has no scale to check
        yield _judge(Quantity.WEIGHT, weight_WST, log_width_W, 0.0 if constant else grown, setting.tolerance)
    if first is None:
        yield _unmeasured(Quantity.UPDATE, grown, len(traces), "it never moved, at some width or seed")
        return
    for quantity, predicted in _judged(infos, grown):
        series = [[getattr(trace, quantity.value) for trace in row] for row in traces]
        if all(x is not None for row in series for x in row):
            values_WST = np.array([[x[window] for x in row] for row in series], dtype=np.float64)
            found = _judge(quantity, values_WST, log_width_W, predicted, setting.tolerance)
            yield _cautious(found, window.stop - window.start)


def _judged(infos: list[ParameterInfo], grown: float) -> Iterable[tuple[Quantity, float]]:
    """What is followed over the steps, with predictions."""
    if not _has_constant_side(infos):
        yield Quantity.UPDATE, grown
        yield Quantity.OUTPUT, 0.0
    yield Quantity.OUTPUT_CHANGE, 0.0


def _has_constant_side(infos: list[ParameterInfo]) -> bool:
    """Whether a matrix (no lookup) grows on one side only, as the readout does."""
    small, large = infos[0], infos[-1]
    return not small.role.is_lookup and (small.d_in == large.d_in) != (small.d_out == large.d_out)


def _shape_exponent(infos: list[ParameterInfo], log_width_W: FloatArray) -> float:
    """The exponent of `sqrt(d_out / d_in)`; 0 for a lookup, which is measured by its rows."""
    if infos[0].role.is_lookup:
        return 0.0
    return _slope([0.5 * np.log2(info.d_out / info.d_in) for info in infos], log_width_W)


def _weight(trace: LayerTrace, constant: bool) -> float:
    """The matrix at the start, relative to `sigma (sqrt(d_in) + sqrt(d_out))` where a side is constant."""
    if not constant:
        return trace.weight
    info = trace.info
    sigma = 1.0 / info.d_in if info.role is ParameterRole.READOUT else 1.0 / sqrt(info.d_in)
    return trace.weight / (sigma * (sqrt(info.d_in) + sqrt(info.d_out)))


# --- one exponent ----------------------------------------------------------------------------------------------------


def _judge(
    quantity: Quantity, values_WST: FloatArray, log_width_W: FloatArray, predicted: float, tolerance: float
) -> Exponent:
    if not (np.isfinite(values_WST) & (values_WST > 0.0)).all():
        return _unmeasured(quantity, predicted, len(values_WST), "not finite, or zero, at some width", values_WST)
    log_WST = np.log2(values_WST)
    measured = fit_exponent(log_WST, log_width_W)
    return Exponent(
        quantity=quantity, predicted=predicted, measured=measured, check=compare(measured, predicted, tolerance),
        levels=tuple(float(level) for level in np.exp2(log_WST.mean(axis=(1, 2)))),
    )  # fmt: skip


def _unmeasured(
    quantity: Quantity, predicted: float, widths: int, reason: str, values_WST: FloatArray | None = None
) -> Exponent:
    levels: list[float | None] = [None] * widths
    if values_WST is not None:
        means = [float(np.mean(values_ST)) for values_ST in values_WST]
        levels = [mean if isfinite(mean) else None for mean in means]
    return Exponent(
        quantity=quantity, predicted=predicted, measured=None, check=Check.FAIL, levels=tuple(levels), reason=reason
    )


def _cautious(exponent: Exponent, steps: int) -> Exponent:
    """An exponent from too few steps decides nothing: slopes of the first steps can be far from the later ones."""
    if steps >= MIN_STEPS or exponent.measured is None:
        return exponent
    reason = f"{steps} steps since it first moved, {MIN_STEPS} are needed"
    return exponent.model_copy(update={"check": Check.UNDECIDED, "reason": reason})


def compare(measured: Interval, predicted: float, tolerance: float) -> Check:
    """PASS inside prediction ± tolerance, FAIL wholly outside, else UNDECIDED. None bounds are unbounded."""
    low = -np.inf if measured.low is None else measured.low - predicted
    high = np.inf if measured.high is None else measured.high - predicted
    if -tolerance <= low and high <= tolerance:
        return Check.PASS
    return Check.FAIL if low > tolerance or high < -tolerance else Check.UNDECIDED


def fit_exponent(log_WST: FloatArray, log_width_W: FloatArray) -> Interval:
    """Slope of `log_WST` (log2 of a quantity) over `log_width_W` with its 95 % interval, as the module says."""
    mean_WS = log_WST.mean(axis=2)
    slope = _slope(mean_WS.mean(axis=1), log_width_W)
    steps = [_slope(log_WST[:, :, t].mean(axis=1), log_width_W) for t in range(log_WST.shape[2])]
    spread = float(np.std(steps, ddof=1)) if len(steps) > 1 else 0.0
    half = hypot(_half_width(mean_WS, slope, log_width_W), Z975 * spread)
    return Interval(value=slope, low=slope - half, high=slope + half)


def _half_width(mean_WS: FloatArray, slope: float, log_width_W: FloatArray) -> float:
    """Student's t times the slope's standard error; a seed's offset is free, its deviations from the line are noise."""
    x_W = log_width_W - log_width_W.mean()
    residual_WS = mean_WS - mean_WS.mean(axis=0) - slope * x_W[:, None]
    widths, seeds = mean_WS.shape
    degrees = widths * seeds - seeds - 1
    variance = float((residual_WS**2).sum()) / degrees
    return t975(degrees) * sqrt(variance / (seeds * float((x_W**2).sum())))


def _slope(y_W: Any, log_width_W: FloatArray) -> float:
    x_W = log_width_W - log_width_W.mean()
    return float((x_W * np.asarray(y_W)).sum() / (x_W**2).sum())
