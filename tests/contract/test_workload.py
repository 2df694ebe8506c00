"""What the system, compare and export pages read, on both databases."""

from collections.abc import Callable
import time

from service.db import trial_results
from service.db.actors import Actor, acting
from service.db.driver_store import DriverStore
from service.db.outbox import Outbox
from service.db.session import Sessions, reading
from service.db.states import Scope
from service.db.tables_access import ProjectRow
from service.db.workload import workload
from tests import study_builders as build

Drive = Callable[[], DriverStore]
Submit = Callable[..., str]


def test_what_is_unfinished_is_told(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    driven = submit()
    store = drive()
    store.mark_running()
    store.record_facts(build.FACTS)
    waiting = submit(build.spec(name="second"))
    spec = store.study().spec
    store.begin_phase("search")
    one = build.planned(spec, lr=-5.0)
    store.plan_trials("search", [one, build.planned(spec, lr=-4.0)])
    store.trial_started(one.key, attempt=1)
    store.trial_progress(one.key, step=3, steps=10, train_loss_nats=2.5)
    with sessions.begin() as session:
        session.get_one(ProjectRow, spec.project).device_hours = 2.0
    with reading(sessions) as session:
        found = workload(session)
    assert abs(found.now - time.time()) < 60
    assert [job.row.id for job in found.jobs] == [driven, waiting]
    first, second = found.jobs
    assert (first.epoch, first.device) == (1, "cpu")
    assert first.owner
    assert 0 < first.expires_in <= 30
    assert second.expires_in < 0
    assert [(t["arm"], t["lr_octaves"], t["step"], t["steps"]) for t in first.trials] == [("adamw-mup", -5.0, 3, 10)]
    assert found.unfinished == 2
    assert [(quota.row.name, quota.device_hours) for quota in found.quotas] == [(spec.project, 0.0)]
    assert [(kind.kind, kind.count) for kind in found.outbox] == [("study_started", 1)]
    store.record_result(one.key, build.result())
    store.finish("failed", result=None, error="x")
    with reading(sessions) as session:
        found = workload(session)
    assert [job.row.id for job in found.jobs] == [waiting]
    assert found.jobs[0].trials == ()


def test_the_last_error_of_a_message_is_told(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    submit()
    store = drive()
    store.mark_running()
    store.record_facts(build.FACTS)
    outbox = Outbox(sessions)
    (message,) = outbox.due()
    outbox.retry(message.id, error="connection refused", delay_seconds=15.0)
    with reading(sessions) as session:
        (kind,) = workload(session).outbox
    assert (kind.attempts, kind.error) == (1, "connection refused")


def test_a_bound_caller_sees_the_work_of_its_project(sessions: Sessions, submit: Submit) -> None:
    submit()
    mine = submit(build.spec(name="mine", project="vision"))
    with acting(Actor(id="tk_1", scope=Scope.READ, project="vision")), reading(sessions) as session:
        found = workload(session)
    assert [job.row.id for job in found.jobs] == [mine]
    assert found.unfinished == 1


def test_results_at_chosen_rates_and_all_trials(sessions: Sessions, submit: Submit, drive: Drive) -> None:
    study_id = submit()
    store = drive()
    store.mark_running()
    store.record_facts(build.FACTS)
    spec = store.study().spec
    trials = [
        (build.planned(spec, arm, lr=lr, seed=seed), build.result(2.0 + lr / 100 + seed))
        for arm in ("adamw-sp", "adamw-mup") for lr in (-6.0, -5.0) for seed in (0, 1)
    ]  # fmt: skip
    build.run_phase(store, "search", trials)
    store.plan_trials("search", [build.planned(spec, lr=-4.0)])
    with reading(sessions) as session:
        found = trial_results.at_rates(session, study_id, "adamw-mup", [(16, -5.0), (16, -4.0), (64, -6.0)])
        every = list(trial_results.all_trials(session, study_id))
        assert trial_results.at_rates(session, study_id, "adamw-mup", []) == []
    assert [(one.lr_octaves, one.seed, one.result.loss_nats) for one in found] == [(-5.0, 0, 1.95), (-5.0, 1, 2.95)]
    assert len(every) == 9
    assert [trial.place for trial in every] == sorted(trial.place for trial in every)
