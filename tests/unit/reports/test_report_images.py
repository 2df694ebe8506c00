"""Charts drawn without a browser: everything that a figure holds is there, and the bytes do not change."""

import re
import struct

import pytest

from mutransfer.errors import ConflictError, NotFoundError
from service.reports.audit_charts import audit_charts
from service.reports.chart import Chart, find
from service.reports.comparison import compare
from service.reports.comparison_charts import comparison_charts
from service.reports.drawing import PIXELS_PER_INCH, Form, height_of, image, paint, settings
from service.reports.figures import charts
from service.reports.palette import DARK, LIGHT
from service.reports.table import Table
from tests.e2e.audits import audits_of
from tests.e2e.samples import study_spec
from tests.unit.reports.test_report_comparison import contender, played


def every_chart() -> list[Chart]:
    simulation, result = played()
    arms = [contender("muon-mup"), contender("adamw-mup", 1), contender("adamw-sp", 2)]
    return [
        *charts(result, simulation.spec, LIGHT), *audit_charts(audits_of(study_spec("a", audit={}))[0], LIGHT),
        *comparison_charts(compare(arms, baseline=None, size=64), LIGHT),
    ]  # fmt: skip


@pytest.mark.parametrize("chart", every_chart(), ids=lambda chart: chart.key)
def test_every_chart_is_drawn_with_all_its_texts_inside(chart: Chart) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with settings():
        height = height_of(chart, 960)
        figure = Figure(figsize=(960 / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)
        paint(figure, chart, (960, height))
        FigureCanvasAgg(figure).draw()
        texts = [text for text in figure.findobj(match=lambda one: hasattr(one, "get_text")) if text.get_text()]
        boxes = [text.get_window_extent() for text in texts if text.get_visible()]
    said = " ".join(text.get_text().replace("\n", " ") for text in texts)
    assert chart.title in said
    for note in chart.layout.get("annotations", ()):
        assert note["text"].replace("<br>", " ") in said
    lines = [line for axes in figure.axes for line in axes.lines]
    drawn = [t for t in chart.data if t["type"] == "scatter" and not ("fill" in t and not t["line"].get("width"))]
    assert len([line for line in lines if len(line.get_xdata()) > 0]) >= len([t for t in drawn if t["x"]])
    for box in (box for box in boxes if box.x0 < 960):  # ticks beyond the end of an axis are not drawn
        assert box.x0 > -2
        assert box.x1 < 962
        assert box.y1 < height + 2


def test_the_forms_of_an_image() -> None:
    chart = every_chart()[0]
    png = image(chart, Form.PNG)
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == (2 * 960, 2 * height_of(chart, 960))
    svg = image(chart, Form.SVG)
    assert svg == image(chart, Form.SVG)
    assert not re.search(rb"(?:href|src)=.https?:", svg)
    assert image(chart, Form.PDF).startswith(b"%PDF-")


def test_an_image_is_dark_where_the_page_is() -> None:
    simulation, result = played()
    dark = charts(result, simulation.spec, DARK)[0]
    assert DARK.paper.encode() in image(dark, Form.SVG)
    assert DARK.arms[0].encode() in image(dark, Form.SVG)


def test_an_empty_chart_and_an_unknown_key_say_so() -> None:
    chart = Chart(key="a", title="t", note="", table=Table(caption="", columns=(), rows=()), empty="Appears later.")
    with pytest.raises(ConflictError, match=r"nothing to draw yet\. Appears later\."):
        image(chart, Form.SVG)
    with pytest.raises(NotFoundError, match="no chart b: there are a"):
        find([chart], "b")
