"""The claim loop with real driver processes: once, again after a death, never left behind."""

from collections.abc import Callable
import os
from pathlib import Path
import signal
import time

import pytest
from sqlalchemy import func, select

from service.db import actions
from service.db.leases import Claim, Leases
from service.db.session import reading
from service.db.states import StudyState
from service.db.studies import cancel
from service.db.tables import EventRow, LeaseRow, StudyRow, TrialRow
from service.dispatch.dispatcher import Dispatcher
from tests.integration.ops.conftest import STUB, Home, is_running, spawned, wait_until


def drive(dispatcher: Dispatcher, home: Home, study_id: str, *, seconds: float = 120.0) -> StudyState:
    """Tick until the study has ended."""

    def ended() -> bool:
        dispatcher.tick()
        return StudyState(home.row(study_id).state).is_final

    wait_until(ended, seconds=seconds, what="the end of the study")
    wait_until(lambda: dispatcher.tick() or not dispatcher.driving, what="the end of the driver")
    return StudyState(home.row(study_id).state)


def events(home: Home, study_id: str, kind: str) -> list[dict[str, object]]:
    with reading(home.sessions) as session:
        query = select(EventRow.payload).where(EventRow.study_id == study_id, EventRow.kind == kind)
        return list(session.scalars(query.order_by(EventRow.id)))


def epoch(home: Home, study_id: str) -> int:
    with reading(home.sessions) as session:
        return session.scalars(select(LeaseRow.epoch).where(LeaseRow.study_id == study_id)).one()


def processes_of(home: Home, study_id: str) -> list[int]:
    path = home.path / f"{study_id}.pids"
    wait_until(path.exists, what="the driver's child")
    wait_until(lambda: len(path.read_text().split()) == 2, what="its process ids")
    return [int(pid) for pid in path.read_text().split()]


def test_a_study_is_driven_once_to_its_verdict(home: Home) -> None:
    study_id = home.submit("ok")
    assert drive(home.dispatcher(), home, study_id) is StudyState.COMPLETED
    assert epoch(home, study_id) == 1
    result = home.row(study_id).result
    assert result is not None
    outcomes = {arm["name"]: arm["verdict"]["outcome"] for arm in result["arms"]}
    assert outcomes["adamw-sp"] == "drifts"
    assert "driving ok at epoch 1" in (home.path / "logs" / f"{study_id}.log").read_text()


def test_two_dispatchers_share_the_work_and_never_a_study(sqlite_home: Home) -> None:
    studies = [sqlite_home.submit(f"ok {number}", nonce=str(number)) for number in range(4)]
    pair = [sqlite_home.dispatcher(limit=2), sqlite_home.dispatcher(limit=2)]

    def all_ended() -> bool:
        for dispatcher in pair:
            dispatcher.tick()
        return all(StudyState(sqlite_home.row(study).state).is_final for study in studies)

    wait_until(all_ended, seconds=120)
    assert [epoch(sqlite_home, study) for study in studies] == [1, 1, 1, 1]
    assert {sqlite_home.row(study).state for study in studies} == {"completed"}


def test_a_killed_driver_is_replaced_and_keeps_what_it_had(home: Home) -> None:
    study_id = home.submit("killed")
    assert drive(home.dispatcher(), home, study_id) is StudyState.COMPLETED
    assert epoch(home, study_id) == 2
    failures = events(home, study_id, "driver_failed")
    assert failures == [{"epoch": 1, "exit_status": -signal.SIGKILL, "progress": 5}]
    results = events(home, study_id, "trial_result")
    with reading(home.sessions) as session:
        trials = session.scalar(select(func.count()).select_from(TrialRow))
    assert len(results) == len({payload["key"] for payload in results}) == trials


def test_a_driver_that_keeps_crashing_fails_its_study_with_the_log(sqlite_home: Home) -> None:
    study_id = sqlite_home.submit("crash")
    started = time.monotonic()
    assert drive(sqlite_home.dispatcher(), sqlite_home, study_id) is StudyState.FAILED
    assert epoch(sqlite_home, study_id) == 3
    assert time.monotonic() - started > 3.0, "tries must be paused between"
    error = sqlite_home.row(study_id).error
    assert "3 times in a row" in error
    assert "ValueError: the stub was told to crash" in error


def test_a_transient_exit_is_no_failure(sqlite_home: Home) -> None:
    study_id = sqlite_home.submit("temp")
    assert drive(sqlite_home.dispatcher(), sqlite_home, study_id) is StudyState.COMPLETED
    assert epoch(sqlite_home, study_id) == 3
    assert events(sqlite_home, study_id, "driver_failed") == []


def test_a_driver_that_starts_slower_than_a_lease_lasts_keeps_its_study(home: Home) -> None:
    home.ttl_seconds = 4.0
    study_id = home.submit("late")
    assert drive(home.dispatcher(), home, study_id) is StudyState.FAILED
    assert home.row(study_id).error == "late at epoch 1"


def test_a_driver_that_hangs_is_ended_and_replaced(sqlite_home: Home) -> None:
    sqlite_home.ttl_seconds = 4.0
    study_id = sqlite_home.submit("frozen")
    assert drive(sqlite_home.dispatcher(), sqlite_home, study_id) is StudyState.COMPLETED
    assert epoch(sqlite_home, study_id) >= 2
    assert events(sqlite_home, study_id, "driver_failed")[0] == {
        "epoch": 1,
        "exit_status": -signal.SIGKILL,
        "progress": 0,
    }


def test_shutdown_ends_drivers_with_their_children_and_gives_the_study_back(sqlite_home: Home) -> None:
    study_id = sqlite_home.submit("hang")
    dispatcher = sqlite_home.dispatcher()
    dispatcher.tick()
    pids = processes_of(sqlite_home, study_id)
    dispatcher.shutdown()
    assert not any(is_running(pid) for pid in pids)
    assert sqlite_home.row(study_id).state == "running"
    again = Leases(sqlite_home.sessions).claim_next("next", 10)
    assert again is not None
    assert (again.study_id, again.epoch) == (study_id, 2)


@pytest.mark.parametrize("kind", ["hang", "stubborn"])
def test_cancellation_reaches_the_driver_or_ends_it(
    sqlite_home: Home, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dispatch.dispatcher.STOP_GRACE_SECONDS", 1.5)
    monkeypatch.setattr("service.dispatch.dispatcher.GRACE_SECONDS", 1.0)
    study_id = sqlite_home.submit(kind)
    dispatcher = sqlite_home.dispatcher()
    dispatcher.tick()
    pids = processes_of(sqlite_home, study_id)
    sqlite_home.cancel(study_id)
    assert sqlite_home.row(study_id).state == "cancelling"
    assert drive(dispatcher, sqlite_home, study_id, seconds=30) is StudyState.CANCELLED
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize("kind", ["hang", "stubborn"])
def test_a_pause_reaches_the_driver_or_ends_it_and_a_resumed_study_is_driven_again(
    sqlite_home: Home, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dispatch.dispatcher.STOP_GRACE_SECONDS", 1.5)
    monkeypatch.setattr("service.dispatch.dispatcher.GRACE_SECONDS", 1.0)
    study_id = sqlite_home.submit(kind)
    dispatcher = sqlite_home.dispatcher()
    dispatcher.tick()
    pids = processes_of(sqlite_home, study_id)
    with sqlite_home.sessions.begin() as session:
        assert actions.pause(session, study_id).state == "pausing"

    def is_over() -> bool:
        dispatcher.tick()
        return sqlite_home.row(study_id).state == "paused" and not dispatcher.driving

    wait_until(is_over, seconds=30, what="the pause")
    assert not any(is_running(pid) for pid in pids)
    with sqlite_home.sessions.begin() as session:
        assert actions.resume(session, study_id).state == "queued"
    dispatcher.tick()
    assert dispatcher.driving == (study_id,)


def test_a_cancelled_study_without_a_driver_is_ended_without_starting_one(sqlite_home: Home) -> None:
    study_id = sqlite_home.submit("hang")
    first = sqlite_home.dispatcher()
    first.tick()
    processes_of(sqlite_home, study_id)
    first.shutdown()
    sqlite_home.cancel(study_id)
    second = sqlite_home.dispatcher()
    second.tick()
    assert sqlite_home.row(study_id).state == "cancelled"
    assert second.driving == ()


def test_sigterm_of_the_real_dispatcher_leaves_no_process_behind(sqlite_home: Home) -> None:
    study_id = sqlite_home.submit("hang")
    with spawned("dispatcher", "--driver", STUB[-1], env=sqlite_home.environment()) as process:
        pids = processes_of(sqlite_home, study_id)
        sent_at = time.monotonic()
        process.terminate()
        assert process.wait(timeout=15) == 0
        assert time.monotonic() - sent_at < 10
    assert not any(is_running(pid) for pid in pids)


def test_a_dispatcher_that_is_killed_takes_its_driver_along(sqlite_home: Home) -> None:
    study_id = sqlite_home.submit("hang")
    with spawned("dispatcher", "--driver", STUB[-1], env=sqlite_home.environment()):
        driver, child = processes_of(sqlite_home, study_id)
    wait_until(lambda: not is_running(driver), seconds=15, what="the end of the driver")  # the kernel tells it
    claimed = Leases(sqlite_home.sessions).claim_next("next", 10)
    os.kill(child, signal.SIGKILL)  # the stub's own; Ray's processes end with their driver
    assert claimed is not None, "the driver stopped in good order and gave its study back"


@pytest.mark.parametrize(("act", "state"), [(actions.pause, "paused"), (cancel, "cancelled")])
def test_a_study_that_is_paused_or_cancelled_as_it_is_given_up_ends_no_other(
    sqlite_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[..., StudyRow], state: str
) -> None:
    other = sqlite_home.submit("hang")
    dispatcher = sqlite_home.dispatcher(limit=2)
    dispatcher.tick()
    pids = processes_of(sqlite_home, other)
    study_id = sqlite_home.submit("ok")
    dispatcher._launcher._command = (str(tmp_path / "missing"),)  # type: ignore[attr-defined]
    finish = dispatcher._finish

    def late(claim: Claim, state: StudyState, error: str) -> None:
        with sqlite_home.sessions.begin() as session:
            act(session, claim.study_id)
        finish(claim, state, error)

    monkeypatch.setattr(dispatcher, "_finish", late)
    dispatcher.tick()
    assert (sqlite_home.row(study_id).state, sqlite_home.row(study_id).error) == (state, "")
    assert dispatcher.driving == (other,)
    assert all(is_running(pid) for pid in pids)
    with reading(sqlite_home.sessions) as session:
        assert session.scalars(select(LeaseRow.owner).where(LeaseRow.study_id == study_id)).one() == ""


def test_an_unstartable_driver_fails_the_study_at_once(sqlite_home: Home, tmp_path: Path) -> None:
    study_id = sqlite_home.submit("ok")
    dispatcher = sqlite_home.dispatcher()
    dispatcher._launcher._command = (str(tmp_path / "missing"),)  # type: ignore[attr-defined]
    dispatcher.tick()
    row = sqlite_home.row(study_id)
    assert row.state == "failed"
    assert "cannot be started" in row.error
