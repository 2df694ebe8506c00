"""The life of a study as its driver writes it, with a process that may die at any commit, before or after it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from mutransfer.result import Cost, StudyRef, StudyResult
from mutransfer.spec import StudySpec
from service.db.driver_store import DriverStore
from service.db.events import EventKind
from service.db.leases import CLAIMABLE, Claim
from service.db.outbox import OutboxKind
from service.db.session import Sessions, db_now, reading
from service.db.states import StudyState
from service.db.studies import Submission, submit
from service.db.tables import EventRow, LeaseRow, OutboxRow, PhaseRow, StudyRow, StudyTrialRow, TrialRow
from tests import study_builders as build

TTL_SECONDS = 3600.0
TRIALS = 3
BEFORE = (True, False)
_numbers = count()


class Crash(BaseException):
    """The process dies here."""


class Crashes:
    """Dies at one commit to come. Counts the writing commits of one `Sessions`."""

    def __init__(self, sessions: Sessions) -> None:
        self.commits = 0
        self._at: int | None = None
        self._before = True
        self._sessions = sessions

    def plan(self, after: int, *, before: bool) -> None:
        """Die at the commit after `after` further ones."""
        self._at, self._before = self.commits + after, before

    def forget(self) -> None:
        """Do not die after all."""
        self._at = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count and crash in this block."""
        hooks: tuple[tuple[str, Callable[[Session], None]], ...] = (
            ("before_commit", self._before_commit), ("after_commit", self._after_commit),
        )  # fmt: skip
        for name, hook in hooks:
            event.listen(self._sessions, name, hook)
        try:
            yield
        finally:
            for name, hook in hooks:
                event.remove(self._sessions, name, hook)

    def _before_commit(self, _session: Session) -> None:
        if self.commits == self._at and self._before:
            self._at = None
            raise Crash

    def _after_commit(self, _session: Session) -> None:
        here, self.commits = self.commits, self.commits + 1
        if here == self._at:
            self._at = None
            raise Crash


@dataclass(frozen=True, kw_only=True)
class End:
    """What is left of a study when it is over, without ids and times."""

    state: str
    phases: tuple[tuple[str, str], ...]
    losses: tuple[tuple[float, float | None], ...]
    told: int
    events: int


@dataclass(kw_only=True)
class Tally:
    """Counted over random lives."""

    lives: int = 0
    steps: int = 0
    before: int = 0
    after: int = 0
    stale: int = 0
    stale_accepted: int = 0
    illegal: int = 0
    changed: int = 0
    other_ends: int = 0


class Life:
    """One study. Its trials are its own: no other life reuses them."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.crash = Crashes(sessions)
        self.spec: StudySpec = build.spec(name="life", train__steps=10 + next(_numbers))
        self.planned = [build.planned(self.spec, lr=-5.0 - n) for n in range(TRIALS)]
        self.study_id = submit(sessions, Submission(spec=self.spec, trials_expected=TRIALS))[0]

    def live(self) -> None:
        """Claim and drive to the end, from wherever it is. Raises Crash where that was planned."""
        with self.crash.watching():
            claim = self.claim()
            if claim is not None:
                self.drive(self.store(claim))

    def claim(self) -> Claim | None:
        """Take this study's lease as a dispatcher would when the one before has expired; None when it may not be."""
        with self.sessions.begin() as session:
            lease = session.get_one(LeaseRow, self.study_id, with_for_update=True)
            state = StudyState(session.scalars(select(StudyRow.state).where(StudyRow.id == self.study_id)).one())
            if state not in CLAIMABLE:
                return None
            lease.owner, lease.epoch = "life", lease.epoch + 1
            lease.expires_at = db_now() + TTL_SECONDS
            session.flush()
            return Claim(study_id=self.study_id, epoch=lease.epoch, state=state)

    def store(self, claim: Claim) -> DriverStore:
        """The store of the driver that was given this claim."""
        return DriverStore(self.sessions, self.study_id, claim.epoch, ttl_seconds=TTL_SECONDS)

    def drive(self, store: DriverStore) -> None:
        """All that a driver writes, in its order; what is there already is passed over."""
        if store.mark_running() is not StudyState.RUNNING:
            return
        store.begin_phase("search")
        known = store.plan_trials("search", self.planned)
        for number, trial in enumerate(self.planned):
            if trial.key not in known:
                store.trial_started(trial.key, attempt=1)
                store.record_result(trial.key, build.result(2.0 + number))
        store.finish_phase("search", {"recorded": {}})
        store.finish("completed", result=self.document())

    def document(self) -> StudyResult:
        """What a study ends with."""
        cost = Cost(device_seconds=0.0, tokens=0, trials=TRIALS, reused=0)
        return StudyResult(study=StudyRef(id=self.study_id, name="life", state="completed"), arms=(), cost=cost)

    def state(self) -> StudyState:
        """The study's."""
        with reading(self.sessions) as session:
            return StudyState(session.scalars(select(StudyRow.state).where(StudyRow.id == self.study_id)).one())

    def results(self) -> dict[str, Any]:
        """Stored results by key."""
        with reading(self.sessions) as session:
            rows = session.execute(select(TrialRow.key, TrialRow.result).where(TrialRow.key.in_(self._keys)))
            return {key: result for key, result in rows if result is not None}

    def end(self) -> End:
        """What is left."""
        with reading(self.sessions) as session:
            row = session.get_one(StudyRow, self.study_id)
            phases = select(PhaseRow.name, PhaseRow.state).where(PhaseRow.study_id == self.study_id)
            losses = (
                select(StudyTrialRow.lr_octaves, TrialRow.loss_nats)
                .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
                .where(StudyTrialRow.study_id == self.study_id)
            )
            told = select(func.count()).where(
                OutboxRow.study_id == self.study_id, OutboxRow.kind == OutboxKind.TRIAL_RESULT
            )
            events = select(func.count()).where(
                EventRow.study_id == self.study_id, EventRow.kind == EventKind.TRIAL_RESULT
            )
            return End(
                state=row.state, phases=tuple(sorted((n, s) for n, s in session.execute(phases))),
                losses=tuple(sorted((rate, loss) for rate, loss in session.execute(losses))),
                told=session.scalar(told) or 0, events=session.scalar(events) or 0,
            )  # fmt: skip

    @property
    def _keys(self) -> list[str]:
        return [trial.key for trial in self.planned]
