"""A night against its baseline: which figures have changed beyond chance, and by enough to matter.

Of all unchanged nights at most `sensitivity.false_alarms` shall have any flag: that share is divided over the figures
(Bonferroni), and each figure is tested at its part. `python -m benchmarks.nights` measures both kinds of error over
simulated nights; docs/nights.md keeps what it printed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mutransfer.errors import ConflictError
from mutransfer.night_audits import audit_figure
from mutransfer.nights import (
    UNITS,
    Figure,
    FigureKind,
    Judgement,
    Method,
    NightData,
    NightTrial,
    Sensitivity,
    counted,
)
from mutransfer.paired import CurveChange, Estimate, curve_change, difference, from_intervals, seed_degrees
from mutransfer.result import ArmResult, Curve, CurveRole, Interval, StudyResult
from mutransfer.student import sign_tail
from mutransfer.throughput import speed_figure

#: A trial this far below the edge of stability does not diverge by chance; two of them are a flag.
EDGE_OCTAVES = 1.0
EDGE_TRIALS = 2

CurveKey = tuple[str, int]
Trials = Mapping[CurveKey, Sequence[NightTrial]]


def judge_night(
    night: NightData, baseline: NightData | None, *, sensitivity: Sensitivity, past: Mapping[str, Sequence[float]]
) -> Judgement:
    """Compare a night with its baseline; without one only say what the night measured.

    `past` holds, by arm, the throughput changes (`Figure.change.value`) of unchanged nights against the same baseline.
    Raises ConflictError when the two are runs of different studies.
    """
    if baseline is not None:
        check_comparable(night.result, baseline.result)
    return Judgement(
        baseline_study=None if baseline is None else baseline.result.study.id,
        sensitivity=sensitivity,
        figures=tuple(_Comparison(night, baseline, sensitivity, past).figures()),
    )


def check_comparable(night: StudyResult, baseline: StudyResult) -> None:
    """Raises ConflictError unless both have the same axis and arms."""
    names = [[arm.name for arm in result.arms] for result in (night, baseline)]
    if night.axis != baseline.axis or names[0] != names[1]:
        raise ConflictError(
            f"study {baseline.study.id} cannot be the baseline of {night.study.id}: their arms or axes differ "
            f"({', '.join(names[1])} over {baseline.axis}; {', '.join(names[0])} over {night.axis})"
        )


@dataclass(frozen=True, kw_only=True)
class _CurvePair:
    """A curve of tonight and of the baseline (None where there is none)."""

    arm: str
    axis_value: int
    night: Curve
    baseline: Curve | None
    change: CurveChange
    method: Method

    @property
    def where(self) -> str:
        return f"{self.arm} at {self.axis_value}"


class _Comparison:
    """One night against one baseline."""

    def __init__(
        self,
        night: NightData,
        baseline: NightData | None,
        sensitivity: Sensitivity,
        past: Mapping[str, Sequence[float]],
    ) -> None:
        self._night, self._baseline, self._past = night, baseline, past
        self._sensitivity = sensitivity
        self._now, self._then = _by_curve(night), _by_curve(baseline)
        axis = night.result.axis
        curves = sum(len(arm.curves) for arm in night.result.arms)
        count = 2 * curves + 2 * len(night.result.arms) + 2  # optimum and loss; drift and throughput; diverged, audit
        #: Error probability of one side of one figure.
        self._tail = sensitivity.false_alarms / count / 2.0
        self._pairs = {
            arm.name: [self._pair(arm.name, curve, axis) for curve in arm.curves] for arm in night.result.arms
        }

    def figures(self) -> Iterator[Figure]:
        """Every figure, flagged or not, in a fixed order."""
        for arm in self._night.result.arms:
            for pair in self._pairs[arm.name]:
                yield self._optimum(pair)
                yield self._loss(pair)
            yield self._drift(arm)
            yield self._throughput(arm.name)
        yield self._diverged()
        if self._night.audits:
            yield audit_figure(self._night.audits, None if self._baseline is None else self._baseline.audits)

    def _pair(self, arm: str, curve: Curve, axis: str) -> _CurvePair:
        value = _axis_value(curve, axis)
        before = _curve(self._baseline, arm, value)
        change, method = CurveChange(shift=None, loss=None), Method.NONE
        if before is not None:
            change, method = _changed(before, curve, self._then.get((arm, value), ()), self._now.get((arm, value), ()))
        return _CurvePair(arm=arm, axis_value=value, night=curve, baseline=before, change=change, method=method)

    def _optimum(self, pair: _CurvePair) -> Figure:
        before = None if pair.baseline is None else pair.baseline.optimum_octaves
        return self._measured(
            FigureKind.OPTIMUM, pair, pair.night.optimum_octaves, before, pair.change.shift,
            self._sensitivity.optimum_octaves,
        )  # fmt: skip

    def _loss(self, pair: _CurvePair) -> Figure:
        before = None if pair.baseline is None else pair.baseline.loss_nats
        tolerance = self._sensitivity.loss_nats
        return self._measured(FigureKind.LOSS, pair, pair.night.loss_nats, before, pair.change.loss, tolerance)

    def _measured(
        self, kind: FigureKind, pair: _CurvePair, night: Interval | None, before: Interval | None,
        change: Estimate | None, tolerance: float,
    ) -> Figure:  # fmt: skip
        what = "the optimum" if kind is FigureKind.OPTIMUM else "the loss at the optimum"
        figure = Figure(
            kind=kind, arm=pair.arm, axis_value=pair.axis_value, unit=UNITS[kind], night=night, baseline=before,
            method=Method.NONE,
        )  # fmt: skip
        return self._tested(figure, change, tolerance, pair.method, f"{pair.where}: {what}")

    def _drift(self, arm: ArmResult) -> Figure:
        before = _arm(self._baseline, arm.name)
        night = arm.verdict.total_drift_octaves
        then = None if before is None else before.verdict.total_drift_octaves
        figure = Figure(
            kind=FigureKind.DRIFT, arm=arm.name, unit=UNITS[FigureKind.DRIFT], night=night, baseline=then,
            method=Method.NONE,
        )  # fmt: skip
        proxies = [p for p in self._pairs[arm.name] if p.night.role is CurveRole.PROXY]
        targets = [p for p in self._pairs[arm.name] if p.night.role is CurveRole.TARGET]
        change, method = None, Method.NONE
        if proxies and targets:
            ends = (targets[-1].change.shift, proxies[-1].change.shift)
            if ends[0] is not None and ends[1] is not None:
                change, method = difference(ends[0], ends[1]), targets[-1].method
        subject = f"{arm.name}: D, the way from the proxy's optimum to the target's,"
        return self._tested(figure, change, self._sensitivity.optimum_octaves, method, subject)

    def _tested(
        self, figure: Figure, change: Estimate | None, tolerance: float, method: Method, subject: str
    ) -> Figure:
        """The figure with its change, flagged when that is beyond chance and tolerance."""
        if change is None:
            why = "there is no baseline yet" if self._baseline is None else "one of the two nights has none to compare"
            return figure.model_copy(update={"reason": f"{subject} was not compared: {why}"})
        interval = change.interval(self._tail)
        flagged = change.is_beyond(tolerance, self._tail)
        least = "at least " if change.at_least else ""
        moved = f"{subject} changed by {least}{_span(interval)} {figure.unit}"
        update = {
            "change": interval, "tolerance": tolerance, "method": method, "flagged": flagged,
            "reason": moved + _from_to(figure),
        }  # fmt: skip
        return figure.model_copy(update=update)

    def _throughput(self, arm: str) -> Figure:
        now = [t for t in self._night.trials if t.arm == arm]
        then = [t for t in self._baseline.trials if t.arm == arm] if self._baseline is not None else None
        return speed_figure(
            arm, now, then, past=self._past.get(arm, ()), tolerance=self._sensitivity.throughput_share, tail=self._tail
        )

    def _diverged(self) -> Figure:
        now = {_place(t): t for t in self._night.trials}
        count = sum(t.loss_nats is None for t in now.values())
        figure = Figure(kind=FigureKind.DIVERGED, unit="trials", night=counted(count), method=Method.NONE)
        if self._baseline is None:
            return figure.model_copy(update={"reason": f"{count} trials diverged"})
        then = {_place(t): t for t in self._baseline.trials}
        both = now.keys() & then.keys()
        fell = [now[p] for p in both if now[p].loss_nats is None and then[p].loss_nats is not None]
        rose = [now[p] for p in both if now[p].loss_nats is not None and then[p].loss_nats is None]
        early = [t for t in fell if self._is_far_from_edge(t)]
        by_chance = sign_tail(len(fell), len(fell) + len(rose)) > 2.0 * self._tail
        before = sum(then[p].loss_nats is None for p in both)
        reason = (
            f"of {len(both)} trials that both nights ran, {before - len(rose) + len(fell)} diverged instead of "
            f"{before}: "
            f"{len(fell)} newly, {len(early)} of them an octave or more below the edge of stability"
        )
        update = {
            "baseline": counted(before), "change": counted(len(fell) - len(rose)), "tolerance": 0.0,
            "method": Method.COUNTS, "flagged": not by_chance or len(early) >= EDGE_TRIALS, "reason": reason,
        }  # fmt: skip
        return figure.model_copy(update=update)

    def _is_far_from_edge(self, trial: NightTrial) -> bool:
        curve = _curve(self._baseline, trial.arm, trial.axis_value)
        edge = None if curve is None else curve.stability_edge_octaves
        return edge is not None and trial.lr_octaves <= edge - EDGE_OCTAVES


def _changed(
    before: Curve, after: Curve, then: Sequence[NightTrial], now: Sequence[NightTrial]
) -> tuple[CurveChange, Method]:
    """Paired where enough trials pair up, else from the intervals of the fits; what neither gives stays None."""
    paired = curve_change(before, then, now)
    degrees = (seed_degrees(now), seed_degrees(then))
    fits = CurveChange(
        shift=from_intervals(after.optimum_octaves, before.optimum_octaves, degrees=degrees),
        loss=from_intervals(after.loss_nats, before.loss_nats, degrees=degrees),
    )
    if paired.loss is None:
        return fits, Method.INTERVALS
    # A large change has another shape than the paired differences' parabola; what is left of it swells their scatter,
    # and the fits then know more. By precision, never by what they say.
    a, b = paired.shift, fits.shift
    by_fits = a is not None and b is not None and (a.at_least or b.stderr < a.stderr)
    return (fits, Method.INTERVALS) if by_fits else (paired, Method.PAIRED)


def _by_curve(data: NightData | None) -> Trials:
    found: dict[CurveKey, list[NightTrial]] = {}
    for trial in () if data is None else data.trials:
        found.setdefault(trial.curve, []).append(trial)
    return found


def _axis_value(curve: Curve, axis: str) -> int:
    return curve.width if axis == "width" else curve.depth


def _arm(data: NightData | None, name: str) -> ArmResult | None:
    return next((arm for arm in data.result.arms if arm.name == name), None) if data is not None else None


def _curve(data: NightData | None, arm: str, value: int) -> Curve | None:
    found = _arm(data, arm)
    if data is None or found is None:
        return None
    return next((curve for curve in found.curves if _axis_value(curve, data.result.axis) == value), None)


def _place(trial: NightTrial) -> tuple[str, int, float, int]:
    return trial.arm, trial.axis_value, round(trial.lr_octaves, 4), trial.seed


def _span(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:+.4g}"
    return f"{interval.value:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}]"


def _from_to(figure: Figure) -> str:
    if figure.night is None or figure.baseline is None:
        return ""
    return f", from {figure.baseline.value:.4g} to {figure.night.value:.4g}"
