"""The pages of schedules in a browser: made, run, paused, pinned and deleted by clicking; flags and trends to read."""

from pathlib import Path

from playwright.sync_api import expect
import pytest

from tests.e2e.browsing import Visitor, overflow
from tests.e2e.night_seeding import FLAGGED, add_nights
from tests.e2e.seeding import Seeded

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def schedule(site: Seeded) -> str:
    return add_nights(site)


def test_the_nights_of_a_schedule(visitor: Visitor, site: Seeded, schedule: str, pictures: Path) -> None:
    for theme, width in (("light", 1280), ("dark", 390)):
        page = visitor.open(f"/schedules/{schedule}", theme=theme, width=width, charts=True)  # type: ignore[arg-type]
        expect(page.locator(".headline")).to_have_text("No change from the baseline")
        expect(page.locator("#title-trend-optimum")).to_contain_text("flagged on")
        expect(page.locator("#title-trend-loss")).to_have_text("The loss at the optimum holds over 11 nights")
        assert page.locator("#nights tbody tr").count() == 12
        assert overflow(page) == 0
        page.screenshot(path=pictures / f"schedule-{theme}-{width}.png", full_page=True)
    page.locator("#nights tbody tr", has_text="flagged").get_by_role("link").first.click()
    page.wait_for_url("**?night=*")
    expect(page.locator(".headline")).to_have_text("One figure differs from the baseline")
    expect(page.locator(".flags")).to_contain_text(FLAGGED)
    expect(page.locator("#figures tbody tr", has_text="+0.52")).to_contain_text("128")
    with page.expect_download() as started:
        page.locator("#csv-trend-optimum").click()
    assert started.value.path().read_text().count(",yes,") == 1


def test_a_schedule_is_made_run_paused_and_deleted(visitor: Visitor, site: Seeded, pictures: Path) -> None:
    visitor.expects("status of 422", "status of 409")
    page = visitor.open(f"/schedules?study={site.ids['quickstart']}")
    expect(page.get_by_label("Time zone")).to_have_value("Europe/Berlin")
    page.get_by_label("When").fill("61 2 * * *")
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.locator("[data-problems]")).to_contain_text("cron")
    expect(page.get_by_label("When")).to_have_attribute("aria-invalid", "true")
    page.screenshot(path=pictures / "schedules-light-1280.png", full_page=True)
    page.get_by_label("When").fill("0 3 * * *")
    page.get_by_role("button", name="Make the schedule").click()
    page.wait_for_url("**/schedules/s*")
    expect(page.get_by_role("heading", level=1)).to_have_text("quickstart-nightly")
    expect(page.locator("#trend-optimum .plot .empty")).to_contain_text("first night has been judged")
    page.get_by_role("button", name="Run a night now").click()
    expect(page.locator("#nights tbody tr")).to_have_count(1)
    expect(page.locator("#nights tbody")).to_contain_text("by hand")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".title .chip")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the schedule").click()
    page.wait_for_url("**/schedules")
    expect(page.locator("#schedules")).not_to_contain_text("quickstart-nightly")


def test_a_baseline_is_pinned_and_let_go(visitor: Visitor, site: Seeded, schedule: str) -> None:
    page = visitor.open(f"/schedules/{schedule}")
    page.get_by_role("button", name="Pin as the baseline").click()
    expect(page.locator("#baseline .tag")).to_have_text("pinned")
    page.get_by_role("button", name="Let it go").click()
    expect(page.locator("#baseline")).to_contain_text("The next completed night becomes the baseline.")
    page.goto(f"{visitor.url}/schedules")
    assert page.locator(".night-dots").first.locator("li").count() == 12
