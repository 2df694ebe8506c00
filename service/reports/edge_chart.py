"""The stability edge: the largest learning rate at which no seed diverged, against width."""

from collections.abc import Iterable
from math import log2

from mutransfer.result import ArmResult, StudyResult
from mutransfer.spec import StudySpec
from service.reports import numbers, words
from service.reports.chart import Chart, Json, axis, base_layout, legend, legend_rows, octave_ticks, size_axis
from service.reports.palette import Theme, arm_style
from service.reports.table import Column, Table

KEY = "stability-edge"
HEIGHT = 340
_NOTE = (
    "The largest learning rate at which no seed diverged; the true edge lies between it and the next rate tried. "
    "Thin lines: the recorded rate. Reported, never judged."
)


def edge_chart(result: StudyResult, spec: StudySpec, theme: Theme) -> Chart:
    """One line an arm: its largest stable rate at each size, and its distance to the recorded rate."""
    table, title = _table(result), _title(result)
    drawn = [(index, arm) for index, arm in enumerate(result.arms) if _edges(arm, result.axis)]
    if not drawn:
        empty = f"Appears when trials have finished: each arm's largest stable learning rate at each {result.axis}."
        return Chart(key=KEY, title=title, note=_NOTE, table=table, empty=empty)
    data = [trace for index, arm in drawn for trace in _traces(result, arm, index, theme)]
    return Chart(
        key=KEY, title=title, note=_NOTE, table=table, data=data,
        layout=_layout(result, spec, theme, narrow=False), narrow=_layout(result, spec, theme, narrow=True),
    )  # fmt: skip


def _edges(arm: ArmResult, axis_name: str) -> list[tuple[int, float]]:
    return sorted(
        (words.size_of(curve, axis_name), curve.stability_edge_octaves)
        for curve in arm.curves if curve.stability_edge_octaves is not None
    )  # fmt: skip


def _title(result: StudyResult) -> str:
    room = {}
    for arm in result.arms:
        recorded, edges = arm.verdict.recorded_lr_octaves, _edges(arm, result.axis)
        if recorded is not None and len(edges) > 1:
            room[arm.name] = edges[-1][1] - recorded, edges[-1][0]
    if not room:
        return "The largest stable learning rate"
    name = min(room, key=lambda one: (room[one][0], one))
    margin, size = room[name]
    away = f"{numbers.octaves(abs(margin)).lstrip('+')} {'above' if margin > 0 else 'below'} the recorded one"
    return (
        f"{name} comes nearest to instability: at {result.axis} {size} its largest stable rate "
        f"{f'lies {away}' if round(margin, 2) else 'is the recorded one'}"
    )


def _traces(result: StudyResult, arm: ArmResult, index: int, theme: Theme) -> Iterable[Json]:
    style, edges = arm_style(index, arm.parametrization, theme), _edges(arm, result.axis)
    xs = [log2(size) for size, _ in edges]
    recorded = arm.verdict.recorded_lr_octaves
    if recorded is not None:
        yield {
            "type": "scatter", "mode": "lines", "x": [xs[0], xs[-1]], "y": [recorded, recorded], "showlegend": False,
            "legendgroup": arm.name, "hoverinfo": "skip", "opacity": 0.8,
            "line": {"color": style.colour, "width": 1, "dash": "dot"},
        }  # fmt: skip
    yield {
        "type": "scatter", "mode": "lines+markers", "name": arm.name, "legendgroup": arm.name,
        "x": xs, "y": [edge for _, edge in edges],
        "line": {"color": style.colour, "width": 2, "dash": style.dash},
        "marker": {
            "symbol": style.marker, "size": 8, "color": style.colour, "line": {"color": theme.paper, "width": 1},
        },
        "text": [
            f"{arm.name}, {result.axis} {size}<br>stable up to {numbers.rate(edge)}" for size, edge in edges
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _layout(result: StudyResult, spec: StudySpec, theme: Theme, *, narrow: bool) -> Json:
    values = [edge for arm in result.arms for _, edge in _edges(arm, result.axis)]
    values += [rate for arm in result.arms if (rate := arm.verdict.recorded_lr_octaves) is not None]
    span = min(values) - 0.5, max(values) + 0.5
    rows = legend_rows([arm.name for arm in result.arms]) if narrow else 1
    return base_layout(
        theme, height=HEIGHT + 20 * (rows - 1), showlegend=True, legend=legend(theme, y=1.02),
        margin={"l": 56 if narrow else 72, "r": 12, "t": 28 + 20 * rows, "b": 56},
        xaxis=size_axis(theme, result.axis, spec.axis.values),
        yaxis=axis(theme, "largest stable rate (octaves)", range=list(span), **octave_ticks(*span, 8)),
    )  # fmt: skip


def _table(result: StudyResult) -> Table:
    columns = (
        Column(key="arm", label="Arm"),
        Column(key=result.axis, label=result.axis.capitalize(), show=numbers.count),
        Column(key="stability_edge_octaves", label="Largest stable LR", show=numbers.rate),
        Column(key="recorded_lr_octaves", label="Recorded LR", show=numbers.rate),
        Column(key="margin_octaves", label="Margin (octaves)", show=numbers.signed),
    )
    rows = []
    for arm in result.arms:
        recorded = arm.verdict.recorded_lr_octaves
        for size, edge in _edges(arm, result.axis):
            rows.append((arm.name, size, edge, recorded, None if recorded is None else edge - recorded))
    return Table(caption=f"Largest stable learning rate by arm and {result.axis}", columns=columns, rows=tuple(rows))
