"""The driver without Ray: studies that are changed under it, and machines that fail it."""

from collections.abc import Callable, Iterator
import errno
from pathlib import Path
import signal

import pytest

from service.db import actions
from service.db.driver_store import DriverStore
from service.db.states import StudyState
from tests import study_builders as build
from tests.driver_support import Bench
from workers.driver import EX_TEMPFAIL, Driver

TRIAL = build.planned(build.spec())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A study whose only trial was given up; signals are handled as before afterwards."""
    made = Bench(tmp_path / "home")
    study_id = made.submit(build.spec())
    store = DriverStore(made.sessions, study_id, made.claim().epoch, ttl_seconds=60.0)
    store.mark_running()
    store.begin_phase("search")
    store.plan_trials("search", [TRIAL])
    store.record_failure(TRIAL.key, attempt=3, traceback="ValueError: bad", final=True)
    store.finish_phase("search", {"recorded": {}})
    store.leave()
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield made
    for number, handler in handlers:
        signal.signal(number, handler)
    made.sessions.kw["bind"].dispose()


@pytest.fixture
def make(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Driver]:
    """The driver of the next claim; it has nothing to prepare and no trial to run."""
    monkeypatch.setattr(Driver, "_facts", lambda *_: build.FACTS)
    monkeypatch.setattr(Driver, "_train", lambda *_: None)

    def claim() -> Driver:
        taken = bench.claim()
        return Driver(bench.settings, taken.study_id, taken.epoch)

    return claim


def retry(bench: Bench) -> None:
    with bench.sessions.begin() as session:
        actions.retry_trial(session, bench.query("SELECT id FROM studies")[0][0], TRIAL.key)


@pytest.mark.parametrize("moment", ["begin_phase", "finish_phase", "finish"])
def test_a_trial_tried_again_while_the_study_is_judged_is_run_by_the_next_driver(
    bench: Bench, make: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write = getattr(DriverStore, moment)

    def changed(store: DriverStore, *arguments: object, **options: object) -> None:
        retry(bench)
        write(store, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DriverStore, moment, changed)
        assert make().run() == 0
    assert bench.query("SELECT state, revision, error FROM studies") == [("running", 2, "")]
    assert bench.query("SELECT status FROM trials") == [("planned",)]
    assert bench.query("SELECT count(*) FROM phases WHERE name = 'verdict'") == [(0,)]
    assert bench.query("SELECT owner FROM leases") == [("",)]
    assert make().run() == 0
    assert bench.query("SELECT state, revision FROM studies") == [("completed", 2)]


def test_a_failure_of_what_the_study_was_is_not_what_it_is_now(
    bench: Bench, make: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        retry(bench)
        raise ValueError("a bug")

    monkeypatch.setattr(Driver, "_train", train)
    assert make().run() == 1
    assert bench.query("SELECT state, revision, error FROM studies") == [("running", 2, "")]


def test_a_disk_that_is_full_gives_the_study_back(
    bench: Bench, make: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/mt-tune")

    monkeypatch.setattr(Driver, "_train", train)
    assert make().run() == EX_TEMPFAIL
    assert bench.query("SELECT state, error FROM studies") == [(StudyState.RUNNING, "")]
    assert bench.query("SELECT owner FROM leases") == [("",)]


def test_a_bug_fails_the_study(bench: Bench, make: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file")

    monkeypatch.setattr(Driver, "_train", train)
    assert make().run() == 1
    [(state, error)] = bench.query("SELECT state, error FROM studies")
    assert state == StudyState.FAILED
    assert error.startswith("internal error, please report it: FileNotFoundError")
