"""Writes to trials. A trial belongs to no study: its content key does, so a result found once serves everyone.

All functions run inside a transaction that holds the study's lease row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session, defer

from mutransfer.errors import NotFoundError
from mutransfer.trial import TrialResult, TrialSpec
from service.db import summaries
from service.db.events import EventKind, add_event, add_events
from service.db.outbox import OutboxKind, add_messages
from service.db.session import db_now, insert_all_new
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
    by_key = {trial.key: trial for trial in planned}
    keys = sorted(by_key)  # one order for all: no deadlock between studies
    rows_new = [{"key": key, "spec": by_key[key].spec.model_dump(mode="json")} for key in keys]
    for new in chunks(rows_new):
        insert_all_new(session, TrialRow, new, TrialRow.key)
    rows = {row.key: row for chunk in chunks(keys) for row in _locked(session, chunk)}
    used = {key: reused for chunk in chunks(keys) for key, reused in _uses(session, study_id, chunk)}
    known = {key: TrialResult.model_validate(row.result) for key, row in rows.items() if row.result is not None}
    uses = [
        {
            "study_id": study_id, "phase": phase, "arm": trial.request.arm, "axis_value": trial.request.axis_value,
            "lr_octaves": trial.request.lr_octaves, "seed": trial.request.seed, "trial_key": trial.key,
            "reused": used.get(trial.key, trial.key in known),
        }
        for trial in planned
    ]  # fmt: skip
    for part in chunks(uses):
        insert_all_new(session, StudyTrialRow, part, StudyTrialRow.trial_key)
    _adopt(session, study_id, {key: row for key, row in rows.items() if key not in used}, known)
    return known


def _adopt(
    session: Session, study_id: str, rows: Mapping[str, TrialRow], known: Mapping[str, TrialResult]
) -> None:  # fmt: skip
    """A study uses trials for the first time: an old result is told, an old failure is forgiven."""
    _tell(session, study_id, {key: known[key] for key in rows if key in known}, reused=True)
    for row in rows.values():
        if row.status == TrialState.FAILED:
            row.status, row.attempts, row.traceback = TrialState.PLANNED, 0, ""
    if rows:
        session.flush()
        summaries.recount(session, study_id)


def _locked(session: Session, keys: Sequence[str]) -> Sequence[TrialRow]:
    query = select(TrialRow).where(TrialRow.key.in_(keys)).order_by(TrialRow.key).with_for_update()
    return session.scalars(query.options(defer(TrialRow.spec))).all()


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


def stop(session: Session, study_id: str) -> None:
    """running → planned for all trials of a study: its driver has left, and nothing trains them."""
    own = select(StudyTrialRow.trial_key).where(StudyTrialRow.study_id == study_id)
    session.execute(
        update(TrialRow)
        .where(TrialRow.key.in_(own), TrialRow.status == TrialState.RUNNING)
        .values(status=TrialState.PLANNED, updated_at=db_now())
    )


def note_progress(session: Session, key: str, step: int, steps: int, train_loss_nats: float | None) -> None:
    """Update the progress of a trial that has no result yet."""
    session.execute(
        update(TrialRow)
        .where(TrialRow.key == key, TrialRow.result.is_(None))
        .values(step=step, steps=steps, train_loss_nats=train_loss_nats, updated_at=db_now())
    )


def finish(session: Session, study_id: str, results: Mapping[str, TrialResult]) -> dict[str, TrialResult]:
    """Store each result unless there is one; returns the stored ones, told once to each study that uses them.

    Keys that were never planned are left out.
    """
    found: dict[str, Any] = {}
    for part in chunks(sorted(results)):
        query = select(TrialRow.key, TrialRow.result).where(TrialRow.key.in_(part))
        found |= dict(session.execute(query.order_by(TrialRow.key).with_for_update()).all())
    fresh = {key: results[key] for key in results if key in found and found[key] is None}
    _store(session, fresh)
    stored = {
        key: results[key] if key in fresh else TrialResult.model_validate(found[key])
        for key in results if key in found
    }  # fmt: skip
    _tell(session, study_id, stored, reused=False)
    return stored


def _store(session: Session, results: Mapping[str, TrialResult]) -> None:
    if results:
        trials = cast(Table, TrialRow.__table__)
        statement = update(trials).where(trials.c.key == bindparam("which"))
        values = [{"which": key, **_columns(result)} for key, result in results.items()]
        session.connection().execute(statement.values(updated_at=db_now(), finished_at=db_now()), values)


def _columns(result: TrialResult) -> dict[str, Any]:
    return {
        "status": TrialState(result.status), "result": result.model_dump(mode="json"), "loss_nats": result.loss_nats,
        "train_loss_nats": result.train_loss_nats, "tokens": result.tokens, "device_seconds": result.device_seconds,
        "step": result.steps if result.diverged_at_step is None else result.diverged_at_step, "steps": result.steps,
    }  # fmt: skip


def _tell(session: Session, study_id: str, results: Mapping[str, TrialResult], *, reused: bool) -> None:
    """Tell a study and the outside of results, each once."""
    new = add_messages(session, OutboxKind.TRIAL_RESULT, study_id, {key: {"reused": reused} for key in results})
    told = {key: result for key, result in results.items() if key in new}
    payloads = [
        {"key": key, "status": result.status, "loss_nats": result.loss_nats, "reused": reused}
        for key, result in told.items()
    ]
    add_events(session, study_id, EventKind.TRIAL_RESULT, payloads)
    if not reused:  # planning counts those
        summaries.add_results(session, study_id, [result.device_seconds for result in told.values()])


def fail(
    session: Session, study_id: str, key: str, attempt: int, traceback: str, final: bool, fault: str = "trial"
) -> None:  # fmt: skip
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
        session.flush()
        summaries.recount(session, study_id)
    reason = traceback.strip().rpartition("\n")[2][:500]
    payload = {"key": key, "attempt": attempt, "final": final, "fault": fault, "reason": reason}
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


def _touch(row: TrialRow) -> None:
    row.updated_at = db_now()  # an SQL expression, evaluated at flush
