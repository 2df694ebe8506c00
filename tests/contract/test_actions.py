"""What people do to accepted studies, on both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import threading
from typing import Any

import pytest
from sqlalchemy import select

from mutransfer.errors import ConflictError, LeaseLostError, NotFoundError, RevisedError
from mutransfer.judge import judge_study
from mutransfer.result import Cost, StudyRef
from mutransfer.revision import extension
from service.db import actions, studies
from service.db.driver_store import DriverStore
from service.db.events import EventKind, events_after
from service.db.idempotency import Asked, once
from service.db.leases import Leases
from service.db.session import Sessions, reading
from service.db.states import PhaseState, StudyState
from service.db.tables import OutboxRow, StudyRow, SummaryRow, TrialRow
from service.db.tables_access import AuditRow
from tests import study_builders as build

Submit = Callable[..., str]
Drive = Callable[[], DriverStore]
SPEC = build.spec()
FIRST, SECOND = build.planned(SPEC), build.planned(SPEC, lr=-6.0)


def act(sessions: Sessions, action: Callable[..., StudyRow], *arguments: Any, **options: Any) -> StudyRow:
    with sessions.begin() as session:
        return action(session, *arguments, **options)


def kinds(sessions: Sessions, study_id: str) -> list[EventKind]:
    with reading(sessions) as session:
        return [event.kind for event in events_after(session, study_id, 0)]


def audited(sessions: Sessions) -> list[str]:
    with reading(sessions) as session:
        return list(session.scalars(select(AuditRow.action).order_by(AuditRow.id)))


def give_up_first(store: DriverStore) -> None:
    """A search of one trial, which fails for good."""
    store.begin_phase("search")
    store.plan_trials("search", [FIRST])
    store.record_failure(FIRST.key, attempt=3, traceback="ValueError: bad", final=True)


def complete(store: DriverStore) -> None:
    """The search with one trial that is given up, then the verdict."""
    store.mark_running()
    store.record_facts(build.FACTS)
    store.begin_phase("search")
    store.plan_trials("search", [FIRST, SECOND])
    store.record_result(FIRST.key, build.result())
    store.record_failure(SECOND.key, attempt=3, traceback="ValueError: bad", final=True)
    store.finish_phase("search", {"recorded": {"adamw-mup": -5.0, "adamw-sp": None}})
    for phase in ("transfer", "verify", "verdict"):
        store.begin_phase(phase)
        store.finish_phase(phase)
    study = store.study()
    ref = StudyRef(id=study.id, name=study.name, state="completed")
    cost = Cost(device_seconds=0.0, tokens=0, trials=1, reused=0, direct_search_device_seconds=None)
    store.finish("completed", result=judge_study(study.spec, [], recorded={}, study=ref, cost=cost))


def test_a_queued_study_rests_at_once_and_is_claimed_after_it_is_resumed(sessions: Sessions, submit: Submit) -> None:
    study_id = submit()
    assert act(sessions, actions.pause, study_id).state == StudyState.PAUSED
    assert act(sessions, actions.pause, study_id).state == StudyState.PAUSED
    assert Leases(sessions).claim_next("a", 30.0) is None
    assert act(sessions, actions.resume, study_id).state == StudyState.QUEUED
    assert act(sessions, actions.resume, study_id).state == StudyState.QUEUED
    assert Leases(sessions).claim_next("a", 30.0) is not None
    assert kinds(sessions, study_id) == [EventKind.SUBMITTED, EventKind.PAUSED, EventKind.RESUMED]
    assert audited(sessions)[-2:] == ["study.pause", "study.resume"]


def test_a_running_study_rests_when_its_driver_has_left(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    assert store.mark_running() is StudyState.RUNNING
    assert act(sessions, actions.pause, study_id).state == StudyState.PAUSING
    assert store.standing().state is StudyState.PAUSING
    store.leave()
    assert store.study().state is StudyState.PAUSED
    assert Leases(sessions).claim_next("a", 30.0) is None
    act(sessions, actions.resume, study_id)
    assert drive().study().id == study_id


def test_a_pause_taken_back_in_time_leaves_the_study_running(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    act(sessions, actions.pause, study_id)
    assert act(sessions, actions.resume, study_id).state == StudyState.RUNNING
    store.leave()
    assert store.study().state is StudyState.RUNNING
    assert drive().study().id == study_id


def test_a_driver_that_comes_late_to_a_paused_study_is_told(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    act(sessions, actions.pause, study_id)
    assert store.mark_running() is StudyState.PAUSED


def test_paused_and_pausing_studies_can_be_cancelled(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    act(sessions, actions.pause, study_id)
    assert act(sessions, studies.cancel, study_id).state == StudyState.CANCELLING
    store.leave()
    assert store.study().state is StudyState.CANCELLING
    other = submit()
    act(sessions, actions.pause, other)
    assert act(sessions, studies.cancel, other).state == StudyState.CANCELLED


@pytest.mark.parametrize("action", [actions.pause, actions.resume, actions.retry])
def test_actions_on_studies_that_are_not_there(sessions: Sessions, action: Any) -> None:
    with pytest.raises(NotFoundError):
        act(sessions, action, "st_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE")


def test_actions_that_come_too_late_or_too_early(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    with pytest.raises(ConflictError, match="a queued study needs no retry"):
        act(sessions, actions.retry, study_id)
    made = extension(SPEC, {"widths": {"targets": [64, 128]}})
    with pytest.raises(ConflictError, match="cancel it first, or wait"):
        act(sessions, actions.extend, study_id, made, base=SPEC, trials_expected=20)
    complete(drive())
    for action, says in (
        (actions.pause, "completed"), (actions.resume, "not paused"), (actions.retry, "has completed"),
    ):  # fmt: skip
        with pytest.raises(ConflictError, match=says):
            act(sessions, action, study_id)
    before = audited(sessions)
    assert not {"study.retry", "study.extend", "study.pause"} & {*before}


def test_the_highest_priority_is_claimed_first_then_the_oldest(sessions: Sessions, submit: Submit) -> None:
    first, second, third = submit(), submit(), submit(priority=5)
    act(sessions, actions.set_priority, second, 9)
    order = [claim.study_id for _ in range(3) if (claim := Leases(sessions).claim_next("a", 30.0))]
    assert order == [second, third, first]
    assert audited(sessions).count("study.priority") == 1


def test_a_retried_study_keeps_its_results_and_forgives_what_was_given_up(
    sessions: Sessions, submit: Submit, drive: Drive
) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    store.record_facts(build.FACTS)
    store.begin_phase("search")
    store.plan_trials("search", [FIRST, SECOND])
    store.record_result(FIRST.key, build.result())
    store.record_failure(SECOND.key, attempt=3, traceback="ValueError: bad", final=True)
    store.finish("failed", result=None, error="the driver broke")
    row = act(sessions, actions.retry, study_id)
    assert (row.state, row.revision, row.error, row.finished_at) == (StudyState.QUEUED, 2, "", None)
    again = drive()
    assert again.mark_running() is StudyState.RUNNING
    assert [trial.key for trial in again.unfinished()] == [SECOND.key]
    assert again.attempts() == {SECOND.key: 0}
    assert again.unavailable() == {}
    with pytest.raises(LeaseLostError):
        store.record_result(SECOND.key, build.result())
    tally = studies_tally(sessions, study_id)
    assert (tally.trials_planned, tally.trials_done, tally.trials_failed) == (2, 1, 0)
    again.finish("failed", result=None, error="again")
    with reading(sessions) as session:
        told = session.scalars(select(OutboxRow.key).where(OutboxRow.kind == "study_finished"))
        assert list(told) == ["", "r2"], "each end is told"


def studies_tally(sessions: Sessions, study_id: str) -> studies.Tally:
    with reading(sessions) as session:
        return studies.tallies(session, [study_id])[study_id]


def test_a_study_that_failed_before_any_result_may_find_other_data(
    sessions: Sessions, submit: Submit, drive: Drive
) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    store.record_facts(build.FACTS)
    store.finish("failed", result=None, error="no such file")
    act(sessions, actions.retry, study_id)
    other = build.FACTS.model_copy(update={"vocab": 7})
    again = drive()
    again.record_facts(other)
    assert again.study().facts == other


def test_one_trial_is_tried_again_and_the_study_judged_anew(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    complete(drive())
    with pytest.raises(ConflictError, match="was not given up: it is finished"):
        act(sessions, actions.retry_trial, study_id, FIRST.key)
    with pytest.raises(NotFoundError):
        act(sessions, actions.retry_trial, study_id, "abc")
    row = act(sessions, actions.retry_trial, study_id, SECOND.key)
    assert (row.state, row.revision) == (StudyState.QUEUED, 2)
    with reading(sessions) as session:
        assert session.scalar(select(StudyRow.result)) is None
        assert session.scalar(select(SummaryRow.brief)) is None
    again = drive()
    assert [trial.key for trial in again.unfinished()] == [SECOND.key]
    assert again.phase("verdict") is None
    search = again.phase("search")
    assert search is not None
    assert search.state is PhaseState.RUNNING
    assert again.recorded() == {"adamw-mup": -5.0, "adamw-sp": None}, "its targets were chosen by these rates"


def test_a_trial_of_a_running_study_is_tried_again_by_its_next_driver(
    sessions: Sessions, submit: Submit, drive: Drive
) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    give_up_first(store)
    row = act(sessions, actions.retry_trial, study_id, FIRST.key)
    assert (row.state, row.revision) == (StudyState.RUNNING, 2)
    assert store.standing().revision == 2, "its driver sees this and leaves"
    store.leave()
    assert [trial.key for trial in drive().unfinished()] == [FIRST.key]


@pytest.mark.parametrize("after", ["training", "begun", "judged"])
def test_a_trial_tried_again_as_its_study_ends_is_left_to_the_next_driver(
    sessions: Sessions, submit: Submit, drive: Drive, after: str
) -> None:
    study_id = submit()
    store = drive()
    store.work_on(store.study().revision)
    store.mark_running()
    give_up_first(store)
    store.finish_phase("search", {"recorded": {}})
    if after != "training":
        store.begin_phase("verdict")
    if after == "judged":
        store.finish_phase("verdict")
    act(sessions, actions.retry_trial, study_id, FIRST.key)
    for write in (
        lambda: store.begin_phase("verdict"), lambda: store.finish_phase("verdict"),
        lambda: store.finish("completed", result=None), lambda: store.finish("failed", result=None, error="broken"),
    ):  # fmt: skip
        with pytest.raises(RevisedError, match="it is at revision 2, not 1"):
            write()
    store.leave()
    again = drive()
    study = again.study()
    assert (study.state, study.revision) == (StudyState.RUNNING, 2)
    again.work_on(study.revision)
    assert again.phase("verdict") is None
    assert [trial.key for trial in again.unfinished()] == [FIRST.key]
    again.record_result(FIRST.key, build.result())
    for phase in ("search", "verdict"):
        again.begin_phase(phase)
        again.finish_phase(phase)
    again.finish("completed", result=None)
    assert again.study().state is StudyState.COMPLETED


def test_a_study_is_cancelled_whatever_its_revision(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    store.work_on(store.study().revision)
    store.mark_running()
    give_up_first(store)
    act(sessions, actions.retry_trial, study_id, FIRST.key)
    act(sessions, studies.cancel, study_id)
    store.finish("cancelled", result=None)
    assert store.study().state is StudyState.CANCELLED


def test_an_extended_study_keeps_trials_and_recorded_rates(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    complete(drive())
    made = extension(SPEC, {"widths": {"targets": [64, 128]}})
    row = act(sessions, actions.extend, study_id, made, base=SPEC, trials_expected=20)
    assert (row.state, row.revision, row.trials_expected) == (StudyState.QUEUED, 2, 20)
    assert row.digest == made.spec.digest()
    with pytest.raises(ConflictError):
        act(sessions, actions.extend, study_id, made, base=SPEC, trials_expected=20)
    again = drive()
    assert again.study().spec == made.spec
    assert again.recorded()["adamw-mup"] == -5.0
    assert again.with_result([FIRST.key]) == {FIRST.key}
    for phase in ("transfer", "verify", "verdict"):
        assert again.phase(phase) is None
    with reading(sessions) as session:
        reopened = next(e for e in events_after(session, study_id, 0) if e.kind is EventKind.REOPENED)
    assert reopened.payload["changed"] == {"widths.targets": [[64], [64, 128]]}


def test_a_new_largest_proxy_records_the_rates_anew(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    complete(drive())
    made = extension(SPEC, {"widths": {"proxy": [16, 32]}})
    act(sessions, actions.extend, study_id, made, base=SPEC, trials_expected=20)
    assert drive().recorded() == {}


def test_two_extensions_of_one_revision_do_not_both_hold(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    complete(drive())
    one = extension(SPEC, {"widths": {"targets": [64, 128]}})
    act(sessions, actions.extend, study_id, one, base=SPEC, trials_expected=20)
    act(sessions, studies.cancel, study_id)
    other = extension(SPEC, {"search": {"seeds": {"max": 2}}})
    with pytest.raises(ConflictError, match="by someone else"):
        act(sessions, actions.extend, study_id, other, base=SPEC, trials_expected=20)


def test_results_never_change_whatever_is_done(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    complete(drive())
    with reading(sessions) as session:
        before = session.get_one(TrialRow, FIRST.key).result
    act(sessions, actions.retry_trial, study_id, SECOND.key)
    again = drive()
    again.record_result(FIRST.key, build.result(9.0))
    with reading(sessions) as session:
        assert session.get_one(TrialRow, FIRST.key).result == before


def test_an_action_with_a_key_is_done_once_however_many_ask_at_once(
    sessions: Sessions, submit: Submit, drive: Drive
) -> None:
    study_id = submit()
    complete(drive())
    base = build.spec()
    made = extension(base, {"widths": {"targets": [64, 128]}})
    asked = Asked(key="one", body_digest="extend")
    start = threading.Barrier(4)

    def extend(_index: int) -> tuple[str, bool]:
        start.wait()
        return once(
            sessions, asked,
            lambda session: actions.extend(session, study_id, made, base=base, trials_expected=7),
        )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(extend, range(4)))
    assert sorted(answers) == [(study_id, False)] * 3 + [(study_id, True)]
    assert audited(sessions).count("study.extend") == 1
    with pytest.raises(ConflictError, match=f"used for another request, on study {study_id}"):
        once(sessions, Asked(key="one", body_digest="other"), lambda session: actions.retry(session, study_id))
