"""The events of a study: what its page and its watchers are told, in the order it happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from service.db.tables import EventRow

PAGE = 500  # events read at once unless told otherwise


class EventKind(StrEnum):
    """Everything that is told."""

    SUBMITTED = "submitted"
    RUNNING = "running"  # a driver has started
    FACTS = "facts"  # data and environment are known
    PHASE_STARTED = "phase_started"
    PHASE_FINISHED = "phase_finished"
    TRIAL_STARTED = "trial_started"
    TRIAL_RESULT = "trial_result"
    TRIAL_FAILED = "trial_failed"
    DRIVER_FAILED = "driver_failed"  # a driver died; payload: epoch, exit_status, progress
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLING = "cancelling"
    FINISHED = "finished"  # payload.state: completed, failed or cancelled; nothing follows but REOPENED
    REOPENED = "reopened"  # payload: by (retry, trial or extend), revision, what changed, the rates recorded so far


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event. `id` rises within a study; `at` is in seconds since the epoch."""

    id: int
    kind: EventKind
    payload: Mapping[str, Any]
    at: float


def add_event(session: Session, study_id: str, kind: EventKind, payload: Mapping[str, Any] | None = None) -> None:
    """Append an event. The caller holds the study's lease row (`leases.guard` or `leases.lock`)."""
    session.add(EventRow(study_id=study_id, kind=kind, payload=dict(payload or {})))


def add_events(session: Session, study_id: str, kind: EventKind, payloads: Sequence[Mapping[str, Any]]) -> None:
    """Append several events of one kind, in their order, in one statement. The caller holds the lease row."""
    if payloads:
        rows = [{"study_id": study_id, "kind": kind, "payload": dict(payload)} for payload in payloads]
        session.execute(insert(EventRow), rows)


def events_after(session: Session, study_id: str, after: int, *, limit: int | None = None) -> list[Event]:
    """Events of a study with an id above `after`, oldest first."""
    rows = session.scalars(
        select(EventRow)
        .where(EventRow.study_id == study_id, EventRow.id > after)
        .order_by(EventRow.id)
        .limit(limit or PAGE)
    )
    return [Event(id=row.id, kind=EventKind(row.kind), payload=row.payload, at=row.at) for row in rows]


def last_event(session: Session, study_id: str) -> int:
    """The newest event's id, 0 before the first."""
    return session.scalar(select(func.max(EventRow.id)).where(EventRow.study_id == study_id)) or 0
