"""Schedules that change under a running night, and what breaks for one night: on both databases."""

from collections.abc import Callable
import time
from types import SimpleNamespace
from typing import Any

import pytest

from mutransfer.errors import ConflictError
from service.db import channels, schedules
from service.db.driver_store import DriverStore
from service.db.session import transact
from service.db.tables import StudyRow
from service.db.tables_schedules import NightRow
from service.schedules import firing, judging, scheduler
from tests import study_builders as build
from tests.contract.schedule_world import DAY, Nights, channel
from tests.integration.api_fixtures import finish_study

LONGER = build.spec(train__steps=20)


def test_a_night_of_the_question_before_a_change_becomes_no_baseline(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    world.make()
    world.pass_days(1)
    first = world.finish(drive)
    world.pass_days(1)
    world.change(LONGER)
    world.finish(drive)
    night = world.rows()[1]
    assert (night.state, night.baseline_study_id) == ("judged", None)
    assert "another question" in night.reason
    assert world.schedule().baseline_study_id is None
    world.change(build.spec())
    world.pin(first)
    assert world.schedule().baseline_study_id == first


def test_a_night_of_another_question_is_not_compared_with_a_baseline(
    world: Nights, drive: Callable[[], DriverStore], submit: Callable[..., str]
) -> None:
    pinned = submit(LONGER)
    finish_study(drive())
    world.make(baseline_policy="promote", promote_after=1)
    world.pass_days(1)
    world.change(LONGER)
    world.pin(pinned)
    world.finish(drive)
    assert (world.rows()[0].baseline_study_id, world.schedule().baseline_study_id) == (None, pinned)
    world.pass_days(1)
    world.finish(drive)
    assert (world.rows()[1].baseline_study_id, world.rows()[1].reason) == (pinned, "")


def test_a_change_while_a_night_is_being_judged_is_noticed(
    world: Nights, drive: Callable[[], DriverStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make()
    world.pass_days(1)
    judge = judging.judge_night

    def changed_meanwhile(*arguments: Any, **more: Any) -> Any:
        world.change(LONGER)
        return judge(*arguments, **more)

    finish_study(drive())
    monkeypatch.setattr(judging, "judge_night", changed_meanwhile)
    world.scheduler.tick()
    assert world.states() == ["running"]
    world.scheduler.tick()
    assert (world.states(), world.schedule().baseline_study_id) == (["judged"], None)


def test_a_template_stored_before_a_field_was_added_asks_the_same(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    older = build.spec().model_dump(mode="json")
    del older["train"]["schedule"]  # as if it were new, with what it is by default
    world.make(spec=older)
    world.pass_days(1)
    first = world.finish(drive)
    assert world.schedule().baseline_study_id == first
    world.change(build.spec())
    assert world.schedule().baseline_study_id == first
    world.change(LONGER)
    assert world.schedule().baseline_study_id is None


def test_a_result_that_this_version_cannot_read_fails_its_night_only(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    world.make()
    world.make(name="other", next_at=world.now + 1.5 * DAY)
    transact(world.sessions, lambda s: channels.create(s, channel(["failed"])))
    world.pass_days(1)
    store = drive()
    finish_study(store)

    def spoil(session: Any) -> None:
        row = session.get(StudyRow, store.study().id)
        row.result = {**row.result, "of_another_version": 1}

    transact(world.sessions, spoil)
    world.pass_days(1)
    broken, *later = world.rows()
    assert broken.state == "failed"
    assert "cannot read StudyResult.of_another_version" in broken.reason
    assert len(later) == 2  # of both schedules, in the same round
    assert world.events() == ["night.failed"]


def test_a_baseline_that_this_version_cannot_read_says_what_helps(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    world.make()
    world.pass_days(1)
    first = world.finish(drive)

    def spoil(session: Any) -> None:
        session.get(StudyRow, first).result = {"of_another_version": 1}

    transact(world.sessions, spoil)
    world.pass_days(1)
    world.finish(drive)
    assert world.states() == ["judged", "failed"]
    assert "schedules unpin" in world.rows()[1].reason


def test_what_breaks_for_one_night_or_schedule_stops_no_other(
    world: Nights, drive: Callable[[], DriverStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.make()
    world.make(name="other", next_at=world.now + 1.5 * DAY)
    world.pass_days(1)
    finish_study(drive())

    def broken(*_: Any) -> bool:
        raise KeyError("phases")

    fire = firing.fire

    def fire_one(session: Any, schedule_id: str, now: float) -> NightRow | None:
        return broken() if schedule_id == made else fire(session, schedule_id, now)

    monkeypatch.setattr(judging, "settle", broken)
    monkeypatch.setattr(firing, "fire", fire_one)
    world.pass_days(1)
    world.scheduler.tick()
    assert world.states() == ["running", "running"]
    assert world.rows()[1].schedule_id != made
    monkeypatch.undo()
    world.scheduler.tick()
    assert world.states() == ["running", "running"]  # what broke rests for a while
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 61.0))
    world.scheduler.tick()
    assert world.states() == ["judged", "running", "running"]


REFUSED = {**build.spec().model_dump(mode="json"), "version": 99}


def test_a_night_whose_study_is_refused_fails_and_people_are_told(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    made = world.make(spec=REFUSED)
    transact(world.sessions, lambda s: channels.create(s, channel(["failed", "recovered"])))
    world.pass_days(1)
    (night,) = world.rows()
    assert (night.state, night.study_id) == ("failed", None)
    assert night.ended_at is not None
    (told,) = world.messages()
    assert (told["event"], told["title"]) == ("night.failed", "nightly: the night of 2026-11-19 02:30:00+00:00 failed")
    assert told["reasons"] == [night.reason]
    assert night.reason.startswith("its study was refused: version")
    with pytest.raises(ConflictError, match="refused"):
        world.run()
    assert (len(world.rows()), len(world.messages())) == (1, 1)  # who asked for that one was told
    world.change(build.spec(), made)
    world.pass_days(1)
    world.finish(drive)
    assert world.events() == ["night.failed", "night.recovered"]


def test_a_waiting_night_that_is_refused_is_told_and_one_that_passes_is_not(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    world.make(concurrency="queue")
    transact(world.sessions, lambda s: channels.create(s, channel(["failed"])))
    for _ in range(3):
        world.pass_days(1)
    finish_study(drive())

    def spoil(session: Any) -> None:
        schedules.get(session, "nightly").spec = REFUSED

    transact(world.sessions, spoil)
    world.scheduler.tick()
    world.scheduler.tick()
    assert world.states() == ["judged", "failed", "skipped"]
    assert world.events() == ["night.failed"]


@pytest.mark.parametrize("spoilt", [{"cron": "0 0 30 2 *"}, {"time_zone": "Mars/Olympus"}])
def test_a_schedule_whose_slots_cannot_be_read_is_paused_and_people_are_told(
    world: Nights, spoilt: dict[str, str]
) -> None:
    made = world.make(**spoilt)
    transact(world.sessions, lambda s: channels.create(s, channel(["failed"])))
    world.pass_days(1)
    world.pass_days(1)
    assert (world.rows(), world.schedule().next_at) == ([], None)
    (told,) = world.messages()
    assert (told["event"], told["schedule"]["id"], told["night"]) == ("schedule.paused", made, None)
    assert next(iter(spoilt)) in told["reasons"][0]
