"""Figures of the whole service at one moment, for monitoring; none of them counts trials, which may be millions."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from service.db.session import db_now
from service.db.states import StudyState
from service.db.tables import LeaseRow, OutboxRow, StudyRow, SummaryRow

ACTIVE = (StudyState.RUNNING, StudyState.PAUSING, StudyState.CANCELLING)


@dataclass(frozen=True, kw_only=True)
class ServiceFigures:
    """Ages and lags are in seconds, 0.0 where there is nothing that could be late."""

    studies: Mapping[str, int]  # by state
    oldest_queued_seconds: float
    leases_held: int
    leases_expired: int  # of studies that are under way: nobody drives them now
    lease_age_seconds: float  # since the renewal that is longest ago
    trials_done: int
    trials_failed: int
    device_seconds: float
    outbox_pending: int
    outbox_lag_seconds: float


def read(session: Session, *, lease_ttl_seconds: float) -> ServiceFigures:
    """All figures, of one snapshot."""
    now = session.scalar(select(db_now())) or 0.0
    counts = dict(session.execute(select(StudyRow.state, func.count()).group_by(StudyRow.state)).all())
    oldest = session.scalar(select(func.min(StudyRow.created_at)).where(StudyRow.state == StudyState.QUEUED))
    held, expired, first_expiry = session.execute(
        select(
            func.count().filter(LeaseRow.expires_at > now), func.count().filter(LeaseRow.expires_at <= now),
            func.min(LeaseRow.expires_at),
        )
        .select_from(LeaseRow)
        .join(StudyRow, StudyRow.id == LeaseRow.study_id)
        .where(StudyRow.state.in_(ACTIVE))
    ).one()  # fmt: skip
    done, failed, seconds = session.execute(
        select(
            func.sum(SummaryRow.trials_done), func.sum(SummaryRow.trials_failed), func.sum(SummaryRow.device_seconds)
        )
    ).one()
    pending, first = session.execute(
        select(func.count(), func.min(OutboxRow.created_at)).where(OutboxRow.done_at.is_(None))
    ).one()
    return ServiceFigures(
        studies=counts, oldest_queued_seconds=_age(now, oldest), leases_held=held, leases_expired=expired,
        lease_age_seconds=_age(now, None if first_expiry is None else first_expiry - lease_ttl_seconds),
        trials_done=done or 0, trials_failed=failed or 0, device_seconds=seconds or 0.0,
        outbox_pending=pending, outbox_lag_seconds=_age(now, first),
    )  # fmt: skip


def _age(now: float, at: float | None) -> float:
    return 0.0 if at is None else max(0.0, now - at)


def revision(session: Session) -> str | None:
    """The migration that the database is at, None for an empty one."""
    found: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return found
