"""What is known of one trial, whichever studies use it: `GET /trials/{key}/log`."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.auth.scopes import READ
from service.conditional import ConditionalRoute
from service.context import ContextDep
from service.db import trial_logs
from service.db.events import Event
from service.db.session import reading
from service.db.states import TrialState
from service.studies.openapi import COMMON, CONFLICT, NOT_FOUND
from service.studies.schemas import utc
from service.trials.schemas import TrialEvent, TrialLogRead

router = APIRouter(route_class=ConditionalRoute, responses=COMMON | NOT_FOUND | CONFLICT)


@router.get("/trials/{key}/log", dependencies=[READ])
def trial_log(
    key: Annotated[str, Path(pattern=r"^[0-9a-f]{8,64}$", description="A trial's content key, or how it begins.")],
    context: ContextDep,
) -> TrialLogRead:
    """Why a trial failed, or how far it is: attempts, events in all studies that use it, the last traceback."""
    with reading(context.sessions) as session:
        found = trial_logs.find(session, key)
    row = found.row
    return TrialLogRead(
        key=row.key, status=TrialState(row.status), attempts=row.attempts, step=row.step, steps=row.steps,
        study_ids=list(found.study_ids), events=[_event(study_id, event) for study_id, event in found.events],
        traceback=row.traceback,
    )  # fmt: skip


def _event(study_id: str, event: Event) -> TrialEvent:
    at = utc(event.at)
    assert at is not None  # noqa: S101 - a column that is never null
    said = event.payload
    loss = said.get("loss_nats")
    outcome = str(said.get("status", "")) if loss is None else f"loss {loss:.4f} nats"
    return TrialEvent(
        study_id=study_id, at=at, kind=event.kind, attempt=said.get("attempt"), final=bool(said.get("final")),
        text=str(said.get("reason", outcome)),
    )  # fmt: skip
