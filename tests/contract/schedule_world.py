"""A schedule, a scheduler and a clock for tests on both databases."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import select

from mutransfer.spec import StudySpec
from service.db import schedules
from service.db.driver_store import DriverStore
from service.db.session import Sessions, reading, transact
from service.db.tables_schedules import DeliveryRow, NightRow, ScheduleRow
from service.schedules.firing import run_now
from service.schedules.scheduler import Scheduler
from service.schedules.slots import Slots
from tests import study_builders as build
from tests.integration.api_fixtures import finish_study

START = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC
DAY = 86_400.0


class Nights:
    """A schedule, a scheduler and a clock that only the test moves."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.now = START
        self.scheduler = Scheduler(sessions, clock=lambda _session: self.now)

    def make(self, **changes: Any) -> str:
        spec = build.spec()
        values: dict[str, Any] = {
            "name": "nightly", "project": spec.project, "cron": "30 2 * * *", "time_zone": "UTC",
            "spec": spec.model_dump(mode="json"), "sensitivity": {},
            "next_at": Slots(cron="30 2 * * *", time_zone="UTC").after(self.now),
        }  # fmt: skip
        return transact(self.sessions, lambda s: schedules.create(s, values | changes).id)

    def pass_days(self, days: float) -> None:
        self.now += days * DAY
        self.scheduler.tick()

    def rows(self) -> list[NightRow]:
        with reading(self.sessions) as session:
            return list(session.scalars(select(NightRow).order_by(NightRow.id)))

    def states(self) -> list[str]:
        return [row.state for row in self.rows()]

    def schedule(self, which: str = "nightly") -> ScheduleRow:
        with reading(self.sessions) as session:
            return schedules.get(session, which)

    def run(self) -> NightRow:
        return transact(self.sessions, lambda s: run_now(s, schedules.get(s, "nightly", lock=True), self.now))

    def finish(self, drive: Callable[[], DriverStore]) -> str:
        store = drive()
        finish_study(store)
        self.scheduler.tick()
        return store.study().id

    def messages(self) -> list[Any]:
        with reading(self.sessions) as session:
            return [row.payload for row in session.scalars(select(DeliveryRow).order_by(DeliveryRow.id))]

    def events(self) -> list[str]:
        return [message["event"] for message in self.messages()]

    def pin(self, study: str, which: str = "nightly") -> None:
        transact(self.sessions, lambda s: schedules.pin(s, schedules.get(s, which, lock=True), study))

    def change(self, spec: StudySpec, which: str = "nightly") -> None:
        changes = {"spec": spec.model_dump(mode="json")}
        transact(self.sessions, lambda s: schedules.change(s, schedules.get(s, which, lock=True), changes))


def channel(events: list[str]) -> dict[str, Any]:
    """The columns of a webhook that nobody answers."""
    return {
        "name": "ops", "project": build.spec().project, "kind": "webhook", "target": "http://127.0.0.1:1/",
        "events": {"of": events},
    }  # fmt: skip
