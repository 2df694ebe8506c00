"""The audit log: who changed what and when. An entry is written in the transaction of the change that it tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.actors import current_actor
from service.db.tables_access import AuditRow


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """What of the log is asked for; None is no restriction. `before`: ids below this one."""

    project: str | None = None
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    before: int | None = None


def record(
    session: Session, action: str, target: str, *, project: str | None = None, details: Mapping[str, Any] | None = None,
    outcome: str = "done",
) -> None:  # fmt: skip
    """Note that the acting caller did `action` (`study.cancel`) to `target` (an id or a name)."""
    actor = current_actor()
    row = AuditRow(
        actor=actor.id, actor_name=actor.name, action=action, target=target, project=project, outcome=outcome,
        request_id=actor.request_id, details=dict(details or {}),
    )  # fmt: skip
    session.add(row)


def page(session: Session, wanted: AuditFilter, *, limit: int) -> list[AuditRow]:
    """Up to `limit` entries, newest first."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    for column, value in (
        (AuditRow.project, wanted.project),
        (AuditRow.actor, wanted.actor),
        (AuditRow.action, wanted.action),
        (AuditRow.target, wanted.target),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.before is not None:
        query = query.where(AuditRow.id < wanted.before)
    return list(session.scalars(query))
