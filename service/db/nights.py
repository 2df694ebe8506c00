"""The nights of schedules: what became of each slot. Callers own the transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session, defer

from mutransfer.errors import NotFoundError
from service.db.session import db_now
from service.db.states import StudyState
from service.db.states_schedules import NightState
from service.db.tables import StudyRow
from service.db.tables_schedules import NightRow, ScheduleRow

ACTIVE = (NightState.WAITING, NightState.RUNNING)
ENDED = (StudyState.COMPLETED, StudyState.FAILED, StudyState.CANCELLED)


def add(session: Session, schedule: ScheduleRow, fire_at: float, *, missed: int = 0, manual: bool = False) -> NightRow:
    """The night of a slot, waiting. The caller has locked the schedule and found no night of that slot."""
    row = NightRow(
        schedule_id=schedule.id, project=schedule.project, fire_at=fire_at, missed=missed, manual=manual,
        state=NightState.WAITING,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def exists(session: Session, schedule_id: str, fire_at: float) -> bool:
    """Whether a slot has a night."""
    query = select(NightRow.id).where(NightRow.schedule_id == schedule_id, NightRow.fire_at == fire_at)
    return session.scalar(query) is not None


def active(session: Session, schedule_id: str) -> Sequence[NightRow]:
    """Nights of a schedule that wait or run, oldest first."""
    query = (
        select(NightRow).where(NightRow.schedule_id == schedule_id, NightRow.state.in_(ACTIVE)).order_by(NightRow.id)
    )
    return list(session.scalars(query))


def move(row: NightRow, state: NightState, *, reason: str = "") -> None:
    """Bring a night, whose schedule the caller has locked, to its next state. Raises ConflictError."""
    row.state = NightState(row.state).to(state)
    row.reason = reason or row.reason
    if state.is_final:
        row.ended_at = db_now()  # an SQL expression, evaluated at flush


def over(session: Session) -> Sequence[tuple[int, str]]:
    """(night, schedule) of running nights whose study has ended or is gone, oldest first."""
    gone: ColumnElement[bool] = NightRow.study_id.is_(None)
    query = (
        select(NightRow.id, NightRow.schedule_id)
        .outerjoin(StudyRow, StudyRow.id == NightRow.study_id)
        .where(NightRow.state == NightState.RUNNING, gone | StudyRow.state.in_(ENDED))
        .order_by(NightRow.id)
    )
    return [(night, schedule) for night, schedule in session.execute(query)]


def waiting(session: Session) -> Sequence[str]:
    """Schedules that have a waiting night."""
    query = select(NightRow.schedule_id).where(NightRow.state == NightState.WAITING).distinct()
    return list(session.scalars(query.order_by(NightRow.schedule_id)))


def get(session: Session, schedule_id: str, night_id: int) -> NightRow:
    """One night of a schedule. Raises NotFoundError."""
    query = select(NightRow).where(NightRow.id == night_id, NightRow.schedule_id == schedule_id)
    row = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if row is None:
        raise NotFoundError(f"schedule {schedule_id} has no night {night_id}")
    return row


def page(
    session: Session, schedule_id: str, *, before: int | None, limit: int, with_judgement: bool = False
) -> list[NightRow]:
    """Up to `limit` nights of a schedule with ids below `before`, newest first."""
    query = select(NightRow).where(NightRow.schedule_id == schedule_id).order_by(NightRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(NightRow.id < before)
    return list(session.scalars(query if with_judgement else query.options(defer(NightRow.judgement))))


def judged(session: Session, schedule_id: str, *, limit: int) -> list[NightRow]:
    """The last nights of a schedule that were judged, newest first."""
    query = (
        select(NightRow)
        .where(NightRow.schedule_id == schedule_id, NightRow.state == NightState.JUDGED)
        .order_by(NightRow.id.desc())
    )
    return list(session.scalars(query.limit(limit)))


def latest(session: Session, schedule_ids: Sequence[str]) -> Mapping[str, NightRow]:
    """The newest night of each schedule, without its judgement."""
    newest = select(func.max(NightRow.id)).where(NightRow.schedule_id.in_(schedule_ids)).group_by(NightRow.schedule_id)
    query = select(NightRow).options(defer(NightRow.judgement)).where(NightRow.id.in_(newest))
    return {row.schedule_id: row for row in session.scalars(query)}


def before(session: Session, row: NightRow) -> NightRow | None:
    """The night before that was judged or failed."""
    ended = (NightState.JUDGED, NightState.FAILED)
    query = select(NightRow).options(defer(NightRow.judgement)).order_by(NightRow.id.desc()).limit(1)
    return session.scalars(
        query.where(NightRow.schedule_id == row.schedule_id, NightRow.id < row.id, NightRow.state.in_(ended))
    ).one_or_none()


def study_of(session: Session, row: NightRow) -> StudyRow | None:
    """The study of a night, None when it is gone."""
    return None if row.study_id is None else session.get(StudyRow, row.study_id, populate_existing=True)


def skip_waiting(session: Session, schedule_id: str, reason: str) -> None:
    """Waiting nights of a schedule will not run."""
    values: dict[str, Any] = {"state": NightState.SKIPPED, "reason": reason, "ended_at": db_now()}
    where = (NightRow.schedule_id == schedule_id, NightRow.state == NightState.WAITING)
    session.execute(update(NightRow).where(*where).values(values))
