from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import json
import threading

import pytest
from sqlalchemy import event

from mutransfer.errors import ConflictError, NotFoundError
from service.db import studies, summaries, trial_pages
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.outbox import Outbox, OutboxKind
from service.db.session import Sessions, reading
from service.db.states import StudyState
from service.db.studies import Submission, Tally
from service.studies import rendered
from service.studies.read import pulse, result_document
from service.studies.schemas import StudyPage, StudyRead
from tests import study_builders as build

Drive = Callable[[], DriverStore]
Submit = Callable[..., str]


def _submission(**changes: str) -> Submission:
    return Submission(spec=build.spec(**changes), trials_expected=None, idempotency_key="one")


def test_one_key_makes_one_study_however_many_submit_at_once(sessions: Sessions) -> None:
    start = threading.Barrier(8)

    def submit(_index: int) -> tuple[str, bool]:
        start.wait()
        return studies.submit(sessions, _submission())

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert len({study_id for study_id, _ in answers}) == 1
    assert Counter(is_new for _, is_new in answers) == {True: 1, False: 7}
    with reading(sessions) as session:
        assert len(studies.page(session, state=None, project=None, before=None, limit=10)) == 1


def test_one_key_for_two_studies_is_a_conflict_and_writes_nothing(sessions: Sessions) -> None:
    first, _ = studies.submit(sessions, _submission())
    with pytest.raises(ConflictError, match=first):
        studies.submit(sessions, _submission(name="other"))
    with reading(sessions) as session:
        assert [row.id for row in studies.page(session, state=None, project=None, before=None, limit=10)] == [first]


def test_pages_filter_and_end(sessions: Sessions, submit: Submit) -> None:
    ids = [submit(build.spec(project=project)) for project in ("a", "b", "a", "b")]
    with reading(sessions) as session:
        newest = studies.page(session, state=None, project=None, before=None, limit=3)
        rest = studies.page(session, state=None, project=None, before=newest[-1].id, limit=3)
        of_a = studies.page(session, state=StudyState.QUEUED, project="a", before=None, limit=3)
        none = studies.page(session, state=StudyState.FAILED, project="a", before=None, limit=3)
    assert [row.id for row in [*newest, *rest]] == sorted(ids, reverse=True)
    assert {row.id for row in of_a} == {ids[0], ids[2]}
    assert none == []


def test_a_cancellation_and_a_claim_at_once_never_both_win(sessions: Sessions, submit: Submit) -> None:
    for _ in range(15):
        study_id = submit()
        start = threading.Barrier(2)

        def cancel(study_id: str = study_id, start: threading.Barrier = start) -> None:
            start.wait()
            with sessions.begin() as session:
                studies.cancel(session, study_id)

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        start.wait()
        claim = Leases(sessions).claim_next("a", 30.0)
        thread.join()
        if claim is not None:
            store = DriverStore(sessions, study_id, claim.epoch, ttl_seconds=30.0)
            store.mark_running()
            # The cancellation came after the claim: it found the study queued, and the driver must not start it.
            assert store.study().state is StudyState.CANCELLED


def test_cancelling_says_so_once(sessions: Sessions, submit: Submit) -> None:
    study_id = submit()
    for _ in range(2):
        with sessions.begin() as session:
            assert studies.cancel(session, study_id).state == StudyState.CANCELLED
    assert [message.kind for message in Outbox(sessions).due()] == [OutboxKind.STUDY_FINISHED]
    with pytest.raises(NotFoundError), sessions.begin() as session:
        studies.cancel(session, "st_" + "0" * 26)


def test_tallies_count_each_trial_once(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    known = build.planned(build.spec(), lr=-6.0)
    submit()
    build.run_phase(drive(), "search", [(known, build.result(2.2))])
    study_id, queued = submit(), submit()
    store = drive()
    first, second, third = (build.planned(build.spec(), width=64, lr=lr) for lr in (-5.0, -4.0, -3.0))
    build.run_phase(store, "search", [(known, build.result(9.9))])
    build.run_phase(store, "transfer", [(first, build.result(2.0)), (second, build.result(None))])
    build.run_phase(store, "verify", [(first, build.result(2.0))])
    store.plan_trials("verify", [third])
    store.record_failure(third.key, attempt=3, traceback="boom", final=True)
    with reading(sessions) as session:
        found = studies.tallies(session, [study_id, queued])
    assert found == {
        study_id: Tally(trials_planned=4, trials_done=3, trials_failed=1, device_seconds=3.0, phase="verify"),
        queued: Tally(),
    }


def test_a_tally_counts_what_its_study_was_told(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    """Two studies train one trial at once; one of them gives another up, and gets its result after all."""
    shared, lost = build.planned(build.spec()), build.planned(build.spec(), lr=-6.0)
    ids = submit(), submit()
    first, second = drive(), drive()
    for store in (first, second):
        store.begin_phase("search")
        store.plan_trials("search", [shared, lost])
    first.record_result(shared.key, build.result(2.0, device_seconds=1.0))
    first.record_failure(lost.key, attempt=3, traceback="boom", final=True)
    second.record_results({shared.key: build.result(9.0), lost.key: build.result(2.0, device_seconds=4.0)})
    second.record_results({shared.key: build.result(9.0)})
    first.record_result(lost.key, build.result(2.0))
    with reading(sessions) as session:
        found = studies.tallies(session, ids)
    assert found == {
        study_id: Tally(trials_planned=2, trials_done=2, device_seconds=5.0, phase="search") for study_id in ids
    }
    with sessions.begin() as session:
        summaries.recount(session, ids[0])
        assert studies.tallies(session, ids) == found


def test_a_list_is_read_from_summaries_alone(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    build.run_phase(store, "search", [(build.planned(build.spec()), build.result(2.0))])
    asked: list[str] = []
    event.listen(sessions.kw["bind"], "before_cursor_execute", lambda _c, _cur, statement, *_: asked.append(statement))
    with reading(sessions) as session:
        rows = studies.page(session, state=None, project=None, before=None, limit=10)
        text = rendered.page_text(session, rows, None)
        one = rendered.study_text(session, study_id)
        assert not [statement for statement in asked if "trials" in statement.replace("trials_", "")]
        whole = StudyRead.of(studies.get(session, study_id), studies.tallies(session, [study_id])[study_id])
    assert StudyPage.model_validate_json(text).items == [whole]
    alone = json.loads(one)
    assert alone["waiting"]["reason"] == "starting"  # which lists leave out
    assert alone | {"waiting": None} == whole.model_dump(mode="json")


def test_trials_come_by_place_with_all_their_phases(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    places = [("adamw-sp", 16, -4.0), ("adamw-mup", 64, -5.5), ("adamw-mup", 16, -4.0), ("adamw-mup", 16, -10.0)]
    trials = [build.planned(build.spec(), arm, width=width, lr=lr) for arm, width, lr in places]
    build.run_phase(store, "search", [(trial, build.result(2.0)) for trial in trials])
    build.run_phase(store, "verify", [(trials[1], build.result(2.0))])
    with reading(sessions) as session:
        first = trial_pages.page(session, study_id, after=None, limit=3)
        rest = trial_pages.page(session, study_id, after=first[-1].place, limit=3)
        one = trial_pages.one(session, study_id, trials[1].key)
    assert [trial.place for trial in [*first, *rest]] == sorted((*place, 0) for place in places)
    assert first[2].phases == ("search", "verify")
    assert one.place == ("adamw-mup", 64, -5.5, 0)
    assert one.row.result is not None


def test_running_trials_show_their_progress(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    trial = build.planned(build.spec())
    store.begin_phase("search")
    store.plan_trials("search", [trial])
    store.trial_started(trial.key, attempt=1)
    with reading(sessions) as session:
        before = pulse(session, study_id)
    store.trial_progress(trial.key, step=4, steps=10, train_loss_nats=3.25)
    with reading(sessions) as session:
        after = pulse(session, study_id)
    assert before != after
    (running,) = after.progress["running"]
    assert running == {
        "key": trial.key, "arm": "adamw-mup", "axis_value": 16, "lr_octaves": -5.0, "seed": 0, "step": 4, "steps": 10,
        "train_loss_nats": 3.25,
    }  # fmt: skip


def test_the_same_rows_give_the_same_document(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    points = [
        (build.planned(build.spec(), lr=float(lr)), build.result(2.0 + (lr + 5.3) ** 2 / 50)) for lr in range(-8, -2)
    ]
    build.run_phase(store, "search", points)
    with reading(sessions) as session:
        first = result_document(session, study_id)
        again = result_document(session, study_id)
    assert first == again
    assert [arm.name for arm in first.arms] == ["adamw-sp", "adamw-mup"]
    assert len(first.arms[1].curves[0].points) == 6
    assert first.cost.trials == 6
