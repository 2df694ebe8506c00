"""What the system is busy with: unfinished studies with their leases, trials that run, messages that wait.

Read only. Every query is bounded by what is unfinished, never by the history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from service.db import quotas
from service.db.session import db_now
from service.db.states import StudyState, TrialState
from service.db.tables import LeaseRow, OutboxRow, StudyRow, StudyTrialRow, TrialRow
from service.db.tables_access import ProjectRow

MOST = 50  # of a list: beyond it only the count is told
UNFINISHED = tuple(state for state in StudyState if not state.is_final)


@dataclass(frozen=True, kw_only=True)
class Job:
    """An unfinished study and who drives it. `expires_in` is in seconds, negative when the lease has run out."""

    row: StudyRow
    owner: str
    epoch: int
    expires_in: float
    trials: Sequence[Mapping[str, Any]]

    @property
    def device(self) -> str:
        """What its trials run on, as far as its workers have told."""
        facts: Mapping[str, Any] = self.row.facts or {}
        found: str = facts.get("environment", {}).get("device_type", "")
        return found


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Messages of one kind that have not been delivered."""

    kind: str
    count: int
    oldest_at: float
    attempts: int
    error: str


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A project with a limit, and how much of it is used."""

    row: ProjectRow
    device_hours: float
    trials: int


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The whole picture. `now` is the database's clock, in seconds since the epoch."""

    now: float
    jobs: tuple[Job, ...]
    unfinished: int
    quotas: tuple[Quota, ...]
    outbox: tuple[Waiting, ...]


def workload(session: Session) -> Workload:
    """Everything that is unfinished, the highest priority and then the oldest first."""
    now = float(session.scalar(select(db_now())) or 0.0)
    is_open = StudyRow.state.in_(UNFINISHED)
    query = (
        select(StudyRow, LeaseRow)
        .join(LeaseRow, LeaseRow.study_id == StudyRow.id)
        .where(is_open)
        .order_by(StudyRow.priority.desc(), StudyRow.id)
        .limit(MOST)
    )
    trials = _running(session)
    jobs = tuple(
        Job(
            row=row, owner=lease.owner, epoch=lease.epoch, expires_in=lease.expires_at - now,
            trials=trials.get(row.id, ()),
        )
        for row, lease in session.execute(query)
    )  # fmt: skip
    count = session.scalar(select(func.count()).select_from(StudyRow).where(is_open)) or 0
    return Workload(now=now, jobs=jobs, unfinished=count, quotas=_quotas(session), outbox=_outbox(session))


def _running(session: Session) -> Mapping[str, list[Mapping[str, Any]]]:
    """Trials that run now, by study."""
    place = (StudyTrialRow.arm, StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed)
    query = (
        select(StudyTrialRow.study_id, TrialRow.key, *place, TrialRow.step, TrialRow.steps, TrialRow.updated_at)
        .join(StudyRow, StudyRow.id == StudyTrialRow.study_id)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyRow.state.in_(UNFINISHED), TrialRow.status == TrialState.RUNNING)
        .distinct()
        .order_by(StudyTrialRow.study_id, *place)
        .limit(MOST)
    )
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in session.execute(query).mappings():
        found.setdefault(row["study_id"], []).append(dict(row))
    return found


def _quotas(session: Session) -> tuple[Quota, ...]:
    """Projects with a limit, by name."""
    limited = or_(ProjectRow.max_concurrent_trials.is_not(None), ProjectRow.device_hours.is_not(None))
    rows = session.scalars(select(ProjectRow).where(limited).order_by(ProjectRow.name).limit(MOST)).all()
    held = (
        select(StudyRow.project, func.coalesce(func.sum(LeaseRow.slots), 0))
        .join(LeaseRow, LeaseRow.study_id == StudyRow.id)
        .where(StudyRow.project.in_([row.name for row in rows]), quotas.is_held())
        .group_by(StudyRow.project)
    )
    slots = {row[0]: row[1] for row in session.execute(held)}
    return tuple(
        Quota(row=row, device_hours=quotas.device_hours(session, row.name), trials=slots.get(row.name, 0))
        for row in rows
    )


def _outbox(session: Session) -> tuple[Waiting, ...]:
    counted = (
        select(OutboxRow.kind, func.count(), func.min(OutboxRow.created_at), func.max(OutboxRow.attempts))
        .where(OutboxRow.done_at.is_(None))
        .group_by(OutboxRow.kind)
        .order_by(OutboxRow.kind)
    )
    return tuple(
        Waiting(kind=kind, count=count, oldest_at=oldest, attempts=attempts, error=_last_error(session, kind))
        for kind, count, oldest, attempts in session.execute(counted).all()
    )


def _last_error(session: Session, kind: str) -> str:
    query = (
        select(OutboxRow.error)
        .where(OutboxRow.done_at.is_(None), OutboxRow.kind == kind, OutboxRow.error != "")
        .order_by(OutboxRow.id.desc())
        .limit(1)
    )
    return session.scalar(query) or ""
