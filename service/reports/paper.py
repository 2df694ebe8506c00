"""A4 pages on which text, tables and charts flow downwards, written as PDF by matplotlib. Lengths in pixels."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from service.reports.chart import Chart
from service.reports.drawing import PIXELS_PER_INCH, height_of, paint, settings
from service.reports.drawing.letters import measure
from service.reports.palette import LIGHT
from service.reports.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = (794, 1123)  # A4 at 96 pixels per inch
MARGIN = 48
WIDE = PAGE[0] - 2 * MARGIN
_POINTS = 0.75  # a pixel in points
_GAP = 10  # between two columns of a table
_SMALLEST = 7.0


def wrapped(text: str, size: float, width: float, *, bold: bool = False) -> list[str]:
    """Lines of `text` that are at most `width` wide; a word that is wider stands alone and is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if measure(longer, size, bold=bold) <= width:
            lines[-1] = longer
            continue
        while measure(word, size, bold=bold) > width and len(word) > 1:
            word = f"{word[:-2]}…"
        lines.append(word)
    return [line for line in lines if line] or [""]


class Paper:
    """Add things in reading order, then take the `pdf`. The footer repeats `title` on every page."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._pages: list[Figure] = []
        self._y = 0.0  # of the next thing, from the top
        self._turn()

    def _turn(self) -> None:
        from matplotlib.figure import Figure

        inches = (PAGE[0] / PIXELS_PER_INCH, PAGE[1] / PIXELS_PER_INCH)
        self._pages.append(Figure(figsize=inches, dpi=PIXELS_PER_INCH, facecolor="#ffffff"))
        self._y = float(MARGIN)

    def room(self, height: float) -> None:
        """Turn the page unless `height` is left on it."""
        if self._y + height > PAGE[1] - 1.5 * MARGIN and self._y > MARGIN:
            self._turn()

    def space(self, height: float) -> None:
        """Leave some white."""
        self._y += height

    def _put(
        self, text: str, x: float, *, size: float, colour: str = LIGHT.ink, bold: bool = False, align: str = "left"
    ) -> None:  # fmt: skip
        self._pages[-1].text(
            x / PAGE[0], 1 - (self._y + size) / PAGE[1], text, fontsize=size * _POINTS, color=colour, ha=align,
            weight="bold" if bold else "normal", parse_math=False,
        )  # fmt: skip

    def text(
        self, text: str, *, size: float = 12, colour: str = LIGHT.ink, bold: bool = False, indent: float = 0
    ) -> None:  # fmt: skip
        """A paragraph."""
        for line in wrapped(text, size, WIDE - indent, bold=bold):
            self.room(1.5 * size)
            self._put(line, MARGIN + indent, size=size, colour=colour, bold=bold)
            self._y += 1.5 * size
        self._y += 0.5 * size

    def heading(self, text: str) -> None:
        """A heading that stays with what follows."""
        self._y += 14
        self.room(90)
        self.text(text, size=15, bold=True)

    def table(self, table: Table) -> None:
        """All rows, the head again on each page; letters shrink where the columns would not fit."""
        rows = table.shown()
        head = [column.label for column in table.columns]
        size, widths = _fit(head, rows)
        right = [column.numeric for column in table.columns]
        self._row(head, widths, right, size, is_head=True)
        for row in rows:
            if self._y + 2 * size > PAGE[1] - 1.5 * MARGIN:
                self._turn()
                self._row(head, widths, right, size, is_head=True)
            self._row(row, widths, right, size, is_head=False)
        self._y += 8

    def _row(
        self, cells: Sequence[str], widths: Sequence[float], right: Sequence[bool], size: float, *, is_head: bool
    ) -> None:  # fmt: skip
        lines = [
            wrapped(cell, size, width, bold=is_head) for cell, width in zip(cells, widths, strict=True)
        ]  # fmt: skip
        tall = max(len(part) for part in lines)
        self.room(1.5 * size * tall)
        x, top = float(MARGIN), self._y
        for part, width, is_right in zip(lines, widths, right, strict=True):
            for place, line in enumerate(part):
                self._y = top + 1.4 * size * place
                colour = LIGHT.muted if is_head else LIGHT.ink
                place_x, align = (x + width, "right") if is_right else (x, "left")
                self._put(line, place_x, size=size, colour=colour, align=align)
            x += width + _GAP
        self._y = top + 1.4 * size * tall + 0.3 * size
        self._rule(LIGHT.axis if is_head else LIGHT.grid)
        self._y += 0.35 * size

    def _rule(self, colour: str) -> None:
        from matplotlib.lines import Line2D

        y = 1 - self._y / PAGE[1]
        x = (MARGIN / PAGE[0], 1 - MARGIN / PAGE[0])
        self._pages[-1].add_artist(Line2D(x, (y, y), linewidth=0.6, color=colour))

    def chart(self, chart: Chart) -> None:
        """A chart over the whole width; nothing for one that is empty."""
        if chart.empty:
            return
        height = height_of(chart, WIDE)
        self.room(height)
        page = self._pages[-1]
        rows = (self._y, height, max(PAGE[1] - self._y - height, 1))
        grid = page.add_gridspec(3, 3, height_ratios=rows, width_ratios=(MARGIN, WIDE, MARGIN), wspace=0, hspace=0)
        paint(page.add_subfigure(grid[1, 1]), chart, (WIDE, height))
        self._y += height + 12

    def pdf(self) -> bytes:
        """All pages. The same content gives the same bytes."""
        from matplotlib.backends.backend_pdf import PdfPages

        buffer = BytesIO()
        facts = {"Title": self._title, "Creator": "mutransfer", "CreationDate": None, "ModDate": None}
        with PdfPages(buffer, metadata=facts) as document:
            for number, page in enumerate(self._pages, start=1):
                self._foot(page, number)
                document.savefig(page)
        return buffer.getvalue()

    def _foot(self, page: "Figure", number: int) -> None:
        y = 0.6 * MARGIN / PAGE[1]
        size, x, of = 9 * _POINTS, MARGIN / PAGE[0], f"{number} / {len(self._pages)}"
        page.text(x, y, self._title, parse_math=False, fontsize=size, color=LIGHT.muted)
        page.text(1 - x, y, of, ha="right", fontsize=size, color=LIGHT.muted)


def _fit(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """The size of letters and the width of each column; the widest columns wrap where even small letters run over."""
    size = 11.0
    while True:
        widths = [_width(head[place], [row[place] for row in rows], size) for place in range(len(head))]
        over = sum(widths) + _GAP * (len(head) - 1) - WIDE
        if over <= 0 or size <= _SMALLEST:
            break
        size -= 0.5
    while over > 0:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= 4 * size:
            break
        step = min(over, widths[widest] / 4)
        widths[widest] -= step
        over -= step
    return size, widths


def _width(head: str, cells: Sequence[str], size: float) -> float:
    return max([size, measure(head, size, bold=True), *(measure(cell, size) for cell in cells)]) + 1


__all__ = ["Paper", "settings", "wrapped"]
