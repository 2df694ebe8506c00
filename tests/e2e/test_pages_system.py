"""The system page in a browser: what waits and why, what runs, what is not delivered; it keeps itself fresh."""

import dataclasses
from pathlib import Path
import re

from playwright.sync_api import expect
import pytest

from service.db import channels, studies
from service.db.driver_store import DriverStore
from service.db.session import transact
from service.db.states_schedules import DeliveryState
from service.db.tables_access import ProjectRow
from tests.e2e.browsing import Visitor, overflow
from tests.e2e.samples import study_spec
from tests.e2e.seeding import Seeded, planned

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def busy(site: Seeded) -> None:
    """A trial that runs, of the study that its driver has left running."""
    with site.sessions.begin() as session:
        session.get_one(ProjectRow, "nights").max_concurrent_trials = 4
    simulation = site.simulations["nightly-check"]
    store = DriverStore(site.sessions, site.ids["nightly-check"], 1, ttl_seconds=3600.0)
    _, request, _ = simulation.trials[0]
    one = planned(simulation.spec, dataclasses.replace(request, seed=7))
    store.plan_trials("search", [one])
    store.trial_started(one.key, attempt=1)
    store.trial_progress(one.key, step=120, steps=300, train_loss_nats=2.5)


@pytest.mark.usefixtures("busy")
def test_what_waits_and_what_runs_is_told(visitor: Visitor, site: Seeded, pictures: Path) -> None:
    # A study of its own: tests of other pages drive whatever is first in the queue.
    studies.submit(site.sessions, studies.Submission(spec=study_spec("nobody-drives-it"), trials_expected=3))
    for theme, width in (("light", 1280), ("dark", 390)):
        page = visitor.open("/system", theme=theme, width=width)  # type: ignore[arg-type]
        row = page.locator("#queue tbody tr", has_text="nobody-drives-it")
        expect(row).to_contain_text("queued")
        expect(row).to_contain_text(re.compile("comes first|It is next|No dispatcher has taken it"))
        driven = page.locator("#queue tbody tr", has_text="nightly-check")
        expect(driven).to_contain_text("Driven by seeder; lease 1 is good for")
        expect(page.locator("#devices .device-list")).to_contain_text("cpu 1 trial of 1 study")
        expect(page.locator("#devices tbody tr", has_text="nightly-check")).to_contain_text("120 of 300")
        expect(page.locator("#quotas tbody tr", has_text="nights")).to_contain_text("1 of 4")
        expect(page.locator("#outbox tbody")).to_contain_text("trial result")
        expect(page.locator("#service")).to_contain_text("SQLite")
        assert overflow(page) == 0
        page.screenshot(path=pictures / f"system-{theme}-{width}.png", full_page=True)


def test_it_keeps_itself_fresh(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open("/system")
    study_id, _ = studies.submit(site.sessions, studies.Submission(spec=study_spec("just-now"), trials_expected=3))
    expect(page.locator("#queue tbody tr", has_text="just-now")).to_be_visible()
    transact(site.sessions, lambda session: studies.cancel(session, study_id))
    expect(page.locator("#queue tbody tr", has_text="just-now")).to_have_count(0)


def test_a_notification_that_was_given_up_is_sent_again(visitor: Visitor, site: Seeded) -> None:
    with site.sessions.begin() as session:
        columns = {"name": "ops", "project": "default", "kind": "webhook", "target": "http://127.0.0.1:9/x"}
        channel = channels.create(session, {**columns, "events": {"of": ["flagged"]}})
        channels.add_delivery(session, channel, "night/1/flagged", {"title": "every-night differs from its baseline"})
        delivery = channels.delivery(session, channel.id, "night/1/flagged")
        delivery.state, delivery.attempts, delivery.error = DeliveryState.GIVEN_UP, 9, "connection refused"
    page = visitor.open("/system")
    row = page.locator("#notifications tbody tr", has_text="every-night differs")
    expect(row).to_contain_text("given up")
    expect(row).to_contain_text("connection refused")
    row.get_by_role("button", name="Send again").click()
    expect(row).to_contain_text("waiting")
