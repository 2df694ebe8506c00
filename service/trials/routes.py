"""The routes of a study's trials."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from mutransfer.spec import StudySpec
from service import cursors
from service.auth.scopes import READ
from service.conditional import ConditionalRoute
from service.context import ContextDep
from service.db import studies, trial_pages
from service.db.base import MOST_INTEGER
from service.db.session import reading
from service.studies.openapi import COMMON, NOT_FOUND
from service.studies.routes import StudyId
from service.trials.schemas import TrialDetail, TrialPage, TrialRead

router = APIRouter(route_class=ConditionalRoute, responses=COMMON | NOT_FOUND)


@router.get("/studies/{study_id}/trials", dependencies=[READ])
def list_trials(
    study_id: StudyId,
    context: ContextDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    cursor: Annotated[str | None, Query(max_length=300)] = None,
) -> TrialPage:
    """The trials of a study, by arm, axis value, learning rate and seed."""
    after = _place(cursor) if cursor else None
    with reading(context.sessions) as session:
        spec = StudySpec.model_validate(studies.get(session, study_id).spec)
        found = trial_pages.page(session, study_id, after=after, limit=limit + 1)
        items = [TrialRead.of(trial, spec) for trial in found[:limit]]
    following = cursors.encode(found[limit - 1].place) if len(found) > limit else None
    return TrialPage(items=items, next_cursor=following)


@router.get("/studies/{study_id}/trials/{key}", dependencies=[READ])
def show_trial(
    study_id: StudyId,
    key: Annotated[str, Path(pattern=r"^[0-9a-f]{1,64}$", description="The trial's content key.")],
    context: ContextDep,
) -> TrialDetail:
    """One trial with its training curve."""
    with reading(context.sessions) as session:
        spec = StudySpec.model_validate(studies.get(session, study_id).spec)
        return TrialDetail.of(trial_pages.one(session, study_id, key), spec)


def _place(cursor: str) -> trial_pages.Place:
    arm, axis_value, lr_octaves, seed = cursors.decode(cursor, str, int, float, int)
    if abs(axis_value) > MOST_INTEGER:
        raise cursors.forged()
    return arm, axis_value, lr_octaves, seed
