"""Every page for everybody: axe finds nothing serious, light and dark; phones scroll down only; five clicks suffice."""

from collections.abc import Mapping
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
import pytest

from service.dashboard.frame import PLACES
from service.db.session import reading
from service.db.trial_pages import page as trial_page
from service.reports import numbers
from service.studies.read import result_document
from tests.e2e.browsing import Visitor, overflow
from tests.e2e.night_seeding import add_nights
from tests.e2e.seeding import Seeded

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

STUDIES = ("quickstart", "audited", "nightly-check", "waiting-its-turn", "broken-data")
OTHERS = (
    "home",
    "filtered",
    "trials",
    "trial",
    "compare",
    "submit",
    "clone",
    "schedules",
    "schedule",
    "system",
    "login",
)
SERIOUS = ("serious", "critical")


def address(site: Seeded, name: str) -> str:
    """Where a page is."""
    quickstart = site.ids["quickstart"]
    if name in STUDIES:
        return f"/studies/{site.ids[name]}"
    if name == "trial":
        with reading(site.sessions) as session:
            return f"/studies/{quickstart}/trials/{trial_page(session, quickstart, after=None, limit=1)[0].row.key}"
    if name == "schedules":
        add_nights(site, "for-nobody-else")  # a list with something in it
    if name == "schedule":
        return f"/schedules/{add_nights(site, 'for-everybody')}"
    places = {
        "home": "/", "filtered": "/?state=failed&q=nothing", "trials": f"/studies/{quickstart}/trials",
        "clone": f"/submit?study={quickstart}",
        "compare": f"/compare?a={quickstart}:adamw-mup&a={quickstart}:muon-mup",
    }  # fmt: skip
    return places.get(name, f"/{name}")


def serious(page: Page, *rules: str) -> list[str]:
    """What axe finds serious, with where it is; by all its rules unless some are named."""
    options: dict[str, Any] = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found: Mapping[str, Any] = Axe().run(page, options=options).response
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"] if violation["impact"] in SERIOUS for node in violation["nodes"]
    ]  # fmt: skip


def check(page: Page) -> None:
    """Light, dark, and on a phone."""
    assert serious(page) == []
    page.emulate_media(color_scheme="dark")
    if page.locator("html[data-charts]").count():
        page.wait_for_selector("html[data-charts=dark]")
    assert serious(page, "color-contrast") == []  # nothing else changes with the colours
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 200)))")
    assert overflow(page) == 0


@pytest.mark.parametrize("name", [*STUDIES, *OTHERS])
def test_pages_are_for_everybody(visitor: Visitor, site: Seeded, name: str) -> None:
    check(visitor.open(address(site, name), charts=name in STUDIES or name in ("trial", "compare", "schedule")))


def test_every_place_of_the_navigation_is_for_everybody(visitor: Visitor) -> None:
    page = visitor.open("/")
    paths = [link.get_attribute("href") or "" for link in page.locator(".pages a").all()]
    assert {"/", "/compare", "/submit", "/schedules", "/system"} <= set(paths) <= {place.path for place in PLACES}
    for path in paths:
        page.goto(visitor.url + path)
        expect(page.locator(".pages a[aria-current=page]")).to_have_attribute("href", path)
        assert page.locator("h1").count() == 1
        assert serious(page) == []


def test_dialogs_are_for_everybody_and_give_the_focus_back(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(address(site, "quickstart"))
    opener = page.locator("#actions").get_by_role("button", name="Extend")
    opener.focus()
    page.keyboard.press("Enter")
    assert serious(page) == []
    page.keyboard.press("Escape")
    assert opener.evaluate("(button) => button === document.activeElement")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    assert serious(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_url(visitor.url + "/")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.step") == ""


def test_a_stranger_finds_the_rate_at_1024_in_five_clicks(visitor: Visitor, site: Seeded) -> None:
    """By clicking alone, from the address that `make demo` prints: no key is pressed, no address written."""
    page = visitor.open("/")
    clicks = ["study", "width"]
    page.locator(".study", has_text="quickstart").get_by_role("link").click()
    page.get_by_role("group", name="Widths at hand").get_by_role("button", name="1024", exact=True).click()
    answer = page.locator("#recipe-answer")
    expect(answer).to_contain_text("at width 1024")
    assert len(clicks) <= 5
    with reading(site.sessions) as session:
        arms = {arm.name: arm for arm in result_document(session, site.ids["quickstart"]).arms}
    recorded = arms["muon-mup"].verdict.recorded_lr_octaves
    expect(answer).to_contain_text(f"base learning rate {numbers.rate(recorded)}")
    expect(answer).to_contain_text("Extrapolated.")  # and how sure that is
    expect(page.get_by_role("spinbutton", name="Width")).to_have_value("1024")
    page.reload()
    expect(page.locator("#recipe-answer")).to_contain_text("at width 1024")


def test_a_recipe_is_copied_as_code(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"{address(site, 'quickstart')}?recipe_width=512")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#recipe-answer").get_by_role("button", name="Python").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert "def build_optimizer(model)" in page.evaluate("navigator.clipboard.readText()")
