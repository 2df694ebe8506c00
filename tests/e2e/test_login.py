"""Logging in, changing something, and logging out, as a browser does it: what it sends of its own accord matters."""

from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, expect
import pytest

from service.auth.schemas import TokenCreate
from service.client import Client
from service.db import studies
from service.db.migrate import upgrade
from service.db.session import make_engine, session_factory
from service.db.states import Scope
from service.db.studies import Submission
from service.runtime import ensure_token
from service.settings import Settings
from tests import study_builders as build
from tests.e2e.browsing import Visitor
from tests.e2e.serving import serving


@pytest.fixture
def guarded(browser: Browser, tmp_path: Path) -> Iterator[tuple[Visitor, str, str]]:
    """A visitor of a service that demands tokens; its token, and a queued study's id."""
    settings = Settings(home=tmp_path, auth="required").prepare_home()
    upgrade(settings.database_url)
    engine = make_engine(settings.database_url)
    study_id, _ = studies.submit(session_factory(engine), Submission(spec=build.spec(), trials_expected=None))
    engine.dispose()
    token = ensure_token(tmp_path)
    with serving(settings) as url:
        visitor = Visitor(browser, url)
        visitor.expects("403")
        yield visitor, token, study_id
        visitor.close()


@pytest.mark.browser
def test_a_person_logs_in_acts_and_logs_out(guarded: tuple[Visitor, str, str]) -> None:
    visitor, token, study = guarded
    page = visitor.open(f"/studies/{study}")
    assert "/login?next=" in page.url
    page.get_by_label("Token").fill("not a token")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"**/studies/{study}")
    cookie = page.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert "mutransfer_session" not in page.evaluate("document.cookie")
    assert page.evaluate(f"fetch('/api/v1/studies/{study}/cancel', {{method: 'POST'}}).then((a) => a.status)") == 200
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(f"{visitor.url}/studies/{study}")
    assert "/login?next=" in page.url


@pytest.mark.browser
def test_a_reader_sees_every_page_and_no_button_that_is_refused(
    guarded: tuple[Visitor, str, str],
) -> None:
    visitor, token, study = guarded
    with Client(visitor.url, token=token) as admin:
        reader = admin.create_token(TokenCreate(name="reader", scope=Scope.READ)).secret
        schedule = admin.schedules.create(
            {"name": "nightly", "cron": "30 2 * * *", "time_zone": "UTC", "study": build.document()}
        )
    page = visitor.open("/login")
    page.get_by_label("Token").fill(reader)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{visitor.url}/")
    for path in (
        "/",
        f"/studies/{study}",
        f"/studies/{study}/trials",
        "/compare",
        "/submit",
        "/schedules",
        f"/schedules/{schedule.id}",
        "/system",
    ):
        page.goto(visitor.url + path)
        assert page.locator("h1").count() == 1, path
        acts = page.locator("main :is([data-action], [data-dialog], [data-call], [data-send], [data-new] button)")
        assert [act.inner_text() for act in acts.all() if act.is_visible()] == [], path
    page.goto(visitor.url + "/submit")
    expect(page.get_by_text("submits none")).to_be_visible()
    refused = page.evaluate(f"fetch('/api/v1/studies/{study}/cancel', {{method: 'POST'}}).then((a) => a.status)")
    assert refused == 403
