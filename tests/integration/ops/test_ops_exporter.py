"""The mirror in a real MLflow server: complete, exact, never doubled, whatever happens in between."""

from collections.abc import Iterator
import itertools
import threading
from typing import Any

import pytest
from sqlalchemy import select, update

from mutransfer.result import StudyResult
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.outbox import Message, Outbox, OutboxKind
from service.db.session import reading
from service.db.tables import OutboxRow, StudyTrialRow, TrialRow
from service.entrypoints import write_artifacts
from service.export.alone import alone
from service.export.exporter import Exporter
from service.export.records import Records
from service.export.tracking import Tracking
from service.export.verify import compare, judge_from_mlflow
from service.ports import free_port
from tests.integration.ops.conftest import Home, spawned, wait_until
from tests.integration.ops.stub_driver import play

PAGE = "http://127.0.0.1:8400"


def played_study(home: Home, name: str = "ok", *, project: str) -> str:
    """A finished study of two arms, driven in this process."""
    study_id = home.submit(name, project=project, nonce=project)
    claim = Leases(home.sessions).claim_next("test", 60)
    assert claim is not None
    assert claim.study_id == study_id
    store = DriverStore(home.sessions, study_id, claim.epoch, ttl_seconds=60)
    store.mark_running()
    play(store, store.study(), seconds=0)
    return study_id


def exporter(home: Home, url: str) -> Exporter:
    return Exporter(
        outbox=Outbox(home.sessions), records=Records(home.sessions), tracking=Tracking(url), service_url=PAGE,
        write_artifacts=write_artifacts,
    )  # fmt: skip


def export_all_again(home: Home) -> None:
    """As if nothing had ever been delivered."""
    with home.sessions.begin() as session:
        session.execute(update(OutboxRow).values(done_at=None, next_at=0.0))


def rows(home: Home, study_id: str) -> dict[str, TrialRow]:
    with reading(home.sessions) as session:
        query = select(TrialRow).join(StudyTrialRow, StudyTrialRow.trial_key == TrialRow.key)
        return {row.key: row for row in session.scalars(query.where(StudyTrialRow.study_id == study_id))}


def runs(tracking: Tracking, study_id: str, kind: str) -> list[Any]:
    return tracking.find_study_runs({"mutransfer.study": study_id, "mutransfer.kind": kind})


def assert_mirrored(home: Home, tracking: Tracking, study_id: str) -> None:
    """Every trial has one run with exactly its numbers, every metric point is there once."""
    expected = rows(home, study_id)
    found = runs(tracking, study_id, "trial")
    (parent,) = runs(tracking, study_id, "study")
    assert sorted(run.data.tags["mutransfer.trial"] for run in found) == sorted(expected)
    for run in found:
        result = expected[run.data.tags["mutransfer.trial"]].result
        assert result is not None
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics.get("loss_nats") == result["loss_nats"]
        assert run.info.status == "FINISHED"
        history = tracking._client.get_metric_history(run.info.run_id, "train_loss_nats")
        assert [(point.step, point.value) for point in sorted(history, key=lambda p: p.step)] == [
            (point["step"], point["train_loss_nats"]) for point in result["history"]
        ]
        assert len(tracking._client.get_metric_history(run.info.run_id, "width")) == 1


def test_a_study_is_mirrored_exactly_and_exporting_again_doubles_nothing(sqlite_home: Home, mlflow_url: str) -> None:
    study_id = played_study(sqlite_home, project="mirror")
    tracking = Tracking(mlflow_url)
    for _ in range(2):
        exporter(sqlite_home, mlflow_url).drain()
        assert Outbox(sqlite_home.sessions).undelivered() == 0
        assert_mirrored(sqlite_home, tracking, study_id)
        export_all_again(sqlite_home)
    (parent,) = runs(tracking, study_id, "study")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mutransfer.url"] == f"{PAGE}/studies/{study_id}"
    assert parent.data.tags["mutransfer.verdict.adamw-sp"] == "drifts"
    names = {artifact.path for artifact in tracking._client.list_artifacts(parent.info.run_id)}
    assert {"study.json", "result.json", "report.html", "figures"} <= names
    link = sqlite_home.row(study_id).mlflow_url
    assert link == tracking.run_url(parent)
    assert tracking._client.get_experiment(parent.info.experiment_id).name == "mirror"


def test_the_verdict_from_mlflow_alone_agrees_and_a_changed_run_is_noticed(sqlite_home: Home, mlflow_url: str) -> None:
    study_id = played_study(sqlite_home, project="verify")
    exporter(sqlite_home, mlflow_url).drain()
    ours = StudyResult.model_validate(sqlite_home.row(study_id).result)
    theirs = judge_from_mlflow(mlflow_url, study_id)
    assert compare(ours, theirs) == []
    assert theirs.study == ours.study
    assert (theirs.cost.trials, theirs.cost.tokens) == (ours.cost.trials, ours.cost.tokens)

    tracking = Tracking(mlflow_url)
    run = next(r for r in runs(tracking, study_id, "trial") if r.data.metrics.get("loss_nats") is not None)
    last = int(run.data.params["steps"])
    tracking._client.log_metric(run.info.run_id, "loss_nats", run.data.metrics["loss_nats"] - 0.5, step=last + 1)
    differences = compare(ours, judge_from_mlflow(mlflow_url, study_id))
    assert differences
    assert differences[0].startswith("arms.")


class Interrupted(BaseException):
    """Stands for `kill -9`: nothing in the exporter may catch it."""


class DyingClient:
    """An MlflowClient that dies after a number of calls: before the call's effect, or right after it."""

    def __init__(self, client: Any, calls: int, *, after: bool) -> None:
        self._client = client
        self._left = itertools.count(calls, -1)
        self._after = after

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            dies = next(self._left) == 0
            if dies and not self._after:
                raise Interrupted
            result = getattr(self._client, name)(*args, **kwargs)
            if dies:
                raise Interrupted
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_call_is_completed_by_the_next_exporter(
    sqlite_home: Home, mlflow_url: str, *, after: bool
) -> None:
    study_id = played_study(sqlite_home, project="death-after" if after else "death-before")
    outbox = Outbox(sqlite_home.sessions)
    finished = [m for m in outbox.due(limit=1000) if m.kind is OutboxKind.STUDY_FINISHED]
    trials = [m for m in outbox.due(limit=1000) if m.kind is OutboxKind.TRIAL_RESULT]
    client = Tracking(mlflow_url)._client
    for message in (trials[0], *finished):
        for calls in deaths(sqlite_home, mlflow_url, message, client, after=after):
            assert calls < 400, "the delivery never came to its end"
    exporter(sqlite_home, mlflow_url).drain()
    assert_mirrored(sqlite_home, Tracking(mlflow_url), study_id)


def deaths(home: Home, url: str, message: Message, client: Any, *, after: bool) -> Iterator[int]:
    """Deliver `message` by exporters that die one call later each time, until one lives."""
    step = 1 if message.kind is OutboxKind.TRIAL_RESULT else 7  # the end of a study takes many calls, all alike
    for calls in itertools.count(0, step):
        yield calls
        dying = exporter(home, url)
        dying._tracking._client = DyingClient(client, calls, after=after)
        try:
            dying.deliver(message)
        except Interrupted:
            continue
        return


def test_an_outage_delays_and_loses_nothing(sqlite_home: Home, mlflow_url: str) -> None:
    study_id = played_study(sqlite_home, project="outage")
    waiting = Outbox(sqlite_home.sessions).undelivered()
    nobody = exporter(sqlite_home, f"http://127.0.0.1:{free_port()}")
    assert nobody.drain() == 0
    assert nobody.drain() == 0, "the message waits for its turn"
    with reading(sqlite_home.sessions) as session:
        first = session.scalars(select(OutboxRow).order_by(OutboxRow.id)).first()
    assert first is not None
    assert first.attempts == 1
    assert first.error
    assert Outbox(sqlite_home.sessions).undelivered() == waiting
    wait_until(lambda: exporter(sqlite_home, mlflow_url).drain() == waiting, what="the retry")
    assert_mirrored(sqlite_home, Tracking(mlflow_url), study_id)


def test_a_second_exporter_stands_by_until_the_first_is_gone(home: Home) -> None:
    engine, stop = home.sessions.kw["bind"], threading.Event()
    with alone(engine, home.path, stop) as first:
        assert first
        stopped = threading.Event()
        stopped.set()
        with alone(engine, home.path, stopped) as second:
            assert not second
    with alone(engine, home.path, stop) as third:
        assert third


def test_links_follow_a_tracking_server_that_moved(sqlite_home: Home, mlflow_url: str) -> None:
    study_id = sqlite_home.submit("ok", project="moved")
    records = Records(sqlite_home.sessions)
    records.set_mlflow_url(study_id, "http://127.0.0.1:1/#/experiments/3/runs/abc")
    assert records.rebase_mlflow_urls(mlflow_url) == 1
    assert sqlite_home.row(study_id).mlflow_url == f"{mlflow_url}/#/experiments/3/runs/abc"
    assert records.rebase_mlflow_urls(mlflow_url) == 0


@pytest.mark.timeout(480)
def test_the_real_exporter_killed_in_the_middle_is_completed_by_the_next(sqlite_home: Home, mlflow_url: str) -> None:
    study_id = played_study(sqlite_home, project="killed")
    outbox, tracking = Outbox(sqlite_home.sessions), Tracking(mlflow_url)
    total = outbox.undelivered()
    environment = sqlite_home.environment(MUTRANSFER_MLFLOW_URL=mlflow_url)
    with spawned("exporter", env=environment) as process:
        wait_until(lambda: outbox.undelivered() < total, seconds=200, what="the export")
        process.kill()
    assert 0 < outbox.undelivered() < total
    with spawned("exporter", env=environment) as process:
        wait_until(lambda: outbox.undelivered() == 0, seconds=200, what="the rest of the export")
        process.terminate()
        assert process.wait(timeout=30) == 0
    assert_mirrored(sqlite_home, tracking, study_id)
