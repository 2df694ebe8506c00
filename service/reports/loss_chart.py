"""Loss against learning rate: one panel an arm, one line a width, fitted minima ringed, divergence on the top edge."""

from collections.abc import Iterable
from urllib.parse import urlencode

from mutransfer.result import ArmResult, Curve, CurveStatus, Point, StudyResult
from mutransfer.spec import StudySpec
from service.reports import numbers, words
from service.reports.chart import Chart, Json, View
from service.reports.loss_layout import all_range, axis_suffix, bowl_range, diverged_axis, panel_layout
from service.reports.palette import Theme, arm_style, faded, size_colours
from service.reports.table import Cell, Column, Table

KEY = "loss-lr"
Z95 = 1.96  # half-width of a normal 95 % interval in standard errors
_FIT_STEPS = 40
_NOTE = (
    "Points are means over seeds with 95 % bars, thick lines the fit, rings its minimum with the interval. "
    "✕ on the top edge: diverged. The thin vertical line is the recorded learning rate, the band its tolerance."
)


def loss_chart(result: StudyResult, spec: StudySpec, theme: Theme) -> Chart:
    """Loss against learning rate for every arm and width; the axis shows the bowl, a control shows all."""
    table, title = loss_table(result), words.loss_title(result)
    if not any(curve.points for arm in result.arms for curve in arm.curves):
        empty = "Appears when the first learning rate has finished: one panel an arm, one curve a " + result.axis + "."
        return Chart(key=KEY, title=title, note=_NOTE, table=table, empty=empty)
    sizes = list(spec.axis.values)
    data = [
        *_legend_entries(sizes, theme),
        *(trace for index in range(len(result.arms)) for trace in _panel(result, index, sizes, theme)),
    ]
    bowl, everything = bowl_range(result), all_range(result)
    return Chart(
        key=KEY, title=title, note=_NOTE, table=table, data=data,
        layout=panel_layout(result, theme, bowl, narrow=False),
        narrow=panel_layout(result, theme, bowl, narrow=True),
        views=tuple(
            View(label=label, relayout=_ranges(len(result.arms), x_range, y_range))
            for label, (x_range, y_range) in (("Zoom to minima", bowl), ("Show all", everything))
        ),
    )  # fmt: skip


def loss_table(result: StudyResult) -> Table:
    """Every measured point."""
    columns = (
        Column(key="arm", label="Arm"),
        Column(key=result.axis, label=result.axis.capitalize(), show=numbers.count),
        Column(key="lr_octaves", label="LR", show=numbers.power_of_two),
        Column(key="lr", label="as decimal", show=numbers.significant),
        Column(key="loss_nats", label="Loss (nats)", show=numbers.loss),
        Column(key="stderr_nats", label="± s. e.", show=lambda value: numbers.loss(value, 4)),
        Column(key="seeds", label="Seeds", show=numbers.count),
        Column(key="diverged", label="Diverged", show=numbers.count),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (arm.name, words.size_of(curve, result.axis), point.lr_octaves, 2.0**point.lr_octaves,
         point.loss_nats, point.stderr, point.seeds, point.diverged)
        for arm in result.arms for curve in arm.curves for point in curve.points
    )  # fmt: skip
    return Table(caption="Held-out loss of every learning rate", columns=columns, rows=rows)


def _ranges(panels: int, x_range: list[float], y_range: list[float]) -> Json:
    return {
        f"{axis}axis{axis_suffix(i)}.range": r for i in range(panels) for axis, r in (("x", x_range), ("y", y_range))
    }


def _legend_entries(sizes: list[int], theme: Theme) -> Iterable[Json]:
    """One entry a width for all panels: clicking it hides that width everywhere."""
    for size, colour in size_colours(sizes, theme).items():
        yield {
            "type": "scatter", "mode": "lines", "x": [None], "y": [None], "name": str(size),
            "legendgroup": str(size), "line": {"color": colour, "width": 3}, "hoverinfo": "skip",
        }  # fmt: skip


def _panel(result: StudyResult, index: int, sizes: list[int], theme: Theme) -> Iterable[Json]:
    arm, colours = result.arms[index], size_colours(sizes, theme)
    suffix = axis_suffix(index)
    # Plotly draws no axes for a panel without a trace.
    yield {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "showlegend": False,
    }
    row = -1  # of diverged marks: one below the other from the top edge
    for curve in sorted(arm.curves, key=lambda c: words.size_of(c, result.axis)):
        row += any(point.diverged for point in curve.points)
        size = words.size_of(curve, result.axis)
        dead = curve.status is CurveStatus.UNBRACKETED
        draw = _CurveTraces(arm, curve, size, index, theme.ghost if dead else colours[size], theme, result.axis)
        yield from draw.traces(row)


class _CurveTraces:
    """The traces of one curve: measured points, fit, minimum, diverged marks."""

    def __init__(
        self, arm: ArmResult, curve: Curve, size: int, index: int, colour: str, theme: Theme, axis_name: str
    ) -> None:
        self._arm, self._curve, self._size = arm, curve, size
        self._colour, self._theme, self._axis_name, self._index = colour, theme, axis_name, index
        self._style = arm_style(index, arm.parametrization, theme)
        suffix = axis_suffix(index)
        self._common: Json = {
            "type": "scatter", "xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "legendgroup": str(size),
            "showlegend": False,
        }  # fmt: skip

    def traces(self, row: int) -> Iterable[Json]:
        """`row` is where its diverged marks go, counted from the top edge."""
        if finite := [point for point in self._curve.points if point.loss_nats is not None]:
            yield self._points(finite)
        if self._curve.fit_coefficients and self._curve.fit_window_octaves:
            yield self._fit(self._curve.fit_window_octaves)
        if self._curve.optimum_octaves is not None and self._curve.loss_nats is not None:
            yield self._minimum()
        if diverged := [point for point in self._curve.points if point.diverged]:
            yield self._diverged(diverged, row)
        if self._curve.status is CurveStatus.UNBRACKETED and finite:
            yield self._word(min(finite, key=lambda point: point.loss_nats or 0.0))

    def _points(self, points: list[Point]) -> Json:
        return self._common | {
            "mode": "lines+markers", "x": [p.lr_octaves for p in points], "y": [p.loss_nats for p in points],
            "line": {"color": faded(self._colour, 0.45), "width": 1, "dash": self._style.dash},
            "marker": {"symbol": self._style.marker, "size": 6, "color": self._colour},
            "error_y": {
                "type": "data", "array": [Z95 * p.stderr if p.stderr is not None else 0.0 for p in points],
                "color": self._colour, "thickness": 1, "width": 2,
            },
            "text": [self._hover(point) for point in points], "hovertemplate": "%{text}<extra></extra>",
            "customdata": [self._trials(point.lr_octaves) for point in points],
        }  # fmt: skip

    def _trials(self, octaves: float) -> str:
        """The query that lists the trials of a point, for pages that have such a list."""
        return urlencode({"arm": self._arm.name, "size": self._size, "lr": f"{octaves:g}"})

    def _hover(self, point: Point) -> str:
        spread = f" ± {numbers.loss(point.stderr, 4)} s. e." if point.stderr is not None else ""
        seeds = f"{point.seeds} seed{'s' if point.seeds != 1 else ''}"
        gone = f", {point.diverged} diverged" if point.diverged else ""
        body = "diverged" if point.loss_nats is None else f"loss {numbers.loss(point.loss_nats)}{spread} nats"
        head = f"{self._arm.name}, {self._axis_name} {self._size}<br>LR {numbers.rate(point.lr_octaves)}"
        return f"{head}<br>{body}<br>{seeds}{gone}"

    def _fit(self, window: tuple[float, float]) -> Json:
        centre = self._curve.fit_center_octaves or 0.0
        xs = [window[0] + (window[1] - window[0]) * step / _FIT_STEPS for step in range(_FIT_STEPS + 1)]
        ys = [sum(c * (x - centre) ** k for k, c in enumerate(self._curve.fit_coefficients)) for x in xs]
        return self._common | {
            "mode": "lines", "x": [round(x, 4) for x in xs], "y": [round(y, 6) for y in ys], "hoverinfo": "skip",
            "line": {"color": self._colour, "width": 2.25, "dash": self._style.dash},
        }  # fmt: skip

    def _minimum(self) -> Json:
        best, loss = self._curve.optimum_octaves, self._curve.loss_nats
        assert best is not None  # noqa: S101 - the caller draws minima of curves that have one
        assert loss is not None  # noqa: S101 - as above
        fitted = self._curve.status is CurveStatus.BRACKETED
        hover = (
            f"{self._arm.name}, {self._axis_name} {self._size}: {'fitted minimum' if fitted else 'edge-limited'}"
            f"<br>LR {numbers.rate(best.value)}<br>95 % {numbers.rate_interval(best).partition(' ')[2]}"
            f"<br>loss {numbers.interval(loss, sign=False, digits=3)} nats"
        )
        return self._common | {
            "mode": "markers", "x": [best.value], "y": [loss.value],
            "marker": {
                "symbol": f"{self._style.marker}-open" if fitted else self._style.marker, "size": 13 if fitted else 8,
                "color": self._theme.ink if fitted else self._colour,
                "line": {"color": self._theme.ink, "width": 1.5},
            },
            "error_x": {
                "type": "data", "symmetric": False, "color": self._theme.ink, "thickness": 1.25, "width": 4,
                "array": [(best.high if best.high is not None else 4.0) - best.value],
                "arrayminus": [best.value - (best.low if best.low is not None else -20.0)],
            },
            "text": [hover], "hovertemplate": "%{text}<extra></extra>",
        }  # fmt: skip

    def _diverged(self, points: list[Point], row: int) -> Json:
        return self._common | {
            "mode": "markers", "yaxis": diverged_axis(self._index), "cliponaxis": False,
            "x": [point.lr_octaves for point in points], "y": [1.0 - 0.035 * row] * len(points),
            "marker": {"symbol": "x-thin", "size": 7, "line": {"color": self._colour, "width": 2}},
            "text": [self._hover(point) for point in points], "hovertemplate": "%{text}<extra></extra>",
            "customdata": [self._trials(point.lr_octaves) for point in points],
        }  # fmt: skip

    def _word(self, lowest: Point) -> Json:
        return self._common | {
            "mode": "text", "x": [lowest.lr_octaves], "y": [lowest.loss_nats], "text": ["unbracketed"],
            "textposition": "bottom center", "textfont": {"size": 11, "color": self._theme.muted}, "hoverinfo": "skip",
        }  # fmt: skip
