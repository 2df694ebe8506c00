"""What people do to an accepted study: cancel, pause, resume, retry, extend, clone, change its priority."""

from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from mutransfer.base import digest
from mutransfer.revision import Extension, extension, merged
from mutransfer.spec import StudySpec
from service.auth.scopes import SUBMIT
from service.conditional import ConditionalRoute
from service.context import Context, ContextDep
from service.db import actions, studies
from service.db.actions import MAX_PRIORITY
from service.db.idempotency import Asked, known_study, once
from service.db.session import reading, transact
from service.db.studies import Submission
from service.db.tables import StudyRow
from service.studies import read
from service.studies.checks import check_study, estimate_study
from service.studies.documents import read_changes
from service.studies.openapi import ACCEPTED_BEFORE, BODY, CHANGES_BODY, COMMON, CONFLICT, NOT_FOUND
from service.studies.routes import Fresh, IdempotencyKey, Priority, StudyId, accepted, whole_body
from service.studies.schemas import StudyRead

router = APIRouter(route_class=ConditionalRoute, responses=COMMON | NOT_FOUND | CONFLICT)

TrialKey = Annotated[str, Path(pattern=r"^[0-9a-f]{1,64}$", description="The trial's content key.")]


class StudyChange(BaseModel):
    """What may be changed of a study without asking anything else of it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"priority": 10}]})

    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="The highest is driven first.")]


def _changes_in(body: Annotated[bytes, Depends(whole_body)], request: Request) -> Mapping[str, Any]:
    return read_changes(body, request.headers.get("content-type", ""))


Changes = Annotated[Mapping[str, Any], Depends(_changes_in)]


def _act(context: Context, study_id: str, action: Callable[[Session], StudyRow]) -> StudyRead:
    transact(context.sessions, action)
    return _read(context, study_id)


def _act_once(context: Context, study_id: str, action: Callable[[Session], StudyRow], asked: Asked) -> StudyRead:
    with reading(context.sessions) as session:
        studies.get(session, study_id)  # who may not see the study learns nothing of the keys that were used for it
    once(context.sessions, asked, action)
    return _read(context, study_id)


def _read(context: Context, study_id: str) -> StudyRead:
    with reading(context.sessions) as session:
        return read.study(session, study_id)


def _asked(key: str | None, action: str, study_id: str, **details: Any) -> Asked:
    try:
        return Asked(key=key, body_digest=digest({"action": action, "study": study_id, **details}))
    except (TypeError, ValueError):  # what JSON cannot say, as YAML's dates: nothing that would be accepted
        return Asked(key=None, body_digest="")


@router.post("/studies/{study_id}/cancel", dependencies=[SUBMIT])
def cancel_study(study_id: StudyId, context: ContextDep) -> StudyRead:
    """Stop a study: a queued one at once, a running one as soon as its driver has stopped its trials."""
    return _act(context, study_id, lambda session: studies.cancel(session, study_id))


@router.post("/studies/{study_id}/pause", dependencies=[SUBMIT])
def pause_study(study_id: StudyId, context: ContextDep) -> StudyRead:
    """Pause a study: a queued one at once, a running one as soon as its trials are checkpointed. Safe to repeat."""
    return _act(context, study_id, lambda session: actions.pause(session, study_id))


@router.post("/studies/{study_id}/resume", dependencies=[SUBMIT])
def resume_study(study_id: StudyId, context: ContextDep) -> StudyRead:
    """Let a paused study go on, its trials from their checkpoints. Safe to repeat."""
    return _act(context, study_id, lambda session: actions.resume(session, study_id))


@router.post("/studies/{study_id}/retry", dependencies=[SUBMIT])
def retry_study(study_id: StudyId, context: ContextDep, idempotency_key: IdempotencyKey = None) -> StudyRead:
    """Queue a failed or cancelled study again: it keeps its results, and tries once more what it had given up."""
    asked = _asked(idempotency_key, "retry", study_id)
    return _act_once(context, study_id, lambda session: actions.retry(session, study_id), asked)


@router.post("/studies/{study_id}/trials/{key}/retry", dependencies=[SUBMIT])
def retry_trial(
    study_id: StudyId, key: TrialKey, context: ContextDep, idempotency_key: IdempotencyKey = None
) -> StudyRead:
    """Try a trial again that the study has given up; a study that has ended is queued for it and judged anew."""
    asked = _asked(idempotency_key, "retry", study_id, trial=key)
    return _act_once(context, study_id, lambda session: actions.retry_trial(session, study_id, key), asked)


@router.patch("/studies/{study_id}", dependencies=[SUBMIT])
def change_study(study_id: StudyId, change: StudyChange, context: ContextDep) -> StudyRead:
    """Change a study's priority: it counts when a study is claimed next, and interrupts nothing."""
    return _act(context, study_id, lambda session: actions.set_priority(session, study_id, change.priority))


@router.post("/studies/{study_id}/extend", dependencies=[SUBMIT], openapi_extra=CHANGES_BODY, responses=BODY)
def extend_study(
    study_id: StudyId, changes: Changes, context: ContextDep, idempotency_key: IdempotencyKey = None
) -> StudyRead:
    """Ask more of a study that has ended: more widths, seeds, rates or a stricter check. Finished trials are kept."""
    asked = _asked(idempotency_key, "extend", study_id, changes=changes)
    with reading(context.sessions) as session:
        base = StudySpec.model_validate(studies.get(session, study_id).spec)
        if known_study(session, asked) is not None:  # extended so already: these changes would add nothing now
            return read.study(session, study_id)
    made: Extension = extension(base, changes)
    check_study(made.spec, context.settings)
    expected = estimate_study(made.spec).trials_expected
    once(
        context.sessions, asked,
        lambda session: actions.extend(session, study_id, made, base=base, trials_expected=expected),
    )  # fmt: skip
    return _read(context, study_id)


@router.post(
    "/studies/{study_id}/clone", status_code=201, dependencies=[SUBMIT], openapi_extra=CHANGES_BODY,
    responses=ACCEPTED_BEFORE | BODY,
)  # fmt: skip
def clone_study(
    study_id: StudyId,
    changes: Changes,
    context: ContextDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    fresh: Fresh = False,
    priority: Priority = 0,
) -> StudyRead:
    """Submit a new study like this one, with changes of any kind. It reuses every result that answers for it."""
    spec = merged(_spec(context, study_id), changes)
    check_study(spec, context.settings)
    submission = Submission(
        spec=spec, trials_expected=estimate_study(spec).trials_expected, nonce=token_hex(8) if fresh else "",
        priority=priority, idempotency_key=idempotency_key,
    )  # fmt: skip
    return accepted(context, submission, response)


def _spec(context: Context, study_id: str) -> StudySpec:
    with reading(context.sessions) as session:
        return StudySpec.model_validate(studies.get(session, study_id).spec)
