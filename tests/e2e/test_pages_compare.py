"""The compare page in a browser: choosing arms, sharing the address, warnings, downloads, both themes, a phone."""

from pathlib import Path

from playwright.sync_api import expect
import pytest

from tests.e2e.browsing import Visitor, drawn, overflow
from tests.e2e.seeding import Seeded

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def address(site: Seeded, *arms: str) -> str:
    return "/compare?" + "&".join(f"a={site.ids[study]}:{arm}" for study, _, arm in (a.partition("/") for a in arms))


def test_arms_are_chosen_by_clicking(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/compare")
    expect(page.get_by_role("heading", name="Choose arms")).to_be_visible()
    page.get_by_label("Study").fill("quickstart")
    page.get_by_role("button", name="Find studies").click()
    page.wait_for_url("**/compare?q=quickstart")
    page.locator("select[name=a]").select_option(label=["adamw-mup", "muon-mup"])
    page.get_by_role("button", name="Compare", exact=True).click()
    drawn(page)
    expect(page.locator(".headline")).to_contain_text("adamw-mup")
    assert page.locator("#chosen article h3").all_inner_texts() == ["adamw-mup\nμP", "muon-mup\nμP"]
    assert page.locator("#speedups tbody tr").count() == 4
    page.locator("#chosen article").nth(1).get_by_role("link", name="Make it the baseline").click()
    expect(page.locator("#speedups caption")).to_contain_text("Speed-up over muon-mup")
    page.locator("#chosen article").nth(1).get_by_role("link", name="Remove").click()
    expect(page.locator("#chosen article")).to_have_count(1)
    expect(page.locator("#compare-speedup .plot .empty")).to_contain_text("two arms")


def test_the_address_is_the_choice_in_both_themes_and_on_a_phone(
    visitor: Visitor, site: Seeded, pictures: Path
) -> None:
    path = address(site, "quickstart/muon-mup", "quickstart/adamw-mup", "quickstart/adamw-sp")
    for theme, width in (("light", 1440), ("dark", 390)):
        page = visitor.open(path, theme=theme, width=width, charts=True)  # type: ignore[arg-type]
        assert page.locator("#compare-speedup .canvas .scatterlayer .trace").count() == 4
        assert overflow(page) == 0
        page.screenshot(path=pictures / f"compare-{theme}-{width}.png", full_page=True)
    page.locator("select[name=size]").select_option("64")
    page.wait_for_url("**size=64*")
    expect(page.locator("#title-compare-training")).to_contain_text("At width 64 ")
    with page.expect_download() as started:
        page.locator("#csv-compare-speedup").click()
    text = started.value.path().read_text()
    assert text.startswith("arm,width,loss_nats,speedup_tokens,")
    assert text.count("muon-mup") == 4


def test_what_differs_between_studies_is_told(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(address(site, "quickstart/adamw-mup", "too-noisy/adamw-mup", "quickstart/nobody"))
    assert page.locator("#chosen article h3 > span:first-of-type").all_inner_texts() == [
        "adamw-mup (quickstart)", "adamw-mup (too-noisy)",
    ]  # fmt: skip
    expect(page.get_by_role("alert").first).to_contain_text(
        "has no arm 'nobody': it has adamw-sp, adamw-mup and muon-mup"
    )


def test_a_comparison_of_nothing_says_so(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/compare?a=st_00000000000000000000000000:x")
    expect(page.get_by_role("alert")).to_contain_text("no study st_0000")
    page = visitor.open("/compare?q=no%20such%20study")
    expect(page.locator("#picker .empty")).to_contain_text("No study with “no such study”")
