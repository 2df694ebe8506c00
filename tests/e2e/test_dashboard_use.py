"""Using the dashboard: filters, themes, keyboard, recipe, live updates, cancelling, the offline report."""

from pathlib import Path
import re

from playwright.sync_api import Page, expect
import pytest

from service.dashboard import queries
from service.db import studies
from service.db.session import reading
from service.reports import write_report
from service.studies.read import result_document
from tests.e2e.browsing import Visitor, overflow
from tests.e2e.driving import Driven
from tests.e2e.samples import study_spec
from tests.e2e.seeding import Seeded, Seeder

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def names(page: Page) -> list[str]:
    return page.locator(".study h2").all_inner_texts()


def test_filters_are_in_the_address(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/")
    assert len(names(page)) >= 7
    page.locator("#states").get_by_text("completed").click()
    page.wait_for_url("**/?state=completed")
    assert set(names(page)) == {"quickstart", "too-noisy", "narrow-limits", "audited"}
    page.get_by_role("searchbox").fill("QUICK")
    page.wait_for_url("**/?state=completed&q=QUICK")
    assert names(page) == ["quickstart"]
    page.get_by_role("searchbox").fill("no such study")
    expect(page.get_by_role("heading", name="No study matches")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    page.wait_for_url(visitor.url + "/")
    assert len(names(page)) >= 7
    page.get_by_label("Verdict of an arm").select_option("inconclusive")
    page.wait_for_url("**/?verdict=inconclusive")
    assert {"too-noisy", "narrow-limits"} <= set(names(page))
    assert "quickstart" not in names(page)


def test_the_list_is_ordered_as_the_address_says(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/?state=completed")
    newest = names(page)
    page.get_by_label("Order").select_option("by name")
    page.wait_for_url("**/?state=completed&sort=name")
    assert names(page) == sorted(newest)
    page.get_by_label("Order").select_option("oldest first")
    page.wait_for_url("**/?state=completed&sort=created")
    assert names(page) == newest[::-1]
    page.get_by_label("Order").select_option("newest first")
    page.wait_for_url("**/?state=completed")
    assert names(page) == newest


def test_a_long_list_goes_on_in_its_order(visitor: Visitor, site: Seeded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE_SIZE", 3)
    page = visitor.open("/?state=completed&sort=name")
    assert names(page) == ["audited", "narrow-limits", "quickstart"]
    page.get_by_role("link", name="More studies").click()
    expect(page.locator(".study h2")).to_have_text(["too-noisy"])
    page.get_by_role("link", name="First page").click()
    expect(page.locator(".study h2").first).to_have_text("audited")
    visitor.expects("404")
    page.goto(visitor.url + "/?sort=name&cursor=nonsense")
    expect(page.get_by_text("not a cursor that this service gave out")).to_be_visible()


def test_the_list_shows_verdicts_and_leads_to_the_study(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/")
    line = page.locator(".study", has_text="quickstart")
    assert [chip.strip() for chip in line.locator(".chips .chip").all_inner_texts()] == [
        "drifts",
        "transfers",
        "transfers",
    ]
    line.get_by_role("link").click()
    page.wait_for_url(f"**/studies/{site.ids['quickstart']}")


def test_the_appearance_switch_persists_and_repaints_charts(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", theme="light", charts=True)
    switch = page.locator("[data-theme-switch]")
    switch.click()  # automatic → light
    switch.click()  # light → dark
    page.wait_for_selector("html[data-charts=dark]")
    paper = "document.querySelector('#optimal-lr .canvas')._fullLayout.paper_bgcolor"
    assert page.evaluate(paper) == "#17191d"
    page.reload()
    page.wait_for_selector("html[data-charts=dark]")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("[data-theme-switch]").click()
    page.wait_for_selector("html[data-charts=light]")
    assert page.evaluate("localStorage.getItem('mutransfer-theme')") is None


def test_the_keyboard_reaches_everything(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(70):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("(({activeElement: e}) => String(e.dataset?.download ?? (e.name || e.tagName)))(document)")
        )
    assert {"png", "svg", "arm", "size", "recipe_width", "recipe_arm", "SUMMARY"} <= reached


def test_times_are_the_viewers_with_utc_on_hover(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}")
    first = page.locator(".meta time").first
    expect(first).to_have_attribute("title", re.compile(r"^\d+ \w+ \d{4}, \d\d:\d\d here, \d{4}-\d\d-\d\d .* UTC$"))
    assert "ago" in first.inner_text() or "now" in first.inner_text()


def test_a_recipe_for_a_width(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    page.get_by_role("spinbutton", name="Width").fill("4096")
    page.get_by_role("button", name="Show the recipe").click()
    expect(page.locator("#recipe-answer")).to_contain_text("Extrapolated.")
    assert "recipe_width=4096" in page.url
    rows = page.locator("#recipe-answer tbody tr").all_inner_texts()
    assert any(row.startswith("readout\t97 × 4096") for row in rows)
    with page.expect_download() as download:
        page.locator("#recipe-answer").get_by_role("link", name="Python").click()
    assert "def build_optimizer(model)" in Path(download.value.path()).read_text()
    page.reload()  # the address holds the question
    expect(page.locator("#recipe-answer")).to_contain_text("width 4096")


def test_a_recipe_of_an_arm_that_does_not_transfer_warns_first(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}?recipe_width=256&recipe_arm=adamw-sp")
    warning = page.locator("#recipe-answer .warning").first
    assert "did not find that this learning rate transfers" in warning.inner_text()
    page = visitor.open(f"/studies/{site.ids['quickstart']}?recipe_width=100")
    assert "100 is not divisible by model.head_dim = 16: try 96" in page.locator("#recipe-answer").inner_text()


def test_training_curves_of_chosen_trials(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    lines = "document.querySelector('#training .canvas').data.map((t) => t.name)"
    assert page.evaluate(lines) == ["width 32", "width 64", "width 128", "width 256"]
    page.locator("#training select[name=size]").select_option("64")
    page.wait_for_function(f"() => {lines}[0].startsWith('2')")
    assert "size=64" in page.url
    assert "2⁻⁵" in page.evaluate(lines)
    page.locator("#training select[name=arm]").select_option("adamw-sp")
    expect(page.locator("#title-training")).to_contain_text("adamw-sp at width 64")
    assert "arm=adamw-sp" in page.url


def test_the_audit_of_a_chosen_arm(visitor: Visitor, site: Seeded, pictures: Path) -> None:
    page = visitor.open(f"/studies/{site.ids['audited']}", charts=True)
    expect(page.locator("#title-audit-exponents")).to_contain_text("adamw-mup: all 15 matrices follow")
    page.locator("#audit-exponents select[name=audit_arm]").select_option("adamw-sp")
    expect(page.locator("#title-audit-exponents")).to_contain_text("adamw-sp: the scaling is wrong at")
    cells = "document.querySelector('#audit-exponents .canvas').data[0].text.flat()"
    page.wait_for_function(f"() => {cells}.some((text) => text.includes('✕'))")
    assert "audit_arm=adamw-sp" in page.url
    page.locator("#audit-exponents").screenshot(path=pictures / "audit-exponents.png")
    page.locator("#audit-levels").screenshot(path=pictures / "audit-levels.png")
    with page.expect_download() as started:
        page.locator("#csv-audit-exponents").click()
    assert "adamw" not in started.value.suggested_filename
    assert "blocks.0.attention.query.weight" in started.value.path().read_text()


def test_a_study_without_an_audit_shows_none(visitor: Visitor, site: Seeded) -> None:
    assert visitor.open(f"/studies/{site.ids['quickstart']}").locator("#audit-exponents").count() == 0


def test_markdown_of_the_transfer_table_can_be_copied(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as Markdown").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("| Arm | Width |")
    assert copied.count("\n") >= 8


def test_a_running_study_updates_in_place(visitor: Visitor, running: Driven) -> None:
    page = visitor.open(f"/studies/{running.id}", charts=True)
    expect(page.locator("[data-live-dot]")).to_have_attribute("data-state", "live")
    expect(page.locator(".progress p")).to_contain_text("1 of about 240 trials")
    page.evaluate("window.untouched = true")
    page.locator("#loss-lr summary").click()
    running.finish_more(9)
    expect(page.locator(".progress p")).to_contain_text("10 of about 240 trials")
    expect(page.locator("#loss-lr tbody tr")).to_have_count(10)  # an open table stays open, and grows
    assert page.locator("#loss-lr tbody tr").first.is_visible()
    assert page.evaluate("window.untouched") is True
    running.store.finish("failed", result=None, error="the disk is full")
    expect(page.locator(".headline")).to_have_text("Failed before an answer")
    expect(page.locator(".study-head .error")).to_contain_text("the disk is full")
    expect(page.locator("[data-live-dot]")).to_have_attribute("data-state", "off")


def test_polling_takes_over_where_events_do_not_come(visitor: Visitor, running: Driven) -> None:
    page = visitor.open("/")
    page.route("**/events", lambda route: route.fulfill(status=404))
    page.goto(f"{visitor.url}/studies/{running.id}")
    expect(page.locator("[data-live-dot]")).to_have_attribute("data-state", "polling")
    running.finish_more(3)
    expect(page.locator(".progress p")).to_contain_text("4 of about 240 trials")
    running.store.finish("failed", result=None, error="enough seen")
    visitor.faults = [fault for fault in visitor.faults if "404" not in fault]  # the one this test asked for


def test_the_list_keeps_itself_fresh(visitor: Visitor, site: Seeded) -> None:
    study_id = Seeder(site).submit(study_spec("soon-cancelled"))
    page = visitor.open("/")
    line = page.locator(".study", has_text="soon-cancelled")
    expect(line.locator(".study-state")).to_contain_text("queued")
    with site.sessions.begin() as session:
        studies.cancel(session, study_id)
    expect(line.locator(".study-state")).to_contain_text("cancelled")


def test_cancelling_asks_first(visitor: Visitor, site: Seeded) -> None:
    study_id = Seeder(site).submit(study_spec("to-be-cancelled"))
    page = visitor.open(f"/studies/{study_id}", width=390)
    page.get_by_role("button", name="Cancel this study").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel to-be-cancelled?")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).not_to_be_visible()
    page.get_by_role("button", name="Cancel this study").click()
    dialog.get_by_role("button", name="Cancel the study").click()
    expect(page.locator(".headline")).to_have_text("Cancelled before an answer")
    with reading(site.sessions) as session:
        assert studies.get(session, study_id).state == "cancelled"


def test_the_offline_report_needs_nothing_else(visitor: Visitor, site: Seeded, tmp_path: Path, pictures: Path) -> None:
    with reading(site.sessions) as session:
        result = result_document(session, site.ids["quickstart"])
    written = write_report(result, study_spec(), tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "report.md", "report.html", "figures/optimal-lr.json", "figures/optimal-lr.csv", "figures/loss-lr.json",
        "figures/loss-lr.csv",
    ]  # fmt: skip
    for width in (1280, 390):
        page = visitor.open(f"file://{tmp_path}/report.html", width=width, charts=True)
        assert page.locator("#optimal-lr .canvas path.point").count() == 24
        assert overflow(page) == 0
        page.screenshot(path=pictures / f"report-{width}.png", full_page=True)


def test_an_address_that_leads_nowhere(visitor: Visitor, site: Seeded, pictures: Path) -> None:
    for path in ("/nowhere", "/studies/st_00000000000000000000000000", "/studies/st_x/figures.json"):
        page = visitor.open(path)
        expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
        page.get_by_role("link", name="All studies").click()
        page.wait_for_url(visitor.url + "/")
    assert len(visitor.faults) == 3
    assert all("404" in fault for fault in visitor.faults)
    visitor.faults.clear()


def test_names_are_never_markup(visitor: Visitor, site: Seeded) -> None:
    study_id = Seeder(site).submit(study_spec("plain"))
    with site.sessions.begin() as session:
        studies.get(session, study_id).error = "<img src=x onerror=alert(1)><b>bold</b>"
    page = visitor.open(f"/studies/{study_id}")
    assert page.locator(".study-head .error").inner_text() == "<img src=x onerror=alert(1)><b>bold</b>"
    assert page.locator(".study-head .error img").count() == 0
