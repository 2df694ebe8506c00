"""Channels and the deliveries to them: the outbox of notifications. Callers own the transaction unless said otherwise.

Delivery is at least once: a message carries its delivery's id, by which receivers can tell a repetition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, or_, select, update
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from mutransfer.errors import ConflictError, NotFoundError
from service.db import audit, projects
from service.db.actors import current_actor
from service.db.session import Sessions, db_now, insert_new, reading, transact
from service.db.states_schedules import ChannelKind, DeliveryState, NightEvent
from service.db.tables_schedules import ChannelRow, DeliveryRow, ScheduleRow
from service.ids import new_id

PREFIX = "ch_"
LOG_KEPT = 20  # attempts
ERROR_CHARACTERS = 500


def create(session: Session, values: Mapping[str, Any]) -> ChannelRow:
    """Make a channel from its columns. Raises ConflictError when its project has one of that name."""
    projects.check_usable(session, values["project"])
    identity = new_id(PREFIX)
    if not insert_new(session, ChannelRow, {**values, "id": identity}):
        raise ConflictError(f"there is a channel {values['name']!r} in the project {values['project']} already")
    row = get(session, identity)
    _tell(session, "channel.create", row)
    return row


def get(session: Session, which: str) -> ChannelRow:
    """One channel by id or name. Raises NotFoundError, and ConflictError where several projects have that name."""
    column = ChannelRow.id if which.startswith(PREFIX) else ChannelRow.name
    rows = list(session.scalars(_visible().where(column == which).limit(2)))
    if not rows:
        raise NotFoundError(f"no channel {which}")
    if len(rows) > 1:
        raise ConflictError(f"several projects have a channel {which!r}: give its id")
    return rows[0]


def page(session: Session, *, project: str | None) -> list[ChannelRow]:
    """All channels, of one project or of all, by name."""
    query = _visible().order_by(ChannelRow.project, ChannelRow.name)
    return list(session.scalars(query if project is None else query.where(ChannelRow.project == project)))


def remove(session: Session, row: ChannelRow) -> None:
    """Delete a channel with its deliveries."""
    _tell(session, "channel.delete", row)
    session.execute(delete_rows(ChannelRow).where(ChannelRow.id == row.id))


def _visible() -> Select[ChannelRow]:
    bound = current_actor().project
    return select(ChannelRow) if bound is None else select(ChannelRow).where(ChannelRow.project == bound)


def _tell(session: Session, action: str, row: ChannelRow) -> None:
    audit.record(session, action, row.id, project=row.project, details={"name": row.name, "kind": row.kind})


def enqueue(session: Session, schedule: ScheduleRow, kind: NightEvent, event: str, payload: Mapping[str, Any]) -> int:
    """Queue a message for each channel of the schedule that wants `kind`, once for each. Returns how many are new."""
    query = select(ChannelRow).where(
        ChannelRow.project == schedule.project,
        or_(ChannelRow.schedule_id.is_(None), ChannelRow.schedule_id == schedule.id),
    )
    wanted = [row for row in session.scalars(query) if kind in row.events["of"]]
    return sum(add_delivery(session, row, event, payload) for row in wanted)


def add_delivery(session: Session, channel: ChannelRow, event: str, payload: Mapping[str, Any]) -> bool:
    """Queue one message for one channel. Returns whether it is new."""
    values = {
        "channel_id": channel.id, "project": channel.project, "event": event, "payload": dict(payload),
        "log": {"attempts": []},
    }  # fmt: skip
    return insert_new(session, DeliveryRow, values)


def delivery(session: Session, channel_id: str, event: str) -> DeliveryRow:
    """The delivery of one fact to one channel, which has been queued."""
    query = select(DeliveryRow).where(DeliveryRow.channel_id == channel_id, DeliveryRow.event == event)
    return session.scalars(query).one()


def deliveries(
    session: Session, *, channel_id: str | None, project: str | None, state: DeliveryState | None,
    before: int | None, limit: int,
) -> Sequence[tuple[DeliveryRow, ChannelRow]]:  # fmt: skip
    """Up to `limit` deliveries with their channels, newest first."""
    query = select(DeliveryRow, ChannelRow).join(ChannelRow, ChannelRow.id == DeliveryRow.channel_id)
    for column, value in (
        (DeliveryRow.channel_id, channel_id),
        (DeliveryRow.project, project),
        (DeliveryRow.project, current_actor().project),
        (DeliveryRow.state, state),
    ):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(DeliveryRow.id < before)
    return [(row, channel) for row, channel in session.execute(query.order_by(DeliveryRow.id.desc()).limit(limit))]


def send_again(session: Session, delivery_id: int) -> DeliveryRow:
    """Put a delivery back into the queue, due at once. Raises NotFoundError."""
    row = session.get(DeliveryRow, delivery_id)
    if row is None or current_actor().project not in (None, row.project):
        raise NotFoundError(f"no delivery {delivery_id}")
    row.state, row.done_at, row.attempts = DeliveryState.WAITING, None, 0
    row.next_at = db_now()  # an SQL expression, evaluated at flush
    session.flush()
    session.refresh(row)
    return row


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message to bring to one channel."""

    id: int
    event: str
    payload: Mapping[str, Any]
    attempts: int  # before this one
    kind: ChannelKind
    target: str
    secret: str


class Deliveries:
    """The notifier's side. Each call is a transaction of its own."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def due(self, *, limit: int = 50) -> list[int]:
        """Ids of waiting deliveries whose time has come, oldest first."""
        query = select(DeliveryRow.id).where(
            DeliveryRow.state == DeliveryState.WAITING, DeliveryRow.next_at <= db_now()
        )
        with reading(self._sessions) as session:
            return list(session.scalars(query.order_by(DeliveryRow.next_at, DeliveryRow.id).limit(limit)))

    def claim(self, delivery_id: int, hold_seconds: float) -> Delivery | None:
        """Take a delivery for so long: nobody else tries it meanwhile. None when somebody has it, or it is done."""
        taken = (
            update(DeliveryRow)
            .where(
                DeliveryRow.id == delivery_id, DeliveryRow.state == DeliveryState.WAITING,
                DeliveryRow.next_at <= db_now(),
            )
            .values(next_at=db_now() + hold_seconds)
            .returning(DeliveryRow.id)
        )  # fmt: skip

        def work(session: Session) -> Delivery | None:
            if session.scalar(taken) is None:
                return None
            query = select(DeliveryRow, ChannelRow).join(ChannelRow, ChannelRow.id == DeliveryRow.channel_id)
            row, channel = session.execute(query.where(DeliveryRow.id == delivery_id)).one()
            return Delivery(
                id=row.id, event=row.event, payload=row.payload, attempts=row.attempts,
                kind=ChannelKind(channel.kind), target=channel.target, secret=channel.secret,
            )  # fmt: skip

        return transact(self._sessions, work)

    def delivered(self, delivery_id: int, status: str) -> None:
        """Note that a message has arrived."""
        self._note(delivery_id, {"state": DeliveryState.DELIVERED, "done_at": db_now(), "error": ""}, status)

    def failed(self, delivery_id: int, error: str, *, delay_seconds: float | None) -> None:
        """Note an attempt that failed: again after `delay_seconds`, or never when that is None."""
        cut = error[:ERROR_CHARACTERS]
        if delay_seconds is None:
            values: dict[str, Any] = {"state": DeliveryState.GIVEN_UP, "done_at": db_now(), "error": cut}
        else:
            values = {"next_at": db_now() + delay_seconds, "error": cut}
        self._note(delivery_id, values, cut)

    def _note(self, delivery_id: int, values: Mapping[str, Any], said: str) -> None:
        def work(session: Session) -> None:
            row = session.get(DeliveryRow, delivery_id, with_for_update=True)
            if row is None:
                return  # its channel was deleted meanwhile
            row.attempts += 1
            at = session.scalar(select(db_now()))
            attempts = [*row.log.get("attempts", ()), {"at": at, "said": said}]
            row.log = {"attempts": attempts[-LOG_KEPT:]}
            for name, value in values.items():
                setattr(row, name, value)

        transact(self._sessions, work)
