"""What a dispatcher reads and writes about the studies it drives. Writes are guarded by the claim's epoch."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.db import schema_version
from service.db.events import EventKind, add_event
from service.db.leases import Claim, guard
from service.db.session import Sessions, db_now, reading, transact
from service.db.states import PhaseState, StudyState
from service.db.tables import EventRow, LeaseRow, PhaseRow, StudyRow, StudyTrialRow, TrialRow
from service.dispatch.attempts import Failure


class Ledger:
    """The dispatcher's view of the database."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def check_schema(self) -> None:
        """Raises OutdatedError when the database is at another revision than this code."""
        with reading(self._sessions) as session:
            schema_version.check(session)

    def state(self, study_id: str) -> StudyState | None:
        """The study's state now, None when it is gone."""
        with reading(self._sessions) as session:
            found = session.scalar(select(StudyRow.state).where(StudyRow.id == study_id))
        return StudyState(found) if found is not None else None

    def has_lapsed(self, claim: Claim) -> bool:
        """Whether the lease of `claim` has expired or is another's."""
        held = select(LeaseRow.study_id).where(
            LeaseRow.study_id == claim.study_id, LeaseRow.epoch == claim.epoch, LeaseRow.expires_at > db_now()
        )
        with reading(self._sessions) as session:
            return session.scalar(held) is None

    def lease_expiry(self, claim: Claim) -> float | None:
        """When the lease of `claim` ends, by the database's clock; None when it is another's by now."""
        query = select(LeaseRow.expires_at).where(LeaseRow.study_id == claim.study_id, LeaseRow.epoch == claim.epoch)
        with reading(self._sessions) as session:
            return session.scalar(query)

    def renew_untouched(self, claim: Claim, ttl_seconds: float, seen: float) -> float | None:
        """Renew a lease that still ends at `seen`; returns its new end.

        None when it was not for us to renew: the driver renews by itself now, or the lease is another's.
        """
        renewed = (
            update(LeaseRow)
            .where(LeaseRow.study_id == claim.study_id, LeaseRow.epoch == claim.epoch, LeaseRow.expires_at == seen)
            .values(expires_at=db_now() + ttl_seconds)
            .returning(LeaseRow.expires_at)
        )
        return transact(self._sessions, lambda session: session.scalar(renewed))

    def record_failure(self, claim: Claim, exit_status: int) -> list[Failure]:
        """Record that the driver of `claim` died; returns all failures of the study so far, this one last.

        Raises LeaseLostError when another dispatcher has claimed the study meanwhile.
        """
        return transact(self._sessions, lambda session: _record(session, claim, exit_status))


def _record(session: Session, claim: Claim, exit_status: int) -> list[Failure]:
    guard(session, claim.study_id, claim.epoch)
    known = _failures(session, claim.study_id)
    if claim.epoch in known:  # repeated after a commit whose answer was lost
        return list(known.values())
    failure = Failure(progress=_progress(session, claim.study_id), exit_status=exit_status)
    payload = {"epoch": claim.epoch, "exit_status": exit_status, "progress": failure.progress}
    add_event(session, claim.study_id, EventKind.DRIVER_FAILED, payload)
    return [*known.values(), failure]


def _failures(session: Session, study_id: str) -> dict[int, Failure]:
    """By epoch, those since a person last opened the study again."""
    reopened = (
        select(func.coalesce(func.max(EventRow.id), 0))
        .where(EventRow.study_id == study_id, EventRow.kind == EventKind.REOPENED)
        .scalar_subquery()
    )
    query = select(EventRow.payload).where(
        EventRow.study_id == study_id, EventRow.kind == EventKind.DRIVER_FAILED, EventRow.id > reopened
    )
    payloads = session.scalars(query.order_by(EventRow.id)).all()
    return {p["epoch"]: Failure(progress=p["progress"], exit_status=p["exit_status"]) for p in payloads}


def _progress(session: Session, study_id: str) -> int:
    """How much of the study is done: a number that only grows."""
    trials = (
        select(func.count())
        .select_from(StudyTrialRow)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.result.is_not(None))
    )
    phases = (
        select(func.count())
        .select_from(PhaseRow)
        .where(PhaseRow.study_id == study_id, PhaseRow.state == PhaseState.FINISHED)
    )
    return (session.scalar(trials) or 0) + (session.scalar(phases) or 0)
