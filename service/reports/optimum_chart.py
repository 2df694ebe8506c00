"""The hero: optimal learning rate against width, all arms in one panel."""

from collections.abc import Iterable
from math import log2

from mutransfer.result import ArmResult, Curve, CurveStatus, Interval, StudyResult
from mutransfer.spec import StudySpec
from service.reports import numbers, words
from service.reports.chart import Chart, Json, axis, base_layout, legend, legend_rows, octave_ticks, size_axis, spread
from service.reports.palette import ArmStyle, Theme, arm_style, faded
from service.reports.table import Cell, Column, Table

KEY = "optimal-lr"
HEIGHT = 440
_DODGE = 0.035  # octaves of width between neighbouring arms, so that their interval bars stay apart
_NOTE = (
    "Each marker is the minimum of one fitted curve, ringed, with its 95 % interval; bare markers are edge-limited. "
    "The thin line is the rate recorded at the largest proxy, where μP predicts the optimum to stay, and the band "
    "its tolerance."
)


def optimum_chart(result: StudyResult, spec: StudySpec, theme: Theme) -> Chart:
    """Optimal learning rate with intervals against width: proxies left of the divide, targets right."""
    table = optimum_table(result)
    title = words.optimum_title(result)
    if not any(curve.optimum_octaves for arm in result.arms for curve in arm.curves):
        empty = (
            f"Appears when the first curve is bracketed: each arm's best learning rate at each {result.axis}, "
            "with its interval."
        )
        return Chart(key=KEY, title=title, note=_NOTE, table=table, empty=empty)
    low, high = _range(result)
    data = [
        trace
        for index, arm in enumerate(result.arms)
        for trace in _arm_traces(result, arm, index, theme, (low, high), max(spec.axis.values))
    ]
    return Chart(
        key=KEY, title=title, note=_NOTE, table=table, data=data,
        layout=_layout(result, spec, theme, (low, high), narrow=False),
        narrow=_layout(result, spec, theme, (low, high), narrow=True),
    )  # fmt: skip


def optimum_table(result: StudyResult) -> Table:
    """Arm, width, role, status, optimum and interval in octaves, loss at the minimum."""
    octave = numbers.power_of_two
    columns = (
        Column(key="arm", label="Arm"),
        Column(key=result.axis, label=result.axis.capitalize(), show=numbers.count),
        Column(key="role", label="Role"),
        Column(key="status", label="Status"),
        Column(key="optimum_octaves", label="Optimal LR", show=octave),
        Column(key="optimum_lr", label="as decimal", show=numbers.significant),
        Column(key="low_octaves", label="95 % low", show=octave),
        Column(key="high_octaves", label="95 % high", show=octave),
        Column(key="loss_nats", label="Loss at it (nats)", show=numbers.loss),
        Column(key="stability_edge_octaves", label="Stability edge", show=octave),
    )
    rows = tuple(_row(arm, curve, result.axis) for arm in result.arms for curve in arm.curves)
    return Table(caption=f"Optimal learning rate by arm and {result.axis}", columns=columns, rows=rows)


def _row(arm: ArmResult, curve: Curve, axis_name: str) -> tuple[Cell, ...]:
    best, loss = curve.optimum_octaves, curve.loss_nats
    return (
        arm.name, words.size_of(curve, axis_name), curve.role.value, curve.status.value.replace("_", "-"),
        best.value if best else None, 2.0**best.value if best else None,
        best.low if best else None, best.high if best else None,
        loss.value if loss else None, curve.stability_edge_octaves,
    )  # fmt: skip


def _range(result: StudyResult) -> tuple[float, float]:
    """The octaves to show: every optimum with its interval, every tolerance band, and a margin."""
    values: list[float] = []
    for arm in result.arms:
        for curve in arm.curves:
            if (best := curve.optimum_octaves) is not None:
                values += [bound for bound in (best.value, best.low, best.high) if bound is not None]
        if (recorded := arm.verdict.recorded_lr_octaves) is not None:
            tolerance = arm.verdict.tolerances.drift_octaves
            values += [recorded - tolerance, recorded + tolerance]
    return min(values) - 0.3, max(values) + 0.3


def _arm_traces(
    result: StudyResult, arm: ArmResult, index: int, theme: Theme, span: tuple[float, float], largest: int
) -> Iterable[Json]:
    style = arm_style(index, arm.parametrization, theme)
    shift = _DODGE * (index - (len(result.arms) - 1) / 2)
    if arm.verdict.recorded_lr_octaves is not None:
        # Without a μP arm there is no prediction to show, and the control's own band says what "transfers" means.
        banded = not words.is_control(arm) or all(words.is_control(other) for other in result.arms)
        yield from _prediction(arm, arm.verdict.recorded_lr_octaves, style, largest, banded=banded)
    drawn = [(curve, curve.optimum_octaves) for curve in arm.curves if curve.optimum_octaves is not None]
    ordered = sorted(drawn, key=lambda pair: words.size_of(pair[0], result.axis))
    if ordered:
        yield _line(arm, ordered, style, theme, result.axis, shift, span)
        yield _rings(arm, ordered, style, result.axis, shift)


def _prediction(arm: ArmResult, recorded: float, style: ArmStyle, largest: int, *, banded: bool) -> Iterable[Json]:
    """The tolerance band and the thin line of "transfers", from the proxy where the rate was recorded."""
    left, right = log2(arm.verdict.proxy), log2(largest) + 0.35
    tolerance = arm.verdict.tolerances.drift_octaves
    common = {"legendgroup": arm.name, "showlegend": False, "hoverinfo": "skip", "mode": "lines", "type": "scatter"}
    if banded:
        yield {
            **common, "x": [left, right, right, left, left], "fill": "toself", "fillcolor": faded(style.colour, 0.06),
            "y": [recorded - tolerance] * 2 + [recorded + tolerance] * 2 + [recorded - tolerance], "line": {"width": 0},
        }  # fmt: skip
    yield {
        **common, "x": [left, right], "y": [recorded, recorded],
        "line": {"width": 1, "color": style.colour, "dash": "dot"}, "opacity": 0.8,
    }  # fmt: skip


def _line(
    arm: ArmResult, ordered: list[tuple[Curve, Interval]], style: ArmStyle, theme: Theme, axis_name: str,
    shift: float, span: tuple[float, float],
) -> Json:  # fmt: skip
    above = [(span[1] if best.high is None else best.high) - best.value for _, best in ordered]
    below = [best.value - (span[0] if best.low is None else best.low) for _, best in ordered]
    return {
        "type": "scatter", "mode": "lines+markers", "name": arm.name, "legendgroup": arm.name,
        "x": [log2(words.size_of(curve, axis_name)) + shift for curve, _ in ordered],
        "y": [best.value for _, best in ordered],
        "line": {"color": style.colour, "width": 2, "dash": style.dash},
        "marker": {
            "symbol": style.marker, "size": 8, "color": style.colour, "line": {"color": theme.paper, "width": 1},
        },
        "error_y": {
            "type": "data", "symmetric": False, "array": above, "arrayminus": below,
            "color": style.colour, "thickness": 1.5, "width": 5,
        },
        "text": [_hover(arm, curve, best, axis_name) for curve, best in ordered],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _rings(
    arm: ArmResult, ordered: list[tuple[Curve, Interval]], style: ArmStyle, axis_name: str, shift: float
) -> Json:
    fitted = [(curve, best) for curve, best in ordered if curve.status is CurveStatus.BRACKETED]
    return {
        "type": "scatter", "mode": "markers", "legendgroup": arm.name, "showlegend": False, "hoverinfo": "skip",
        "x": [log2(words.size_of(curve, axis_name)) + shift for curve, _ in fitted],
        "y": [best.value for _, best in fitted],
        "marker": {
            "symbol": f"{style.marker}-open", "size": 15, "color": style.colour,
            "line": {"color": style.colour, "width": 1.5},
        },
    }  # fmt: skip


def _hover(arm: ArmResult, curve: Curve, best: Interval, axis_name: str) -> str:
    loss = f"<br>loss {numbers.loss(curve.loss_nats.value)} nats" if curve.loss_nats else ""
    return (
        f"{arm.name}, {axis_name} {words.size_of(curve, axis_name)} ({curve.role.value})"
        f"<br>LR {numbers.rate(best.value)}<br>95 % {numbers.rate_interval(best).partition(' ')[2]}{loss}"
    )


def _layout(result: StudyResult, spec: StudySpec, theme: Theme, span: tuple[float, float], *, narrow: bool) -> Json:
    """Direct labels at the right where there is room; a legend where there is not."""
    x_axis = size_axis(theme, result.axis, spec.axis.values)
    labels = [] if narrow else _labels(result, theme, span)
    names = [arm.name for arm in result.arms]
    rows = legend_rows(names) if narrow else 0
    margin = {"l": 56 if narrow else 72, "r": 12 if narrow else _label_room(result), "t": 36 + 20 * rows, "b": 56}
    height = (320 if narrow else HEIGHT - 36) + 36 + 20 * rows
    return base_layout(
        theme, height=height, margin=margin, showlegend=narrow,
        legend=legend(theme, y=1 + 26 / (height - 92 - 20 * rows)),
        xaxis=x_axis, shapes=_divide(spec, theme),
        yaxis=axis(theme, "optimal base learning rate (octaves)", range=list(span), **octave_ticks(*span)),
        annotations=[*labels, *_regions(spec, theme), *_missing(result, theme)],
    )  # fmt: skip


def _label_room(result: StudyResult) -> int:
    longest = max(len(_short(arm.name)) for arm in result.arms)
    return min(180, 24 + round(6.6 * longest))


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _labels(result: StudyResult, theme: Theme, span: tuple[float, float]) -> list[Json]:
    """Each arm's name at the end of its line."""
    ends = {}
    for arm in result.arms:
        drawn = [(words.size_of(c, result.axis), c.optimum_octaves.value) for c in arm.curves if c.optimum_octaves]
        if drawn:
            ends[arm.name] = max(drawn)[1]
    placed = spread(ends, gap=(span[1] - span[0]) * 18 / (HEIGHT - 92))
    return [
        {"xref": "paper", "x": 1, "y": placed[name], "xanchor": "left", "xshift": 6, "text": _short(name),
         "showarrow": False, "font": {"size": 12, "color": theme.ink}, "align": "left"}
        for name in ends
    ]  # fmt: skip


def _border(spec: StudySpec) -> float | None:
    """Where proxies end and targets begin, in log2; None without targets."""
    sizes = spec.axis
    return (log2(sizes.proxy[-1]) + log2(sizes.targets[0])) / 2 if sizes.targets else None


def _divide(spec: StudySpec, theme: Theme) -> list[Json]:
    border = _border(spec)
    line = {"color": theme.axis, "width": 1, "dash": "2px,3px"}
    common = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": "below"}
    return [] if border is None else [{**common, "x0": border, "x1": border}]


def _regions(spec: StudySpec, theme: Theme) -> list[Json]:
    border = _border(spec)
    if border is None:
        return []
    common = {"yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False, "yshift": 2, "x": border}
    font = {"size": 12, "color": theme.muted}
    return [
        {**common, "text": "proxies: searched", "xanchor": "right", "xshift": -6, "font": font},
        {**common, "text": "targets: verified", "xanchor": "left", "xshift": 6, "font": font},
    ]


def _missing(result: StudyResult, theme: Theme) -> list[Json]:
    """The word at the foot of each width where an arm has no optimum: never a false marker."""
    stacked: dict[int, int] = {}
    notes = []
    for arm in result.arms:
        for curve in arm.curves:
            if curve.status is not CurveStatus.UNBRACKETED:
                continue
            size = words.size_of(curve, result.axis)
            row = stacked[size] = stacked.get(size, -1) + 1
            notes.append(
                {"x": log2(size), "yref": "paper", "y": 0, "yanchor": "bottom", "yshift": 4 + 15 * row,
                 "text": f"{_short(arm.name, 14)}: unbracketed", "showarrow": False,
                 "font": {"size": 11, "color": theme.muted}}
            )  # fmt: skip
    return notes
