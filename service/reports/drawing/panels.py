"""Where the parts of a Plotly layout lie on a matplotlib figure, in fractions of it. Plotly's pixels are 1/96 inch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import re
from typing import TYPE_CHECKING

from service.reports.chart import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

POINTS_PER_PIXEL = 0.75


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in fractions of the figure, from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float

    def part(self, x: tuple[float, float], y: tuple[float, float]) -> "Box":
        """The part of it between two fractions of its own in each direction."""
        return Box(
            left=self.left + x[0] * self.width, width=(x[1] - x[0]) * self.width,
            bottom=self.bottom + y[0] * self.height, height=(y[1] - y[0]) * self.height,
        )  # fmt: skip

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """As matplotlib wants it."""
        return self.left, self.bottom, self.width, self.height


class Panels:
    """The axes of a layout by their names (`x2`, `y2`), and places on the figure that Plotly's references mean."""

    def __init__(self, figure: "FigureBase", layout: Json, plot: Box) -> None:
        self._figure = figure
        self._layout = layout
        self._plot = plot
        self._axes: dict[tuple[str, str], Axes] = {}

    def axes(self, x: str, y: str) -> "Axes":
        """The axes that a trace on `x` and `y` is drawn on, made when first asked for."""
        if (x, y) not in self._axes:
            box = self._plot.part(self._domain(x), self._domain(y))
            made = self._figure.add_axes(box.bounds, label=f"{x}{y}")
            made.patch.set_visible(False)
            self._axes[x, y] = made
        return self._axes[x, y]

    def __iter__(self) -> Iterator[tuple[str, str, "Axes"]]:
        return ((x, y, axes) for (x, y), axes in self._axes.items())

    def axis(self, name: str) -> Json:
        """The layout of the axis `x`, `y2` …; empty for one that the layout does not mention."""
        found: Json = self._layout.get(f"{name[0]}axis{name[1:]}", {})
        return found

    def _domain(self, name: str) -> tuple[float, float]:
        given = self.axis(name).get("domain")
        if given is not None:
            return given[0], given[1]
        grid = self._layout.get("grid")
        return _cell(grid, name) if grid else (0.0, 1.0)

    def across(self, reference: str, value: float) -> float:
        """The fraction of the figure's width that `value` means in a reference such as `paper`, `x2`, `x domain`."""
        return self._place(reference, value, self._plot.left, self._plot.width)

    def up(self, reference: str, value: float) -> float:
        """The same along its height."""
        return self._place(reference, value, self._plot.bottom, self._plot.height)

    def _place(self, reference: str, value: float, start: float, length: float) -> float:
        if reference == "paper":
            return start + value * length
        name, _, is_domain = reference.partition(" ")
        low, high = self._domain(name)
        if is_domain:
            return start + (low + value * (high - low)) * length
        begin, end = self._limits(name)
        inside = min(max((value - begin) / (end - begin), 0.0), 1.0)
        return start + (low + inside * (high - low)) * length

    def _limits(self, name: str) -> tuple[float, float]:
        for x, y, axes in self:
            if name in (x, y):
                low, high = axes.get_xlim() if name == x else axes.get_ylim()
                return float(low), float(high)
        return 0.0, 1.0


def _cell(grid: Mapping[str, float], name: str) -> tuple[float, float]:
    """A cell of Plotly's `grid` with the pattern `independent`: the n-th pair of axes, row by row from the top."""
    place = int(re.sub(r"\D", "", name) or 1) - 1
    columns, rows = int(grid["columns"]), int(grid["rows"])
    if name[0] == "x":
        return _span(place % columns, columns, grid.get("xgap", 0.2))
    return _span(rows - 1 - place // columns, rows, grid.get("ygap", 0.3))


def _span(place: int, count: int, gap: float) -> tuple[float, float]:
    step = 1.0 / (count - gap)
    return place * step, place * step + step * (1 - gap)
