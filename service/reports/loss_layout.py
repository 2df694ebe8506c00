"""Layout of the loss panels: a grid of arms on wide pages, a column on narrow ones, axes shared by all."""

from math import ceil

from mutransfer.result import Curve, StudyResult
from service.reports import words
from service.reports.chart import Json, axis, base_layout, legend, octave_ticks
from service.reports.palette import Theme, arm_style, faded

_BOWL_OCTAVES = 1.25  # how far from the best point the bowl must stay in view
_X_AROUND = 3.0  # octaves shown to either side of the outermost minima
_OVERLAY = 100  # axes y101, y102, …: the top edges on which diverged points sit


def axis_suffix(index: int) -> str:
    """Plotly's suffix of the `index`-th panel's axes: nothing, then 2, 3 and so on."""
    return "" if index == 0 else str(index + 1)


def diverged_axis(index: int) -> str:
    """The hidden axis of the `index`-th panel whose 1 is the top edge, wherever the loss axis is zoomed to."""
    return f"y{_OVERLAY + index + 1}"


def _finite(curve: Curve) -> list[tuple[float, float]]:
    return [(point.lr_octaves, point.loss_nats) for point in curve.points if point.loss_nats is not None]


def all_range(result: StudyResult) -> tuple[list[float], list[float]]:
    """Every point there is."""
    curves = [curve for arm in result.arms for curve in arm.curves]
    xs = [point.lr_octaves for curve in curves for point in curve.points]
    ys = [loss for curve in curves for _, loss in _finite(curve)]
    return _padded(xs, 0.5), _padded(ys, 0.08 * (max(ys) - min(ys)) + 0.01) if ys else [0.0, 1.0]


def _padded(values: list[float], pad: float) -> list[float]:
    return [min(values) - pad, max(values) + pad]


def bowl_range(result: StudyResult) -> tuple[list[float], list[float]]:
    """The minima and what surrounds them: no diverging tail flattens the bowl."""
    bests, heights = [], []
    for arm in result.arms:
        for curve in arm.curves:
            if finite := _finite(curve):
                best = min(finite, key=lambda point: point[1])
                bests.append(best[0])
                heights += [loss for octaves, loss in finite if abs(octaves - best[0]) <= _BOWL_OCTAVES]
    (x_low, x_high), _ = everything = all_range(result)
    if not heights:
        return everything
    low, high = min(heights), max(heights)
    pad = 0.08 * (high - low) + 0.005
    x_range = [max(x_low, min(bests) - _X_AROUND), min(x_high, max(bests) + _X_AROUND)]
    return x_range, [low - pad * 1.6, high + pad * 2]


def panel_layout(result: StudyResult, theme: Theme, view: tuple[list[float], list[float]], *, narrow: bool) -> Json:
    """Panels in rows of up to three; one below the other when `narrow`."""
    count = len(result.arms)
    columns = 1 if narrow else min(count, 3 if count != 4 else 2)
    rows = ceil(count / columns)
    panel = 250 if narrow else (340 if rows == 1 else 290)
    chrome = 130 if narrow else 124
    legend_title = {"text": f"{result.axis} ", "side": "left", "font": {"size": 12, "color": theme.muted}}
    layout = base_layout(
        theme, height=panel * rows + chrome, showlegend=True,
        margin={"l": 56 if narrow else 68, "r": 12, "t": 72 if narrow else 68, "b": 56},
        legend=legend(theme, y=1.0 + 32 / (panel * rows), tracegroupgap=0, title=legend_title),
        shapes=[], annotations=[],
    )  # fmt: skip
    for index in range(count):
        _add_panel(layout, result, theme, view, index, (columns, rows, panel), narrow=narrow)
    return layout


def _add_panel(
    layout: Json, result: StudyResult, theme: Theme, view: tuple[list[float], list[float]], index: int,
    grid: tuple[int, int, int], *, narrow: bool,
) -> None:  # fmt: skip
    columns, rows, panel = grid
    column, row = index % columns, index // columns
    gap_x, gap_y = 0.035, 84 / (panel * rows) if rows > 1 else 0.0
    wide, tall = (1 - gap_x * (columns - 1)) / columns, (1 - gap_y * (rows - 1)) / rows
    x_domain = [column * (wide + gap_x), column * (wide + gap_x) + wide]
    top = 1 - row * (tall + gap_y)
    y_domain = [max(0.0, top - tall), top]
    suffix, last = axis_suffix(index), index + columns >= len(result.arms)
    matching = {} if index == 0 else {"matches": "x"}
    x_title = "base learning rate (octaves)" if last or narrow else ""
    most = 7 if columns > 1 else 9
    layout[f"xaxis{suffix}"] = axis(
        theme,
        x_title,
        domain=x_domain,
        anchor=f"y{suffix}",
        range=view[0],
        **octave_ticks(view[0][0], view[0][1], most),
        **matching,
    )
    y_title = "held-out loss (nats per token)" if column == 0 and (row == 0 or columns > 1) else ""
    layout[f"yaxis{suffix}"] = axis(
        theme, y_title, domain=y_domain, anchor=f"x{suffix}", range=view[1], tickformat=".2f", nticks=7,
        showticklabels=column == 0, **({} if index == 0 else {"matches": "y"}),
    )  # fmt: skip
    layout[f"yaxis{_OVERLAY + index + 1}"] = {
        "overlaying": f"y{suffix}", "domain": y_domain, "anchor": f"x{suffix}", "range": [0, 1], "fixedrange": True,
        "visible": False,
    }  # fmt: skip
    layout["annotations"] += _heading(result, theme, index, x_domain[0], top)
    layout["shapes"] += _recorded(result, theme, index)


def _heading(result: StudyResult, theme: Theme, index: int, left: float, top: float) -> list[Json]:
    arm = result.arms[index]
    name = arm.name if len(arm.name) <= 24 else f"{arm.name[:23]}…"
    return [
        {"xref": "paper", "yref": "paper", "x": left, "y": top, "xanchor": "left", "yanchor": "bottom", "yshift": 6,
         "showarrow": False, "text": f"{name}: {words.panel_title(arm, result.axis)}",
         "font": {"size": 13, "color": theme.ink}}
    ]  # fmt: skip


def _recorded(result: StudyResult, theme: Theme, index: int) -> list[Json]:
    """The recorded rate as a thin line in a light tolerance band."""
    arm, suffix = result.arms[index], axis_suffix(index)
    recorded = arm.verdict.recorded_lr_octaves
    if recorded is None:
        return []
    colour = arm_style(index, arm.parametrization, theme).colour
    tolerance = arm.verdict.tolerances.drift_octaves
    common = {"xref": f"x{suffix}", "yref": f"y{suffix} domain", "y0": 0, "y1": 1, "layer": "below"}
    return [
        {**common, "type": "rect", "x0": recorded - tolerance, "x1": recorded + tolerance,
         "fillcolor": faded(colour, 0.07), "line": {"width": 0}},
        {**common, "type": "line", "x0": recorded, "x1": recorded,
         "line": {"color": colour, "width": 1, "dash": "dot"}},
    ]  # fmt: skip
