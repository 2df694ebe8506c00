"""The engine on a real SQLite database: phases once and in order, every trial once, interruption without loss."""

from collections.abc import Callable
from math import log2
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from mutransfer.errors import TransientError
from mutransfer.plan import Phase
from mutransfer.spec import StudySpec
from mutransfer.trial import Environment, TrialResult, TrialSpec, TrialStatus
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.migrate import upgrade
from service.db.session import Sessions, make_engine, session_factory
from service.db.studies import Submission, submit
from tests.trials import small_study
from workers import failures
from workers.engine import Job, StudyEngine
from workers.failures import MAX_ATTEMPTS, MAX_MACHINE_FAULTS, Fault
from workers.recorder import Recorder, Spool

ENVIRONMENT = Environment(data_fingerprint="d", code_digest="c", torch_version="t", device_type="cpu")


def bowl(trial: TrialSpec) -> TrialResult:
    """A loss with its minimum at -5 octaves, diverged from -2 on, a little noise between seeds."""
    lr = trial.lr_octaves
    diverged = lr >= -2.0
    loss = 2.0 + 0.05 * (lr + 5.0) ** 2 + 0.001 * trial.seed
    return TrialResult(
        status=TrialStatus.DIVERGED if diverged else TrialStatus.FINISHED,
        loss_nats=None if diverged else loss,
        initial_loss_nats=4.0, train_loss_nats=2.0, steps=10, tokens=100, parameters=9, device_seconds=1.0,
        device="cpu", diverged_at_step=3 if diverged else None, reason="up" if diverged else "",
    )  # fmt: skip


class Desk:
    """A database with one claimed study, and engines on it."""

    def __init__(self, folder: Path, spec: StudySpec) -> None:
        url = f"sqlite:///{folder / 'db.sqlite'}"
        upgrade(url)
        self.folder, self.spec = folder, spec
        self.sessions: Sessions = session_factory(make_engine(url))
        submit(self.sessions, Submission(spec=spec, trials_expected=None))
        self.recorders: list[Recorder] = []

    def engine(self) -> StudyEngine:
        """A new driver's engine, as after a takeover."""
        with self.sessions.begin() as session:
            session.execute(text("UPDATE leases SET expires_at = 0"))
        claim = Leases(self.sessions).claim_next("test", 60)
        assert claim is not None
        self.store = DriverStore(self.sessions, claim.study_id, claim.epoch, ttl_seconds=60)
        recorder = Recorder(
            self.store, spool=Spool(self.folder, claim.study_id), checkpoints=self.folder, epoch=claim.epoch
        )
        recorder.start()
        self.recorders.append(recorder)
        while not recorder.settled():
            recorder.check()
        return StudyEngine(spec=self.spec, environment=ENVIRONMENT, store=self.store, recorder=recorder)

    def close(self) -> None:
        for recorder in self.recorders:
            recorder.close(timeout_seconds=5)
            recorder.check()

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with self.sessions() as session:
            return [tuple(row) for row in session.execute(text(statement))]


def drive(
    engine: StudyEngine, answer: Callable[[TrialSpec], TrialResult] = bowl, *, at_most: int = 10_000
) -> list[Job]:
    """Answer jobs one by one until the engine has no more, or `at_most`."""
    ran: list[Job] = []
    while len(ran) < at_most and not engine.finished:
        if (job := engine.next_job()) is not None:
            ran.append(job)
            engine.completed(job.key, answer(job.trial))
    return ran


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_SECONDS", 0.002)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, small_study())


def test_phases_in_order_each_recorded_once_and_no_trial_twice(desk: Desk) -> None:
    ran = drive(desk.engine())
    desk.close()
    assert len({job.key for job in ran}) == len(ran)
    assert {job.attempt for job in ran} == {1}
    assert desk.query("SELECT name, state FROM phases ORDER BY started_at, rowid") == [
        ("search", "finished"), ("transfer", "finished"), ("verify", "finished"),
    ]  # fmt: skip
    assert desk.store.recorded()["adamw-mup"] == pytest.approx(-5.0, abs=0.05)
    assert desk.query("SELECT count(*), sum(result IS NOT NULL) FROM trials") == [(len(ran), len(ran))]
    # The proxy is searched before the target is touched.
    widths = [job.trial.width for job in ran]
    assert widths == sorted(widths)


def test_transfer_trains_the_recorded_rate_and_nothing_else(desk: Desk) -> None:
    drive(desk.engine())
    desk.close()
    [(rate,)] = desk.query("SELECT DISTINCT lr_octaves FROM study_trials WHERE phase = 'transfer'")
    assert rate == desk.store.recorded()["adamw-mup"]


@pytest.mark.parametrize("stop_after", [1, 5, 13, 20])
def test_a_successor_goes_on_where_the_driver_died(desk: Desk, tmp_path: Path, stop_after: int) -> None:
    (tmp_path / "calm").mkdir()
    calm = Desk(tmp_path / "calm", small_study())
    undisturbed = {job.key for job in drive(calm.engine())}
    calm.close()

    first = desk.engine()
    ran = drive(first, at_most=stop_after)
    lost = [first.next_job(), first.next_job()]  # running when the driver dies
    desk.close()
    again = drive(desk.engine())
    desk.close()
    keys = [job.key for job in ran + again]
    assert len(keys) == len(set(keys)), "a finished trial ran again"
    assert set(keys) == undisturbed
    assert {job.key for job in lost if job} <= {job.key for job in again}


def test_only_as_much_as_is_known_is_asked_for(desk: Desk) -> None:
    engine = desk.engine()
    jobs = []
    while (job := engine.next_job()) is not None:
        jobs.append(job)
    assert engine.running == len(jobs) == 6 * 2  # the coarse grid, two seeds
    assert not engine.finished
    for job in jobs:
        engine.completed(job.key, bowl(job.trial))
    assert engine.running == 0
    assert {(job.trial.lr_octaves, job.trial.seed) for job in jobs} == {
        (float(lr), seed) for lr in range(-8, -2) for seed in (0, 1)
    }
    desk.close()


def test_three_attempts_then_unavailable_and_the_others_go_on(desk: Desk) -> None:
    engine = desk.engine()
    attempts: list[int] = []
    ran = 0
    while not engine.finished:
        if (job := engine.next_job()) is None:
            continue
        if (job.trial.width, job.trial.lr_octaves, job.trial.seed) == (16, -6.0, 1):
            attempts.append(job.attempt)
            engine.failed(job.key, "Traceback\nRuntimeError: poison")
        else:
            ran += 1
            engine.completed(job.key, bowl(job.trial))
    desk.close()
    assert attempts == [1, 2, MAX_ATTEMPTS]
    assert desk.query("SELECT status, attempts, traceback FROM trials WHERE status = 'failed'") == [
        ("failed", 3, "Traceback\nRuntimeError: poison")
    ]
    assert desk.query("SELECT count(*) FROM trials WHERE result IS NOT NULL") == [(ran,)]
    # A successor neither tries again nor waits for it.
    assert drive(desk.engine()) == []
    desk.close()


def fail_until_it_is_given_up(desk: Desk, fault: Fault) -> list[int]:
    """Fail the first trial again and again and answer all others; returns its attempts."""
    engine = desk.engine()
    attempts: list[int] = []
    chosen: str | None = None
    while not engine.finished:
        if (job := engine.next_job()) is None:
            continue
        chosen = chosen or job.key
        if job.key == chosen:
            attempts.append(job.attempt)
            engine.failed(job.key, "gone", fault)
        else:
            engine.completed(job.key, bowl(job.trial))
    desk.close()
    [(status, traceback)] = desk.query(f"SELECT status, traceback FROM trials WHERE key = '{chosen}'")
    assert (status, traceback) == ("failed", "gone")
    said = desk.query("SELECT json_extract(payload, '$.fault') FROM events WHERE kind = 'trial_failed'")
    assert len(said) == len(attempts)
    return attempts


def test_the_users_fault_is_not_tried_again(desk: Desk) -> None:
    assert fail_until_it_is_given_up(desk, Fault.SPEC) == [1]


def test_the_machines_fault_costs_no_attempt_until_it_comes_too_often(desk: Desk) -> None:
    each = MAX_MACHINE_FAULTS
    assert fail_until_it_is_given_up(desk, Fault.MACHINE) == [1] * each + [2] * each + [3] * each


def test_a_failed_trial_waits_and_the_others_do_not(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_SECONDS", 3600.0)
    monkeypatch.setattr(failures, "LONGEST_DELAY_SECONDS", 3600.0)
    engine = desk.engine()
    first, second = engine.next_job(), engine.next_job()
    assert first is not None
    assert second is not None
    engine.failed(first.key, "boom")
    others = list(iter(engine.next_job, None))
    assert others
    assert first.key not in {job.key for job in others}
    assert not engine.settle()
    desk.close()


def test_attempts_outlive_the_driver(desk: Desk) -> None:
    first = desk.engine()
    job = first.next_job()
    assert job is not None
    first.failed(job.key, "boom")
    desk.close()
    second = desk.engine()
    found = next(j for j in iter(second.next_job, None) if j.key == job.key)
    assert found.attempt == 2, "and no pause outlives it"
    desk.close()


def test_results_known_from_another_study_are_reused(desk: Desk) -> None:
    ran = drive(desk.engine())
    desk.close()
    submit(desk.sessions, Submission(spec=desk.spec, trials_expected=None))
    with desk.sessions.begin() as session:
        session.execute(text("UPDATE studies SET state = 'completed' WHERE id = (SELECT min(id) FROM studies)"))
    assert drive(desk.engine()) == []
    desk.close()
    assert desk.query("SELECT count(DISTINCT trial_key) FROM study_trials WHERE reused") == [(len(ran),)]


def test_two_arms_that_are_the_same_question_share_their_trials(tmp_path: Path) -> None:
    arms = [{"optimizer": "adamw", "name": "one"}, {"optimizer": "adamw", "name": "two"}]
    desk = Desk(tmp_path, small_study(arms=arms))
    ran = drive(desk.engine())
    desk.close()
    assert len({job.key for job in ran}) == len(ran)
    recorded = desk.store.recorded()
    assert recorded["one"] is not None
    observed = desk.store.observations()
    assert observed["one", 64] == observed["two", 64]


def test_an_unbracketed_proxy_records_nothing_and_trains_no_target(desk: Desk) -> None:
    def slope(trial: TrialSpec) -> TrialResult:
        return bowl(trial).model_copy(
            update={"status": TrialStatus.FINISHED, "loss_nats": 3.0 - 0.05 * trial.lr_octaves + 0.001 * trial.seed}
        )

    ran = drive(desk.engine(), slope)
    desk.close()
    assert desk.store.recorded() == {"adamw-mup": None}
    assert {job.trial.width for job in ran} == {16}


def test_planning_waits_for_a_database_that_is_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = desk.engine()
    real, calls = desk.store.plan_trials, []

    def away(phase: str, planned: object) -> object:
        calls.append(phase)
        raise TransientError("gone")

    monkeypatch.setattr(desk.store, "plan_trials", away)
    assert [engine.next_job() for _ in range(5)] == [None] * 5
    assert calls == [Phase.SEARCH], "the database was not left alone"
    assert not engine.finished
    monkeypatch.setattr(desk.store, "plan_trials", real)
    # The engine's own clock: the process's serves event loops too, whose sleeps would then last for ever.
    monkeypatch.setattr("workers.engine.time", SimpleNamespace(monotonic=lambda: 1e12))
    assert engine.next_job() is not None
    desk.close()


TPE = {"algorithm": "tpe", "parameters": {"weight_decay": {"low": 1e-4, "high": 0.5}}, "samples": 14}


def tuned_bowl(trial: TrialSpec) -> TrialResult:
    """The bowl, best at a decay of 2^-6; without decay much worse."""
    result, decay = bowl(trial), trial.train.weight_decay
    if result.loss_nats is None:
        return result
    away = log2(decay) + 6.0 if decay else 10.0
    return result.model_copy(update={"loss_nats": result.loss_nats + 0.02 * away**2})


def _frozen_decays(desk: Desk) -> list[tuple[object, ...]]:
    return desk.query(
        "SELECT DISTINCT json_extract(t.spec, '$.train.weight_decay') FROM trials t JOIN study_trials s "
        "ON s.trial_key = t.key WHERE s.phase != 'tune'"
    )


@pytest.mark.parametrize("stop_after", [0, 3, 9, 14, 20])
def test_several_hyperparameters_are_tuned_first_and_then_frozen(tmp_path: Path, stop_after: int) -> None:
    (tmp_path / "calm").mkdir()
    calm, desk = Desk(tmp_path / "calm", small_study(search=TPE)), Desk(tmp_path, small_study(search=TPE))
    undisturbed = {job.key for job in drive(calm.engine(), tuned_bowl)}
    calm.close()
    first = desk.engine()
    ran = drive(first, tuned_bowl, at_most=stop_after)
    first.next_job()  # running when the driver dies
    desk.close()
    ran += drive(desk.engine(), tuned_bowl)
    desk.close()
    assert [job.key for job in ran].count(ran[-1].key) == 1
    assert {job.key for job in ran} == undisturbed
    assert desk.query("SELECT count(*) FROM study_trials WHERE phase = 'tune'") == [(14,)]
    assert desk.query("SELECT DISTINCT axis_value FROM study_trials WHERE phase = 'tune'") == [(16,)]
    [(decay,)] = _frozen_decays(desk)
    assert desk.store.tuned() == {"adamw-mup": {"weight_decay": decay}}
    assert abs(log2(float(str(decay))) + 6.0) < 2.0
    # Samples are no part of the arm's curve.
    assert all(2 * o.lr_octaves == round(2 * o.lr_octaves) for o in desk.store.observations()["adamw-mup", 16])


def test_an_arm_whose_samples_all_diverge_keeps_its_own_values(tmp_path: Path) -> None:
    desk = Desk(tmp_path, small_study(search=TPE, train={"weight_decay": 0.25}))

    def answer(trial: TrialSpec) -> TrialResult:
        return bowl(trial) if trial.train.weight_decay == 0.25 else bowl(trial.model_copy(update={"lr_octaves": 0.0}))

    drive(desk.engine(), answer)
    desk.close()
    assert desk.store.tuned() == {}
    assert _frozen_decays(desk) == [(0.25,)]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_database_that_does_not_answer_while_tuning_costs_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    for name in ("calm", "shaken"):
        (tmp_path / name).mkdir()
    calm, shaken = (Desk(tmp_path / name, small_study(search=TPE)) for name in ("calm", "shaken"))
    undisturbed = {job.key for job in drive(calm.engine(), tuned_bowl)}
    calm.close()
    engine, plan, calls = shaken.engine(), DriverStore.plan_trials, list[int]()

    def unsure(self: DriverStore, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == fails_at:
            raise TransientError("gone for a moment")
        return plan(self, *arguments)

    monkeypatch.setattr(DriverStore, "plan_trials", unsure)
    monkeypatch.setattr("workers.engine.PLANNING_PAUSE_SECONDS", 0.0)
    ran = drive(engine, tuned_bowl)
    shaken.close()
    assert {job.key for job in ran} == undisturbed
