"""A table as data: the same rows become HTML, Markdown and CSV."""

from collections.abc import Callable, Iterable
import csv
from dataclasses import dataclass
from io import StringIO

Cell = str | int | float | None


def plain(value: Cell) -> str:
    """The value as it is; nothing for None."""
    return "" if value is None else str(value)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. `key` names it in CSV (with its unit), `label` in print; `show` turns a raw value into text."""

    key: str
    label: str
    show: Callable[[float], str] | None = None

    @property
    def numeric(self) -> bool:
        """Whether its cells are numbers: right-aligned, tabular."""
        return self.show is not None

    def text(self, value: Cell) -> str:
        """What a reader sees for `value`; an en dash where nothing is known."""
        if value is None:
            return "–"
        return self.show(value) if self.show is not None and not isinstance(value, str) else str(value)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption, columns, and rows of raw values in the order of the columns."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def shown(self) -> tuple[tuple[str, ...], ...]:
        """The rows as text."""
        return tuple(tuple(c.text(v) for c, v in zip(self.columns, row, strict=True)) for row in self.rows)

    def markdown(self) -> str:
        """A GitHub-flavoured table, numbers aligned right."""
        rule = "|".join("---:" if column.numeric else "---" for column in self.columns)
        lines = [_pipes(column.label for column in self.columns), f"|{rule}|", *(_pipes(row) for row in self.shown())]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """RFC 4180 text with a header of column keys and raw values."""
        buffer = StringIO(newline="")
        writer = csv.writer(buffer)
        writer.writerow([column.key for column in self.columns])
        writer.writerows([[plain(value) for value in row] for row in self.rows])
        return buffer.getvalue()


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
