"""What a driver may write of the one study it holds, and nothing else: every write is fenced by its lease's epoch.

Each method is one transaction, safe to repeat, and safe to call from several threads. All raise TransientError when the
database does not answer; writes raise LeaseLostError when another driver has claimed the study.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

from mutransfer.errors import ConflictError, NotFoundError, RevisedError
from mutransfer.facts import StudyFacts
from mutransfer.plan import TrialRequest
from mutransfer.result import Cost, StudyResult
from mutransfer.spec import StudySpec
from mutransfer.trial import Observation, TrialResult, TrialSpec
from service.db import leases, progress, quotas, schema_version, summaries, trials
from service.db.events import EventKind, add_event
from service.db.outbox import OutboxKind, add_message, message_key
from service.db.session import Sessions, db_now, reading, transact
from service.db.states import PhaseState, StudyState
from service.db.tables import EventRow, PhaseRow, StudyRow

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DriverStudy:
    """A study as its driver sees it."""

    id: str
    name: str
    spec: StudySpec
    nonce: str
    state: StudyState
    revision: int
    facts: StudyFacts | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a study stands: its driver stops when the state says so, or when the revision is no longer its own."""

    state: StudyState
    revision: int
    running_seconds: float = 0.0  # since it was last begun or resumed


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """A phase that was begun. `payload` is what it decided, final once `state` is finished."""

    state: PhaseState
    payload: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """A trial that a phase wants: its place on a curve, what it is, and its content key."""

    key: str
    request: TrialRequest
    spec: TrialSpec


class DriverStore:
    """The database as seen by the driver that claimed `study_id` at `epoch`."""

    def __init__(self, sessions: Sessions, study_id: str, epoch: int, *, ttl_seconds: float) -> None:
        self._sessions = sessions
        self._study_id = study_id
        self._epoch = epoch
        self._ttl_seconds = ttl_seconds
        self._revision: int | None = None

    @property
    def revision(self) -> int | None:
        """The revision of the study that `work_on` named, None before."""
        return self._revision

    def work_on(self, revision: int) -> None:
        """From now on phases, and an end of the driver's own, are written for this revision of the study only.

        Once a person has changed the study, these writes raise RevisedError: what they tell is not of it any more.
        """
        self._revision = revision

    def study(self) -> DriverStudy:
        """The study as stored. Raises NotFoundError."""
        with reading(self._sessions) as session:
            row = _study_row(session, self._study_id)
        return DriverStudy(
            id=row.id,
            name=row.name,
            spec=StudySpec.model_validate(row.spec),
            nonce=row.nonce,
            state=StudyState(row.state),
            revision=row.revision,
            facts=StudyFacts.model_validate(row.facts) if row.facts else None,
        )

    def renew(self) -> None:
        """Extend the lease to a full TTL from now; call it every third of the TTL. Raises LeaseLostError."""
        transact(self._sessions, lambda s: leases.renew(s, self._study_id, self._epoch, self._ttl_seconds))

    def release(self, *, delay_seconds: float = 0.0) -> None:
        """Give the study back unfinished, as after SIGTERM: any dispatcher may claim it after `delay_seconds`."""
        transact(self._sessions, lambda s: leases.release(s, self._study_id, self._epoch, delay_seconds))

    def cancel_requested(self) -> bool:
        """Whether a person has asked to stop this study."""
        with reading(self._sessions) as session:
            return _study_row(session, self._study_id).state == StudyState.CANCELLING

    def standing(self, *, timed: bool = False) -> Standing:
        """Where the study stands now; `timed`: and for how long it has been running.

        Raises NotFoundError, and OutdatedError after a migration.
        """
        begun = (
            select(func.max(EventRow.at))
            .where(EventRow.study_id == self._study_id, EventRow.kind == EventKind.RUNNING)
            .scalar_subquery()
        )
        age = db_now() - begun if timed else literal(0.0)
        query = select(StudyRow.state, StudyRow.revision, age).where(StudyRow.id == self._study_id)
        with reading(self._sessions) as session:
            schema_version.check(session)
            found = session.execute(query).one_or_none()
        if found is None:
            raise NotFoundError(f"no study {self._study_id}")
        state, revision, seconds = found
        return Standing(state=StudyState(state), revision=revision, running_seconds=seconds or 0.0)

    def check_schema(self) -> None:
        """Raises OutdatedError when the database is at another revision than this code."""
        with reading(self._sessions) as session:
            schema_version.check(session)

    def grant(self, wanted: int, running: int) -> quotas.Grant:
        """Take as many slots for trials as the project's limit allows now; `running` ones are never taken back."""
        with reading(self._sessions) as session:
            if not quotas.is_limited(session, self._study_id):
                return quotas.UNLIMITED
        return self._write(lambda s: quotas.grant(s, self._study_id, wanted=wanted, running=running))

    def mark_running(self) -> StudyState:
        """queued → running; nothing otherwise: an earlier driver did it, or a person was faster. Returns the state."""

        def work(session: Session) -> StudyState:
            row = _study_row(session, self._study_id)
            if row.state == StudyState.QUEUED:
                row.state = StudyState.QUEUED.to(StudyState.RUNNING)
                if row.started_at is None:
                    row.started_at = db_now()  # an SQL expression, evaluated at flush
                add_event(session, self._study_id, EventKind.RUNNING)
                add_message(session, OutboxKind.STUDY_STARTED, self._study_id, key=message_key(row.revision))
            return StudyState(row.state)

        return self._write(work)

    def leave(self) -> None:
        """Give the study back after SIGTERM or a pause: pausing → paused; any other state stays, claimable again."""

        def work(session: Session) -> None:
            row = _study_row(session, self._study_id)
            if row.state == StudyState.PAUSING:
                row.state = StudyState.PAUSING.to(StudyState.PAUSED)
                add_event(session, self._study_id, EventKind.PAUSED)
            trials.stop(session, self._study_id)
            leases.release(session, self._study_id, self._epoch)

        self._write(work)

    def record_facts(self, facts: StudyFacts) -> None:
        """Store what is known of data and environment, once; an extension may add models of further sizes.

        Raises ConflictError when other facts are stored.
        """

        def work(session: Session) -> None:
            row = _study_row(session, self._study_id)
            stored = StudyFacts.model_validate(row.facts) if row.facts is not None else None
            document = (facts if stored is None else stored.joined(facts)).model_dump(mode="json")
            if row.facts == document:
                return
            row.facts = document
            add_event(session, self._study_id, EventKind.FACTS, {"vocab": facts.vocab})

        self._write(work)

    def phase(self, phase: str) -> PhaseRecord | None:
        """What is recorded of a phase, None when it has not begun."""
        with reading(self._sessions) as session:
            row = session.get(PhaseRow, (self._study_id, phase))
            return None if row is None else PhaseRecord(state=PhaseState(row.state), payload=row.payload)

    def begin_phase(self, phase: str, payload: Mapping[str, Any] | None = None) -> None:
        """Record that a phase has begun; nothing when it has been begun before. Raises RevisedError."""

        def work(session: Session) -> None:
            self._check_revision(_study_row(session, self._study_id))
            if session.get(PhaseRow, (self._study_id, phase)) is None:
                session.add(PhaseRow(study_id=self._study_id, name=phase, payload=dict(payload or {})))
                add_event(session, self._study_id, EventKind.PHASE_STARTED, {"phase": phase})

        self._write(work)

    def finish_phase(
        self, phase: str, payload: Mapping[str, Any] | None = None, *, said: Mapping[str, Any] | None = None
    ) -> None:
        """Record a phase's outcome, once: the same payload again changes nothing. The event tells `said`, else all.

        The search phase's payload holds `{"recorded": {arm: LR in octaves or None}}`, which `recorded` returns.
        Raises RevisedError, and ConflictError when the phase has not begun, or has finished with another payload.
        """
        document = dict(payload or {})

        def work(session: Session) -> None:
            self._check_revision(_study_row(session, self._study_id))
            row = session.get(PhaseRow, (self._study_id, phase))
            if row is None:
                raise ConflictError(f"phase {phase} has not begun")
            if row.state == PhaseState.FINISHED:
                if row.payload != document:
                    raise ConflictError(f"phase {phase} is recorded already, with another outcome")
                return
            row.state, row.payload = PhaseState.FINISHED, document
            row.finished_at = db_now()  # an SQL expression, evaluated at flush
            add_event(
                session,
                self._study_id,
                EventKind.PHASE_FINISHED,
                {"phase": phase, **(document if said is None else said)},
            )

        self._write(work)

    def recorded(self) -> Mapping[str, float | None]:
        """The LR recorded for each arm, in octaves, None for an unbracketed one; empty before the search has ended."""
        return self._read(progress.recorded)

    def tuned(self) -> Mapping[str, Mapping[str, float]]:
        """The hyperparameters settled for each arm; empty before the tune phase has ended, or without one."""
        return self._read(progress.tuned)

    def planned_specs(self, phase: str) -> Mapping[str, TrialSpec]:
        """The trials that a phase has planned, by arm (the tune phase has one an arm)."""
        return self._read(lambda session, study_id: trials.specs_by_arm(session, study_id, phase))

    def plan_trials(self, phase: str, planned: Sequence[PlannedTrial]) -> Mapping[str, TrialResult]:
        """Note that `phase` uses these trials. Returns the results known already, by key: the rest must run."""
        return self._write(lambda s: trials.plan(s, self._study_id, phase, planned))

    def trial_started(self, key: str, *, attempt: int) -> None:
        """Note that an actor trains a trial, for the `attempt`-th time (from 1)."""
        self._write(lambda s: trials.start(s, self._study_id, key, attempt))

    def trial_progress(self, key: str, *, step: int, steps: int, train_loss_nats: float | None) -> None:
        """Note how far a running trial is. For eyes only: losing one costs nothing."""
        self._write(lambda s: trials.note_progress(s, key, step, steps, train_loss_nats))

    def record_result(self, key: str, result: TrialResult) -> TrialResult:
        """Store a result, immutable from now on, and tell the outside. Returns the stored one.

        When a result is stored already, it stays and is returned, whatever `result` says.
        """
        stored = self.record_results({key: result})
        if key not in stored:
            raise NotFoundError(f"trial {key} was never planned")
        return stored[key]

    def record_results(self, results: Mapping[str, TrialResult]) -> Mapping[str, TrialResult]:
        """`record_result` for several at once, in their order; those that were never planned are left out."""
        return self._write(lambda s: trials.finish(s, self._study_id, results))

    def record_failure(
        self, key: str, *, attempt: int, traceback: str, final: bool, fault: str = "trial"
    ) -> None:  # fmt: skip
        """Store why an attempt failed; `final` gives the trial up for this study. `fault`: trial, machine or spec."""
        self._write(lambda s: trials.fail(s, self._study_id, key, attempt, traceback, final, fault))

    def attempts(self) -> Mapping[str, int]:
        """Failed attempts so far, by key, of this study's trials that have no result."""
        return self._read(trials.attempts)

    def with_result(self, keys: Sequence[str]) -> set[str]:
        """Which of these trials, of any study, have a result."""
        with reading(self._sessions) as session:
            return trials.with_result(session, keys)

    def unfinished(self) -> Sequence[PlannedTrial]:
        """What an earlier driver planned and did not finish: its successor runs these first."""
        with reading(self._sessions) as session:
            return [
                PlannedTrial(
                    key=trial.key,
                    request=TrialRequest(use.arm, use.axis_value, use.lr_octaves, use.seed),
                    spec=TrialSpec.model_validate(trial.spec),
                )
                for use, trial in trials.unfinished(session, self._study_id)
            ]

    def observations(self) -> Mapping[progress.CurveKey, tuple[Observation, ...]]:
        """Finished and diverged trials by (arm, axis value)."""
        return self._read(progress.observations)

    def unavailable(self) -> Mapping[progress.CurveKey, set[tuple[float, int]]]:
        """(LR, seed) of trials given up, by (arm, axis value)."""
        return self._read(progress.unavailable)

    def cost(self) -> Cost:
        """What the study has taken so far."""
        spec = self.study().spec
        return self._read(lambda s, study_id: progress.cost(s, study_id, spec))

    def finish(self, state: str, *, result: StudyResult | None, error: str = "") -> None:
        """End the study (`completed`, `failed` or `cancelled`) and give up the lease; the same end again is a no-op.

        A cancellation ends it at whatever revision. Raises RevisedError, and ConflictError when it has ended otherwise.
        """
        end = StudyState(state)
        document = result.model_dump(mode="json") if result else None

        def work(session: Session) -> None:
            row = _study_row(session, self._study_id)
            if row.state == end:
                return
            if end is not StudyState.CANCELLED:
                self._check_revision(row)
            row.state = StudyState(row.state).to(end)
            row.result, row.error = document, error
            row.finished_at = db_now()  # an SQL expression, evaluated at flush
            add_event(session, self._study_id, EventKind.FINISHED, {"state": end, "error": error})
            add_message(session, OutboxKind.STUDY_FINISHED, self._study_id, key=message_key(row.revision))
            session.flush()
            summaries.recount(session, self._study_id)
            summaries.note_result(session, self._study_id, result)
            leases.release(session, self._study_id, self._epoch)

        self._write(work)

    def _check_revision(self, row: StudyRow) -> None:
        if self._revision not in (None, row.revision):
            raise RevisedError(f"the study was changed: it is at revision {row.revision}, not {self._revision}")

    def _write(self, work: Callable[[Session], T]) -> T:
        def fenced(session: Session) -> T:
            leases.guard(session, self._study_id, self._epoch)
            return work(session)

        return transact(self._sessions, fenced)

    def _read(self, query: Callable[[Session, str], T]) -> T:
        with reading(self._sessions) as session:
            return query(session, self._study_id)


def _study_row(session: Session, study_id: str) -> StudyRow:
    row = session.get(StudyRow, study_id)
    if row is None:
        raise NotFoundError(f"no study {study_id}")
    return row
