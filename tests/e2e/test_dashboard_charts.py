"""What charts draw, and that their tables, downloads and controls say the same."""

import csv
from io import StringIO
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
import pytest

from mutransfer.result import CurveStatus, StudyResult
from service.db.session import reading
from service.reports import numbers
from service.studies.read import result_document
from tests.e2e.browsing import Visitor
from tests.e2e.seeding import Seeded

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def result_of(site: Seeded, name: str) -> StudyResult:
    with reading(site.sessions) as session:
        return result_document(session, site.ids[name])


def points_drawn(page: Page, chart: str) -> int:
    found: int = page.locator(f"#{chart} .canvas path.point").count()
    return found


def axis_range(page: Page, chart: str, axis: str) -> list[float]:
    found: list[float] = page.evaluate(
        f"document.querySelector('#{chart} .canvas')._fullLayout.{axis}.range.map(Number)"
    )
    return found


def test_the_hero_rings_every_fitted_minimum(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    curves = [curve for arm in result_of(site, "quickstart").arms for curve in arm.curves]
    fitted = [curve for curve in curves if curve.status is CurveStatus.BRACKETED]
    assert len(fitted) == 12
    # a marker and its ring each; intervals as error bars
    assert points_drawn(page, "optimal-lr") == 2 * len(fitted)
    assert page.locator("#optimal-lr .canvas path.yerror").count() == len(fitted)
    labels = page.locator("#optimal-lr .xtick text").all_text_contents()
    assert labels == ["32", "64", "128", "256"]
    assert "2⁻⁵" in page.locator("#optimal-lr .ytick text").all_text_contents()


def test_the_loss_chart_draws_every_point_and_marks_divergence(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    curves = [curve for arm in result_of(site, "quickstart").arms for curve in arm.curves]
    finite = sum(point.loss_nats is not None for curve in curves for point in curve.points)
    diverged = sum(bool(point.diverged) for curve in curves for point in curve.points)
    minima = sum(curve.optimum_octaves is not None for curve in curves)
    assert diverged > 0
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("() => document.querySelector('#loss-lr .canvas')._fullLayout.yaxis.range[1] > 2.6")
    assert points_drawn(page, "loss-lr") == finite + diverged + minima


def test_divergence_does_not_flatten_the_bowl(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    bowl = axis_range(page, "loss-lr", "yaxis")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function(
        "() => document.querySelector('#loss-lr [data-view=\"1\"]').getAttribute('aria-pressed') === 'true'"
    )
    everything = axis_range(page, "loss-lr", "yaxis")
    assert everything[1] - everything[0] > 1.3 * (bowl[1] - bowl[0])
    page.get_by_role("button", name="Zoom to minima").click()
    page.wait_for_function(
        "() => document.querySelector('#loss-lr [data-view=\"0\"]').getAttribute('aria-pressed') === 'true'"
    )
    assert axis_range(page, "loss-lr", "yaxis") == pytest.approx(bowl)


def test_an_unbracketed_curve_is_grey_with_the_word_and_has_no_optimum(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['narrow-limits']}", charts=True)
    curves = [curve for arm in result_of(site, "narrow-limits").arms for curve in arm.curves]
    unbracketed = [curve for curve in curves if curve.status is CurveStatus.UNBRACKETED]
    assert unbracketed
    words = page.locator("#loss-lr .canvas .textpoint text").all_text_contents()
    assert words == ["unbracketed"] * len(unbracketed)
    notes = page.locator("#optimal-lr .annotation-text").all_text_contents()
    assert sum("unbracketed" in note for note in notes) == len(unbracketed)
    with_optimum = sum(curve.optimum_octaves is not None for curve in curves)
    assert page.locator("#optimal-lr .canvas path.yerror").count() == with_optimum


def test_tables_say_what_charts_show(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    page.locator("#optimal-lr summary").click()
    rows = page.locator("#optimal-lr tbody tr").all_inner_texts()
    curves = [(arm, curve) for arm in result_of(site, "quickstart").arms for curve in arm.curves]
    assert len(rows) == len(curves)
    for row, (arm, curve) in zip(rows, curves, strict=True):
        cells = row.split("\t")
        assert curve.optimum_octaves is not None
        assert cells[:2] == [arm.name, str(curve.width)]
        assert cells[4] == numbers.power_of_two(curve.optimum_octaves.value)
    drawn = page.evaluate(
        "document.querySelector('#optimal-lr .canvas').data"
        ".filter((t) => t.mode === 'lines+markers').flatMap((t) => t.y)"
    )
    assert drawn == pytest.approx([curve.optimum_octaves.value for _, curve in curves if curve.optimum_octaves])


def test_hovering_tells_the_decimal_value(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    page.locator("#optimal-lr").scroll_into_view_if_needed()
    page.locator("#optimal-lr .canvas path.point").first.hover(force=True)
    label = page.locator("#optimal-lr .hoverlayer").text_content() or ""
    first = result_of(site, "quickstart").arms[0].curves[0].optimum_octaves
    assert first is not None
    assert f"= {numbers.significant(2.0**first.value)}" in label


@pytest.mark.parametrize("kind", ["png", "svg", "csv"])
@pytest.mark.parametrize("chart", ["optimal-lr", "loss-lr", "training"])
def test_downloads(visitor: Visitor, site: Seeded, pictures: Path, chart: str, kind: str) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    with page.expect_download() as download:
        page.locator(f"#{chart} .downloads").get_by_text(kind.upper(), exact=True).click()
    path = pictures / f"download-{chart}.{kind}"
    download.value.save_as(path)
    body = path.read_bytes()
    if kind == "png":
        assert body.startswith(b"\x89PNG")
    elif kind == "svg":
        assert b"<svg" in body
        assert page.locator(f"#title-{chart}").inner_text().split()[0].encode() in body  # the finding travels along
    else:
        rows = list(csv.DictReader(StringIO(body.decode())))
        assert rows
        assert {"arm", "width"} <= set(rows[0])


def test_csv_holds_the_measured_numbers(visitor: Visitor, site: Seeded) -> None:
    answer = visitor.open("/").request.get(f"{site.url}/studies/{site.ids['quickstart']}/figures/loss-lr.csv")
    rows = list(csv.DictReader(StringIO(answer.text())))
    points = [p for arm in result_of(site, "quickstart").arms for curve in arm.curves for p in curve.points]
    assert [float(row["lr_octaves"]) for row in rows] == [point.lr_octaves for point in points]
    assert [row["loss_nats"] for row in rows] == ["" if p.loss_nats is None else str(p.loss_nats) for p in points]


def test_figures_are_the_same_for_the_same_result(visitor: Visitor, site: Seeded) -> None:
    request = visitor.open("/").request
    address = f"{site.url}/studies/{site.ids['quickstart']}/figures.json?theme=dark"
    documents: list[Any] = [request.get(address).json() for _ in range(2)]
    assert documents[0] == documents[1]
    assert [chart["key"] for chart in documents[0]["charts"]] == ["optimal-lr", "loss-lr", "stability-edge", "training"]
