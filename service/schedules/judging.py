"""From a night whose study has ended to its judgement, its baseline's fate and the messages that tell of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.orm import Session

from mutransfer.errors import MutransferError
from mutransfer.nights import Judgement, NightData, Sensitivity
from mutransfer.regression import judge_night
from mutransfer.result import Outcome
from service.db import night_data, nights, schedules
from service.db.night_data import past_speeds
from service.db.session import Sessions, reading, transact
from service.db.states import StudyState
from service.db.states_schedules import BaselinePolicy, NightEvent, NightState
from service.db.tables_schedules import NightRow, ScheduleRow
from service.notify.messages import announce

OTHER_QUESTION = "its study asks another question than the schedule does now: compared with nothing"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a night came to, worked out before anything is written. `error`: why it cannot be judged.

    `baseline_study_id` is the schedule's of then; a night of another question is not compared with it.
    """

    baseline_study_id: str | None
    asks_the_same: bool = True
    judgement: Judgement | None = None
    drifting: bool | None = None
    error: str = ""


def settle(sessions: Sessions, night_id: int, schedule_id: str) -> bool:
    """Judge a running night whose study has ended. False when it has been settled meanwhile, or must be judged anew.

    The judgement is worked out on a snapshot; it is written only if the night still runs and has the same baseline.
    """
    with reading(sessions) as session:
        found = _work_out(session, night_id, schedule_id)
    return found is not None and transact(sessions, lambda session: _write(session, night_id, schedule_id, found))


def _work_out(session: Session, night_id: int, schedule_id: str) -> Settled | None:
    schedule, night = session.get(ScheduleRow, schedule_id), session.get(NightRow, night_id)
    if schedule is None or night is None or night.state != NightState.RUNNING:
        return None
    study = nights.study_of(session, night)
    base = schedule.baseline_study_id
    if study is None or study.state != StudyState.COMPLETED:
        why = "its study was deleted" if study is None else f"its study {study.state}"
        detail = f": {study.error.splitlines()[-1][:500]}" if study is not None and study.error else ""
        return Settled(baseline_study_id=base, error=why + detail)
    same = schedules.asks_the_same(schedule, study.spec)
    compared = base if same else None
    try:
        measured = night_data.night_data(session, study.id)
        before = _baseline(session, compared)
        past = past_speeds(session, schedule.id, compared) if compared else {}
        judgement = _judge(measured, before, schedule, past)
    except MutransferError as error:
        return Settled(baseline_study_id=base, error=f"it could not be compared: {error}")
    except ValidationError as error:
        return Settled(baseline_study_id=base, error=_unreadable(error, compared))
    drifting = any(arm.verdict.outcome is Outcome.DRIFTS for arm in measured.result.arms)
    return Settled(baseline_study_id=base, asks_the_same=same, judgement=judgement, drifting=drifting)


def _unreadable(error: ValidationError, baseline: str | None) -> str:
    """Why results that another version has stored cannot be compared, and what helps."""
    first = error.errors()[0]
    where = ".".join([error.title, *(str(part) for part in first["loc"])])
    against = f", or of the nights against {baseline}: `schedules unpin` lets that baseline go" if baseline else ""
    return f"it could not be compared: this version cannot read {where} ({first['msg']}) of its study{against}"


def _baseline(session: Session, study_id: str | None) -> NightData | None:
    return None if study_id is None else night_data.night_data(session, study_id)


def _judge(
    night: NightData, baseline: NightData | None, schedule: ScheduleRow, past: Mapping[str, list[float]]
) -> Judgement:  # fmt: skip
    sensitivity = Sensitivity.model_validate(schedule.sensitivity)
    return judge_night(night, baseline, sensitivity=sensitivity, past=past)


def _write(session: Session, night_id: int, schedule_id: str, found: Settled) -> bool:
    schedule = session.get(ScheduleRow, schedule_id, with_for_update=True, populate_existing=True)
    night = session.get(NightRow, night_id, populate_existing=True)
    if schedule is None or night is None or night.state != NightState.RUNNING:
        return False
    if schedule.baseline_study_id != found.baseline_study_id:
        return False  # pinned or let go meanwhile: the next round compares with what holds now
    study = nights.study_of(session, night)
    same = study is not None and schedules.asks_the_same(schedule, study.spec)
    if found.judgement is not None and (study is None or same is not found.asks_the_same):
        return False  # the template was changed meanwhile, or the study deleted
    previous = nights.before(session, night)
    if found.judgement is None:
        nights.move(night, NightState.FAILED, reason=found.error)
        session.flush()
        announce(session, schedule, night, NightEvent.FAILED)
        return True
    night.judgement = found.judgement.model_dump(mode="json")
    night.baseline_study_id = found.baseline_study_id if found.asks_the_same else None
    night.flagged, night.drifting = found.judgement.flagged, found.drifting
    nights.move(night, NightState.JUDGED, reason="" if found.asks_the_same else OTHER_QUESTION)
    session.flush()
    announce(session, schedule, night, _event(night, previous))
    if found.asks_the_same:
        _promote(session, schedule, night)
    return True


def _event(night: NightRow, previous: NightRow | None) -> NightEvent:
    if night.flagged:
        return NightEvent.FLAGGED
    bad = previous is not None and (previous.flagged or previous.state == NightState.FAILED)
    return NightEvent.RECOVERED if bad else NightEvent.CLEAN


def _promote(session: Session, schedule: ScheduleRow, night: NightRow) -> None:
    """Let the night become the baseline where the policy says so and nobody has pinned one."""
    policy = BaselinePolicy(schedule.baseline_policy)
    if schedule.baseline_pinned or policy is BaselinePolicy.PINNED or night.study_id is None:
        return
    is_first = schedule.baseline_study_id is None
    is_settled = policy is BaselinePolicy.PROMOTE and _clean_run(session, schedule) >= schedule.promote_after
    if is_first or is_settled:
        schedules.set_baseline(session, schedule, night.study_id, pinned=False)


def _clean_run(session: Session, schedule: ScheduleRow) -> int:
    """How many nights in a row, the newest included, had no flag against the present baseline."""
    clean = 0
    for row in nights.judged(session, schedule.id, limit=schedule.promote_after):
        if row.flagged or row.baseline_study_id != schedule.baseline_study_id:
            break
        clean += 1
    return clean
