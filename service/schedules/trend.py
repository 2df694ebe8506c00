"""Figures over nights: what the page plots."""

from collections.abc import Iterable

from mutransfer.nights import Figure, Judgement
from mutransfer.result import Interval
from service.db.tables_schedules import NightRow, ScheduleRow
from service.schedules.schemas import TrendPoint, TrendRead, TrendSeries
from service.studies.schemas import utc


def trend(schedule: ScheduleRow, nights: Iterable[NightRow]) -> TrendRead:
    """All figures of judged `nights`, oldest first, in the order in which the newest night has them."""
    series: dict[str, TrendSeries] = {}
    for night in nights:
        for figure in Judgement.model_validate(night.judgement).figures:
            found = series.setdefault(figure.key, _series(figure))
            found.tolerance = figure.tolerance if figure.tolerance is not None else found.tolerance
            found.points.append(_point(night, figure))
    axis = "width" if schedule.spec.get("depth") is None else "depth"
    return TrendRead(schedule_id=schedule.id, axis=axis, series=list(series.values()))


def _series(figure: Figure) -> TrendSeries:
    return TrendSeries(
        key=figure.key, kind=figure.kind.value, arm=figure.arm, axis_value=figure.axis_value, unit=figure.unit,
        tolerance=figure.tolerance, points=[],
    )  # fmt: skip


def _point(night: NightRow, figure: Figure) -> TrendPoint:
    value, change = figure.night or _NOTHING, figure.change or _NOTHING
    at = utc(night.fire_at)
    assert at is not None  # noqa: S101 - every night has one
    return TrendPoint(
        night=night.id, fire_at=at, study_id=night.study_id, baseline_study_id=night.baseline_study_id,
        value=value.value if figure.night else None, low=value.low, high=value.high,
        change=change.value if figure.change else None, change_low=change.low, change_high=change.high,
        flagged=figure.flagged, reason=figure.reason,
    )  # fmt: skip


_NOTHING = Interval(value=0.0, low=None, high=None)
