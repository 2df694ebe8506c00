from collections.abc import Callable
import time

import pytest
from sqlalchemy import select
from sqlalchemy.exc import StatementError

from mutransfer.errors import ConflictError, LeaseLostError, NotFoundError
from mutransfer.facts import ModelRecord, ParameterRecord, StudyFacts
from mutransfer.result import Cost, StudyRef, StudyResult
from mutransfer.trial import Observation
from service.db import studies
from service.db.driver_store import DriverStore
from service.db.events import EventKind, events_after
from service.db.leases import Leases
from service.db.outbox import Outbox, OutboxKind
from service.db.session import Sessions, reading
from service.db.states import PhaseState, StudyState
from service.db.tables import OutboxRow, PhaseRow, StudyRow, StudyTrialRow, TrialRow
from tests import study_builders as build

Drive = Callable[[], DriverStore]
Submit = Callable[..., str]


def _kinds(sessions: Sessions, study_id: str) -> list[str]:
    with reading(sessions) as session:
        return [event.kind.value for event in events_after(session, study_id, 0)]


def _document(study_id: str) -> StudyResult:
    cost = Cost(device_seconds=0.0, tokens=0, trials=0, reused=0)
    return StudyResult(study=StudyRef(id=study_id, name="small", state="completed"), arms=(), cost=cost)


def test_a_study_from_claim_to_end(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    store.mark_running()
    store.record_facts(build.FACTS)
    trial = build.planned(build.spec())
    build.run_phase(store, "search", [(trial, build.result(2.0))])
    store.finish_phase("search", {"recorded": {"adamw-mup": -5.0, "adamw-sp": None}})
    store.finish("completed", result=_document(study_id))
    study = store.study()
    assert (study.state, study.facts, study.spec) == (StudyState.COMPLETED, build.FACTS, build.spec())
    assert store.recorded() == {"adamw-mup": -5.0, "adamw-sp": None}
    assert _kinds(sessions, study_id) == [
        "submitted", "running", "facts", "phase_started", "trial_started", "trial_result", "phase_finished", "finished",
    ]  # fmt: skip
    told = [(message.kind, message.key) for message in Outbox(sessions).due()]
    assert told == [
        (OutboxKind.STUDY_STARTED, ""),
        (OutboxKind.TRIAL_RESULT, trial.key),
        (OutboxKind.STUDY_FINISHED, ""),
    ]
    assert Leases(sessions).claim_next("b", 30.0) is None


def test_results_stored_together_are_told_once_and_in_order(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    trials = [build.planned(build.spec(), lr=float(lr)) for lr in (-3, -8, -5)]
    store.begin_phase("search")
    store.plan_trials("search", trials)
    store.record_result(trials[2].key, build.result(2.5))
    losses = {trials[0].key: 2.0, trials[1].key: None, trials[2].key: 9.0, "f" * 32: 1.0}
    stored = store.record_results({key: build.result(loss) for key, loss in losses.items()})
    assert {key: result.loss_nats for key, result in stored.items()} == {
        trials[0].key: 2.0, trials[1].key: None, trials[2].key: 2.5,
    }  # fmt: skip
    with reading(sessions) as session:
        told = [e.payload["key"] for e in events_after(session, study_id, 0) if e.kind is EventKind.TRIAL_RESULT]
        row = session.get_one(TrialRow, trials[1].key)
    assert told == [trials[2].key, trials[0].key, trials[1].key]
    assert (row.status, row.step, row.steps, row.loss_nats) == ("diverged", 7, 10, None)
    assert row.finished_at == pytest.approx(row.updated_at, abs=0.01)
    assert [message.key for message in Outbox(sessions).due()] == told


def test_phases_are_recorded_once(submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    assert store.phase("search") is None
    with pytest.raises(ConflictError, match="not begun"):
        store.finish_phase("search")
    store.begin_phase("search", {"note": 1})
    store.begin_phase("search", {"note": 2})
    begun = store.phase("search")
    assert begun is not None
    assert (begun.state, begun.payload) == (PhaseState.RUNNING, {"note": 1})
    assert store.recorded() == {}
    store.finish_phase("search", {"recorded": {"a": -5.0}})
    store.finish_phase("search", {"recorded": {"a": -5.0}})
    with pytest.raises(ConflictError, match="recorded already"):
        store.finish_phase("search", {"recorded": {"a": -4.0}})
    assert store.recorded() == {"a": -5.0}


def test_results_are_immutable(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    trial = build.planned(build.spec())
    first = build.result(2.0)
    build.run_phase(store, "search", [(trial, first)])
    assert store.record_result(trial.key, build.result(1.0)) == first
    store.trial_started(trial.key, attempt=2)
    store.trial_progress(trial.key, step=3, steps=10, train_loss_nats=9.0)
    store.record_failure(trial.key, attempt=2, traceback="late", final=True)
    assert store.plan_trials("verify", [trial]) == {trial.key: first}
    assert store.observations() == {("adamw-mup", 16): (Observation(lr_octaves=-5.0, seed=0, loss_nats=2.0),)}
    assert store.unavailable() == {}
    assert _kinds(sessions, study_id).count("trial_result") == 1
    with reading(sessions) as session:
        row = session.get(TrialRow, trial.key)
        assert row is not None
        assert (row.status, row.step, row.loss_nats, row.traceback) == ("finished", 10, 2.0, "")


def test_a_diverged_trial_is_a_result(submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    trial = build.planned(build.spec(), lr=0.0)
    build.run_phase(store, "search", [(trial, build.result(None))])
    (observation,) = store.observations()["adamw-mup", 16]
    assert observation.diverged
    assert store.unavailable() == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda s, t: s.mark_running(),
        lambda s, t: s.record_facts(build.FACTS),
        lambda s, t: s.begin_phase("verify"),
        lambda s, t: s.finish_phase("search", {"recorded": {}}),
        lambda s, t: s.plan_trials("search", [build.planned(build.spec(), lr=-4.0)]),
        lambda s, t: s.trial_started(t.key, attempt=1),
        lambda s, t: s.trial_progress(t.key, step=1, steps=10, train_loss_nats=3.0),
        lambda s, t: s.record_result(t.key, build.result(1.0)),
        lambda s, t: s.record_failure(t.key, attempt=1, traceback="x", final=True),
        lambda s, t: s.finish("failed", result=None, error="x"),
        lambda s, t: s.renew(),
    ],
)
def test_a_stale_epoch_writes_nothing(sessions: Sessions, submit: Submit, write: Callable[..., None]) -> None:
    study_id = submit()
    leases = Leases(sessions)
    assert leases.claim_next("a", 0.05) is not None
    stale = DriverStore(sessions, study_id, 1, ttl_seconds=30.0)
    trial = build.planned(build.spec())
    stale.begin_phase("search")
    stale.plan_trials("search", [trial])
    time.sleep(0.1)
    assert leases.claim_next("b", 30.0) is not None
    before = _everything(sessions)
    with pytest.raises(LeaseLostError):
        write(stale, trial)
    assert _everything(sessions) == before


def _everything(sessions: Sessions) -> list[tuple[object, ...]]:
    tables = (StudyRow, PhaseRow, TrialRow, StudyTrialRow, OutboxRow)
    with reading(sessions) as session:
        return [tuple(row) for table in tables for row in session.execute(select(*table.__table__.columns))]


def test_a_result_known_from_another_study_is_reused(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    submit()
    trial = build.planned(build.spec())
    build.run_phase(drive(), "search", [(trial, build.result(2.0))])
    second = submit()
    store = drive()
    store.begin_phase("search")
    other = build.planned(build.spec(), lr=-4.0)
    assert store.plan_trials("search", [trial, other]) == {trial.key: build.result(2.0)}
    store.record_result(other.key, build.result(2.5))
    assert len(store.observations()["adamw-mup", 16]) == 2
    cost = store.cost()
    assert (cost.trials, cost.reused, cost.device_seconds, cost.tokens) == (2, 1, 1.5, 640)
    told = [m.key for m in Outbox(sessions).due() if m.study_id == second and m.kind is OutboxKind.TRIAL_RESULT]
    assert sorted(told) == sorted([trial.key, other.key])


def test_a_trial_of_two_phases_counts_once(submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    trial = build.planned(build.spec(), width=64)
    build.run_phase(store, "transfer", [(trial, build.result(2.0))])
    build.run_phase(store, "verify", [(trial, build.result(2.0))])
    assert len(store.observations()["adamw-mup", 64]) == 1
    cost = store.cost()
    assert (cost.trials, cost.reused, cost.device_seconds) == (1, 0, 1.5)
    assert cost.direct_search_device_seconds == 1.5


def test_a_trial_given_up_is_unavailable_here_and_planned_anew_elsewhere(
    sessions: Sessions, submit: Submit, drive: Drive
) -> None:
    study_id = submit()
    store = drive()
    trial = build.planned(build.spec())
    store.begin_phase("search")
    store.plan_trials("search", [trial])
    store.record_failure(trial.key, attempt=1, traceback="Traceback…\nRuntimeError: boom", final=False)
    assert store.attempts() == {trial.key: 1}
    assert store.unavailable() == {}
    store.record_failure(trial.key, attempt=2, traceback="Traceback…\nRuntimeError: boom\0", final=True)
    assert store.unavailable() == {("adamw-mup", 16): {(-5.0, 0)}}
    assert store.plan_trials("search", [trial]) == {}
    assert store.unavailable() == {("adamw-mup", 16): {(-5.0, 0)}}
    with reading(sessions) as session:
        failures = [e for e in events_after(session, study_id, 0) if e.kind is EventKind.TRIAL_FAILED]
    assert [e.payload["final"] for e in failures] == [False, True]
    assert failures[0].payload["reason"] == "RuntimeError: boom"
    submit()
    other = drive()
    other.begin_phase("search")
    other.plan_trials("search", [trial])
    assert other.attempts() == {trial.key: 0}
    assert other.unavailable() == {}
    assert store.unavailable() == {("adamw-mup", 16): {(-5.0, 0)}}


def test_facts_are_recorded_once(submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    store.record_facts(build.FACTS)
    store.record_facts(build.FACTS)
    with pytest.raises(ConflictError, match="clone it to run it anew"):
        store.record_facts(build.FACTS.model_copy(update={"vocab": 1}))


def test_an_extension_adds_models_of_further_sizes_to_the_facts(submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()

    def facts(*widths: int, shape: int = 4) -> StudyFacts:
        records = tuple(
            ModelRecord(width=width, depth=2, parameters=(ParameterRecord(name="w", role="hidden", shape=(shape,)),))
            for width in widths
        )
        return build.FACTS.model_copy(update={"own_models": records})

    store.record_facts(facts(16))
    store.record_facts(facts(32))
    assert store.study().facts == facts(16, 32)
    with pytest.raises(ConflictError, match="clone it"):
        store.record_facts(facts(16, shape=5))


def test_cancelling_a_running_study(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    assert not store.cancel_requested()
    with sessions.begin() as session:
        assert studies.cancel(session, study_id).state == StudyState.CANCELLING
    assert store.cancel_requested()
    store.finish("cancelled", result=None)
    store.finish("cancelled", result=None)
    with pytest.raises(ConflictError, match="cannot become"):
        store.finish("completed", result=_document(study_id))
    assert store.study().state is StudyState.CANCELLED


def test_json_with_infinities_or_nan_is_refused(submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    store.begin_phase("search")
    for number in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises((ValueError, StatementError), match="not JSON compliant"):  # psycopg's own, or wrapped
            store.finish_phase("search", {"recorded": {"a": number}})
    assert store.recorded() == {}


def test_floats_come_back_bit_for_bit(submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    trial = build.planned(build.spec(), lr=-4.63)
    loss = 0.1 + 0.2
    build.run_phase(store, "search", [(trial, build.result(loss, device_seconds=1 / 3))])
    (observation,) = store.observations()["adamw-mup", 16]
    assert (observation.lr_octaves, observation.loss_nats) == (-4.63, loss)
    assert store.plan_trials("verify", [trial])[trial.key].device_seconds == 1 / 3


def test_unknown_trials_and_studies_are_errors(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    with pytest.raises(NotFoundError, match="never planned"):
        store.record_result("0" * 32, build.result())
    with pytest.raises(NotFoundError, match="no study"):
        DriverStore(sessions, "st_" + "0" * 26, 1, ttl_seconds=1.0).study()
