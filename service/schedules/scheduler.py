"""The scheduler: fires slots, judges nights whose studies have ended, starts those that waited.

Any number may run on one database: each step takes the schedule's row, does its work and commits, and whoever comes
second finds it done. The clock is the database's.
"""

from collections.abc import Callable
import threading
import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
import structlog

from mutransfer.errors import SpecError, TransientError
from service.db import nights, schedules
from service.db.session import Sessions, db_now, is_transient, reading, transact
from service.db.tables_schedules import ScheduleRow
from service.loops import repeat
from service.notify.messages import announce_pause
from service.schedules import firing, judging

POLL_SECONDS = 1.0
REST_SECONDS = 60.0  # until a step that broke is tried again

Clock = Callable[[Session], float]
log = structlog.get_logger(__name__)


def database_clock(session: Session) -> float:
    """Seconds since the epoch by the database."""
    return float(session.scalar(select(db_now())) or 0.0)


class Scheduler:
    """One scheduler over one database."""

    def __init__(self, sessions: Sessions, *, clock: Clock = database_clock) -> None:
        self._sessions = sessions
        self._clock = clock
        self._rests: dict[str, float] = {}  # steps that broke, each with the time.monotonic() of its next attempt

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        log.info("scheduler started")
        repeat(self.tick, stop=stop, every_seconds=POLL_SECONDS)
        log.info("scheduler stopped")

    def tick(self) -> None:
        """One round; a step that breaks stops no other. Raises TransientError when the database does not answer."""
        with reading(self._sessions) as session:
            due = schedules.due(session, self._clock(session))
            over, waiting = nights.over(session), nights.waiting(session)
        for night_id, schedule_id in over:
            self._step(f"settle night {night_id}", self._settle, night_id, schedule_id)
        for schedule_id in waiting:
            self._step(f"start the night that waits of {schedule_id}", self._start_waiting, schedule_id)
        for schedule_id in due:
            self._step(f"fire {schedule_id}", self._fire, schedule_id)

    def _step(self, what: str, work: Callable[..., None], *ids: Any) -> None:
        if self._rests.get(what, 0.0) > time.monotonic():
            return
        try:
            work(*ids)
        except TransientError:
            raise  # the database is away, for every step
        except Exception as error:  # the edge of this process: a fault of one night must not stop all others
            if isinstance(error, DBAPIError) and is_transient(error):
                raise
            log.exception("a step broke", step=what, again_in_seconds=REST_SECONDS)
            self._rests[what] = time.monotonic() + REST_SECONDS
        else:
            self._rests.pop(what, None)

    def _settle(self, night_id: int, schedule_id: str) -> None:
        if judging.settle(self._sessions, night_id, schedule_id):
            log.info("night settled", schedule=schedule_id, night=night_id)

    def _start_waiting(self, schedule_id: str) -> None:
        transact(self._sessions, lambda session: firing.start_waiting(session, schedule_id))

    def _fire(self, schedule_id: str) -> None:
        try:
            night = transact(
                self._sessions, lambda session: firing.fire(session, schedule_id, self._clock(session))
            )  # fmt: skip
        except SpecError as error:  # stored by another version, or time zones have changed: the others must go on
            log.error("schedule cannot be read: paused", schedule=schedule_id, error=str(error))
            why = str(error)
            transact(self._sessions, lambda session: _pause(session, schedule_id, why))
            return
        if night is not None:
            log.info("night fired", schedule=schedule_id, night=night.id, state=night.state, study=night.study_id)


def _pause(session: Session, schedule_id: str, why: str) -> None:
    row = session.get(ScheduleRow, schedule_id, with_for_update=True)
    if row is not None and row.next_at is not None:
        announce_pause(session, row, why)
        row.next_at = None
