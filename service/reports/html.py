"""The report as one HTML file that needs nothing else: stylesheet, scripts, figures and Plotly travel inside.

Plotly's 4.8 MB are carried gzipped and unpacked by the browser. The file is the same for the same result.
"""

import base64
from functools import cache
import gzip
from importlib.resources import files
import json

from markupsafe import Markup

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.reports import words
from service.reports.cards import arm_cards
from service.reports.figures import charts
from service.reports.markdown import cost_words
from service.reports.palette import THEMES
from service.reports.stylesheet import stylesheet
from service.reports.tables import transfer_table
from service.reports.templating import render


@cache
def packed_plotly() -> str:
    """Plotly's JavaScript out of the installed wheel, gzipped, in base64."""
    body = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(body, compresslevel=9, mtime=0)).decode()


def _static(name: str) -> Markup:
    return Markup((files("service.dashboard") / "static" / name).read_text("utf-8"))  # noqa: S704 - our own file


def _style() -> Markup:
    return Markup(stylesheet())  # noqa: S704 - our own files


def _inline_json(document: object) -> Markup:
    """JSON that may stand in a script element: no `<` ends it early."""
    return Markup(json.dumps(document, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 - escaped here


def report_html(result: StudyResult, spec: StudySpec) -> str:
    """The whole report."""
    figures = {name: [chart.document() for chart in charts(result, spec, theme)] for name, theme in THEMES.items()}
    return render(
        "report.html", result=result, spec=spec, answer=words.answer(result), cards=arm_cards(result),
        charts=charts(result, spec), transfer=transfer_table(result), conditions=words.conditions(spec),
        cost=cost_words(result.cost), style=_style(), theme_script=_static("theme.js"),
        charts_script=_static("charts.js"), figures=_inline_json(figures), plotly=Markup(packed_plotly()),  # noqa: S704
    )  # fmt: skip
