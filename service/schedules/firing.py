"""From a slot that has come to a study that is queued. Every function runs in the caller's transaction.

Whoever fires locks the schedule's row first: two schedulers take turns, and the second finds the slot gone. Night and
study are written together, so that a crash leaves both or neither.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from mutransfer.errors import ConflictError, MutransferError, TransientError
from mutransfer.spec import parse_study
from service.db import nights, studies
from service.db.states import StudyState
from service.db.states_schedules import Concurrency, NightEvent, NightState
from service.db.studies import Submission
from service.db.tables_schedules import NightRow, ScheduleRow
from service.notify.messages import announce
from service.schedules.slots import Slots, local_time
from service.studies.checks import estimate_study


def fire(session: Session, schedule_id: str, now: float) -> NightRow | None:
    """Give the newest slot up to `now` its night; older ones that nobody was there for are counted, not run.

    None when there is no slot any more: another scheduler had it, or the schedule was paused or deleted.
    """
    schedule = _locked(session, schedule_id)
    if schedule is None or schedule.next_at is None or schedule.next_at > now:
        return None
    slots = slots_of(schedule)
    fire_at, missed = slots.due(schedule.next_at, now)
    schedule.next_at = slots.after(max(now, fire_at))
    session.flush()
    if nights.exists(session, schedule.id, fire_at):
        return None
    night = nights.add(session, schedule, fire_at, missed=missed)
    _admit(session, schedule, night)
    return night


def run_now(session: Session, schedule: ScheduleRow, now: float) -> NightRow:
    """A night outside the slots, of a schedule that the caller has locked. Paused ones run too.

    Raises ConflictError where a slot would be skipped or its study is refused: a person should be told rather than
    served nothing.
    """
    night = nights.add(session, schedule, now, manual=True)
    _admit(session, schedule, night)
    if night.state in (NightState.SKIPPED, NightState.FAILED):
        raise ConflictError(night.reason)
    return night


def start_waiting(session: Session, schedule_id: str) -> NightRow | None:
    """Start the waiting night of a schedule if nothing of it runs any more."""
    schedule = _locked(session, schedule_id)
    if schedule is None:
        return None
    active = nights.active(session, schedule.id)
    if not active or any(night.state == NightState.RUNNING for night in active):
        return None
    _start(session, schedule, active[0])
    return active[0]


def slots_of(schedule: ScheduleRow) -> Slots:
    """The slots of a schedule. Raises SpecError for an expression that this version no longer takes."""
    return Slots(cron=schedule.cron, time_zone=schedule.time_zone)


def nonce_of(night: NightRow) -> str:
    """What makes every trial of a night run anew: the fire time."""
    return f"night {local_time(night.fire_at, 'UTC')}" + (f" by hand {night.id}" if night.manual else "")


def _locked(session: Session, schedule_id: str) -> ScheduleRow | None:
    return session.get(ScheduleRow, schedule_id, with_for_update=True, populate_existing=True)


def _admit(session: Session, schedule: ScheduleRow, night: NightRow) -> None:
    """Start, keep or skip a new night, as the schedule's concurrency policy says."""
    others = [other for other in nights.active(session, schedule.id) if other.id != night.id]
    if not others:
        _start(session, schedule, night)
        return
    busy = f"the night of {local_time(others[0].fire_at, schedule.time_zone)} had not ended"
    if schedule.concurrency == Concurrency.REPLACE:
        _end_others(session, schedule, others, night)
        _start(session, schedule, night)
    elif schedule.concurrency == Concurrency.QUEUE and not any(o.state == NightState.WAITING for o in others):
        night.reason = f"waits: {busy}"
    else:
        waits = " and another one waited" if len(others) > 1 else ""
        nights.move(night, NightState.SKIPPED, reason=busy + waits)
    session.flush()


def _start(session: Session, schedule: ScheduleRow, night: NightRow) -> None:
    """Submit the study of a waiting night; one that is refused fails, and its people are told why."""
    try:
        with session.begin_nested():
            spec = parse_study(schedule.spec)
            submission = Submission(
                spec=spec, trials_expected=estimate_study(spec).trials_expected, nonce=nonce_of(night)
            )  # fmt: skip
            night.study_id = studies.accept(session, submission).id
    except TransientError:
        raise
    except MutransferError as error:
        nights.move(night, NightState.FAILED, reason=f"its study was refused: {error}")
        session.flush()
        announce(session, schedule, night, NightEvent.FAILED)
    else:
        night.reason = ""
        nights.move(night, NightState.RUNNING)
    session.flush()


def _end_others(session: Session, schedule: ScheduleRow, others: Sequence[NightRow], night: NightRow) -> None:
    reason = f"replaced by the night of {local_time(night.fire_at, schedule.time_zone)}"
    for other in others:
        if other.state == NightState.WAITING:
            nights.move(other, NightState.SKIPPED, reason=reason)
            continue
        study = nights.study_of(session, other)
        if study is not None and not StudyState(study.state).is_final:
            studies.cancel(session, study.id)
            nights.move(other, NightState.FAILED, reason=reason)
