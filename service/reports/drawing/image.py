"""One chart as SVG, PNG or PDF. The same chart gives the same bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from io import BytesIO
import textwrap
from threading import RLock
from typing import TYPE_CHECKING, Any

from mutransfer.errors import ConflictError
from service.reports.chart import Chart, Json
from service.reports.drawing.letters import fitted
from service.reports.drawing.panels import POINTS_PER_PIXEL, Box, Panels
from service.reports.drawing.traces import colour, dash, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import FigureBase

PIXELS_PER_INCH = 96
WIDTH = 960
_FONT_SHRINK = 0.9  # DejaVu Sans, which matplotlib carries, runs wider than the fonts of browsers
_LETTER = 7.0  # pixels that a letter of a legend takes
#: Ids do not change from one run to the next, and text in PDF stays text.
_SETTINGS = {
    "font.family": "DejaVu Sans", "svg.fonttype": "path", "svg.hashsalt": "mutransfer", "pdf.fonttype": 42,
    "axes.unicode_minus": True,
}  # fmt: skip
_NO_DATES: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {"Software": None},
}

_LOCK = RLock()


class Form(StrEnum):
    """How an image is written."""

    SVG = "svg"
    PNG = "png"
    PDF = "pdf"


#: Media types.
FORMS = {Form.SVG: "image/svg+xml", Form.PNG: "image/png", Form.PDF: "application/pdf"}


def image(chart: Chart, form: Form, *, width: int = WIDTH) -> bytes:
    """The chart with its title, `width` pixels wide (PNG: twice as many dots). ConflictError for an empty one."""
    if chart.empty:
        raise ConflictError(f"the chart {chart.key} has nothing to draw yet. {chart.empty}")
    from matplotlib.figure import Figure

    with settings():
        height = height_of(chart, width)
        figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)
        figure.set_facecolor(chart.layout["paper_bgcolor"])
        paint(figure, chart, (width, height))
        buffer = BytesIO()
        figure.savefig(buffer, format=form.value, dpi=2 * PIXELS_PER_INCH, metadata=_NO_DATES[form.value])
    return buffer.getvalue()


def height_of(chart: Chart, width: int) -> int:
    """The pixels that a chart takes with its title at `width` pixels."""
    return int(chart.layout["height"]) + _head(chart, width)


def _title(chart: Chart, width: int) -> list[str]:
    return textwrap.wrap(chart.title, width=max(20, (width - 32) // 9))


def _head(chart: Chart, width: int) -> int:
    """Above what the layout knows of: the title, and the rows of the legend after the first."""
    return 24 * len(_title(chart, width)) + 12 + 20 * (_legend_rows(_legend_names(chart), width) - 1)


def paint(figure: "FigureBase", chart: Chart, size: tuple[int, int]) -> None:
    """Draw the chart on all of a figure of `size` pixels. Call within `settings`."""
    layout, (width, height) = chart.layout, size
    title, ink = "\n".join(_title(chart, width)), layout["font"]["color"]
    figure.text(16 / width, 1 - 14 / height, title, va="top", fontsize=_size(16), weight="bold", color=ink)
    margin = layout["margin"]
    plot = Box(
        left=margin["l"] / width, width=(width - margin["l"] - margin["r"]) / width,
        bottom=margin["b"] / height, height=(layout["height"] - margin["t"] - margin["b"]) / height,
    )  # fmt: skip
    panels = Panels(figure, layout, plot)
    shown = _traces(panels, chart.data)
    for x, y, axes in panels:
        _finish(axes, panels.axis(x), panels.axis(y))
    for shape in layout.get("shapes", ()):
        _shape(figure, panels, shape)
    _notes(figure, panels, layout.get("annotations", ()), size)
    if layout.get("showlegend") and shown:
        _legend(figure, layout, shown, plot, width)


@contextmanager
def settings() -> Iterator[None]:
    """The context to draw and save in: fonts, and bytes that do not change. One at a time: the settings are global."""
    import matplotlib as mpl

    with _LOCK, mpl.rc_context(_SETTINGS):
        yield


def _size(pixels: float) -> float:
    return pixels * POINTS_PER_PIXEL * _FONT_SHRINK


def _traces(panels: Panels, data: Sequence[Json]) -> list[tuple[str, Any]]:
    """Draw all; returns names and handles for the legend."""
    shown = []
    for order, trace in enumerate(data):
        axes = panels.axes(trace.get("xaxis", "x"), trace.get("yaxis", "y"))
        handle = draw(axes, trace, order)
        if handle is not None and trace.get("showlegend", True) and trace.get("name"):
            shown.append((trace["name"], handle))
    return shown


def _finish(axes: "Axes", x: Json, y: Json) -> None:
    """Limits, ticks and lines of one pair of axes."""
    for given, axis, set_limits in ((x, axes.xaxis, axes.set_xlim), (y, axes.yaxis, axes.set_ylim)):
        if "range" in given:
            set_limits(*given["range"])
        elif given.get("rangemode") == "tozero":
            set_limits(0.0, None)
        elif given.get("autorange") == "reversed":
            axis.set_inverted(True)
        _ticks(axis, given)
    if "overlaying" in y:
        axes.set_axis_off()  # only its traces are wanted: the axes below carry ticks and lines
    visible = {"bottom": x, "left": y}
    for name, spine in axes.spines.items():
        given = visible.get(name, {})
        spine.set_visible(given.get("showline", False) and given.get("visible", True))
        spine.set_color(given.get("linecolor", "#000000"))
        spine.set_linewidth(POINTS_PER_PIXEL)
    if x.get("side") == "top":
        axes.xaxis.tick_top()


def _ticks(axis: "Axis", given: Json) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullLocator

    if not given.get("visible", True):
        axis.set_major_locator(NullLocator())
        return
    font = given.get("tickfont", {})
    if "tickvals" in given:
        axis.set_ticks(given["tickvals"], given["ticktext"])
    elif given.get("nticks"):
        axis.set_major_locator(MaxNLocator(given["nticks"]))
    if given.get("tickformat") == ".2f":
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
    elif given.get("tickformat") == "~s":
        axis.set_major_formatter(EngFormatter(sep=""))
    elif given.get("ticksuffix"):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{given['ticksuffix']}"))
    length = given.get("ticklen", 4) * POINTS_PER_PIXEL if given.get("ticks") else 0
    axis.set_tick_params(
        colors=given.get("tickcolor", "#000000"), labelcolor=font.get("color", "#000000"), length=length,
        labelsize=_size(font.get("size", 12)), width=POINTS_PER_PIXEL,
    )  # fmt: skip
    if not given.get("showticklabels", True):
        axis.set_ticklabels([])
    if given.get("showgrid", True):
        axis.grid(visible=True, color=given.get("gridcolor", "#eeeeee"), linewidth=POINTS_PER_PIXEL, zorder=0)
        axis.axes.set_axisbelow(True)
    title = given.get("title", {})
    if title.get("text"):
        axis.set_label_text(title["text"], fontsize=_size(title["font"]["size"]), color=title["font"]["color"])


def _shape(figure: "FigureBase", panels: Panels, shape: Json) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    x = [panels.across(shape.get("xref", "x"), shape[end]) for end in ("x0", "x1")]
    y = [panels.up(shape.get("yref", "y"), shape[end]) for end in ("y0", "y1")]
    line, below = shape.get("line", {}), shape.get("layer") == "below"
    if shape["type"] == "rect":
        corner, sides = (min(x), min(y)), (abs(x[1] - x[0]), abs(y[1] - y[0]))
        face = colour(shape["fillcolor"])
        figure.add_artist(Rectangle(corner, *sides, facecolor=face, linewidth=0, zorder=-1))
    else:
        style = {"color": colour(line["color"]), "linestyle": dash(line.get("dash", "solid"))}
        width = line.get("width", 1) * POINTS_PER_PIXEL
        figure.add_artist(Line2D(x, y, linewidth=width, zorder=-1 if below else 1, **style))


def _notes(figure: "FigureBase", panels: Panels, notes: Sequence[Json], size: tuple[int, int]) -> None:
    """Texts at places, shifted by pixels. Plotly's `auto` anchors are centres here."""
    places = [
        (
            panels.across(note.get("xref", "x"), note["x"]) + note.get("xshift", 0) / size[0],
            panels.up(note.get("yref", "y"), note["y"]) + note.get("yshift", 0) / size[1],
        )
        for note in notes
    ]
    for note, (x, y) in zip(notes, places, strict=True):
        font = note.get("font", {})
        upright = {"top": "top", "bottom": "bottom"}.get(note.get("yanchor", ""), "center")
        sideways = {"left": "left", "right": "right"}.get(note.get("xanchor", ""), "center")
        text, pixels = str(note["text"]).replace("<br>", "\n"), font.get("size", 12) * _FONT_SHRINK
        if sideways == "left":  # up to the next text of its line, or to the edge
            room = min([other for other, line in places if other > x and abs(line - y) < 0.01], default=1.0) - x
            text, pixels = fitted(text, pixels, room * size[0] - 4)
        ink, points = font.get("color", "#000000"), pixels * POINTS_PER_PIXEL
        figure.text(x, y, text, ha=sideways, va=upright, fontsize=points, color=ink)


def _legend_names(chart: Chart) -> list[str]:
    if not chart.layout.get("showlegend"):
        return []
    return [t["name"] for t in chart.data if t.get("showlegend", True) and t.get("name") and t["type"] != "heatmap"]


def _legend_rows(names: Sequence[str], width: int) -> int:
    return max(1, -(-len(names) // _columns(names, width))) if names else 1


def _columns(names: Sequence[str], width: int) -> int:
    longest = max(len(name) for name in names)
    return max(1, min(len(names), int((width - 100) // (56 + _LETTER * longest))))


def _legend(figure: "FigureBase", layout: Json, shown: Sequence[tuple[str, Any]], plot: Box, width: int) -> None:
    from matplotlib.lines import Line2D

    names, handles = [name for name, _ in shown], [handle for _, handle in shown]
    columns = _columns(names, width)
    given = layout["legend"]
    if title := given.get("title", {}).get("text", "").strip():
        names, handles, columns = [title, *names], [Line2D([], [], linestyle="none"), *handles], columns + 1
    figure.legend(
        handles, names, loc="lower left", ncols=columns, frameon=False, fontsize=_size(given["font"]["size"]),
        bbox_to_anchor=(plot.left, plot.bottom + plot.height * max(given.get("y", 1.0), 1.0)), borderaxespad=0.2,
        labelcolor=given["font"]["color"], handlelength=2.2, columnspacing=1.6,
    )  # fmt: skip
