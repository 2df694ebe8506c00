"""What pages answer besides HTML: figures, tables and files; and how they read a number out of an address."""

import json

from fastapi import Request, Response

from service.dashboard.assets import packed
from service.dashboard.frame import NO_CACHE
from service.db.base import MOST_INTEGER
from service.reports.chart import Chart, find
from service.reports.files import attachment

MOST_DIGITS = 100


def figures(request: Request, charts: tuple[Chart, ...]) -> Response:
    """Charts as the JSON that the pages' script draws."""
    body = json.dumps({"charts": [chart.document() for chart in charts]}, separators=(",", ":")).encode()
    return packed(request, body, "application/json", cache=NO_CACHE)


def csv_table(charts: tuple[Chart, ...], key: str, name: str) -> Response:
    """The table of one chart as CSV. Raises NotFoundError for a chart that does not exist."""
    return attachment(find(charts, key).table.csv().encode(), "text/csv", f"{name}-{key}.csv")


def number(text: str | None, *, most: int = MOST_INTEGER) -> int | None:
    """A positive whole number up to `most`, None for anything else: a form's empty field is no error."""
    if not text or len(text) > MOST_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    return int(text) if 0 < int(text) <= most else None
