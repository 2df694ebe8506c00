"""What drivers and dispatchers write: results a second, milliseconds a claim, both through the service's own code."""

from collections.abc import Sequence
import threading
import time

from sqlalchemy import delete, text

from benchmarks.service import seed
from benchmarks.service.load import Sample
from mutransfer.spec import StudySpec
from service.db.driver_store import DriverStore, PlannedTrial
from service.db.leases import Leases
from service.db.session import Sessions
from service.db.studies import Submission, submit
from service.db.tables import StudyRow, TrialRow

TRIALS = 1000
DRIVERS = 4


class Written:
    """Studies that a measurement makes, removed at its end: the history stays as it was seeded."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._ids: list[str] = []
        self._keys: list[str] = []

    def begin(self, name: str) -> tuple[DriverStore, list[PlannedTrial]]:
        """A running study of 1,000 trials, all planned."""
        spec = seed.study(name, **seed.BIG)
        study_id, store = seed.begin(self._sessions, spec)
        trials = [seed.planned(spec, request, study_id) for request in seed.requests(spec, seed.BIG["seeds"])]
        store.begin_phase("search")
        store.plan_trials("search", trials)
        self._ids.append(study_id)
        self._keys += [trial.key for trial in trials]
        return store, trials

    def submit(self, spec: StudySpec) -> None:
        """A queued study."""
        self._ids.append(submit(self._sessions, Submission(spec=spec, trials_expected=TRIALS))[0].id)

    def remove(self) -> None:
        """Delete everything."""
        with self._sessions.begin() as session:
            session.execute(delete(StudyRow).where(StudyRow.id.in_(self._ids)))
            for first in range(0, len(self._keys), 1000):
                session.execute(delete(TrialRow).where(TrialRow.key.in_(self._keys[first : first + 1000])))
        with self._sessions().get_bind().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def ingest(sessions: Sessions, *, drivers: int) -> float:
    """Results a second, `drivers` at once, each recording a study's 1,000 results as its recorder does."""
    written = Written(sessions)
    try:
        work = [written.begin(f"ingest-{number}") for number in range(drivers)]
        threads = [threading.Thread(target=_record, args=one) for one in work]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return drivers * TRIALS / (time.perf_counter() - begun)
    finally:
        written.remove()


def _record(store: DriverStore, trials: Sequence[PlannedTrial]) -> None:
    for trial in trials:
        store.record_result(trial.key, seed.outcome(trial.request))


def claims(sessions: Sessions, *, count: int = 50) -> Sample:
    """Seconds a claim, while studies wait."""
    written, leases, taken = Written(sessions), Leases(sessions), []
    try:
        spec = seed.study("claimed", **seed.LITTLE)
        for _ in range(count):
            written.submit(spec)
        held = []
        for _ in range(count):
            begun = time.perf_counter()
            held.append(leases.claim_next("bench", seed.TTL_SECONDS))
            taken.append(time.perf_counter() - begun)
        for claim in held:
            if claim is not None:
                leases.release(claim)
    finally:
        written.remove()
    return Sample(seconds=tuple(sorted(taken)))
