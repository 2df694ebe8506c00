"""The scheduler: fires slots, judges nights whose studies have ended, starts those that waited.

Any number may run on one database: each step takes the schedule's row, does its work and commits, and whoever comes
second finds it done. The clock is the database's.
"""

from collections.abc import Callable
from functools import partial
import threading

from sqlalchemy import select
from sqlalchemy.orm import Session
import structlog

from mutransfer.errors import SpecError
from service.db import nights, schedules
from service.db.session import Sessions, db_now, reading, transact
from service.db.tables_schedules import ScheduleRow
from service.loops import repeat
from service.schedules import firing, judging

POLL_SECONDS = 1.0

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

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        log.info("scheduler started")
        repeat(self.tick, stop=stop, every_seconds=POLL_SECONDS)
        log.info("scheduler stopped")

    def tick(self) -> None:
        """One round. Raises TransientError when the database does not answer."""
        with reading(self._sessions) as session:
            due = schedules.due(session, self._clock(session))
            over, waiting = nights.over(session), nights.waiting(session)
        for night_id, schedule_id in over:
            if judging.settle(self._sessions, night_id, schedule_id):
                log.info("night settled", schedule=schedule_id, night=night_id)
        for schedule_id in waiting:
            transact(self._sessions, partial(firing.start_waiting, schedule_id=schedule_id))
        for schedule_id in due:
            self._fire(schedule_id)

    def _fire(self, schedule_id: str) -> None:
        try:
            night = transact(
                self._sessions, lambda session: firing.fire(session, schedule_id, self._clock(session))
            )  # fmt: skip
        except SpecError as error:  # stored by another version, or time zones have changed: the others must go on
            log.error("schedule cannot be read: paused", schedule=schedule_id, error=str(error))
            transact(self._sessions, lambda session: _pause(session, schedule_id))
            return
        if night is not None:
            log.info("night fired", schedule=schedule_id, night=night.id, state=night.state, study=night.study_id)


def _pause(session: Session, schedule_id: str) -> None:
    row = session.get(ScheduleRow, schedule_id, with_for_update=True)
    if row is not None:
        row.next_at = None
