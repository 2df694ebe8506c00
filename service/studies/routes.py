"""The routes of studies. Thin: parse, ask a repository or `read`, answer."""

from enum import StrEnum
from secrets import token_hex
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse

from mutransfer.recipe import Recipe
from mutransfer.result import StudyResult
from mutransfer.snippet import recipe_markdown, recipe_yaml, snippet
from mutransfer.spec import StudySpec
from service.auth.scopes import READ, SUBMIT
from service.conditional import ConditionalRoute
from service.context import ContextDep
from service.db import studies
from service.db.actions import MAX_PRIORITY
from service.db.session import reading
from service.db.states import StudyState
from service.db.studies import Submission
from service.studies import listing, read, rendered, reuse
from service.studies.checks import check_study, estimate_study
from service.studies.documents import read_study
from service.studies.listing import StudyQuery
from service.studies.openapi import ACCEPTED_BEFORE, BODY, COMMON, CONFLICT, NOT_FOUND, STUDY_BODY
from service.studies.schemas import (
    EXAMPLE_ID,
    EXAMPLE_STREAM,
    ArmCurves,
    ArmVerdict,
    AuditRead,
    CurvesRead,
    PlanRead,
    StudyPage,
    StudyRead,
    VerdictRead,
)
from service.studies.stream import Watch, stream

router = APIRouter(route_class=ConditionalRoute, responses=COMMON)

StudyId = Annotated[str, Path(description="A study's id.", examples=[EXAMPLE_ID])]
MAX_EVENT_ID = 2**63 - 1


class RecipeFormat(StrEnum):
    """How a recipe is written."""

    JSON = "json"
    YAML = "yaml"
    PYTHON = "python"
    MARKDOWN = "markdown"


RENDERED = {
    RecipeFormat.YAML: (recipe_yaml, "application/yaml"),
    RecipeFormat.PYTHON: (snippet, "text/x-python"),
    RecipeFormat.MARKDOWN: (recipe_markdown, "text/markdown"),
}
RECIPE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {media_type: {} for _, media_type in RENDERED.values()}}
}

EVENT_SCHEMA = {"type": "object", "properties": {field: {"type": "string"} for field in ("event", "data", "id")}}
EVENT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event: KIND`, `data: JSON`, and an id to resume after.",
        "content": {"text/event-stream": {"schema": EVENT_SCHEMA, "example": EXAMPLE_STREAM}},
    },
    204: {"description": "The study is over and everything has been told."},
}


async def whole_body(request: Request) -> bytes:
    """The whole body; `bodies.BodyLimit` has bounded it."""
    return await request.body()


def _study_of(body: Annotated[bytes, Depends(whole_body)], request: Request, context: ContextDep) -> StudySpec:
    """The study in the request's body, checked. Off the event loop: it parses, and looks at files."""
    spec = read_study(body, request.headers.get("content-type", ""))
    check_study(spec, context.settings)
    return spec


StudyBody = Annotated[StudySpec, Depends(_study_of)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Sent again with it, a request is not carried out twice.",
    ),
]
Fresh = Annotated[bool, Query(description="Run every trial anew, even where its result is known.")]
Priority = Annotated[
    int, Query(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Studies of higher priority are driven first.")
]


@router.post(
    "/studies", status_code=201, dependencies=[SUBMIT], openapi_extra=STUDY_BODY,
    responses=ACCEPTED_BEFORE | BODY | CONFLICT,
)  # fmt: skip
def submit_study(
    spec: StudyBody,
    context: ContextDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    fresh: Fresh = False,
    priority: Priority = 0,
) -> StudyRead:
    """Submit a study. It is queued at once, and stays accepted whatever happens to this process."""
    submission = Submission(
        spec=spec, trials_expected=estimate_study(spec).trials_expected, nonce=token_hex(8) if fresh else "",
        priority=priority, idempotency_key=idempotency_key,
    )  # fmt: skip
    return accepted(context, submission, response)


def accepted(context: ContextDep, submission: Submission, response: Response) -> StudyRead:
    """Accept a study; the answer says whether it is new, and where it is."""
    study_id, is_new = studies.submit(context.sessions, submission)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/api/v1/studies/{study_id}"
    with reading(context.sessions) as session:
        return read.study(session, study_id)


@router.post("/plan", dependencies=[READ], openapi_extra=STUDY_BODY, responses=BODY)
def plan_study(spec: StudyBody, context: ContextDep, fresh: Fresh = False) -> PlanRead:
    """What a study would take, without running it: trials, tokens, device-seconds, and how much is known already."""
    with reading(context.sessions) as session:
        known = reuse.reuse(session, spec, fresh=fresh)
    return PlanRead(**dict(estimate_study(spec)), reuse=known)


@router.get("/studies", dependencies=[READ], response_model=StudyPage)
def list_studies(context: ContextDep, query: Annotated[StudyQuery, Query()]) -> Response:
    """Studies, newest first unless `sort` says otherwise."""
    with reading(context.sessions) as session:
        return _json(listing.page_text(session, query))


@router.get("/studies/{study_id}", dependencies=[READ], response_model=StudyRead, responses=NOT_FOUND)
def show_study(study_id: StudyId, context: ContextDep) -> Response:
    """One study and how far it is."""
    with reading(context.sessions) as session:
        return _json(rendered.study_text(session, study_id))


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


@router.get("/studies/{study_id}/result", dependencies=[READ], responses=NOT_FOUND)
def study_result(study_id: StudyId, context: ContextDep) -> StudyResult:
    """The result document; while the study runs, over what has finished so far."""
    with reading(context.sessions) as session:
        return read.result_document(session, study_id)


@router.get("/studies/{study_id}/audit", dependencies=[READ], responses=NOT_FOUND)
def study_audit(study_id: StudyId, context: ContextDep) -> AuditRead:
    """The audit of each arm: exponents in width of weights and outputs, held to the rules. 404 before it has run."""
    with reading(context.sessions) as session:
        return AuditRead(audits=read.audits(session, study_id))


@router.get("/studies/{study_id}/curves", dependencies=[READ], responses=NOT_FOUND)
def study_curves(study_id: StudyId, context: ContextDep) -> CurvesRead:
    """Loss against learning rate, a curve an arm and axis value, with fitted minima and intervals."""
    with reading(context.sessions) as session:
        result = read.result_document(session, study_id)
    arms = [
        ArmCurves(name=arm.name, optimizer=arm.optimizer, parametrization=arm.parametrization, curves=arm.curves)
        for arm in result.arms
    ]
    return CurvesRead(axis=result.axis, arms=arms)


@router.get("/studies/{study_id}/verdict", dependencies=[READ], responses=NOT_FOUND)
def study_verdict(study_id: StudyId, context: ContextDep) -> VerdictRead:
    """Whether each arm's learning rate transfers, and why."""
    with reading(context.sessions) as session:
        result = read.result_document(session, study_id)
    arms = [
        ArmVerdict(name=arm.name, optimizer=arm.optimizer, parametrization=arm.parametrization, verdict=arm.verdict)
        for arm in result.arms
    ]
    state = StudyState(result.study.state)
    return VerdictRead(state=state, final=state is StudyState.COMPLETED, arms=arms)


@router.get(
    "/studies/{study_id}/recipe", dependencies=[READ], response_model=Recipe,
    responses=RECIPE_ANSWERS | NOT_FOUND | CONFLICT,
)  # fmt: skip
def study_recipe(
    study_id: StudyId,
    context: ContextDep,
    width: Annotated[int, Query(ge=1, le=1_048_576, examples=[4096])],
    depth: Annotated[int | None, Query(ge=1, le=1000)] = None,
    arm: Annotated[str | None, Query(max_length=64)] = None,
    format: Annotated[RecipeFormat, Query()] = RecipeFormat.JSON,  # noqa: A002 - the parameter's public name
) -> Any:
    """What to set at a width: learning rate, ε, weight decay and initialisation of every parameter group."""
    with reading(context.sessions) as session:
        found = read.study_recipe(session, study_id, width=width, depth=depth, arm=arm)
    if format is RecipeFormat.JSON:
        return found
    render, media_type = RENDERED[format]
    return Response(render(found), media_type=media_type)


@router.get(
    "/studies/{study_id}/events", dependencies=[READ], response_class=Response,
    responses=EVENT_ANSWERS | NOT_FOUND,
)  # fmt: skip
async def study_events(
    request: Request,
    study_id: StudyId,
    context: ContextDep,
    last_event_id: Annotated[int, Header(ge=0, le=MAX_EVENT_ID, description="Resume after this event.")] = 0,
    after: Annotated[int, Query(ge=0, le=MAX_EVENT_ID, description="The same, for a first request.")] = 0,
) -> Response:
    """Follow a study: its events as they happen, and its progress (`event: progress`) whenever it changes."""
    watch: Watch = request.app.state.watch
    await watch.check_visible(study_id)
    start = max(last_event_id, after)
    seen = await watch.pulse(study_id)
    if seen.is_over and 0 < seen.last_event <= start:
        return Response(status_code=204)  # tells an EventSource not to connect again
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return EventSourceResponse(stream(context, watch, study_id, start), headers=headers)
