"""What projects may use: trials at once, and device-hours over their whole life. Callers own the transaction.

Every driven study of a limited project holds slots on its lease, one from its claim on. Whoever counts them holds the
project's row, so that two cannot take the same one: the sum never exceeds the limit, unless the limit was lowered below
what runs. Claims lock projects, then a free lease (skipping locked ones); drivers their lease, then the project.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from mutransfer.shares import fair_shares
from service.db.session import db_now
from service.db.tables import LeaseRow, StudyRow, SummaryRow
from service.db.tables_access import ProjectRow

SECONDS_PER_HOUR = 3600.0


class Shortage(StrEnum):
    """Which of its limits a project has reached."""

    TRIALS = "trials"
    DEVICE_HOURS = "device_hours"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """How many trials of a study may run at once, None for any number. `is_spent`: its project's budget is used up."""

    slots: int | None
    is_spent: bool = False


UNLIMITED = Grant(slots=None)


def shortages(session: Session, *, lock: bool = False) -> Mapping[str, Shortage]:
    """Projects that may not have another study driven now. `lock`: until the transaction ends, nobody else counts."""
    limited = (
        select(ProjectRow)
        .where(or_(ProjectRow.max_concurrent_trials.is_not(None), ProjectRow.device_hours.is_not(None)))
        .order_by(ProjectRow.name)
    )
    rows = session.scalars(limited.with_for_update() if lock else limited).all()
    found = {row.name: shortage(session, row) for row in rows}
    return {name: reached for name, reached in found.items() if reached is not None}


def shortage(session: Session, project: ProjectRow) -> Shortage | None:
    """The limit that a project has reached, if any."""
    if is_spent(session, project):
        return Shortage.DEVICE_HOURS
    limit = project.max_concurrent_trials
    if limit is not None and len(_driven(session, project.name)) >= limit:
        return Shortage.TRIALS
    return None


def is_spent(session: Session, project: ProjectRow) -> bool:
    """Whether the finished trials of a project have used up its device-hours."""
    return project.device_hours is not None and device_hours(session, project.name) >= project.device_hours


def device_hours(session: Session, project: str) -> float:
    """What the finished trials of a project have cost; reused results cost nothing."""
    spent = (
        select(func.coalesce(func.sum(SummaryRow.device_seconds), 0.0))
        .join(StudyRow, StudyRow.id == SummaryRow.study_id)
        .where(StudyRow.project == project)
    )
    return (session.scalar(spent) or 0.0) / SECONDS_PER_HOUR


def grant(session: Session, study_id: str, *, wanted: int, running: int) -> Grant:
    """Take as many slots as the project's limit allows this study now; its driver holds the lease row.

    Every study gets a fair share. One that holds more than its share keeps what runs and starts nothing new.
    """
    row = session.scalars(
        select(ProjectRow)
        .join(StudyRow, StudyRow.project == ProjectRow.name)
        .where(StudyRow.id == study_id)
        .with_for_update(of=ProjectRow)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None or (row.max_concurrent_trials is None and row.device_hours is None):
        return UNLIMITED
    spent = is_spent(session, row)
    mine = session.get_one(LeaseRow, study_id)
    if spent:
        allowed = 0
    elif row.max_concurrent_trials is None:
        allowed = wanted
    else:
        mine.slots_wanted = wanted
        session.flush()
        allowed = _share(row.max_concurrent_trials, study_id, _driven(session, row.name))
    mine.slots, mine.slots_wanted = max(running, allowed), wanted
    return Grant(slots=mine.slots, is_spent=spent)


def is_limited(session: Session, study_id: str) -> bool:
    """Whether the project of a study has any limit."""
    query = (
        select(ProjectRow.name)
        .join(StudyRow, StudyRow.project == ProjectRow.name)
        .where(
            StudyRow.id == study_id,
            or_(ProjectRow.max_concurrent_trials.is_not(None), ProjectRow.device_hours.is_not(None)),
        )
    )
    return session.scalar(query) is not None


def is_held() -> ColumnElement[bool]:
    """Condition on LeaseRow: a driver, or a dispatcher that starts one, holds it."""
    return and_(LeaseRow.owner != "", LeaseRow.expires_at > db_now())


def _driven(session: Session, project: str) -> Sequence[LeaseRow]:
    query = (
        select(LeaseRow)
        .join(StudyRow, StudyRow.id == LeaseRow.study_id)
        .where(StudyRow.project == project, is_held())
        .order_by(LeaseRow.study_id)
    )
    return session.scalars(query).all()


def _share(limit: int, study_id: str, leases: Sequence[LeaseRow]) -> int:
    """The part of one study: its fair share, less what others have not given back yet."""
    shares = fair_shares(limit, [lease.slots_wanted for lease in leases])
    mine = {lease.study_id: share for lease, share in zip(leases, shares, strict=True)}.get(study_id, 0)
    others = sum(lease.slots for lease in leases if lease.study_id != study_id)
    return max(0, min(mine, limit - others))
