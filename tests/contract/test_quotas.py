"""Limits of projects, and why a study waits, on both databases."""

from collections.abc import Callable

import pytest
from sqlalchemy import text, update

from mutransfer.errors import OutdatedError
from service.db import actions, projects, studies, waiting
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.quotas import UNLIMITED, Grant, device_hours
from service.db.session import Sessions, db_now, reading
from service.db.tables import LeaseRow
from service.db.waiting import WaitReason
from tests import study_builders as build

Submit = Callable[..., str]
Drive = Callable[[], DriverStore]


def limit(sessions: Sessions, name: str = "tests", **limits: float | None) -> None:
    with sessions.begin() as session:
        projects.put(session, name, limits)


def why(sessions: Sessions, study_id: str) -> tuple[WaitReason, str] | None:
    with reading(sessions) as session:
        found = waiting.why(session, studies.get(session, study_id))
        return None if found is None else (found.reason, found.message)


def reason(sessions: Sessions, study_id: str) -> WaitReason | None:
    found = why(sessions, study_id)
    return None if found is None else found[0]


def spend(store: DriverStore, seconds: float) -> None:
    store.mark_running()
    build.run_phase(store, "search", [(build.planned(build.spec()), build.result(device_seconds=seconds))])


def test_projects_without_limits_ask_for_nothing(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    submit()
    assert drive().grant(8, 0) == UNLIMITED


def test_a_project_drives_no_more_studies_than_it_may_run_trials(sessions: Sessions, submit: Submit) -> None:
    limit(sessions, max_concurrent_trials=2)
    first, _second, third = submit(), submit(), submit()
    other = submit(build.spec(project="elsewhere"))
    claimed = [claim.study_id for _ in range(4) if (claim := Leases(sessions).claim_next("a", 30.0))]
    assert third not in claimed
    assert other in claimed
    assert len(claimed) == 3
    assert why(sessions, third) == (
        WaitReason.QUOTA, "all 2 trials that project tests may run at once are taken",
    )  # fmt: skip
    limit(sessions, max_concurrent_trials=3)
    assert reason(sessions, third) is WaitReason.SLOTS
    again = Leases(sessions).claim_next("a", 30.0)
    assert again is not None
    assert again.study_id == third
    assert reason(sessions, first) is WaitReason.STARTING


def test_slots_are_shared_fairly_and_never_exceed_the_limit(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    limit(sessions, max_concurrent_trials=6)
    submit(), submit()
    one = drive()
    assert one.grant(8, 0) == Grant(slots=6)
    two = drive()
    assert two.grant(8, 0) == Grant(slots=0), "the first has not given any back"
    assert one.grant(8, 6) == Grant(slots=6), "what runs is never taken back"
    assert one.grant(8, 5) == Grant(slots=5), "its fair share is 3: nothing new starts"
    assert two.grant(8, 0) == Grant(slots=1)
    assert one.grant(8, 2) == Grant(slots=3)
    assert two.grant(8, 1) == Grant(slots=3)
    one.release()
    assert two.grant(8, 3) == Grant(slots=6)
    assert two.grant(2, 2) == Grant(slots=2)


def test_a_driver_without_slots_says_so(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    limit(sessions, max_concurrent_trials=2)
    first, second = submit(), submit()
    one, two = drive(), drive()
    one.mark_running(), two.mark_running()
    assert one.grant(8, 2) == Grant(slots=2)
    assert two.grant(8, 0) == Grant(slots=0)
    assert reason(sessions, first) is None
    assert reason(sessions, second) is WaitReason.QUOTA


def test_spent_device_hours_stop_a_project_and_a_larger_budget_lets_it_go_on(
    sessions: Sessions, submit: Submit, drive: Drive
) -> None:
    limit(sessions, device_hours=1.0)
    first, second = submit(), submit()
    store = drive()
    assert store.grant(8, 0) == Grant(slots=8)
    spend(store, 3599.0)
    assert store.grant(8, 1) == Grant(slots=8)
    store.plan_trials("search", [build.planned(build.spec(), lr=-6.0)])
    store.record_result(build.planned(build.spec(), lr=-6.0).key, build.result(device_seconds=1.0))
    assert store.grant(8, 1) == Grant(slots=1, is_spent=True)
    with reading(sessions) as session:
        assert device_hours(session, "tests") == 1.0
    store.leave()
    assert Leases(sessions).claim_next("a", 30.0) is None
    for study_id in (first, second):
        found = why(sessions, study_id)
        assert found is not None
        assert found[0] is WaitReason.QUOTA
        assert "has used 1.00 of its 1 device-hours" in found[1]
    limit(sessions, device_hours=2.0)
    again = Leases(sessions).claim_next("a", 30.0)
    assert again is not None
    assert again.study_id == first


def test_what_ends_is_claimed_whatever_the_quota(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    store.release()
    limit(sessions, max_concurrent_trials=0)
    assert Leases(sessions).claim_next("a", 30.0) is None
    with sessions.begin() as session:
        studies.cancel(session, study_id)
    assert Leases(sessions).claim_next("a", 30.0) is not None


def test_why_a_study_waits(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    first, second = submit(), submit()
    assert why(sessions, first) == (WaitReason.SLOTS, "no dispatcher has taken it yet: is one running?")
    assert why(sessions, second) == (WaitReason.SLOTS, "1 older study of its priority comes first")
    with sessions.begin() as session:
        actions.set_priority(session, second, 1)
    assert why(sessions, first) == (WaitReason.PRIORITY, "1 study of higher priority comes first")
    store = drive()
    assert reason(sessions, second) is WaitReason.STARTING
    assert why(sessions, first) == (
        WaitReason.SLOTS,
        "it is next; the dispatchers have no room while 1 others are driven",
    )
    store.mark_running()
    assert why(sessions, second) is None
    with sessions.begin() as session:
        actions.pause(session, second)
        actions.pause(session, first)
    assert reason(sessions, second) is WaitReason.STOPPING
    assert reason(sessions, first) is WaitReason.PAUSED
    with sessions.begin() as session:
        actions.resume(session, second)
    store.release(delay_seconds=30.0)
    found = why(sessions, second)
    assert found is not None
    assert found[0] is WaitReason.RETRY
    with sessions.begin() as session:
        session.execute(update(LeaseRow).values(owner="gone", expires_at=db_now() - 1.0))
        assert studies.cancel(session, first).state == "cancelled"
    assert reason(sessions, second) is WaitReason.LEASE
    assert reason(sessions, first) is None


@pytest.mark.parametrize("revision", ["0001", "9999"])
def test_another_versions_database_is_refused(
    sessions: Sessions, submit: Submit, drive: Drive, revision: str
) -> None:  # fmt: skip
    submit()
    store = drive()
    store.check_schema()
    with sessions.begin() as session:
        known = session.scalar(text("SELECT version_num FROM alembic_version"))
        session.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": revision})
    try:
        for look in (store.check_schema, store.standing):
            with pytest.raises(
                OutdatedError, match=f"is at revision {revision}, this version of mutransfer works with"
            ):
                look()
    finally:
        with sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": known})
