"""What is told of a night, and to whom: written to the deliveries in the transaction of the fact itself."""

from typing import Any

from sqlalchemy.orm import Session

from mutransfer.nights import Judgement
from service.db import channels
from service.db.states_schedules import NightEvent
from service.db.tables_schedules import NightRow, ScheduleRow
from service.schedules.slots import local_time

MAX_FLAGS = 20
WORDS = {
    NightEvent.FLAGGED: "differs from its baseline",
    NightEvent.FAILED: "failed",
    NightEvent.RECOVERED: "is clean again",
    NightEvent.CLEAN: "is clean",
}


def announce(session: Session, schedule: ScheduleRow, night: NightRow, event: NightEvent) -> None:
    """Queue what a night came to for every channel that wants to hear of it."""
    channels.enqueue(session, schedule, event, f"night/{night.id}/{event}", night_message(schedule, night, event))


def night_message(schedule: ScheduleRow, night: NightRow, event: NightEvent) -> dict[str, Any]:
    """The message as JSON, in the form that webhooks get. `links` are paths of the service."""
    judgement = Judgement.model_validate(night.judgement) if night.judgement else None
    reasons = [reason for reason in (night.reason, *(judgement.flags if judgement else ())) if reason]
    when = local_time(night.fire_at, schedule.time_zone)
    title = f"{schedule.name}: the night of {when} {WORDS[event]}"
    return {
        "version": 1,
        "event": f"night.{event}",
        "title": title,
        "reasons": reasons[:MAX_FLAGS],
        "more_reasons": max(0, len(reasons) - MAX_FLAGS),
        "schedule": {"id": schedule.id, "name": schedule.name, "project": schedule.project},
        "night": {"id": night.id, "fire_at": night.fire_at, "local_time": when, "state": str(night.state)},
        "study": night.study_id,
        "baseline_study": night.baseline_study_id,
        "drifting": night.drifting,
        "links": {
            "night": f"/schedules/{schedule.id}?night={night.id}",
            "study": f"/studies/{night.study_id}" if night.study_id else None,
        },
    }


def announce_pause(session: Session, schedule: ScheduleRow, why: str) -> None:
    """Queue, for every channel that wants to hear of failures, that a schedule fires no more. Call before it is paused.

    Times are UTC: the schedule's own zone may be what cannot be read.
    """
    message = {
        "version": 1, "event": "schedule.paused", "title": f"{schedule.name}: paused, its slots cannot be read",
        "reasons": [why], "more_reasons": 0,
        "schedule": {"id": schedule.id, "name": schedule.name, "project": schedule.project}, "night": None,
        "study": None, "baseline_study": schedule.baseline_study_id, "drifting": None,
        "links": {"night": f"/schedules/{schedule.id}", "study": None},
    }  # fmt: skip
    channels.enqueue(
        session, schedule, NightEvent.FAILED, f"schedule/{schedule.id}/paused/{schedule.next_at}", message
    )  # fmt: skip


def test_message(name: str, project: str) -> dict[str, Any]:
    """What a channel gets when somebody wants to see whether it works."""
    return {
        "version": 1, "event": "test", "title": f"mutransfer: a test of the channel {name}", "reasons": [],
        "more_reasons": 0, "schedule": {"id": None, "name": None, "project": project}, "night": None, "study": None,
        "baseline_study": None, "drifting": None, "links": {"night": "/schedules", "study": None},
    }  # fmt: skip
