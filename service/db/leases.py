"""Leases: which process may drive a study, and the guard that every write of a driver passes.

Times are the database's. Each claim raises the lease's epoch; a write names its epoch and is refused when the lease
has moved on, however late it arrives.
"""

from dataclasses import dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from mutransfer.errors import LeaseLostError
from service.db import quotas
from service.db.session import Sessions, db_now, execute, reading, transact
from service.db.states import StudyState
from service.db.tables import LeaseRow, StudyRow

#: Added to what a lease may last: the longest pause before a study is tried again.
LONGEST_PAUSE_SECONDS = 30.0
ENDING = (StudyState.PAUSING, StudyState.CANCELLING)
CLAIMABLE = (StudyState.QUEUED, StudyState.RUNNING, *ENDING)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to drive one study until the lease expires or a newer epoch is claimed."""

    study_id: str
    epoch: int
    state: StudyState  # as it was when claimed


class Leases:
    """Claims and returns leases. Safe for any number of dispatchers on one database."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def claim_next(self, owner: str, ttl_seconds: float) -> Claim | None:
        """Claim the study of the highest priority, of those the oldest, that nobody drives and whose project has room.

        Raises TransientError when the database does not answer.
        """
        claim = transact(self._sessions, lambda session: _claim(session, owner, ttl_seconds))
        if claim is None:
            self._cut_short(ttl_seconds)
        return claim

    def _cut_short(self, ttl_seconds: float) -> None:
        """Let leases that end later than any may, as when the clock was moved back, end a lifetime from now.

        A driver that lives renews in time; the study of a dead one would wait for as long as the clock was off.
        """
        late = LeaseRow.expires_at > db_now() + ttl_seconds + LONGEST_PAUSE_SECONDS
        with reading(self._sessions) as session:  # usually there are none, and nothing is locked to see that
            if session.scalars(select(LeaseRow.study_id).where(late).limit(1)).first() is None:
                return
        execute(self._sessions, update(LeaseRow).where(late).values(expires_at=db_now() + ttl_seconds))

    def release(self, claim: Claim, *, delay_seconds: float = 0.0) -> None:
        """Give the lease back, claimable again after `delay_seconds`. A lease that moved on is left alone."""
        transact(self._sessions, lambda session: release(session, claim.study_id, claim.epoch, delay_seconds))


def _claim(session: Session, owner: str, ttl_seconds: float) -> Claim | None:
    full = sorted(quotas.shortages(session, lock=True))
    may_run = or_(StudyRow.project.not_in(full), StudyRow.state.in_(ENDING))  # what ends is claimed whatever the quota
    free = (
        select(LeaseRow)
        .join(StudyRow, StudyRow.id == LeaseRow.study_id)
        .where(StudyRow.state.in_(CLAIMABLE), LeaseRow.expires_at <= db_now(), may_run)
        .order_by(StudyRow.priority.desc(), StudyRow.id)
        .limit(1)
        .with_for_update(of=LeaseRow, skip_locked=True)  # SQLite: the transaction itself is the lock
    )
    while (lease := session.scalars(free).one_or_none()) is not None:
        # Read again now that the lease is locked: a cancellation may have been committed since the query began.
        state = StudyState(session.scalars(select(StudyRow.state).where(StudyRow.id == lease.study_id)).one())
        if state in CLAIMABLE:
            lease.owner, lease.epoch = owner, lease.epoch + 1
            lease.slots = lease.slots_wanted = 1
            lease.expires_at = db_now() + ttl_seconds  # an SQL expression, evaluated at flush
            session.flush()
            return Claim(study_id=lease.study_id, epoch=lease.epoch, state=state)
    return None


def guard(session: Session, study_id: str, epoch: int) -> None:
    """Lock the lease for this transaction, if it is still at `epoch`. Raises LeaseLostError when it is not."""
    mine = (
        select(LeaseRow.epoch)
        .where(LeaseRow.study_id == study_id, LeaseRow.epoch == epoch)
        .with_for_update()  # PostgreSQL re-reads the epoch after any wait for the lock
    )
    if session.execute(mine).one_or_none() is None:
        raise LeaseLostError(f"epoch {epoch} of study {study_id} is over: another driver has claimed it")


def lock(session: Session, study_id: str) -> None:
    """Serialise with the driver and other writers of one study, whoever holds the lease."""
    session.execute(select(LeaseRow.epoch).where(LeaseRow.study_id == study_id).with_for_update())


def renew(session: Session, study_id: str, epoch: int, ttl_seconds: float) -> None:
    """Extend the lease by `ttl_seconds` from now. Raises LeaseLostError."""
    extended = (
        update(LeaseRow)
        .where(LeaseRow.study_id == study_id, LeaseRow.epoch == epoch)
        .values(expires_at=db_now() + ttl_seconds)
        .returning(LeaseRow.epoch)
    )
    if session.execute(extended).one_or_none() is None:
        raise LeaseLostError(f"epoch {epoch} of study {study_id} is over: another driver has claimed it")


def release(session: Session, study_id: str, epoch: int, delay_seconds: float = 0.0) -> None:
    """Free the lease if it is still at `epoch`; the epoch stays, the next claim raises it.

    `delay_seconds`: for how long nobody may claim it, LONGEST_PAUSE_SECONDS at most.
    """
    if delay_seconds > LONGEST_PAUSE_SECONDS:
        raise ValueError(f"a pause of {delay_seconds:g} s would be taken for a clock that was moved back")
    freed = (
        update(LeaseRow)
        .where(LeaseRow.study_id == study_id, LeaseRow.epoch == epoch)
        .values(owner="", slots=0, slots_wanted=0, expires_at=db_now() + delay_seconds)
    )
    session.execute(freed)
