"""The audit of one arm: a heat map of exponents, and the quantities themselves against width on log-log axes."""

from collections.abc import Iterable
from math import log2

from mutransfer.audit import AuditResult, Check, Exponent, LayerAudit, Quantity, suspects
from service.reports import numbers
from service.reports.chart import Chart, Json, axis, base_layout, size_axis
from service.reports.palette import Theme
from service.reports.table import Cell, Column, Table

HEAT_KEY = "audit-exponents"
LEVELS_KEY = "audit-levels"
#: What a reader calls the quantities, in the order of columns and panels.
LABELS = {
    Quantity.WEIGHT: "weight at start",
    Quantity.UPDATE: "change of weight",
    Quantity.OUTPUT: "output",
    Quantity.OUTPUT_CHANGE: "change of output",
}
_MARKS = {Check.PASS: "", Check.FAIL: " ✕", Check.UNDECIDED: " ?"}
# Okabe and Ito's blue and vermilion around a neutral: falls with width, as predicted, grows with width.
_FALLS, _GROWS = "#0072b2", "#d55e00"
_FULL = 1.0  # a deviation from which on the colour is full
_HEAT_NOTE = (
    "Exponents in width, with colour for the distance from the prediction: blue falls, orange grows. "
    "✕ fails (the 95 % interval lies outside prediction ± {tolerance:g}), ? is undecided."
)
_LEVELS_NOTE = (
    "Each line is one matrix, relative to the smallest width and less what is predicted, so that a line that obeys is "
    "flat; both axes are log₂. Layers that fail are drawn strong."
)


def audit_charts(result: AuditResult, theme: Theme) -> tuple[Chart, ...]:
    """Heat map and levels of one arm's audit. A ladder that is none has nothing to draw, and says so."""
    title, table = audit_title(result), audit_table(result)
    empty = f"No exponents: {'; '.join(result.problems)}." if not result.layers else ""
    heat_note = _HEAT_NOTE.format(tolerance=result.tolerance)
    if empty:
        return tuple(
            Chart(key=key, title=title, note=note, table=table, empty=empty)
            for key, note in ((HEAT_KEY, heat_note), (LEVELS_KEY, _LEVELS_NOTE))
        )
    return (
        Chart(
            key=HEAT_KEY, title=title, note=heat_note, table=table, data=[_heat(result, theme)],
            layout=_heat_layout(result, theme, narrow=False), narrow=_heat_layout(result, theme, narrow=True),
        ),
        Chart(
            key=LEVELS_KEY, title=_levels_title(result), note=_LEVELS_NOTE, table=table,
            data=list(_lines(result, theme)),
            layout=_levels_layout(result, theme, columns=2), narrow=_levels_layout(result, theme, columns=1),
        ),
    )  # fmt: skip


def audit_title(result: AuditResult) -> str:
    """The finding in a sentence."""
    name, count = result.arm.name, len(result.layers)
    span = f"from width {result.widths[0]} to {result.widths[-1]}"
    if result.check is Check.PASS:
        return f"{name}: all {count} matrices follow their predictions {span}"
    if result.check is Check.UNDECIDED:
        open_ = sum(layer.check is Check.UNDECIDED for layer in result.layers)
        return f"{name}: nothing fails {span}, and {open_} of {count} matrices are undecided"
    found = [_short(layer) for layer in suspects(result)]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{name}: the scaling is wrong at {', '.join(found[:3]) or 'the ladder'}{more}"


def _levels_title(result: AuditResult) -> str:
    failing = sum(layer.check is Check.FAIL for layer in result.layers)
    said = f"{failing} of {len(result.layers)} layers leave" if failing else "No layer clearly leaves"
    return f"{result.arm.name}: {said} the predicted level as width grows"


def audit_table(result: AuditResult) -> Table:
    """One row for each layer and quantity: exponent, interval, prediction, check."""
    columns = (
        Column(key="layer", label="Layer"),
        Column(key="quantity", label="Quantity"),
        Column(key="exponent", label="Exponent", show=numbers.signed),
        Column(key="low", label="95 % low", show=numbers.signed),
        Column(key="high", label="95 % high", show=numbers.signed),
        Column(key="predicted", label="Predicted", show=numbers.signed),
        Column(key="check", label="Check"),
        Column(key="reason", label="Reason"),
    )
    rows = tuple(_row(layer, exponent) for layer in result.layers for exponent in layer.exponents)
    return Table(caption=f"Exponents in width of {result.arm.name}", columns=columns, rows=rows)


def _row(layer: LayerAudit, exponent: Exponent) -> tuple[Cell, ...]:
    found = exponent.measured
    return (
        layer.name, LABELS[exponent.quantity], found.value if found else None, found.low if found else None,
        found.high if found else None, exponent.predicted, exponent.check.value, exponent.reason or None,
    )  # fmt: skip


def _short(name: str) -> str:
    return name.removesuffix(".weight")


# --- heat map --------------------------------------------------------------------------------------------------------


def _heat(result: AuditResult, theme: Theme) -> Json:
    grid = [{exponent.quantity: exponent for exponent in layer.exponents} for layer in result.layers]
    names = [_short(layer.name) for layer in result.layers]
    return {
        "type": "heatmap", "x": list(LABELS.values()), "y": names,
        "z": [[_deviation(row.get(quantity)) for quantity in LABELS] for row in grid],
        "text": [[_cell(row.get(quantity)) for quantity in LABELS] for row in grid],
        "hovertext": [
            [_hover(name, row.get(quantity)) for quantity in LABELS] for name, row in zip(names, grid, strict=True)
        ],
        "texttemplate": "%{text}", "hovertemplate": "%{hovertext}<extra></extra>", "hoverongaps": False,
        "zmin": -_FULL, "zmax": _FULL, "showscale": False, "xgap": 2, "ygap": 2,
        "colorscale": [[0.0, _FALLS], [0.5, theme.grid], [1.0, _GROWS]],
    }  # fmt: skip


def _deviation(exponent: Exponent | None) -> float | None:
    """How far from the prediction, cut at ±1; the largest for what could not be measured."""
    if exponent is None:
        return None
    if exponent.measured is None:
        return _FULL
    return max(-_FULL, min(_FULL, exponent.measured.value - exponent.predicted))


def _cell(exponent: Exponent | None) -> str:
    if exponent is None:
        return ""
    value = exponent.measured.value if exponent.measured else None
    return f"{numbers.signed(value)}{_MARKS[exponent.check]}"


def _hover(name: str, exponent: Exponent | None) -> str:
    if exponent is None:
        return ""
    lines = [
        f"{name}: {LABELS[exponent.quantity]}",
        f"exponent {numbers.interval(exponent.measured)}",
        f"predicted {numbers.signed(exponent.predicted)}: {exponent.check.value}",
        exponent.reason,
    ]
    return "<br>".join(line for line in lines if line)


def _heat_layout(result: AuditResult, theme: Theme, *, narrow: bool) -> Json:
    longest = max(len(_short(layer.name)) for layer in result.layers)
    left = min(130 if narrow else 240, 20 + 7 * longest)
    return base_layout(
        theme, height=64 + 28 * len(result.layers), margin={"l": left, "r": 12, "t": 40, "b": 24}, showlegend=False,
        xaxis=axis(theme, "", side="top", showgrid=False, showline=False, ticks=""),
        yaxis=axis(theme, "", autorange="reversed", showgrid=False, showline=False, ticks=""),
    )  # fmt: skip


# --- levels against width --------------------------------------------------------------------------------------------


def _lines(result: AuditResult, theme: Theme) -> Iterable[Json]:
    x = [log2(width) for width in result.widths]
    for panel, quantity in enumerate(LABELS):
        axes = {"xaxis": f"x{_suffix(panel)}", "yaxis": f"y{_suffix(panel)}"}
        yield {
            **axes, "type": "scatter", "mode": "lines", "x": [x[0], x[-1]], "y": [0.0, 0.0], "hoverinfo": "skip",
            "line": {"width": 1, "color": theme.axis, "dash": "dot"},
        }  # fmt: skip
        for layer in sorted(result.layers, key=lambda found: found.check is Check.FAIL):
            for exponent in layer.exponents:
                if exponent.quantity is quantity and (levels := _relative(exponent, x)):
                    yield {**axes, **_line(layer, exponent, theme), "x": x, "y": levels}


def _line(layer: LayerAudit, exponent: Exponent, theme: Theme) -> Json:
    strong = exponent.check is Check.FAIL
    grows = (_deviation(exponent) or 0.0) > 0.0
    colour = (_GROWS if grows else _FALLS) if strong else theme.ghost
    return {
        "type": "scatter", "mode": "lines+markers" if strong else "lines", "name": _short(layer.name),
        "line": {"width": 2 if strong else 1, "color": colour}, "marker": {"size": 6, "color": colour},
        "text": _hover(_short(layer.name), exponent), "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _relative(exponent: Exponent, x: list[float]) -> list[float] | None:
    """Octaves above the prediction from the smallest width on; None where a level is missing or zero."""
    known = [level for level in exponent.levels if level]
    if len(known) != len(exponent.levels):
        return None
    return [log2(level / known[0]) - exponent.predicted * (at - x[0]) for level, at in zip(known, x, strict=True)]


def _span(result: AuditResult, quantity: Quantity) -> list[float]:
    """The octaves that a panel shows: half an octave to either side at least, so that noise looks small."""
    x = [log2(width) for width in result.widths]
    lines = [_relative(e, x) or [0.0] for layer in result.layers for e in layer.exponents if e.quantity is quantity]
    values = [value for line in lines for value in line]
    return [min([-0.5, *values]) - 0.1, max([0.5, *values]) + 0.1]


def _levels_layout(result: AuditResult, theme: Theme, *, columns: int) -> Json:
    rows = len(LABELS) // columns
    layout = base_layout(
        theme, height=60 + 240 * rows, showlegend=False, margin={"l": 60, "r": 12, "t": 40, "b": 52}, annotations=[],
        grid={"rows": rows, "columns": columns, "pattern": "independent", "xgap": 0.16, "ygap": 0.26},
    )  # fmt: skip
    for panel, (quantity, label) in enumerate(LABELS.items()):
        x_axis = size_axis(theme, "width" if panel >= len(LABELS) - columns else "", result.widths)
        if panel < len(LABELS) - columns:
            x_axis["title"]["text"] = ""
        layout[f"xaxis{_suffix(panel)}"] = x_axis
        layout[f"yaxis{_suffix(panel)}"] = axis(
            theme, "octaves" if panel % columns == 0 else "", range=_span(result, quantity)
        )
        layout["annotations"].append({
            "text": label, "showarrow": False, "xref": f"x{_suffix(panel)} domain", "yref": f"y{_suffix(panel)} domain",
            "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "font": {"size": 13, "color": theme.ink},
        })  # fmt: skip
    return layout


def _suffix(panel: int) -> str:
    return "" if panel == 0 else str(panel + 1)
