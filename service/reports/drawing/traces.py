"""Plotly's traces on matplotlib's axes: the kinds and options that our charts use, and no others."""

from collections.abc import Sequence
import re
from typing import TYPE_CHECKING, Any

from service.reports.chart import Json
from service.reports.drawing.panels import POINTS_PER_PIXEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "pentagon": "p",
    "hexagon": "H", "star": "*", "x": "X", "x-thin": "x", "cross": "P", "line-ew": "_", "line-ns": "|",
}  # fmt: skip
_DASHES = {"solid": "-", "dash": (0, (5, 2.5)), "dot": (0, (1.2, 1.8)), "dashdot": "-.", "2px,3px": (0, (2, 3))}


def colour(text: str) -> Any:
    """A colour of Plotly's as matplotlib's: `#rrggbb` as it is, `rgba(r,g,b,a)` as four fractions."""
    if not text.startswith("rgb"):
        return text
    parts = [float(part) for part in re.findall(r"[\d.]+", text)]
    return (*(part / 255 for part in parts[:3]), parts[3] if len(parts) > 3 else 1.0)


def dash(name: str) -> Any:
    """A dash of Plotly's as matplotlib's."""
    return _DASHES.get(name, "-")


def draw(axes: "Axes", trace: Json, order: int) -> Any:
    """One trace; returns what a legend shows for it, None for what has no place in a legend."""
    if trace["type"] == "heatmap":
        _heatmap(axes, trace)
        return None
    return _scatter(axes, trace, order)


def _scatter(axes: "Axes", trace: Json, order: int) -> Any:
    x, y = _numbers(trace["x"]), _numbers(trace["y"])
    line, marker, opacity = trace.get("line", {}), trace.get("marker", {}), trace.get("opacity", 1.0)
    if trace.get("fill") in ("toself", "tozeroy", "tonexty"):
        axes.fill(x, y, color=colour(trace["fillcolor"]), linewidth=0, zorder=1)
        if not line.get("width", 2):
            return None
    _error_bars(axes, trace, x, y, order)
    mode = trace.get("mode", "lines")
    style: dict[str, Any] = {"linestyle": "none", "marker": "none"}
    if "lines" in mode:
        style |= {
            "linestyle": dash(line.get("dash", "solid")), "linewidth": line.get("width", 2) * POINTS_PER_PIXEL,
            "color": colour(line.get("color") or marker.get("color", "#000000")),
        }  # fmt: skip
    if "markers" in mode:
        style |= _marker(marker, style.get("color"))
    clip = trace.get("cliponaxis", True)
    (drawn,) = axes.plot(x, y, alpha=opacity, zorder=3 + order / 1000, clip_on=clip, **style)
    return drawn


def _marker(marker: Json, fallback: Any) -> dict[str, Any]:
    symbol = str(marker.get("symbol", "circle"))
    own = marker.get("color", fallback)
    main = colour(own) if isinstance(own, str) else fallback
    is_open, edge = symbol.endswith("-open"), marker.get("line", {})
    has_edge = not is_open and edge.get("width") and "color" in edge
    return {
        "marker": _MARKERS.get(symbol.removesuffix("-open"), "o"),
        "markersize": marker.get("size", 6) * POINTS_PER_PIXEL,
        "markerfacecolor": "none" if is_open else main,
        "markeredgecolor": colour(edge["color"]) if has_edge else main,
        "markeredgewidth": edge.get("width", 1 if is_open else 0) * POINTS_PER_PIXEL,
    }


def _error_bars(axes: "Axes", trace: Json, x: Sequence[float], y: Sequence[float], order: int) -> None:
    for name in ("error_x", "error_y"):
        bars = trace.get(name)
        if bars is None:
            continue
        lengths = [_numbers(bars.get("arrayminus", bars["array"])), _numbers(bars["array"])]
        axes.errorbar(
            x, y, xerr=lengths if name == "error_x" else None, yerr=lengths if name == "error_y" else None,
            fmt="none", zorder=2 + order / 1000,
            ecolor=colour(bars["color"]), elinewidth=bars.get("thickness", 2) * POINTS_PER_PIXEL,
            capthick=bars.get("thickness", 2) * POINTS_PER_PIXEL, capsize=bars.get("width", 4) * POINTS_PER_PIXEL,
        )  # fmt: skip


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def _heatmap(axes: "Axes", trace: Json) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    import numpy as np

    colours = LinearSegmentedColormap.from_list("scale", [(place, colour(text)) for place, text in trace["colorscale"]])
    values = np.ma.masked_invalid(np.array([_numbers(row) for row in trace["z"]], dtype=float))
    columns, rows = len(trace["x"]), len(trace["y"])
    edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    axes.pcolormesh(
        *edges, values, cmap=colours, vmin=trace["zmin"], vmax=trace["zmax"], edgecolors=axes.figure.get_facecolor(),
        linewidth=trace.get("xgap", 0),
    )  # fmt: skip
    axes.set_xticks(range(columns), [str(name) for name in trace["x"]])
    axes.set_yticks(range(rows), [str(name) for name in trace["y"]])
    if "texttemplate" in trace:
        for row, texts in enumerate(trace["text"]):
            for column, text in enumerate(texts):
                axes.text(column, row, text or "", ha="center", va="center", fontsize=8)
