"""A machine in one process: a real dispatcher whose drivers are threads, so that SIGSTOP stops it whole.

`python -m benchmarks.chaos.node --name N --limit K`. Each driver plays a study of a few stub trials through the real
DriverStore. Two tables beside the service's own are the witnesses, written in the same transactions: `chaos_claims`
has a row for every claim that was taken up, `chaos_writes` one for every write with the writer's epoch and the one
that the lease had then.
"""

import argparse
from collections.abc import Callable
import os
from random import Random
import threading
import time
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mutransfer.errors import LeaseLostError, TransientError
from mutransfer.result import Cost, StudyRef, StudyResult
from service.db.driver_store import DriverStore
from service.db.leases import Claim, Leases
from service.db.session import Sessions, make_engine, session_factory
from service.db.states import StudyState
from service.dispatch.attempts import EX_TEMPFAIL
from service.dispatch.dispatcher import Dispatcher
from service.dispatch.ledger import Ledger
from service.loops import stop_on_signals
from service.settings import Settings
from tests import study_builders as build

TRIALS = 3
T = TypeVar("T")

WITNESSES = (
    "CREATE TABLE chaos_claims (study_id TEXT, epoch INTEGER, owner TEXT, PRIMARY KEY (study_id, epoch))",
    "CREATE TABLE chaos_doubles (study_id TEXT, epoch INTEGER, owner TEXT)",
    "CREATE TABLE chaos_writes (study_id TEXT, mine INTEGER, lease INTEGER)",
    "CREATE TABLE chaos_refused (study_id TEXT, mine INTEGER)",
)


class WitnessedStore(DriverStore):
    """The driver's store; every write that passes its guard leaves its epoch beside the lease's, read without one."""

    def _write(self, work: Callable[[Session], T]) -> T:
        def witnessed(session: Session) -> T:
            answer = work(session)
            note = "INSERT INTO chaos_writes SELECT study_id, :mine, epoch FROM leases WHERE study_id = :study"
            session.execute(text(note), {"mine": self._epoch, "study": self._study_id})
            return answer

        return super()._write(witnessed)


class ThreadDriver:
    """A driver that is a thread here."""

    def __init__(self, sessions: Sessions, claim: Claim, *, ttl_seconds: float, name: str) -> None:
        self._sessions, self._claim, self._name = sessions, claim, name
        self._store = WitnessedStore(sessions, claim.study_id, claim.epoch, ttl_seconds=ttl_seconds)
        self._renew_seconds = ttl_seconds / 3.0
        self._renewed_at = 0.0
        self._rng = Random(f"{claim.study_id}{claim.epoch}")
        self._stopped = threading.Event()
        self._status: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        """See DriverHandle."""
        return self._status

    def end(self, *, grace_seconds: float) -> None:
        """See DriverHandle."""
        self._stopped.set()
        self._thread.join(timeout=grace_seconds + 5.0)

    def log_tail(self, lines: int) -> str:  # noqa: ARG002 - the protocol's
        """See DriverHandle."""
        return ""

    def _run(self) -> None:
        try:
            self._note_claim()
            self._status = self._play()
        except LeaseLostError:
            self._note("INSERT INTO chaos_refused VALUES (:study, :epoch)")
            self._status = EX_TEMPFAIL
        except TransientError:
            self._status = EX_TEMPFAIL

    def _note_claim(self) -> None:
        try:
            self._note("INSERT INTO chaos_claims VALUES (:study, :epoch, :owner)")
        except IntegrityError:
            self._note("INSERT INTO chaos_doubles VALUES (:study, :epoch, :owner)")

    def _note(self, statement: str) -> None:
        values = {"study": self._claim.study_id, "epoch": self._claim.epoch, "owner": self._name}
        with self._sessions.begin() as session:
            session.execute(text(statement), {k: v for k, v in values.items() if f":{k}" in statement})

    def _play(self) -> int:
        store = self._store
        store.renew()
        store.mark_running()
        study = store.study()
        planned = [build.planned(study.spec, lr=-5.0 - n) for n in range(TRIALS)]
        store.begin_phase("search")
        known = store.plan_trials("search", planned)
        for trial in planned:
            if trial.key in known:
                continue
            store.trial_started(trial.key, attempt=1)
            if not self._train():
                store.release()
                return 0
            store.record_result(trial.key, build.result(2.0))
        store.finish_phase("search", {"recorded": {}})
        cost = Cost(device_seconds=0.0, tokens=0, trials=TRIALS, reused=0)
        ref = StudyRef(id=study.id, name=study.name, state="completed")
        store.finish("completed", result=StudyResult(study=ref, arms=(), cost=cost))
        return 0

    def _train(self) -> bool:
        """A trial of 0.3 to 1 s with a pulse; False when told to stop."""
        if self._stopped.wait(self._rng.uniform(0.3, 1.0)):
            return False
        if time.monotonic() - self._renewed_at > self._renew_seconds:
            self._store.renew()
            self._renewed_at = time.monotonic()
        return True


class ThreadLauncher:
    """Starts drivers here."""

    def __init__(self, sessions: Sessions, *, ttl_seconds: float, name: str) -> None:
        self._sessions, self._ttl_seconds, self._name = sessions, ttl_seconds, name

    def launch(self, claim: Claim) -> ThreadDriver:
        """See Launcher."""
        return ThreadDriver(self._sessions, claim, ttl_seconds=self._ttl_seconds, name=self._name)


def main() -> None:
    """Drive studies until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.node")
    parser.add_argument("--name", required=True)
    parser.add_argument("--limit", type=int, default=8)
    options = parser.parse_args()
    settings, stop = Settings(), stop_on_signals()
    sessions = session_factory(make_engine(settings.database_url))

    def finish(claim: Claim, state: StudyState, error: str) -> None:
        store = WitnessedStore(sessions, claim.study_id, claim.epoch, ttl_seconds=settings.lease_ttl_seconds)
        store.finish(state, result=None, error=error)

    Dispatcher(
        leases=Leases(sessions), ledger=Ledger(sessions), finish=finish, ttl_seconds=settings.lease_ttl_seconds,
        launcher=ThreadLauncher(sessions, ttl_seconds=settings.lease_ttl_seconds, name=options.name),
        limit=options.limit, owner=f"{options.name}:{os.getpid()}",
    ).run(stop)  # fmt: skip


if __name__ == "__main__":
    main()
