"""Projects: make, look up, set limits. Callers own the transaction. A project is never removed."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from mutransfer.errors import AccessError, NotFoundError, SpecError
from service.db import audit
from service.db.actors import current_actor
from service.db.session import insert_new
from service.db.states import Scope
from service.db.tables_access import DEFAULT_PROJECT, ProjectRow

Limits = Mapping[str, float | int | None]  # columns of ProjectRow that limit a project


def get(session: Session, name: str) -> ProjectRow:
    """One project. Raises NotFoundError, also for one that the acting caller may not see."""
    bound = current_actor().project
    row = session.get(ProjectRow, name) if bound in (None, name) else None
    if row is None:
        raise NotFoundError(f"no project {name}")
    return row


def page(session: Session, *, after: str | None, limit: int) -> list[ProjectRow]:
    """Up to `limit` projects beyond the name `after`, by name."""
    query = select(ProjectRow).order_by(ProjectRow.name).limit(limit)
    if (bound := current_actor().project) is not None:
        query = query.where(ProjectRow.name == bound)
    if after is not None:
        query = query.where(ProjectRow.name > after)
    return list(session.scalars(query))


def ensure(session: Session, name: str) -> bool:
    """Make a project without limits unless it exists. Returns whether it is new."""
    return insert_new(session, ProjectRow, {"name": name})


def put(session: Session, name: str, limits: Limits) -> tuple[ProjectRow, bool]:
    """Make a project or change its limits; those that `limits` leaves out stay. Returns it, and whether it is new."""
    is_new = ensure(session, name)
    row = session.get(ProjectRow, name, with_for_update=True, populate_existing=True)
    assert row is not None  # noqa: S101 - it was there or has just been made
    changed = {column: value for column, value in limits.items() if getattr(row, column) != value}
    for column, value in changed.items():
        setattr(row, column, value)
    if is_new or changed:
        audit.record(session, "project.create" if is_new else "project.set", name, project=name, details=changed)
    session.flush()
    return row, is_new


def check_usable(session: Session, name: str) -> None:
    """That the acting caller may submit to a project; one who may make projects makes it by naming it.

    Raises AccessError, and SpecError for an unknown project.
    """
    actor = current_actor()
    if actor.project not in (None, name):
        raise AccessError(f"this token is bound to the project {actor.project}: say `project: {actor.project}`")
    if session.get(ProjectRow, name) is not None:
        return
    if not actor.scope.allows(Scope.ADMIN):
        known = f"have it made with `mutransfer project set {name}`, or leave `project` out for {DEFAULT_PROJECT!r}"
        raise SpecError.at("project", f"there is no project {name!r}: {known}")
    put(session, name, {})
