"""Files of a study over HTTP: its report, its trials and fits as data, its charts as images."""

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.auth.scopes import READ
from service.conditional import ConditionalRoute
from service.context import ContextDep
from service.dashboard.study_page import Asked, page_charts
from service.db import studies, trial_results
from service.db.base import MOST_INTEGER
from service.db.session import reading
from service.reports.chart import Chart, find
from service.reports.data import DATA_FORMS, DataForm, fits_table, trials_table, written
from service.reports.drawing import FORMS, Form, image
from service.reports.files import REPORT_FORMS, ReportForm, attachment, report_file
from service.reports.palette import THEMES
from service.reports.table import Table
from service.studies.openapi import COMMON, CONFLICT, NOT_FOUND
from service.studies.read import result_document
from service.studies.routes import StudyId

router = APIRouter(route_class=ConditionalRoute, responses=COMMON | NOT_FOUND)


class DataName(StrEnum):
    """What is exported."""

    TRIALS = "trials"
    FITS = "fits"


class ThemeName(StrEnum):
    """Colours of an image."""

    LIGHT = "light"
    DARK = "dark"


def _answers(*media_types: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {} for media_type in media_types}, "description": "The file."}}


@router.get(
    "/studies/{study_id}/report", response_class=Response, dependencies=[READ],
    responses=_answers(*REPORT_FORMS.values()),
)  # fmt: skip
def study_report(
    study_id: StudyId,
    context: ContextDep,
    format: Annotated[ReportForm, Query()] = ReportForm.HTML,  # noqa: A002 - the parameter's public name
) -> Response:
    """The report as one file that needs nothing else: HTML that opens offline, Markdown, or PDF."""
    with reading(context.sessions) as session:
        result, spec = _study(session, study_id)
    return attachment(report_file(result, spec, format), REPORT_FORMS[format], f"{study_id}-report.{format.value}")


@router.get(
    "/studies/{study_id}/export", response_class=Response, dependencies=[READ],
    responses=_answers(*DATA_FORMS.values()),
)  # fmt: skip
def study_export(
    study_id: StudyId,
    context: ContextDep,
    data: Annotated[DataName, Query(description="Every trial, or one row a fitted curve.")] = DataName.TRIALS,
    format: Annotated[DataForm, Query()] = DataForm.CSV,  # noqa: A002 - the parameter's public name
) -> Response:
    """Trials or fits as a table for other programs. Columns carry their units; see docs/guide/reports.md."""
    with reading(context.sessions) as session:
        table = _table(session, study_id, data)
    return attachment(written(table, format), DATA_FORMS[format], f"{study_id}-{data.value}.{format.value}")


@router.get(
    "/studies/{study_id}/figures/{key}", response_class=Response, dependencies=[READ],
    responses=_answers(*FORMS.values()) | CONFLICT,
)  # fmt: skip
def study_figure(
    study_id: StudyId,
    key: str,
    context: ContextDep,
    format: Annotated[Form, Query()] = Form.SVG,  # noqa: A002 - the parameter's public name
    theme: Annotated[ThemeName, Query()] = ThemeName.LIGHT,
    arm: Annotated[str | None, Query(max_length=64, description="Whose training curves or audit.")] = None,
    size: Annotated[
        int | None, Query(ge=1, le=MOST_INTEGER, description="Training curves at this width (or depth).")
    ] = None,
) -> Response:
    """A chart of the study's page as an image. 409 while it has nothing to show."""
    asked = Asked(arm=arm, size=size, audit_arm=arm)
    with reading(context.sessions) as session:
        charts: tuple[Chart, ...] = page_charts(session, study_id, asked, THEMES[theme.value])
    return attachment(image(find(charts, key), format), FORMS[format], f"{study_id}-{key}.{format.value}")


def _study(session: Session, study_id: str) -> tuple[StudyResult, StudySpec]:
    return result_document(session, study_id), StudySpec.model_validate(studies.get(session, study_id).spec)


def _table(session: Session, study_id: str, data: DataName) -> Table:
    if data is DataName.FITS:
        return fits_table(result_document(session, study_id))
    spec = StudySpec.model_validate(studies.get(session, study_id).spec)
    return trials_table(study_id, spec, trial_results.all_trials(session, study_id))
