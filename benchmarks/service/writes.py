"""What drivers and dispatchers write: results a second, milliseconds a claim, both through the service's own code."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import tempfile
import time

from sqlalchemy import delete, text

from benchmarks.service import seed
from benchmarks.service.load import Sample
from mutransfer.spec import StudySpec
from mutransfer.trial import TrialResult
from service.db.driver_store import DriverStore, PlannedTrial
from service.db.leases import Claim, Leases
from service.db.session import Sessions
from service.db.studies import Submission, submit
from service.db.tables import StudyRow, TrialRow
from workers.recorder import Recorder, Spool

TRIALS = 1000
DEADLINE_SECONDS = 60.0


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
        self._ids.append(submit(self._sessions, Submission(spec=spec, trials_expected=TRIALS))[0])

    def remove(self) -> None:
        """Delete everything."""
        with self._sessions.begin() as session:
            session.execute(delete(StudyRow).where(StudyRow.id.in_(self._ids)))
            for first in range(0, len(self._keys), 1000):
                session.execute(delete(TrialRow).where(TrialRow.key.in_(self._keys[first : first + 1000])))
        with self._sessions().get_bind().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def ingest(sessions: Sessions, *, drivers: int) -> float:
    """Results a second, `drivers` at once, each storing a study's 1,000 results through its recorder."""
    written = Written(sessions)
    try:
        begun_studies = [written.begin(f"ingest-{number}") for number in range(drivers)]
        work = [
            (store, [(trial.key, seed.outcome(trial.request)) for trial in trials]) for store, trials in begun_studies
        ]
        with tempfile.TemporaryDirectory(prefix="mt-bench-storage-") as storage, ThreadPoolExecutor(drivers) as pool:
            begun = time.perf_counter()
            for _ in pool.map(lambda one: _record(*one, Path(storage)), work):
                pass
            return drivers * TRIALS / (time.perf_counter() - begun)
    finally:
        written.remove()


def _record(store: DriverStore, results: Sequence[tuple[str, TrialResult]], storage: Path) -> None:
    recorder = Recorder(store, spool=Spool(storage, store.study().id), checkpoints=storage, epoch=1)
    recorder.start()
    for key, result in results:
        recorder.result(key, result)
    if not recorder.close(timeout_seconds=DEADLINE_SECONDS):
        raise RuntimeError(f"results were not stored within {DEADLINE_SECONDS:g} s")


def claims(histories: Sequence[Sessions], *, count: int = 100) -> list[Sample]:
    """Seconds a claim, while studies wait; the histories take turns."""
    written = [Written(sessions) for sessions in histories]
    taken: list[list[float]] = [[] for _ in histories]
    held: list[list[Claim]] = [[] for _ in histories]
    try:
        for one in written:
            for _ in range(count):
                one.submit(seed.study("claimed", **seed.LITTLE))
        for _ in range(count):
            for sessions, times, claimed in zip(histories, taken, held, strict=True):
                begun = time.perf_counter()
                claim = Leases(sessions).claim_next("bench", seed.TTL_SECONDS)
                times.append(time.perf_counter() - begun)
                if claim is None:
                    raise RuntimeError("studies wait and none was claimed")
                claimed.append(claim)
        for sessions, claimed in zip(histories, held, strict=True):
            for claim in claimed:
                Leases(sessions).release(claim)
    finally:
        for one in written:
            one.remove()
    return [Sample(seconds=tuple(sorted(times))) for times in taken]
