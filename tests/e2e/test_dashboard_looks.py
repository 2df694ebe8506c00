"""How pages look in a real browser: every page, light and dark, wide and narrow, on a service that is really there."""

from pathlib import Path
import re
from typing import Literal

import pytest

from tests.e2e.browsing import Visitor, overflow
from tests.e2e.seeding import Seeded

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

ALL = [(theme, width) for theme in ("light", "dark") for width in (1280, 390)]
SOME = [("light", 390), ("dark", 1280)]
LOOKS = [
    *((name, *look) for name in ("home", "quickstart", "nightly-check") for look in ALL),
    *((name, *look) for name in ("narrow-limits", "too-noisy", "waiting-its-turn", "broken-data") for look in SOME),
]


def address(site: Seeded, name: str) -> str:
    return "/" if name == "home" else f"/studies/{site.ids[name]}"


@pytest.mark.parametrize(("name", "theme", "width"), LOOKS)
def test_pages_are_clean_and_fit(
    visitor: Visitor, site: Seeded, pictures: Path, name: str, theme: Literal["light", "dark"], width: int
) -> None:
    page = visitor.open(address(site, name), theme=theme, width=width, charts=name != "home")
    page.screenshot(path=pictures / f"{name}-{theme}-{width}.png", full_page=True)
    assert overflow(page) == 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(246, 245, 241)" if theme == "light" else "rgb(16, 18, 21)")


def test_the_answer_stands_above_the_fold(visitor: Visitor, site: Seeded) -> None:
    for width in (1280, 390):
        page = visitor.open(address(site, "quickstart"), width=width)
        headline = page.locator(".headline")
        assert re.fullmatch(r"Set 2⁻⁴·[⁰¹²³⁴-⁹]+ = 0\.0\d+ at width 256", headline.inner_text())
        evidence = page.locator(".answer .lead")
        assert evidence.inner_text().startswith("muon-mup transfers: drift +")
        box = evidence.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 600


def test_texts_of_charts_do_not_overlap(visitor: Visitor, site: Seeded) -> None:
    """Tick labels, headings, legends and direct labels of every chart, pairwise."""
    for width in (1280, 390):
        for name in ("quickstart", "narrow-limits", "too-noisy"):
            page = visitor.open(address(site, name), width=width, charts=True)
            assert page.evaluate(OVERLAPS) == [], f"{name} at {width}"


OVERLAPS = """
() => [...document.querySelectorAll(".canvas")].flatMap((canvas) => {
  const kinds = ".xtick text, .ytick text, .annotation-text, .legendtext, .legendtitletext, .xtitle, .ytitle";
  const texts = [...canvas.querySelectorAll(kinds)]
    .filter((t) => t.textContent.trim()).map((t) => [t.textContent, t.getBoundingClientRect()]);
  const hits = [];
  texts.forEach(([a, p], i) => texts.slice(i + 1).forEach(([b, q]) => {
    const x = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (x > 2 && y > 3) hits.push(`${a} | ${b}`);
  }));
  return hits;
})
"""


def test_first_paint_within_a_second(visitor: Visitor, site: Seeded) -> None:
    """The best of up to ten: other work on the machine must not decide."""
    paints: list[float] = []
    while not paints or (min(paints) > 1000 and len(paints) < 10):
        page = visitor.open(address(site, "quickstart"))
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert min(paints) <= 1000, paints


def test_a_page_can_be_read_before_and_without_its_charts(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/")
    page.route("**/plotly-*.js", lambda route: route.abort())
    page.goto(visitor.url + address(site, "quickstart"))
    page.locator(".headline").wait_for()
    page.locator("#optimal-lr .empty").get_by_text("could not be loaded").wait_for()
    page.locator("#optimal-lr summary").click()
    assert page.locator("#optimal-lr tbody tr").first.is_visible()
    visitor.faults = [fault for fault in visitor.faults if "ERR_FAILED" not in fault]  # the one this test made


def test_nothing_moves_while_charts_are_drawn(visitor: Visitor, site: Seeded) -> None:
    """Skeletons hold the place of charts: where the page ends does not change when they arrive."""
    page = visitor.open(address(site, "quickstart"))
    before = page.evaluate(
        "document.documentElement.dataset.charts ? null : document.querySelector('#recipe').offsetTop"
    )
    page.wait_for_selector("html[data-charts]")
    after = page.evaluate("document.querySelector('#recipe').offsetTop")
    if before is not None:  # the charts were not faster than this test
        assert after == before


def test_print_hides_controls_and_shows_the_answer(visitor: Visitor, site: Seeded, pictures: Path) -> None:
    page = visitor.open(address(site, "quickstart"), theme="dark", charts=True)
    page.emulate_media(media="print")
    assert not page.locator(".top").is_visible()
    assert not page.locator("[data-download]").first.is_visible()
    assert page.locator(".headline").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.pdf(path=pictures / "quickstart.pdf")
