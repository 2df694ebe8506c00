"""How often the 95 % interval of the optimum holds the true one: `python -m benchmarks.coverage`.

Synthetic studies of one curve each: the bracket search asks, a known curve with noise answers, the fit judges.
Everything a real curve goes through is in the loop: a window chosen by noisy means, seeds added while the interval is
wide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
import math
import sys

import numpy as np

from mutransfer.drift import total_drift
from mutransfer.fit import FittedCurve, fit_curve_full
from mutransfer.judge import recorded_lr
from mutransfer.points import FloatArray
from mutransfer.regret import regret
from mutransfer.result import Curve, CurveRole, CurveStatus
from mutransfer.search import next_points, target_start
from mutransfer.spec import LrGrid, SearchSpec, SeedRange
from mutransfer.trial import Observation

#: Curvature of the curves at their optimum, nats per squared octave: what AdamW showed at width 64 after 300 steps.
CURVATURE = 0.06
#: Rates this far above the optimum diverge, in octaves.
DIVERGES_ABOVE = 2.3
#: The grid that every search starts from.
GRID = LrGrid(low=-8, high=-3)
#: Standard deviation of what a seed adds to every rate of a curve, in nats.
SEED_OFFSET_SD = 0.02

Shape = Callable[[float], float]


def symmetric(d: float) -> float:
    """A parabola: excess loss in nats at `d` octaves from the optimum."""
    return CURVATURE * d * d


def saturating(d: float) -> float:
    """Symmetric, but flattening: half as high at 2.6 octaves as the parabola."""
    return CURVATURE * d * d / (1.0 + 0.15 * d * d)


def steep_right(d: float) -> float:
    """`e^(s d) - 1 - s d`: four and a half times as high 1.5 octaves above the optimum as 1.5 below it."""
    s = 1.5
    return 2.0 * CURVATURE / s**2 * (math.exp(s * d) - 1.0 - s * d)


def two_powers(d: float) -> float:
    """`LR^-0.3` learning too slowly, `LR^1.5` on the way to divergence."""
    a, b = 0.3, 1.5
    scale = 2.0 * CURVATURE / ((a + b) * math.log(2.0) ** 2)
    falling, rising = math.pow(2.0, -a * d), math.pow(2.0, b * d)
    return scale * ((falling - 1.0) / a + (rising - 1.0) / b)


def broken(d: float) -> float:
    """Two half parabolas, the right twice as steep: no polynomial follows the break, so this one is the hard case."""
    return (2.0 / 3.0 if d < 0.0 else 4.0 / 3.0) * CURVATURE * d * d


SHAPES: dict[str, Shape] = {
    "symmetric": symmetric,
    "saturating": saturating,
    "steep right": steep_right,
    "two powers": two_powers,
    "broken": broken,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table. `noise` is the standard deviation of one trial in nats, seed offsets aside.

    A range means that each study draws its own, evenly in the logarithm.
    """

    shape: str
    seeds: tuple[int, int]
    noise: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What `studies` curves of a case gave. Errors and widths in octaves."""

    case: Case
    studies: int
    judged: int
    optimum: float
    loss: float
    bias: float
    half_width: float
    trials: float


def search_curve(
    case: Case, rng: np.random.Generator, *, optimum: float, noise: float, offsets: FloatArray,
    start: Sequence[float], width: int = 64,
) -> tuple[FittedCurve, list[Observation]]:  # fmt: skip
    """Search one curve to its end and fit it."""
    low, high = case.seeds
    search = SearchSpec(lr_octaves=GRID, seeds=SeedRange(min=low, max=high))
    observations: list[Observation] = []
    while points := next_points(search, observations, start=start).points:
        for lr, seed in points:
            d = lr - optimum
            excess = SHAPES[case.shape](d) + offsets[seed] + rng.normal(0.0, noise)
            loss = None if d > DIVERGES_ABOVE else 2.0 + float(excess)
            observations.append(Observation(lr_octaves=lr, seed=seed, loss_nats=loss))
    curve = fit_curve_full(
        observations, axis_value=width, width=width, depth=2, role=CurveRole.PROXY, rng_seed=int(rng.integers(8))
    )
    return curve, observations


def _draw(case: Case, rng: np.random.Generator) -> tuple[float, float, FloatArray]:
    """(optimum, noise, seed offsets) of one study."""
    noise = math.exp(rng.uniform(*np.log(case.noise)))
    return float(rng.uniform(-6.5, -4.0)), noise, rng.normal(0.0, SEED_OFFSET_SD, case.seeds[1])


def simulate(case: Case, rng: np.random.Generator) -> tuple[float, float, Curve, int]:
    """One study: (true optimum, true loss there for its own seeds, fitted curve, trials run)."""
    optimum, noise, offsets = _draw(case, rng)
    start = GRID.coarse()
    fitted, observations = search_curve(case, rng, optimum=optimum, noise=noise, offsets=offsets, start=start)
    used = 1 + max(o.seed for o in observations)
    return optimum, 2.0 + float(offsets[:used].mean()), fitted.curve, len(observations)


@dataclass(frozen=True, kw_only=True)
class JointCoverage:
    """How often the intervals of drift and regret held, over studies of a proxy and a target."""

    case: Case
    moved: float
    studies: int
    drift: float
    regret: float


def joint_coverage(case: Case, *, moved: float, studies: int, seed: int) -> JointCoverage:
    """A proxy, and a target whose optimum lies `moved` octaves away, searched around the recorded rate."""
    rng = np.random.default_rng(seed)
    held = [pair for pair in (_joint(case, moved, rng) for _ in range(studies)) if pair is not None]
    drift, kept = np.mean(held, axis=0)
    return JointCoverage(case=case, moved=moved, studies=len(held), drift=float(drift), regret=float(kept))


def _joint(case: Case, moved: float, rng: np.random.Generator) -> tuple[bool, bool] | None:
    optimum, noise, offsets = _draw(case, rng)
    proxy, _ = search_curve(case, rng, optimum=optimum, noise=noise, offsets=offsets, start=GRID.coarse())
    recorded = recorded_lr(proxy.curve)
    if recorded is None:
        return None
    start = target_start(SearchSpec(lr_octaves=GRID), recorded)
    goal, _ = search_curve(case, rng, optimum=optimum + moved, noise=noise, offsets=offsets, start=start, width=256)
    drift, cost = total_drift(proxy, goal), regret(goal, recorded)
    if drift is None:
        return None
    true_cost = SHAPES[case.shape](recorded - optimum - moved)
    return _holds(drift.low, drift.high, moved), _holds(cost.low, cost.high, true_cost)


def _holds(low: float | None, high: float | None, truth: float) -> bool:
    return (low is None or low <= truth + 1e-9) and (high is None or truth <= high)


def coverage(case: Case, *, studies: int, seed: int) -> Coverage:
    """Simulate `studies` curves. A curve that is not bracketed makes no claim and is not counted as judged."""
    rng = np.random.default_rng(seed)
    held_optimum, held_loss, errors, widths, trials = [], [], [], [], []
    for _ in range(studies):
        optimum, loss, curve, count = simulate(case, rng)
        trials.append(count)
        x, y = curve.optimum_octaves, curve.loss_nats
        if curve.status is not CurveStatus.BRACKETED or x is None or y is None:
            continue
        held_optimum.append(_holds(x.low, x.high, optimum))
        held_loss.append(_holds(y.low, y.high, loss))
        errors.append(x.value - optimum)
        widths.append(math.inf if x.low is None or x.high is None else (x.high - x.low) / 2.0)
    return Coverage(
        case=case,
        studies=studies,
        judged=len(errors),
        optimum=float(np.mean(held_optimum)),
        loss=float(np.mean(held_loss)),
        bias=float(np.mean(errors)),
        half_width=float(np.median(widths)),
        trials=float(np.mean(trials)),
    )


def cases() -> list[Case]:
    """Every shape at 2 seeds, 4 seeds and 2 to 4, at quiet, usual and loud noise."""
    return [
        Case(shape=shape, seeds=seeds, noise=(noise, noise))
        for shape in SHAPES
        for seeds in ((2, 2), (4, 4), (2, 4))
        for noise in (0.002, 0.01, 0.03)
    ]


def row(result: Coverage) -> str:
    """One line of the Markdown table."""
    seeds, noise = (
        f"{low}" if low == high else f"{low} to {high}" for low, high in (result.case.seeds, result.case.noise)
    )
    return (
        f"| {result.case.shape} | {seeds} | {noise} | {result.optimum:.1%} | {result.loss:.1%} | "
        f"{result.bias:+.3f} | {result.half_width:.2f} | {result.judged} of {result.studies} | {result.trials:.0f} |"
    )


HEADER = (
    "| curve | seeds | noise (nats) | optimum held | loss held | bias (octaves) | half-width (octaves) | bracketed | "
    "trials |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


JOINT_HEADER = (
    "Proxy and target, 2 to 4 seeds, noise 0.002 to 0.03 nats\n\n"
    "| curve | optimum moved (octaves) | drift held | regret held | studies |\n| --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Print the table for the docs, with today's date."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    today = date.today().isoformat()
    print(f"Coverage of the 95 % intervals over {studies} synthetic studies each, {today}\n\n{HEADER}")
    for index, case in enumerate(cases()):
        print(row(coverage(case, studies=studies, seed=index)), flush=True)
    print(f"\n{JOINT_HEADER}")
    for index, (shape, moved) in enumerate(product(("symmetric", "steep right"), (0.0, -0.5, -1.5))):
        case = Case(shape=shape, seeds=(2, 4), noise=(0.002, 0.03))
        found = joint_coverage(case, moved=moved, studies=studies, seed=index)
        print(f"| {shape} | {moved:g} | {found.drift:.1%} | {found.regret:.1%} | {found.studies} |", flush=True)


if __name__ == "__main__":
    main()
