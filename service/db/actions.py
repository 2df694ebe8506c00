"""What people do to an accepted study beside cancelling it: pause, resume, retry, extend, change its priority.

Callers own the transaction. Each action holds the study's lease row, so that it and the driver's writes happen one
after the other, and is written to the audit log. Studies that had ended are queued again at their next revision.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from mutransfer.errors import ConflictError, NotFoundError
from mutransfer.plan import Phase
from mutransfer.revision import Extension
from mutransfer.spec import StudySpec
from service.db import audit, leases, progress, summaries
from service.db.events import EventKind, add_event
from service.db.session import db_now
from service.db.states import PhaseState, StudyState, TrialState
from service.db.studies import get
from service.db.tables import LeaseRow, PhaseRow, StudyRow, StudyTrialRow, TrialRow

MAX_PRIORITY = 100
#: Phases with trials that an extension or a trial tried again may ask for; samples of the tune phase are settled.
_AFTER_TUNE = (Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY)
_LAST_WORDS = (Phase.TRANSFER, Phase.VERIFY, Phase.VERDICT)


def locked(session: Session, study_id: str) -> StudyRow:
    """A study that nobody else may change until the transaction ends. Raises NotFoundError."""
    get(session, study_id)
    leases.lock(session, study_id)
    return session.get_one(StudyRow, study_id, populate_existing=True)


def pause(session: Session, study_id: str) -> StudyRow:
    """queued → paused at once; running → pausing, for its driver to checkpoint. Nothing when paused already.

    Raises NotFoundError, and ConflictError when the study is ending or has ended.
    """
    row = locked(session, study_id)
    state = StudyState(row.state)
    if state in (StudyState.PAUSING, StudyState.PAUSED):
        return row
    row.state = state.to(StudyState.PAUSED if state is StudyState.QUEUED else StudyState.PAUSING)
    add_event(session, study_id, EventKind(row.state))
    return _done(session, row, "study.pause")


def resume(session: Session, study_id: str) -> StudyRow:
    """paused → queued; pausing → running, should its driver not have left yet. Nothing when it goes on already.

    Raises NotFoundError, and ConflictError when the study is ending or has ended.
    """
    row = locked(session, study_id)
    state = StudyState(row.state)
    if state in (StudyState.QUEUED, StudyState.RUNNING):
        return row
    if state.is_final:
        raise ConflictError(f"a {state} study is not paused: retry, extend or clone it")
    row.state = state.to(StudyState.RUNNING if state is StudyState.PAUSING else StudyState.QUEUED)
    add_event(session, study_id, EventKind.RESUMED)
    return _done(session, row, "study.resume")


def set_priority(session: Session, study_id: str, priority: int) -> StudyRow:
    """Claimed before all studies of lower priority, from the next claim on. A running study is not interrupted."""
    row = locked(session, study_id)
    before, row.priority = row.priority, priority
    return row if before == priority else _done(session, row, "study.priority", before=before, after=priority)


def retry(session: Session, study_id: str) -> StudyRow:
    """failed or cancelled → queued: it goes on with the trials it has; those given up get their attempts anew.

    Raises NotFoundError, and ConflictError for any other state.
    """
    row = locked(session, study_id)
    if row.state == StudyState.COMPLETED:
        raise ConflictError("the study has completed: retry one of its failed trials, extend it or clone it")
    if row.state not in (StudyState.FAILED, StudyState.CANCELLED):
        raise ConflictError(f"a {row.state} study needs no retry")
    if not _has_results(session, study_id):
        row.facts = None  # nothing that other data or newer code could contradict
    forgiven = _forgive(session, study_id)
    reopened = _AFTER_TUNE if forgiven & {*_AFTER_TUNE} else ()
    _reopen(session, row, reopened, {"by": "retry"})
    return _done(session, row, "study.retry")


def retry_trial(session: Session, study_id: str, key: str) -> StudyRow:
    """Try a trial again that the study had given up; a study that has ended is queued for it.

    A study that runs drops its driver in good order, and the next one takes the trial along.
    Raises NotFoundError, and ConflictError when the trial was not given up or belongs to a settled tune phase.
    """
    row = locked(session, study_id)
    uses = session.scalars(
        select(StudyTrialRow).where(StudyTrialRow.study_id == study_id, StudyTrialRow.trial_key == key)
    ).all()
    if not uses:
        raise NotFoundError(f"study {study_id} has no trial {key}")
    trial = session.get_one(TrialRow, key)
    if not any(use.unavailable for use in uses) or TrialState(trial.status).has_result:
        raise ConflictError(f"trial {key} was not given up: it is {trial.status}")
    if {use.phase for use in uses} == {Phase.TUNE} and _is_finished(session, study_id, Phase.TUNE):
        raise ConflictError(f"trial {key} is a sample of the tune phase, which is settled: clone the study")
    _forgive(session, study_id, key)
    if StudyState(row.state).is_final:
        _reopen(session, row, _AFTER_TUNE, {"by": "trial", "key": key})
    else:
        row.revision += 1  # its driver sees this and makes room for one that knows
        _reopen_phases(session, study_id, _AFTER_TUNE, keep_rates=True)
        add_event(session, study_id, EventKind.REOPENED, {"by": "trial", "key": key, "revision": row.revision})
    return _done(session, row, "trial.retry", key=key)


def extend(session: Session, study_id: str, made: Extension, *, base: StudySpec, trials_expected: int) -> StudyRow:
    """Queue a study that has ended at the revision `made` of its spec `base`. Finished trials keep their places.

    Recorded rates stay, unless a new largest proxy makes the search record them anew (verdict.md, The phases).
    Raises NotFoundError, and ConflictError when the study has not ended, or is no longer at `base`.
    """
    row = locked(session, study_id)
    if not StudyState(row.state).is_final:
        raise ConflictError(f"a {row.state} study cannot be extended: cancel it first, or wait for its end")
    if row.digest != base.digest():
        raise ConflictError("the study was extended by someone else meanwhile: look at it again")
    recorded = dict(progress.recorded(session, study_id))
    row.spec, row.digest = made.spec.model_dump(mode="json"), made.spec.digest()
    row.trials_expected = trials_expected
    said = {
        "by": "extend",
        "changed": {field: list(values) for field, values in made.changed.items()},
        "recorded": recorded,
        "rerecords": made.rerecords,
    }
    _reopen(session, row, made.reopened, said, keep_rates=not made.rerecords)
    return _done(session, row, "study.extend", fields=sorted(made.changed))


def _reopen(
    session: Session, row: StudyRow, phases: Collection[str], said: Mapping[str, Any], *, keep_rates: bool = True
) -> None:
    """A study that has ended is queued at its next revision, its `phases` open again."""
    row.state = StudyState(row.state).to(StudyState.QUEUED)
    row.revision += 1
    row.error, row.result, row.finished_at = "", None, None
    summaries.note_result(session, row.id, None)
    _reopen_phases(session, row.id, phases, keep_rates=keep_rates)
    # Whoever ended it may have asked for a pause before the next try: that is over.
    session.execute(update(LeaseRow).where(LeaseRow.study_id == row.id, LeaseRow.owner == "").values(expires_at=0.0))
    add_event(session, row.id, EventKind.REOPENED, {**said, "revision": row.revision})


def _reopen_phases(session: Session, study_id: str, phases: Collection[str], *, keep_rates: bool) -> None:
    """The verdict is always open again. The search remembers the rates that it recorded, for `DriverStore.recorded`."""
    gone = {Phase.VERDICT} | {phase for phase in phases if phase in (*_LAST_WORDS, Phase.AUDIT)}
    session.execute(delete(PhaseRow).where(PhaseRow.study_id == study_id, PhaseRow.name.in_(sorted(gone))))
    if Phase.SEARCH not in phases:
        return
    search = session.get(PhaseRow, (study_id, Phase.SEARCH))
    if search is not None:
        rates = dict(progress.recorded(session, study_id)) if keep_rates else {}
        search.payload = {progress.KEPT: rates} if rates else {}
        search.state, search.finished_at = PhaseState.RUNNING, None
        search.started_at = db_now()  # an SQL expression, evaluated at flush


def _forgive(session: Session, study_id: str, key: str | None = None) -> set[str]:
    """Give trials without a result, all that were given up or one, their attempts anew; returns their phases."""
    given_up = select(StudyTrialRow).where(StudyTrialRow.study_id == study_id, StudyTrialRow.unavailable)
    uses = session.scalars(given_up if key is None else given_up.where(StudyTrialRow.trial_key == key)).all()
    for use in uses:
        use.unavailable = False
    session.execute(
        update(TrialRow)
        .where(TrialRow.key.in_({use.trial_key for use in uses}), TrialRow.result.is_(None))
        .values(status=TrialState.PLANNED, attempts=0, updated_at=db_now())
    )
    return {use.phase for use in uses}


def _has_results(session: Session, study_id: str) -> bool:
    found = (
        select(StudyTrialRow.study_id)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.result.is_not(None))
    )
    return bool(session.scalar(select(exists(found))))


def _is_finished(session: Session, study_id: str, phase: str) -> bool:
    row = session.get(PhaseRow, (study_id, phase))
    return row is not None and row.state == PhaseState.FINISHED


def _done(session: Session, row: StudyRow, action: str, **details: Any) -> StudyRow:
    """The study after an action that changed it."""
    session.flush()
    summaries.recount(session, row.id)
    audit.record(session, action, row.id, project=row.project, details=details)
    session.flush()
    session.refresh(row)
    return row
