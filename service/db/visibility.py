"""Callers that are bound to one project see nothing of others, whatever a page or a route asks for.

Every ORM query of a session is narrowed here, so that no place can forget to: rows with a `project` by that, rows of a
schedule or a study by its. What belongs to no project (trials, which studies of several projects may share) is reached
through rows that do.
"""

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from service.db.actors import current_actor
from service.db.base import Base

# A key that another project used must be found, so that it can be refused.
SEEN_BY_ALL = ("idempotency",)


def narrow(state: ORMExecuteState) -> None:
    """Listener of `do_orm_execute`: leave out of a query what the acting caller may not see."""
    project = current_actor().project
    if project is not None and state.is_select:
        state.statement = state.statement.options(*_criteria(project))


@lru_cache(maxsize=256)
def _criteria(project: str) -> Sequence[ExecutableOption]:
    rows = {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}
    study = rows["studies"]
    own = select(study.__table__.c.id).where(study.__table__.c.project == project)
    schedule = rows["schedules"].__table__
    scheduled = select(schedule.c.id).where(schedule.c.project == project)
    options: list[ExecutableOption] = [with_loader_criteria(rows["projects"], rows["projects"].name == project)]
    for table, row in rows.items():
        if table in SEEN_BY_ALL:
            continue
        if hasattr(row, "project"):
            options.append(with_loader_criteria(row, row.project == project))
        elif hasattr(row, "schedule_id"):  # a night without a study is its schedule's all the same
            options.append(with_loader_criteria(row, row.schedule_id.in_(scheduled)))
        elif hasattr(row, "study_id"):
            options.append(with_loader_criteria(row, row.study_id.in_(own)))
    return tuple(options)
