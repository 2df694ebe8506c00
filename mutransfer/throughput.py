"""How fast a night trained, machine speed taken out: tokens a second over a calibration product's speed.

Each trial is timed against a matrix product in its own process while it runs, so that a machine that is slow tonight
slows both. What is left differs from night to night by more than the scatter between trials says: that share is learnt
from unchanged nights, and begins from a prior so that a first night can be judged at all.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import exp, expm1, log, log1p, sqrt
from statistics import median

from mutransfer.nights import UNITS, Figure, FigureKind, Method, NightTrial
from mutransfer.paired import Estimate
from mutransfer.result import Interval

#: What one unchanged night differs from the next by, as a standard deviation of the logarithm, before any is known;
#: worth as much as `PRIOR_NIGHTS` nights (the baseline has it too). An assumption: docs/nights.md simulates 0.015.
PRIOR_SD = 0.02
PRIOR_NIGHTS = 20
#: Fewest timed trials of an arm.
MIN_TRIALS = 4
_MAD_TO_SD = 1.4826
#: Standard error of a median over that of a mean; trials run side by side are not independent: they count half.
_MEDIAN = 1.2533 * sqrt(2.0)


def speed_figure(
    arm: str, now: Sequence[NightTrial], then: Sequence[NightTrial] | None, *, past: Sequence[float], tolerance: float,
    tail: float,
) -> Figure:  # fmt: skip
    """The throughput of one arm; only a slower night is flagged. `past`: changes (shares) of unchanged nights."""
    speeds = _speeds(now)
    everything = [speed for found in speeds.values() for speed in found]
    figure = Figure(
        kind=FigureKind.THROUGHPUT, arm=arm, unit=UNITS[FigureKind.THROUGHPUT], method=Method.NONE,
        night=_level(everything),
    )  # fmt: skip
    if then is None:
        return figure.model_copy(update={"reason": f"{arm}: throughput was not compared: there is no baseline yet"})
    before = _speeds(then)
    logs = [log(speed / median(before[key])) for key, found in speeds.items() if key in before for speed in found]
    if len(logs) < MIN_TRIALS:
        why = f"fewer than {MIN_TRIALS} trials of both nights were timed against the calibration on one kind of device"
        return figure.model_copy(update={"reason": f"{arm}: throughput was not compared: {why}"})
    change = _change(logs, [log1p(share) for share in past])
    tail *= 2.0  # only one side is flagged
    interval = _as_share(change.interval(tail))
    reason = (
        f"{arm}: training ran at {1.0 + interval.value:.1%} of the baseline's speed, the machine's own taken out; "
        f"chance alone reaches {exp(-change.reach(tail)):.1%}"
    )
    update = {
        "baseline": _level([speed for found in before.values() for speed in found]), "change": interval,
        "tolerance": tolerance, "method": Method.HISTORY, "reason": reason,
        "flagged": interval.value < 0.0 and change.is_beyond(-log1p(-tolerance), tail),
    }  # fmt: skip
    return figure.model_copy(update=update)


def _speeds(trials: Sequence[NightTrial]) -> dict[tuple[int, str], list[float]]:
    """Tokens a second for each unit of the calibration's speed, by axis value and device; diverged trials left out."""
    found: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for t in trials:
        if t.loss_nats is not None and t.tokens_per_second and t.calibration_gflops:
            found[t.axis_value, t.device].append(t.tokens_per_second / t.calibration_gflops)
    return dict(found)


def _change(logs: Sequence[float], past: Sequence[float]) -> Estimate:
    """Tonight against the baseline, with the scatter that unchanged nights had about it (its own error included)."""
    degrees = PRIOR_NIGHTS + len(past)
    between = (PRIOR_NIGHTS * 2.0 * PRIOR_SD**2 + sum(x * x for x in past)) / degrees
    tonight = median(logs)
    scatter = _MAD_TO_SD * median([abs(x - tonight) for x in logs])
    within = (_MEDIAN * scatter) ** 2 / len(logs)
    return Estimate(value=tonight, stderr=sqrt(between + within), degrees=float(degrees))


def _level(speeds: Sequence[float]) -> Interval | None:
    """The middle of the speeds with the spread of their middle half; a scale for the eye, nothing is tested on it."""
    if not speeds:
        return None
    logs = sorted(log(speed) for speed in speeds)
    quarter = len(logs) // 4
    return Interval(value=exp(median(logs)), low=exp(logs[quarter]), high=exp(logs[-1 - quarter]))


def _as_share(interval: Interval) -> Interval:
    """A difference of logarithms as a share: -0.223 is -0.2."""
    return Interval(
        value=expm1(interval.value),
        low=None if interval.low is None else expm1(interval.low),
        high=None if interval.high is None else expm1(interval.high),
    )
