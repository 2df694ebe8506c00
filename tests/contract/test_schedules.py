"""Schedules on both databases: slots become nights once, whoever looks; policies; baselines; judgement."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from mutransfer.errors import ConflictError, NotFoundError
from service.db import channels, nights, schedules, studies
from service.db.driver_store import DriverStore
from service.db.session import reading, transact
from service.db.states import StudyState
from service.db.states_schedules import NightState
from service.db.tables import StudyRow
from service.db.tables_schedules import NightRow
from service.schedules.scheduler import Scheduler
from tests import study_builders as build
from tests.contract.schedule_world import DAY, Nights, channel
from tests.integration.api_fixtures import finish_study


def test_a_slot_becomes_one_night_with_one_study(world: Nights) -> None:
    world.make()
    world.scheduler.tick()
    assert world.rows() == []
    world.pass_days(1)
    world.scheduler.tick()
    Scheduler(world.sessions, clock=lambda _s: world.now).tick()
    (night,) = world.rows()
    assert (night.state, night.missed, night.manual) == (NightState.RUNNING, 0, False)
    assert night.fire_at == 1_795_055_400.0  # 2026-11-19 02:30 UTC
    with reading(world.sessions) as session:
        (study,) = session.scalars(select(StudyRow))
    assert (study.id, study.nonce) == (night.study_id, "night 2026-11-19 02:30:00+00:00")
    assert world.schedule().next_at == night.fire_at + DAY


def test_after_an_outage_one_night_catches_up_and_says_how_many_were_missed(world: Nights) -> None:
    world.make()
    world.pass_days(10)
    (night,) = world.rows()
    assert night.missed == 9
    assert night.fire_at == 1_795_055_400.0 + 9 * DAY
    assert world.schedule().next_at == night.fire_at + DAY


@pytest.mark.parametrize(
    ("policy", "states"),
    [
        ("skip", ["running", "skipped", "skipped"]),
        ("queue", ["running", "waiting", "skipped"]),
        ("replace", ["failed", "failed", "running"]),
    ],
)
def test_while_the_night_before_runs_the_policy_decides(world: Nights, policy: str, states: list[str]) -> None:
    world.make(concurrency=policy)
    for _ in range(3):
        world.pass_days(1)
    assert world.states() == states
    with reading(world.sessions) as session:
        found = [row.state for row in session.scalars(select(StudyRow).order_by(StudyRow.id))]
    assert found == {
        "skip": [StudyState.QUEUED], "queue": [StudyState.QUEUED],
        "replace": [StudyState.CANCELLED, StudyState.CANCELLED, StudyState.QUEUED],
    }[policy]  # fmt: skip
    assert all(row.reason for row in world.rows() if row.state not in ("running",))


def test_a_night_that_waits_starts_when_the_other_has_ended(world: Nights, drive: Callable[[], DriverStore]) -> None:
    world.make(concurrency="queue")
    world.pass_days(1)
    world.pass_days(1)
    world.finish(drive)
    world.scheduler.tick()
    assert world.states() == ["judged", "running"]
    assert world.rows()[1].reason == ""


def test_the_first_night_is_the_baseline_and_the_next_is_compared_with_it(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    world.make()
    transact(world.sessions, lambda s: channels.create(s, channel(["flagged", "failed", "clean", "recovered"])))
    world.pass_days(1)
    first = world.finish(drive)
    assert world.schedule().baseline_study_id == first
    world.pass_days(1)
    world.finish(drive)
    nights_ = world.rows()
    assert [row.state for row in nights_] == ["judged", "judged"]
    assert [row.baseline_study_id for row in nights_] == [None, first]
    assert [row.flagged for row in nights_] == [False, False]
    assert [row.drifting for row in nights_] == [False, False]
    assert world.events() == ["night.clean", "night.clean"]


def test_a_failed_study_fails_its_night_and_a_clean_one_recovers(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    world.make()
    transact(world.sessions, lambda s: channels.create(s, channel(["failed", "recovered"])))
    world.pass_days(1)
    drive().finish(StudyState.FAILED, result=None, error="no GPU\nboom")
    world.scheduler.tick()
    (night,) = world.rows()
    assert (night.state, night.reason) == ("failed", "its study failed: boom")
    assert world.schedule().baseline_study_id is None
    world.pass_days(1)
    world.finish(drive)
    assert world.events() == ["night.failed", "night.recovered"]


def test_promotion_waits_for_clean_nights_in_a_row(world: Nights, drive: Callable[[], DriverStore]) -> None:
    world.make(baseline_policy="promote", promote_after=2)
    made = []
    for _ in range(4):
        world.pass_days(1)
        made.append(world.finish(drive))
    baselines = [row.baseline_study_id for row in world.rows()]
    assert baselines == [None, made[0], made[0], made[2]]
    assert world.schedule().baseline_study_id == made[2]


def test_a_pinned_baseline_stays_whatever_the_policy(
    world: Nights, drive: Callable[[], DriverStore], submit: Callable[..., str]
) -> None:
    world.make(baseline_policy="promote", promote_after=1)
    by_hand = submit()
    with pytest.raises(ConflictError, match="queued"):
        world.pin(by_hand)
    finish_study(drive())
    world.pin(by_hand)
    for _ in range(2):
        world.pass_days(1)
        world.finish(drive)
    assert [row.baseline_study_id for row in world.rows()] == [by_hand, by_hand]
    other = submit(build.spec(train__steps=20))
    with pytest.raises(ConflictError, match="another question"):
        world.pin(other)
    transact(world.sessions, lambda s: schedules.unpin(s, schedules.get(s, "nightly", lock=True)))
    assert world.schedule().baseline_study_id is None


def test_a_paused_schedule_fires_nothing_and_a_manual_night_still_runs(world: Nights) -> None:
    world.make(next_at=None)
    world.pass_days(3)
    assert world.rows() == []
    night = world.run()
    assert (night.manual, night.state, night.fire_at) == (True, "running", world.now)
    world.now += 60
    with pytest.raises(ConflictError, match="had not ended"):
        world.run()
    assert len(world.rows()) == 1


def test_a_template_that_asks_something_else_lets_the_baseline_go(
    world: Nights, drive: Callable[[], DriverStore]
) -> None:
    world.make()
    world.pass_days(1)
    world.finish(drive)
    renamed = build.spec(name="other-name").model_dump(mode="json")
    longer = build.spec(train__steps=20).model_dump(mode="json")
    for spec, stays in ((renamed, True), (longer, False)):
        transact(
            world.sessions,
            lambda s, spec=spec: schedules.change(s, schedules.get(s, "nightly", lock=True), {"spec": spec}),
        )
        assert (world.schedule().baseline_study_id is not None) is stays


def test_names_are_one_projects_own_and_deleting_keeps_the_studies(world: Nights) -> None:
    made = world.make()
    with pytest.raises(ConflictError, match="already"):
        world.make()
    world.pass_days(1)
    study = world.rows()[0].study_id
    transact(world.sessions, lambda s: schedules.remove(s, schedules.get(s, made, lock=True)))
    assert world.rows() == []
    with reading(world.sessions) as session:
        assert studies.get(session, str(study)).id == study
        with pytest.raises(NotFoundError):
            schedules.get(session, "nightly")


def test_a_lost_study_fails_its_night(world: Nights) -> None:
    world.make()
    world.pass_days(1)

    def lose(session: Any) -> None:
        session.get(NightRow, world.rows()[0].id).study_id = None

    transact(world.sessions, lose)
    world.scheduler.tick()
    assert world.states() == ["failed"]
    assert nights.ACTIVE == (NightState.WAITING, NightState.RUNNING)
