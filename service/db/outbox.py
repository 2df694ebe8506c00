"""The outbox: what the exporter still has to tell the outside. Written in the transaction of the fact itself.

Delivery is at least once: the receiver finds or creates by (study, key). An outage only makes messages wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.db.session import Sessions, db_now, execute, insert_all_new, insert_new, reading
from service.db.tables import OutboxRow

#: A message is tried again after this at the latest.
LONGEST_DELAY_SECONDS = 15.0


class OutboxKind(StrEnum):
    """What is told. `key` is the trial's for TRIAL_RESULT, else `message_key` of the study's revision."""

    STUDY_STARTED = "study_started"
    TRIAL_RESULT = "trial_result"  # one a study and trial, reused trials included
    STUDY_FINISHED = "study_finished"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message to deliver. Messages of a study are delivered in the order of their ids."""

    id: int
    kind: OutboxKind
    study_id: str
    key: str
    payload: Mapping[str, Any]
    attempts: int
    created_at: float


def message_key(revision: int) -> str:
    """The key of a study's own messages: a study that was retried or extended starts and ends again."""
    return "" if revision == 1 else f"r{revision}"


def add_message(
    session: Session, kind: OutboxKind, study_id: str, *, key: str = "", payload: Mapping[str, Any] | None = None
) -> bool:
    """Enqueue a message, once for each (study, kind, key). Returns whether it is new."""
    values = {"kind": kind, "study_id": study_id, "key": key, "payload": dict(payload or {})}
    return insert_new(session, OutboxRow, values)


def add_messages(
    session: Session, kind: OutboxKind, study_id: str, payloads: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Enqueue a message for each key, once for each (study, kind, key). Returns the keys of the new ones."""
    rows = [
        {"kind": kind, "study_id": study_id, "key": key, "payload": dict(payload)} for key, payload in payloads.items()
    ]
    return insert_all_new(session, OutboxRow, rows, OutboxRow.key)


class Outbox:
    """The exporter's side."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def due(self, *, limit: int = 100) -> list[Message]:
        """Undelivered messages whose time has come, oldest first.

        A message waits behind an earlier one of its study that is being retried, so that order holds. One that is to
        wait longer than any may was written before the clock was moved back, and is due.
        """
        waits = OutboxRow.next_at.between(db_now(), db_now() + LONGEST_DELAY_SECONDS)
        first = (
            select(OutboxRow.study_id, func.min(OutboxRow.id).label("id"))
            .where(OutboxRow.done_at.is_(None), waits)
            .group_by(OutboxRow.study_id)
            .subquery()
        )
        query = (
            select(OutboxRow)
            .outerjoin(first, first.c.study_id == OutboxRow.study_id)
            .where(OutboxRow.done_at.is_(None), ~waits)
            .where(first.c.id.is_(None) | (OutboxRow.id < first.c.id))
            .order_by(OutboxRow.id)
            .limit(limit)
        )
        with reading(self._sessions) as session:
            return [_message(row) for row in session.scalars(query)]

    def done(self, message_id: int) -> None:
        """Mark a message as delivered."""
        statement = update(OutboxRow).where(OutboxRow.id == message_id).values(done_at=db_now(), error="")
        execute(self._sessions, statement)

    def retry(self, message_id: int, *, error: str, delay_seconds: float) -> None:
        """Note a failed delivery and try again after `delay_seconds`, LONGEST_DELAY_SECONDS at most."""
        if delay_seconds > LONGEST_DELAY_SECONDS:
            raise ValueError(f"{delay_seconds:g} s is longer than {LONGEST_DELAY_SECONDS:g} s: `due` would not wait")
        statement = (
            update(OutboxRow)
            .where(OutboxRow.id == message_id)
            .values(attempts=OutboxRow.attempts + 1, error=error, next_at=db_now() + delay_seconds)
        )
        execute(self._sessions, statement)

    def undelivered(self, study_id: str | None = None) -> int:
        """How many messages wait, of one study or of all."""
        query = select(func.count()).select_from(OutboxRow).where(OutboxRow.done_at.is_(None))
        with reading(self._sessions) as session:
            return session.scalar(query.where(OutboxRow.study_id == study_id) if study_id else query) or 0


def _message(row: OutboxRow) -> Message:
    return Message(
        id=row.id, kind=OutboxKind(row.kind), study_id=row.study_id, key=row.key, payload=row.payload,
        attempts=row.attempts, created_at=row.created_at,
    )  # fmt: skip
