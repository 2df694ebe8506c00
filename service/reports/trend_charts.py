"""Figures over nights, one chart a kind: optimum, loss, drift, throughput, diverged trials, failed audits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mutransfer.nights import FigureKind
from mutransfer.result import Interval
from service.reports import numbers
from service.reports.chart import Chart, Json, axis, base_layout, legend, legend_rows, octave_ticks
from service.reports.palette import Theme
from service.reports.table import Column, Table
from service.schedules.schemas import TrendPoint, TrendRead, TrendSeries

_TITLES = {
    FigureKind.OPTIMUM: ("optimal learning rate", "optimal base learning rate (octaves)"),
    FigureKind.LOSS: ("loss at the optimum", "held-out loss (nats per token)"),
    FigureKind.DRIFT: ("drift from proxy to target", "drift (octaves)"),
    FigureKind.THROUGHPUT: ("throughput", "tokens a second, share of the baseline"),
    FigureKind.DIVERGED: ("diverged trials", "trials"),
    FigureKind.AUDIT: ("arms that fail the audit", "arms"),
}
_NOTE = "One point a judged night with its 95 % interval. A ringed point is flagged: its hover says why."
MINUTE_MS = 60_000.0
_MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star")


def trend_charts(trend: TrendRead, theme: Theme) -> tuple[Chart, ...]:
    """A chart for each kind of figure that any night has, in the order of FigureKind."""
    kinds = [kind for kind in FigureKind if any(series.kind == kind.value for series in trend.series)]
    if not kinds:
        none = Table(caption="No night has been judged yet", columns=(), rows=())
        empty = "Appears when the first night has been judged: each figure over the nights, with its interval."
        return (Chart(key="trend-optimum", title="The trend over the nights", note=_NOTE, table=none, empty=empty),)
    return tuple(_chart(trend, kind, theme) for kind in kinds)


def _chart(trend: TrendRead, kind: FigureKind, theme: Theme) -> Chart:
    shown = [series for series in trend.series if series.kind == kind.value]
    colours = _colours(shown, theme)
    data = [trace for place, series in enumerate(shown) for trace in _traces(series, place, colours, theme)]
    names = [_name(series) for series in shown]
    y_axis = _y_axis(shown, kind, theme)
    layouts: dict[str, Any] = {}
    for key, height in (("layout", 340), ("narrow", 320)):
        rows = legend_rows(names) if key == "narrow" else 1 + len(names) // 5
        layouts[key] = base_layout(
            theme, height=height + 20 * rows, showlegend=len(names) > 1, legend=legend(theme, y=1.02),
            margin={"l": 56 if key == "narrow" else 72, "r": 16, "t": 24 + 22 * rows, "b": 56}, yaxis=y_axis,
            xaxis=_x_axis(shown, theme, most=4 if key == "narrow" else 10),
        )  # fmt: skip
    return Chart(
        key=f"trend-{kind.value}",
        title=_title(shown, kind),
        note=_NOTE,
        table=_table(shown, kind),
        data=data,
        **layouts,
    )


def _name(series: TrendSeries) -> str:
    parts = [part for part in (series.arm, series.axis_value) if part is not None]
    return " at ".join(str(part) for part in parts) or "all arms"


def _colours(shown: Sequence[TrendSeries], theme: Theme) -> dict[str | None, str]:
    arms = dict.fromkeys(series.arm for series in shown)
    return {arm: theme.arms[place % len(theme.arms)] for place, arm in enumerate(arms)}


def _traces(series: TrendSeries, place: int, colours: dict[str | None, str], theme: Theme) -> list[Json]:
    points = [point for point in series.points if point.value is not None]
    if not points:
        return []
    colour, marker = colours[series.arm], _MARKERS[place % len(_MARKERS)]
    line = {
        "type": "scatter", "mode": "lines+markers", "name": _name(series), "legendgroup": series.key,
        "x": [_at(point.fire_at) for point in points], "y": [point.value for point in points],
        "line": {"color": colour, "width": 2},
        "marker": {"symbol": marker, "size": 7, "color": colour, "line": {"width": 1, "color": theme.paper}},
        "error_y": {
            "type": "data", "symmetric": False, "color": colour, "thickness": 1, "width": 3,
            "array": [_length(point.high, point.value) for point in points],
            "arrayminus": [_length(point.value, point.low) for point in points],
        },
        "text": [_hover(series, point) for point in points], "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    flagged = [point for point in points if point.flagged]
    if not flagged:
        return [line]
    rings = {
        "type": "scatter", "mode": "markers", "legendgroup": series.key, "showlegend": False,
        "x": [_at(point.fire_at) for point in flagged], "y": [point.value for point in flagged],
        "marker": {"symbol": "circle-open", "size": 17, "color": theme.ink, "line": {"color": theme.ink, "width": 2}},
        "text": [_hover(series, point) for point in flagged], "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    return [line, rings]


def _length(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else max(upper - lower, 0.0)


def _day(shown: Sequence[TrendSeries]) -> str:
    """How a night is named: by its day, and its time where one day has two."""
    nights = {point.fire_at for series in shown for point in series.points}
    return "%d %b" if len({night.date() for night in nights}) == len(nights) else "%d %b %H:%M"


def _at(moment: datetime) -> float:
    """Milliseconds: a number axis draws the same in every place that draws, a date axis does not."""
    return moment.timestamp() * 1000


def _x_axis(shown: Sequence[TrendSeries], theme: Theme, *, most: int) -> Json:
    """Nights as ticks, as many as fit."""
    nights = sorted({point.fire_at for series in shown for point in series.points})
    step = -(-len(nights) // most) or 1
    ticks = nights[::-1][::step][::-1]
    span = [_at(nights[0]), _at(nights[-1])]
    pad = (span[1] - span[0]) * 0.04 or MINUTE_MS
    return axis(
        theme, "night (UTC)", tickmode="array", tickvals=[_at(night) for night in ticks],
        ticktext=[night.strftime(_day(shown)) for night in ticks], range=[span[0] - pad, span[1] + pad], showgrid=False,
    )  # fmt: skip


def _y_axis(shown: Sequence[TrendSeries], kind: FigureKind, theme: Theme) -> Json:
    title = _TITLES[kind][1]
    values = [v for s in shown for p in s.points for v in (p.value, p.low, p.high) if v is not None]
    if not values:
        return axis(theme, title)
    pad = max(0.08 * (max(values) - min(values)), 0.02)
    span = [min(values) - pad, max(values) + pad]
    if kind is FigureKind.OPTIMUM:
        return axis(theme, title, range=span, **octave_ticks(span[0], span[1]))
    return axis(theme, title, range=span, nticks=6)


def _hover(series: TrendSeries, point: TrendPoint) -> str:
    whole = Interval(value=point.value or 0.0, low=point.low, high=point.high)
    said = [
        f"{_name(series)}, {point.fire_at:%d %b %Y %H:%M}",
        f"{numbers.interval(whole, sign=False, digits=3)} {series.unit}",
    ]
    if point.change is not None:
        said.append(f"change {numbers.signed(point.change, 3)}")
    return "<br>".join([*said, *([point.reason] if point.flagged else [])])


def _title(shown: Sequence[TrendSeries], kind: FigureKind) -> str:
    what = _TITLES[kind][0]
    flags = [point.fire_at for series in shown for point in series.points if point.flagged]
    nights = len({point.night for s in shown for point in s.points})
    if not flags:
        return f"The {what} holds over {nights} {'night' if nights == 1 else 'nights'}"
    last = max(flags)
    return f"The {what} was flagged on {last.strftime(_day(shown))}: {_who(shown, last)}"


def _who(shown: Sequence[TrendSeries], night: datetime) -> str:
    """The figures flagged in a night, arm by arm: `adamw-mup at 64 and 128; muon-mup at 128`."""
    sizes: dict[str | None, list[str]] = {}
    for series in shown:
        if any(point.flagged and point.fire_at == night for point in series.points):
            own = sizes.setdefault(series.arm, [])
            own.extend([] if series.axis_value is None else [str(series.axis_value)])
    return "; ".join(
        " at ".join([arm or "all arms", *([numbers.listed(own)] if own else [])]) for arm, own in sizes.items()
    )


def _table(shown: Sequence[TrendSeries], kind: FigureKind) -> Table:
    columns = (
        Column(key="night_utc", label="Night (UTC)"),
        Column(key="figure", label="Figure"),
        Column(key="value", label="Value", show=numbers.significant),
        Column(key="low", label="95 % low", show=numbers.significant),
        Column(key="high", label="95 % high", show=numbers.significant),
        Column(key="change", label="Change", show=numbers.signed),
        Column(key="flagged", label="Flagged"),
        Column(key="reason", label="Why"),
    )
    rows = tuple(
        (
            f"{point.fire_at:%Y-%m-%d %H:%M}", _name(series), point.value, point.low, point.high, point.change,
            "yes" if point.flagged else "no", point.reason,
        )
        for series in shown for point in series.points
    )  # fmt: skip
    return Table(caption=f"The {_TITLES[kind][0]} over the nights", columns=columns, rows=rows)
