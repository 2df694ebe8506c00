"""Studies as people see them: accept, look up, list, cancel. Callers own the transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from mutransfer.base import digest
from mutransfer.errors import NotFoundError
from mutransfer.spec import StudySpec
from service.db import audit, leases, projects
from service.db.events import EventKind, add_event
from service.db.idempotency import Asked, once
from service.db.outbox import OutboxKind, add_message, message_key
from service.db.session import Sessions, db_now
from service.db.states import StudyState
from service.db.tables import LeaseRow, PhaseRow, StudyRow, SummaryRow
from service.ids import is_study_id, new_study_id


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a person hands in. `nonce` makes every trial of the study run anew; empty: known results are reused.

    `fresh` says whether a nonce was asked for: two submissions under one idempotency key have different nonces, but
    are the same request.
    """

    spec: StudySpec
    trials_expected: int | None
    nonce: str = ""
    priority: int = 0
    idempotency_key: str | None = None

    def body_digest(self) -> str:
        """Equal for equal requests, however written."""
        return digest({"spec": self.spec.model_dump(mode="json"), "fresh": bool(self.nonce)})


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How far a study is. Trials are counted once, however many phases use them."""

    trials_planned: int = 0
    trials_done: int = 0
    trials_failed: int = 0
    device_seconds: float = 0.0
    phase: str | None = None  # the last one begun


def submit(sessions: Sessions, submission: Submission) -> tuple[str, bool]:
    """Accept a study in one transaction. Returns its id, and whether it is new.

    The same idempotency key returns the study it first made. Raises ConflictError when that was for another body,
    SpecError for an unknown project, AccessError for one that the acting caller may not use.
    """
    asked = Asked(key=submission.idempotency_key, body_digest=submission.body_digest())
    return once(sessions, asked, lambda session: accept(session, submission))


def accept(session: Session, submission: Submission) -> StudyRow:
    """Accept a study within the caller's transaction, whatever its idempotency key. Raises as `submit`."""
    spec = submission.spec
    projects.check_usable(session, spec.project)
    row = StudyRow(
        id=new_study_id(),
        name=spec.name,
        project=spec.project,
        spec=spec.model_dump(mode="json"),
        digest=spec.digest(),
        nonce=submission.nonce,
        priority=submission.priority,
        trials_expected=submission.trials_expected,
    )
    session.add(row)
    session.flush()
    session.refresh(row)  # created_at is the database's
    session.add_all((LeaseRow(study_id=row.id), SummaryRow(study_id=row.id)))
    add_event(session, row.id, EventKind.SUBMITTED, {"name": spec.name})
    audit.record(session, "study.submit", row.id, project=row.project, details={"name": spec.name})
    session.flush()
    return row


def get(session: Session, study_id: str) -> StudyRow:
    """One study. Raises NotFoundError."""
    row = session.get(StudyRow, study_id) if is_study_id(study_id) else None
    if row is None:
        raise NotFoundError(f"no study {study_id}")
    return row


def page(
    session: Session, *, state: StudyState | None, project: str | None, before: str | None, limit: int
) -> list[StudyRow]:
    """Up to `limit` studies with ids below `before`, newest first."""
    query = (
        select(StudyRow).options(defer(StudyRow.spec), defer(StudyRow.facts)).order_by(StudyRow.id.desc()).limit(limit)
    )
    if state is not None:
        query = query.where(StudyRow.state == state)
    if project is not None:
        query = query.where(StudyRow.project == project)
    if before is not None:
        query = query.where(StudyRow.id < before)
    return list(session.scalars(query))


def cancel(session: Session, study_id: str) -> StudyRow:
    """queued, paused → cancelled at once; running, pausing → cancelling. Nothing when cancelled already.

    Raises NotFoundError, and ConflictError when the study has ended otherwise.
    """
    get(session, study_id)
    leases.lock(session, study_id)
    row = session.get(StudyRow, study_id, populate_existing=True)  # as it is now that nobody else may change it
    assert row is not None  # noqa: S101 - found above, and studies are never deleted
    state = StudyState(row.state)
    if state in (StudyState.CANCELLING, StudyState.CANCELLED):
        return row
    if state in (StudyState.QUEUED, StudyState.PAUSED):
        row.state = state.to(StudyState.CANCELLED)
        row.finished_at = db_now()  # an SQL expression, evaluated at flush
        add_event(session, study_id, EventKind.FINISHED, {"state": row.state, "error": ""})
        add_message(session, OutboxKind.STUDY_FINISHED, study_id, key=message_key(row.revision))
    else:
        row.state = state.to(StudyState.CANCELLING)
        add_event(session, study_id, EventKind.CANCELLING)
    audit.record(session, "study.cancel", study_id, project=row.project)
    session.flush()
    session.refresh(row)
    return row


def tallies(session: Session, study_ids: Sequence[str]) -> Mapping[str, Tally]:
    """The tally of each study."""
    begun_last = (
        select(PhaseRow.name)
        .where(PhaseRow.study_id == SummaryRow.study_id)
        .order_by(PhaseRow.started_at.desc(), PhaseRow.name.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = select(
        SummaryRow.study_id, SummaryRow.trials_planned, SummaryRow.trials_done, SummaryRow.trials_failed,
        SummaryRow.device_seconds, begun_last,
    ).where(SummaryRow.study_id.in_(study_ids))  # fmt: skip
    return {
        study_id: Tally(
            trials_planned=planned, trials_done=done, trials_failed=failed, device_seconds=seconds, phase=phase
        )
        for study_id, planned, done, failed, seconds, phase in session.execute(query)
    }


def phases(session: Session, study_id: str) -> list[PhaseRow]:
    """The phases a study has begun, in order."""
    query = select(PhaseRow).where(PhaseRow.study_id == study_id).order_by(PhaseRow.started_at, PhaseRow.name)
    return list(session.scalars(query))


def set_mlflow_url(session: Session, study_id: str, url: str) -> None:
    """Note where MLflow shows this study."""
    get(session, study_id).mlflow_url = url
