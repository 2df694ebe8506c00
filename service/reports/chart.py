"""A chart as data: a Plotly figure, the sentence it shows, and the table that says the same.

Text in figures is plain (Unicode superscripts, `<br>` at most): Plotly turns tags such as `<sup>` into style
attributes, which the dashboard's Content-Security-Policy bars.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log2
from typing import Any

from mutransfer.errors import NotFoundError
from service.reports import numbers
from service.reports.palette import FONT, Theme
from service.reports.table import Table

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class View:
    """One setting of a control above a chart: its label and the layout keys it sets."""

    label: str
    relayout: Json


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart in one theme. `empty` is set, and `data` empty, while there is nothing to draw.

    `narrow` is the layout for columns under 640 px; `note` says how to read the chart.
    """

    key: str
    title: str
    note: str
    table: Table
    data: Sequence[Json] = ()
    layout: Json = field(default_factory=dict)
    narrow: Json = field(default_factory=dict)
    views: tuple[View, ...] = ()
    empty: str = ""

    def document(self) -> Json:
        """The chart as JSON, without its table (which pages render themselves)."""
        return {
            "key": self.key,
            "title": self.title,
            "data": list(self.data),
            "layout": self.layout,
            "narrow": self.narrow,
            "views": [{"label": view.label, "relayout": view.relayout} for view in self.views],
            "empty": self.empty,
        }


def find(charts: Sequence[Chart], key: str) -> Chart:
    """The chart with this key. Raises NotFoundError, which names the keys that there are."""
    for chart in charts:
        if chart.key == key:
            return chart
    raise NotFoundError(f"no chart {key}: there are {numbers.listed([chart.key for chart in charts])}")


def base_layout(theme: Theme, *, height: int, **extra: Any) -> Json:
    """What all charts share: fonts, paper, hover labels, no title inside (the page carries it), legend above."""
    return {
        "height": height,
        "autosize": True,
        "paper_bgcolor": theme.paper,
        "plot_bgcolor": theme.paper,
        "font": {"family": FONT, "size": 13, "color": theme.ink},
        "margin": {"l": 64, "r": 24, "t": 40, "b": 56},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": theme.hover, "bordercolor": theme.axis, "align": "left",
            "font": {"family": FONT, "size": 13, "color": theme.ink},
        },
        "legend": legend(theme),
        "dragmode": "zoom",
        **extra,
    }  # fmt: skip


def legend(theme: Theme, **extra: Any) -> Json:
    """A quiet horizontal legend above the plot."""
    return {
        "orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom",
        "font": {"size": 12, "color": theme.muted}, "bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant", **extra,
    }  # fmt: skip


def legend_rows(names: Sequence[str]) -> int:
    """Rows that a legend of `names` takes in a phone's column, where 300 px are left for it."""
    rows, used = 1, 0
    for name in names:
        width = 56 + 7 * len(name)
        rows, used = (rows + 1, width) if used and used + width > 300 else (rows, used + width)
    return rows


def axis(theme: Theme, title: str, **extra: Any) -> Json:
    """One axis: hairline grid, outside ticks, title with the unit."""
    return {
        "title": {"text": title, "font": {"size": 12, "color": theme.muted}},
        "tickfont": {"size": 12, "color": theme.muted},
        "gridcolor": theme.grid, "linecolor": theme.axis, "tickcolor": theme.axis,
        "showline": True, "zeroline": False, "ticks": "outside", "ticklen": 4, "automargin": False, **extra,
    }  # fmt: skip


def octave_ticks(low: float, high: float, most: int = 12) -> Json:
    """Whole octaves from `low` to `high` as 2⁻⁸ … 2⁰; halves where few fit, every second or fourth where many would."""
    step = 0.5 if high - low < 2.5 else 1.0
    while (high - low) / step > most:
        step *= 2
    values = [step * count for count in range(ceil(low / step), floor(high / step) + 1)]
    return {"tickmode": "array", "tickvals": values, "ticktext": [numbers.power_of_two(value) for value in values]}


def size_axis(theme: Theme, name: str, sizes: Sequence[int], **extra: Any) -> Json:
    """A log2 axis of widths (or depths) with the values themselves as ticks."""
    places = [log2(size) for size in sizes]
    pad = 0.35
    return axis(
        theme, f"{name} (log₂ scale)", tickmode="array", tickvals=places, ticktext=[str(size) for size in sizes],
        range=[min(places) - pad, max(places) + pad], showgrid=False, **extra,
    )  # fmt: skip


def spread(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Move labels apart to at least `gap`, as little as that takes and in their order, so that none overlap."""
    ordered = sorted(places, key=lambda name: (places[name], name))
    groups: list[tuple[list[str], float]] = []
    for name in ordered:
        members, centre = [name], places[name]
        while groups and centre - gap * (len(members) - 1) / 2 < groups[-1][1] + gap * (len(groups[-1][0]) + 1) / 2:
            before, other = groups.pop()
            total = len(before) + len(members)
            centre = (other * len(before) + centre * len(members)) / total
            members = before + members
        groups.append((members, centre))
    return {
        name: centre + gap * (index - (len(members) - 1) / 2)
        for members, centre in groups
        for index, name in enumerate(members)
    }
