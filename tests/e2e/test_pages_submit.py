"""The submit page in a browser: form and text, faults beside their fields, the plan, a study that is accepted."""

from pathlib import Path

from playwright.sync_api import Page, expect
import pytest
from sqlalchemy import select
import yaml

from mutransfer.spec import parse_study
from service.db.tables import StudyRow
from tests.e2e.browsing import Visitor, overflow
from tests.e2e.seeding import Seeded

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


REFUSED = ("status of 422", "status of 400")  # a browser notes refused checks in its console


def text(page: Page) -> str:
    return page.get_by_label("Study, YAML").input_value()


def test_the_form_writes_the_text_and_the_api_checks_it(visitor: Visitor, site: Seeded, pictures: Path) -> None:
    visitor.expects(*REFUSED)
    page = visitor.open("/submit")
    state = page.locator("[data-plan-state]")
    expect(state).to_have_text("Valid. Estimated for this machine's cores.")
    expect(page.locator("[data-plan-time]")).to_contain_text("min")
    expect(page.locator("[data-plan-known]")).to_have_text("none")
    page.screenshot(path=pictures / "submit-light-1280.png", full_page=True)
    page.get_by_label("Target widths").fill("64, 128, 16")
    expect(state).to_have_text("One thing is wrong:")
    expect(page.locator("#targets-wrong")).to_contain_text("must rise without repeats")
    expect(page.get_by_label("Target widths")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("button", name="Submit the study")).to_be_disabled()
    page.screenshot(path=pictures / "submit-wrong-1280.png", full_page=True)
    page.get_by_label("Target widths").fill("64 128 256")
    page.get_by_label("soap μP").check()
    page.get_by_label("adamw SP").uncheck()
    expect(state).to_contain_text("Valid.")
    spec = parse_study(yaml.safe_load(text(page)))
    assert spec.axis.targets == (64, 128, 256)
    assert [arm.name for arm in spec.arms] == ["adamw-mup", "soap-mup", "muon-mup"]
    page.get_by_label("Name").fill("yes")
    expect(state).to_contain_text("Valid.")
    assert yaml.safe_load(text(page))["name"] == "yes"


def test_a_study_is_submitted_once(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/submit")
    page.get_by_label("Name").fill("from-the-form")
    page.get_by_label("Priority").fill("7")
    page.get_by_label("Run every trial anew").check()
    expect(page.get_by_role("button", name="Submit the study")).to_be_enabled()
    page.get_by_role("button", name="Submit the study").dblclick()
    page.wait_for_url("**/studies/st_*")
    expect(page.get_by_role("heading", level=1)).to_have_text("from-the-form")
    with site.sessions() as session:
        row = session.scalars(select(StudyRow).where(StudyRow.name == "from-the-form")).one()
        assert (row.priority, bool(row.nonce)) == (7, True)
    page.goto(f"{visitor.url}/?q=from-the-form")
    expect(page.locator(".study")).to_have_count(1)


def test_the_text_leads_once_it_is_changed_by_hand(visitor: Visitor, site: Seeded, tmp_path: Path) -> None:
    visitor.expects(*REFUSED)
    page = visitor.open("/submit", theme="dark", width=390)
    assert overflow(page) == 0
    editor = page.get_by_label("Study, YAML")
    editor.fill("version: 1\nname: x\nwidths: {base: 32")
    expect(page.locator("[data-problems]")).to_contain_text("line 4")
    expect(page.get_by_label("Name")).to_be_disabled()
    page.get_by_role("button", name="Start over from the form").click()
    expect(page.locator("[data-plan-state]")).to_contain_text("Valid.")
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\n")
    page.locator("[data-open]").set_input_files(file)
    expect(page.locator("[data-problems] li").first).to_be_visible()
    assert text(page) == "name: mine\n"
    with page.expect_download() as started:
        page.get_by_role("button", name="Save as a file").click()
    assert started.value.suggested_filename == "mine.yaml"


def test_a_study_of_before_is_the_start_of_another(visitor: Visitor, site: Seeded, pictures: Path) -> None:
    page = visitor.open(f"/submit?study={site.ids['quickstart']}", theme="dark", width=390)
    expect(page.locator("[data-plan-state]")).to_contain_text("Valid.")
    assert parse_study(yaml.safe_load(text(page))) == site.simulations["quickstart"].spec
    expect(page.get_by_label("Name")).to_be_disabled()
    assert overflow(page) == 0
    page.screenshot(path=pictures / "submit-dark-390.png", full_page=True)
    page = visitor.open(f"/studies/{site.ids['quickstart']}")
    page.get_by_role("link", name="submit another like it").click()
    page.wait_for_url("**/submit?study=*")
    page.go_back()
    for name, start in (("PDF", b"%PDF-"), ("parquet", b"PAR1")):
        with page.expect_download() as started:
            page.locator("#links").get_by_role("link", name=name).first.click()
        assert started.value.path().read_bytes().startswith(start)
    page.get_by_role("link", name="compare its arms").click()
    page.wait_for_url("**/compare?*")
    expect(page.locator("#chosen article")).to_have_count(3)
    visitor.expects("status of 404")
    page = visitor.open("/submit?study=st_none")
    expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
