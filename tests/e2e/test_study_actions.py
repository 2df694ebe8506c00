"""What people do to a study from its page: pause, resume, try again, extend, clone; trials, and why some failed."""

from playwright.sync_api import expect
import pytest

from mutransfer.spec import StudySpec
from service.dashboard.actions import actions
from service.db import studies
from service.db.session import reading
from service.db.states import StudyState
from tests.e2e.browsing import Visitor
from tests.e2e.driving import Driven, drive_one
from tests.e2e.samples import simulate, study_spec
from tests.e2e.seeding import Seeded, Seeder

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def state_of(site: Seeded, study_id: str) -> str:
    with reading(site.sessions) as session:
        return studies.get(session, study_id).state


def test_pausing_and_resuming(visitor: Visitor, site: Seeded) -> None:
    study_id = Seeder(site).submit(study_spec("rests"))
    page = visitor.open(f"/studies/{study_id}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".title .chip")).to_have_text("paused")
    assert state_of(site, study_id) == "paused"
    expect(page.locator(".answer .lead")).to_contain_text("is paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".title .chip")).to_have_text("queued")


def test_a_priority_is_set_while_a_study_waits(visitor: Visitor, site: Seeded) -> None:
    study_id = Seeder(site).submit(study_spec("in-a-hurry"))
    page = visitor.open(f"/studies/{study_id}")
    page.locator("#actions").get_by_role("button", name="Priority").click()
    number = page.get_by_role("spinbutton", name="Number")
    assert number.input_value() == "0"
    number.fill("101")
    page.get_by_role("button", name="Set it").click()
    assert number.evaluate("(field) => field.validity.rangeOverflow")
    number.fill("40")
    page.get_by_role("button", name="Set it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    with reading(site.sessions) as session:
        assert studies.get(session, study_id).priority == 40
    with site.sessions.begin() as session:
        studies.cancel(session, study_id)


def test_a_failed_study_is_tried_again(visitor: Visitor, site: Seeded) -> None:
    spec = study_spec("failed-once")
    Seeder(site).drive(simulate(spec, stop_after=2)).finish("failed", result=None, error="the disk is full")
    page = visitor.open(f"/studies/{site.ids[spec.name]}")
    assert page.get_by_role("button", name="Pause").count() == 0
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".title .chip")).to_have_text("queued")
    expect(page.locator("#event-list")).to_contain_text("queued again (retry)")


def test_extending_says_what_is_wrong_then_queues_the_study(visitor: Visitor, site: Seeded) -> None:
    spec = study_spec("asked-for-more")
    study_id = Seeder(site).complete(simulate(spec))
    visitor.expects("422")
    page = visitor.open(f"/studies/{study_id}", width=390)
    page.locator("#actions").get_by_role("button", name="Extend").click()
    targets = page.get_by_label("Target widths")
    assert targets.input_value() == "128, 256"
    targets.fill("256")
    page.get_by_role("dialog").get_by_role("button", name="Extend").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("[128] cannot be taken away")
    targets.fill("128, 256, 512")
    page.get_by_role("dialog").get_by_role("button", name="Extend").click()
    expect(page.locator(".title .chip")).to_have_text("queued")
    with reading(site.sessions) as session:
        extended = StudySpec.model_validate(studies.get(session, study_id).spec)
    assert extended.widths.targets == (128, 256, 512)
    assert extended.search == spec.search  # untouched fields were not sent
    with site.sessions.begin() as session:
        studies.cancel(session, study_id)


def test_buttons_follow_the_study_while_one_watches(visitor: Visitor, running: Driven) -> None:
    page = visitor.open(f"/studies/{running.id}")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Cancel this study").click()
    expect(page.locator("[data-live-dot]")).to_have_attribute("data-state", "live")
    running.store.finish("failed", result=None, error="enough seen")
    expect(page.locator(".title .chip")).to_have_text("failed")
    expect(page.get_by_role("dialog", name="Cancel")).to_be_visible()  # it does not vanish under the hand
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator("dialog#extend")).to_have_count(1)
    page.locator("#actions").get_by_role("button", name="Extend").click()
    expect(page.get_by_role("dialog", name="Extend")).to_be_visible()


def test_a_clone_starts_from_the_text(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}")
    page.get_by_role("link", name="Clone").click()
    page.wait_for_url("**/submit?study=*")
    assert "name: quickstart" in page.locator("[data-editor]").input_value()


def test_a_trial_that_was_given_up_shows_why_and_is_tried_again(visitor: Visitor, site: Seeded) -> None:
    running = drive_one(site)
    key = running.plan(1)[0]
    running.store.trial_started(key, attempt=3)
    running.store.record_failure(key, attempt=3, traceback="Traceback …\nValueError: no token 97", final=True)
    page = visitor.open(f"/studies/{running.id}")
    page.get_by_role("link", name="1 failed for good").click()
    page.wait_for_url("**/trials?status=failed")
    page.locator("#trials tbody a").click()
    expect(page.locator("#traceback-text")).to_contain_text("ValueError: no token 97")
    page.get_by_role("button", name="Try this trial again").click()
    expect(page.locator(".title .chip")).to_have_text("planned")
    running.store.finish("failed", result=None, error="enough seen")


def test_running_trials_draw_themselves_live(visitor: Visitor, running: Driven) -> None:
    key = running.plan(1)[0]
    running.store.trial_started(key, attempt=1)
    running.store.trial_progress(key, step=10, steps=300, train_loss_nats=4.1)
    page = visitor.open(f"/studies/{running.id}?arm=adamw-sp", charts=True)
    live = "document.querySelector('#training .canvas').data.filter((t) => t.meta?.live).map((t) => t.x)[0]"
    assert page.evaluate(live) == [10]
    expect(page.locator("[data-live-dot]")).to_have_attribute("data-state", "live")
    running.store.trial_progress(key, step=40, steps=300, train_loss_nats=3.2)
    page.wait_for_function(f"() => {live}.length === 2")
    assert page.evaluate(live) == [10, 40]
    running.store.finish("failed", result=None, error="enough seen")


def test_a_point_leads_to_its_trials_and_their_runs(visitor: Visitor, site: Seeded) -> None:
    page = visitor.open(f"/studies/{site.ids['quickstart']}", charts=True)
    page.locator("#loss-lr").scroll_into_view_if_needed()
    page.locator("#loss-lr .canvas .xy path.point").nth(2).click(force=True)
    page.wait_for_url("**/trials?arm=adamw-sp&size=*&lr=*")
    rows = page.locator("#trials tbody tr")
    assert rows.count() >= 1
    page.locator("#trials tbody a").first.click()
    expect(page.locator("h1")).to_contain_text("adamw-sp at ")
    link = page.get_by_role("link", name="Its run in MLflow").get_attribute("href") or ""
    assert link.startswith("http://127.0.0.1:5000/#/experiments/1?searchFilter=tags.")
    page.get_by_role("button", name="Log steps").click()
    page.wait_for_function("() => document.querySelector('#training .canvas')?._fullLayout?.xaxis.type === 'log'")


@pytest.mark.parametrize("state", list(StudyState))
def test_buttons_stand_only_where_the_api_would_say_yes(state: StudyState) -> None:
    may = actions(state, allowed=True, can_clone=True)
    assert may.cancel == (not state.is_final and state is not StudyState.CANCELLING)
    assert may.extend == state.is_final
    assert may.retry == (state in (StudyState.FAILED, StudyState.CANCELLED))
    assert not (may.pause and may.resume)
    assert not actions(state, allowed=False, can_clone=True).any
