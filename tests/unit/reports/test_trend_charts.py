"""Charts of figures over nights: what is flagged is said, and nights can be told apart."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from service.reports.chart import Chart
from service.reports.palette import LIGHT
from service.reports.trend_charts import trend_charts
from service.schedules.schemas import TrendPoint, TrendRead, TrendSeries

FIRST = datetime(2026, 11, 26, 14, 24, tzinfo=UTC)
DAY, MINUTES = timedelta(days=1), timedelta(minutes=4)


def _series(arm: str, size: int | None, between: timedelta, flagged: Collection[int], nights: int) -> TrendSeries:
    points = [
        TrendPoint(
            night=place, fire_at=FIRST + place * between, study_id=None, baseline_study_id=None,
            value=2.0, low=1.9, high=2.1, change=0.0, change_low=0.0, change_high=0.0,
            flagged=place in flagged, reason="because",
        )
        for place in range(nights)
    ]  # fmt: skip
    key = f"loss/{arm}/{size}"
    return TrendSeries(key=key, kind="loss", arm=arm, axis_value=size, unit="nats", tolerance=0.002, points=points)


def _chart(between: timedelta, *, flagged: Collection[int] = (), nights: int = 3) -> Chart:
    places = [("adamw-mup", 32), ("adamw-mup", 64), ("adamw-mup", 128), ("muon-mup", 128)]
    series = [_series(arm, size, between, () if size == 32 else flagged, nights) for arm, size in places]
    (chart,) = trend_charts(TrendRead(schedule_id="sc_x", axis="width", series=series), LIGHT)
    return chart


def test_the_title_lists_what_the_last_flagged_night_flags_arm_by_arm() -> None:
    title = "The loss at the optimum was flagged on 28 Nov: adamw-mup at 64 and 128; muon-mup at 128"
    assert _chart(DAY, flagged=(1, 2)).title == title
    assert _chart(DAY).title == "The loss at the optimum holds over 3 nights"


def test_nights_of_one_day_are_told_apart_by_their_time_and_fill_the_axis() -> None:
    assert _chart(DAY).layout["xaxis"]["ticktext"] == ["26 Nov", "27 Nov", "28 Nov"]
    close = _chart(MINUTES, flagged=(2,))
    assert close.layout["xaxis"]["ticktext"] == ["26 Nov 14:24", "26 Nov 14:28", "26 Nov 14:32"]
    assert "flagged on 26 Nov 14:32" in close.title
    low, high = close.layout["xaxis"]["range"]
    assert 2 * MINUTES.total_seconds() * 1000 / (high - low) > 0.9


def test_one_night_has_an_axis_too() -> None:
    low, high = _chart(DAY, nights=1).layout["xaxis"]["range"]
    assert low < FIRST.timestamp() * 1000 < high
