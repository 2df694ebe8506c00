"""Writes to trials. A trial belongs to no study: its content key does, so a result found once serves everyone.

All functions run inside a transaction that holds the study's lease row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from mutransfer.errors import NotFoundError
from mutransfer.trial import TrialResult, TrialSpec
from service.db.events import EventKind, add_event
from service.db.outbox import OutboxKind, add_message
from service.db.session import db_now, insert_new
from service.db.states import TrialState
from service.db.tables import StudyTrialRow, TrialRow

if TYPE_CHECKING:
    from service.db.driver_store import PlannedTrial

CHUNK = 500  # keys a statement, far below either database's limit on parameters
TRACEBACK_CHARACTERS = 20_000
T = TypeVar("T")


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """`items` in lists of at most CHUNK."""
    iterator = iter(items)
    while found := list(islice(iterator, CHUNK)):
        yield found


def plan(session: Session, study_id: str, phase: str, planned: Sequence["PlannedTrial"]) -> Mapping[str, TrialResult]:
    """Note that `phase` of a study uses trials; returns the results that are known already, by key."""
    keys = sorted({trial.key for trial in planned})
    for trial in sorted(planned, key=lambda trial: trial.key):  # one order for all: no deadlock between studies
        insert_new(session, TrialRow, {"key": trial.key, "spec": trial.spec.model_dump(mode="json")})
    rows = {row.key: row for part in chunks(keys) for row in _locked(session, part)}
    used = {key: reused for part in chunks(keys) for key, reused in _uses(session, study_id, part)}
    known = {key: TrialResult.model_validate(row.result) for key, row in rows.items() if row.result is not None}
    for trial in planned:
        values = {
            "study_id": study_id, "phase": phase, "arm": trial.request.arm, "axis_value": trial.request.axis_value,
            "lr_octaves": trial.request.lr_octaves, "seed": trial.request.seed, "trial_key": trial.key,
            "reused": used.get(trial.key, trial.key in known),
        }  # fmt: skip
        insert_new(session, StudyTrialRow, values)
    for key in keys:
        if key not in used:
            _adopt(session, study_id, rows[key])
    return known


def _adopt(session: Session, study_id: str, row: TrialRow) -> None:
    """A study uses a trial for the first time: an old result is told, an old failure is forgiven."""
    if row.result is not None:
        _tell_result(session, study_id, row, reused=True)
    elif row.status == TrialState.FAILED:
        row.status, row.attempts, row.traceback = TrialState.PLANNED, 0, ""


def _locked(session: Session, keys: Sequence[str]) -> Sequence[TrialRow]:
    query = select(TrialRow).where(TrialRow.key.in_(keys)).order_by(TrialRow.key).with_for_update()
    return session.scalars(query).all()


def _uses(session: Session, study_id: str, keys: Sequence[str]) -> Iterator[tuple[str, bool]]:
    query = select(StudyTrialRow.trial_key, StudyTrialRow.reused).where(
        StudyTrialRow.study_id == study_id, StudyTrialRow.trial_key.in_(keys)
    )
    yield from session.execute(query)


def _one(session: Session, key: str) -> TrialRow:
    rows = _locked(session, [key])
    if not rows:
        raise NotFoundError(f"trial {key} was never planned")
    return rows[0]


def start(session: Session, study_id: str, key: str, attempt: int) -> None:
    """planned → running."""
    row = _one(session, key)
    if row.result is None:
        row.status = TrialState.RUNNING
        _touch(row)
        add_event(session, study_id, EventKind.TRIAL_STARTED, {"key": key, "attempt": attempt})


def note_progress(session: Session, key: str, step: int, steps: int, train_loss_nats: float | None) -> None:
    """Update the progress of a trial that has no result yet."""
    session.execute(
        update(TrialRow)
        .where(TrialRow.key == key, TrialRow.result.is_(None))
        .values(step=step, steps=steps, train_loss_nats=train_loss_nats, updated_at=db_now())
    )


def finish(session: Session, study_id: str, key: str, result: TrialResult) -> TrialResult:
    """Store `result` unless there is one; returns the stored one, told once to each study that uses it."""
    row = _one(session, key)
    if row.result is None:
        row.status, row.result = TrialState(result.status), result.model_dump(mode="json")
        row.loss_nats, row.train_loss_nats = result.loss_nats, result.train_loss_nats
        row.tokens, row.device_seconds = result.tokens, result.device_seconds
        row.step = row.steps = result.steps
        if result.diverged_at_step is not None:
            row.step = result.diverged_at_step
        _touch(row, finished=True)
    _tell_result(session, study_id, row, reused=False)
    return TrialResult.model_validate(row.result)


def _tell_result(session: Session, study_id: str, row: TrialRow, *, reused: bool) -> None:
    if add_message(session, OutboxKind.TRIAL_RESULT, study_id, key=row.key, payload={"reused": reused}):
        payload = {"key": row.key, "status": row.status, "loss_nats": row.loss_nats, "reused": reused}
        add_event(session, study_id, EventKind.TRIAL_RESULT, payload)


def fail(session: Session, study_id: str, key: str, attempt: int, traceback: str, final: bool) -> None:
    """Store a failed attempt; `final` gives the trial up for this study. A result that exists wins."""
    row = _one(session, key)
    if row.result is not None:
        return
    row.status = TrialState.FAILED if final else TrialState.PLANNED
    row.attempts = attempt
    row.traceback = traceback[-TRACEBACK_CHARACTERS:].replace("\0", "")  # PostgreSQL stores no NUL
    _touch(row)
    if final:
        given_up = update(StudyTrialRow).where(StudyTrialRow.study_id == study_id, StudyTrialRow.trial_key == key)
        session.execute(given_up.values(unavailable=True))
    payload = {"key": key, "attempt": attempt, "final": final, "reason": traceback.strip().rpartition("\n")[2][:500]}
    add_event(session, study_id, EventKind.TRIAL_FAILED, payload)


def attempts(session: Session, study_id: str) -> Mapping[str, int]:
    """Failed attempts by key of the study's trials without a result."""
    query = (
        select(TrialRow.key, TrialRow.attempts)
        .join(StudyTrialRow, StudyTrialRow.trial_key == TrialRow.key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.result.is_(None))
    )
    return dict(session.execute(query).all())


def specs_by_arm(session: Session, study_id: str, phase: str) -> Mapping[str, TrialSpec]:
    """The trials that a phase has planned, by arm."""
    query = (
        select(StudyTrialRow.arm, TrialRow.spec)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, StudyTrialRow.phase == phase)
    )
    return {arm: TrialSpec.model_validate(spec) for arm, spec in session.execute(query)}


def with_result(session: Session, keys: Sequence[str]) -> set[str]:
    """Which of these trials have a result."""
    found: set[str] = set()
    for part in chunks(keys):
        found.update(session.scalars(select(TrialRow.key).where(TrialRow.key.in_(part), TrialRow.result.is_not(None))))
    return found


def unfinished(session: Session, study_id: str) -> Sequence[tuple[StudyTrialRow, TrialRow]]:
    """Trials that the study has planned, that have no result and are not given up, largest first."""
    query = (
        select(StudyTrialRow, TrialRow)
        .join(TrialRow, StudyTrialRow.trial_key == TrialRow.key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.result.is_(None), StudyTrialRow.unavailable.is_(False))
        .order_by(StudyTrialRow.axis_value.desc(), StudyTrialRow.seed, TrialRow.key)
    )
    return session.execute(query).all()


def _touch(row: TrialRow, *, finished: bool = False) -> None:
    row.updated_at = db_now()  # an SQL expression, evaluated at flush
    if finished:
        row.finished_at = db_now()  # an SQL expression, evaluated at flush
