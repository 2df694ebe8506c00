"""Schedules as people see them: make, look up, change, pause, pin a baseline, delete. Callers own the transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from mutransfer.base import digest
from mutransfer.errors import ConflictError, NotFoundError, SpecError
from mutransfer.spec import parse_study
from service.db import audit, projects, studies
from service.db.actors import current_actor
from service.db.session import db_now, insert_new
from service.db.states import StudyState
from service.db.tables_schedules import ScheduleRow
from service.ids import new_id

PREFIX = "sc_"
#: Fields of a study that say what it is called and who owns it, not what it measures.
_LABELS = ("name", "project")
#: Columns whose change makes the next slot another one.
TIMING = ("cron", "time_zone")


def create(session: Session, values: Mapping[str, Any]) -> ScheduleRow:
    """Make a schedule from its columns. Raises ConflictError when its project has one of that name."""
    projects.check_usable(session, values["project"])
    values = {**values, "id": new_id(PREFIX), "digest": question(values["spec"])}
    if not insert_new(session, ScheduleRow, values):
        raise ConflictError(f"there is a schedule {values['name']!r} in the project {values['project']} already")
    row = get(session, values["id"])
    _tell(session, "schedule.create", row, {"cron": row.cron, "time_zone": row.time_zone})
    return row


def get(session: Session, which: str, *, lock: bool = False) -> ScheduleRow:
    """One schedule by its id, or by its name where that is one schedule's only. Raises NotFoundError, ConflictError."""
    column = ScheduleRow.id if which.startswith(PREFIX) else ScheduleRow.name
    query = select(ScheduleRow).where(column == which).order_by(ScheduleRow.id).limit(2)
    if (bound := current_actor().project) is not None:
        query = query.where(ScheduleRow.project == bound)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    rows = list(session.scalars(query))
    if not rows:
        raise NotFoundError(f"no schedule {which}")
    if len(rows) > 1:
        raise ConflictError(f"several projects have a schedule {which!r}: give its id")
    return rows[0]


def page(session: Session, *, project: str | None, before: str | None, limit: int) -> list[ScheduleRow]:
    """Up to `limit` schedules with ids below `before`, newest first."""
    query = select(ScheduleRow).order_by(ScheduleRow.id.desc()).limit(limit)
    for name in (project, current_actor().project):
        if name is not None:
            query = query.where(ScheduleRow.project == name)
    if before is not None:
        query = query.where(ScheduleRow.id < before)
    return list(session.scalars(query))


def change(session: Session, row: ScheduleRow, changes: Mapping[str, Any]) -> None:
    """Change columns of a locked schedule. A template that asks another question lets the baseline go."""
    changed = {name: value for name, value in changes.items() if getattr(row, name) != value}
    if not changed:
        return
    if "spec" in changed and not asks_the_same(row, changed["spec"]):
        changed |= {"digest": question(changed["spec"]), **_no_baseline()}
    for name, value in changed.items():
        setattr(row, name, value)
    row.updated_at = db_now()  # an SQL expression, evaluated at flush
    session.flush()
    session.refresh(row)
    told = {name: value for name, value in changed.items() if name != "spec"} | {"template": "spec" in changed}
    _tell(session, "schedule.change", row, told)


def rename_check(session: Session, row: ScheduleRow, name: str) -> None:
    """Raises ConflictError when another schedule of the project has that name."""
    query = select(ScheduleRow.id).where(
        ScheduleRow.project == row.project, ScheduleRow.name == name, ScheduleRow.id != row.id
    )
    if session.scalar(query) is not None:
        raise ConflictError(f"there is a schedule {name!r} in the project {row.project} already")


def pin(session: Session, row: ScheduleRow, study_id: str) -> None:
    """Make a completed run of the same question the baseline until it is unpinned. Raises ConflictError otherwise."""
    study = studies.get(session, study_id)
    if study.project != row.project:
        raise ConflictError(f"{study_id} is a study of the project {study.project}, the schedule of {row.project}")
    if not asks_the_same(row, study.spec):
        raise ConflictError(f"{study_id} asks another question than the schedule: a baseline must be a run of the same")
    if study.state != StudyState.COMPLETED:
        raise ConflictError(f"{study_id} is {study.state}: a baseline must have completed")
    set_baseline(session, row, study_id, pinned=True)
    _tell(session, "schedule.pin", row, {"study": study_id})


def unpin(session: Session, row: ScheduleRow) -> None:
    """Let the baseline go: by its policy the schedule takes the next one, or none under `pinned`."""
    for name, value in _no_baseline().items():
        setattr(row, name, value)
    session.flush()
    _tell(session, "schedule.unpin", row, {})


def set_baseline(session: Session, row: ScheduleRow, study_id: str, *, pinned: bool) -> None:
    """The baseline from now on."""
    row.baseline_study_id, row.baseline_pinned = study_id, pinned
    row.baseline_at = db_now()  # an SQL expression, evaluated at flush
    session.flush()
    session.refresh(row)


def remove(session: Session, row: ScheduleRow) -> None:
    """Delete a schedule with its nights; their studies stay, and one that runs goes on."""
    _tell(session, "schedule.delete", row, {"name": row.name})
    session.execute(delete_rows(ScheduleRow).where(ScheduleRow.id == row.id))


def due(session: Session, now: float) -> Sequence[str]:
    """Ids of the schedules with a slot up to `now` that nobody has looked at."""
    query = select(ScheduleRow.id).where(ScheduleRow.next_at <= now).order_by(ScheduleRow.next_at, ScheduleRow.id)
    return list(session.scalars(query))


def question(spec: Mapping[str, Any]) -> str:
    """What a study's document asks, whatever it is called: two runs of one question can be compared."""
    return digest({name: value for name, value in spec.items() if name not in _LABELS})


def asks_the_same(row: ScheduleRow, spec: Mapping[str, Any]) -> bool:
    """Whether a study's document asks what the schedule asks now."""
    if question(spec) == row.digest:
        return True
    # Or once both are spelled out: fields with defaults, which a later version has more of, change no question.
    return question(_spelled_out(spec)) == question(_spelled_out(row.spec))


def _spelled_out(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return parse_study(spec).model_dump(mode="json")
    except SpecError:  # of another version: what it says is all there is
        return spec


def _no_baseline() -> dict[str, Any]:
    return {"baseline_study_id": None, "baseline_at": None, "baseline_pinned": False}


def _tell(session: Session, action: str, row: ScheduleRow, details: Mapping[str, Any]) -> None:
    audit.record(session, action, row.id, project=row.project, details=dict(details))
