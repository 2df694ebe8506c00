"""The routes of one study: its page, figures, tables and reports. Reading only; actions go through the API."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy.orm import Session

from mutransfer.spec import StudySpec
from service.dashboard import answers
from service.dashboard.actions import actions, extend_fields, may_change
from service.dashboard.answers import number
from service.dashboard.frame import MAX_TEXT, Frame, Route
from service.dashboard.study_page import Asked, page_charts, page_training, study_view
from service.db import studies
from service.db.actions import MAX_PRIORITY
from service.db.events import EventKind
from service.db.states import StudyState
from service.reports import training_chart
from service.reports.html import report_html
from service.reports.markdown import report_markdown
from service.reports.palette import LIGHT, THEMES
from service.studies.read import result_document

_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]
_Size = Annotated[str | None, Query(max_length=12)]


class Study:
    """The handlers."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def page(
        self, request: Request, study_id: str, arm: _Text = None, size: _Size = None, recipe_width: _Size = None,
        recipe_arm: _Text = None, audit_arm: _Text = None,
    ) -> Response:  # fmt: skip
        """One study, top to bottom."""
        asked = Asked(
            arm=arm, size=number(size), recipe_width=number(recipe_width), recipe_arm=recipe_arm,
            audit_arm=audit_arm,
        )  # fmt: skip

        def answer(session: Session) -> Response:
            view = study_view(session, study_id, asked)
            kinds = [kind.value for kind in EventKind]
            may = actions(StudyState(view.row.state), allowed=may_change(), can_clone=self._frame.has("submit"))
            return self._frame.html(
                request, "study.html", here="home", view=view, kinds=kinds, may=may,
                extend_fields=extend_fields(view.spec) if may.extend else (), most_priority=MAX_PRIORITY,
            )  # fmt: skip

        return self._frame.read(request, answer)

    def figures(
        self, request: Request, study_id: str, theme: str = "light", arm: _Text = None, size: _Size = None,
        audit_arm: _Text = None, only: _Text = None,
    ) -> Response:  # fmt: skip
        """All charts of a study's page in one theme, as Plotly figures."""
        asked = Asked(arm=arm, size=number(size), audit_arm=audit_arm)
        colours = THEMES.get(theme, LIGHT)

        def answer(session: Session) -> Response:
            if only == training_chart.KEY:  # while trials run: what moves, without judging the study
                return answers.figures(request, (page_training(session, study_id, asked, colours),))
            return answers.figures(request, page_charts(session, study_id, asked, colours))

        return self._frame.read(request, answer)

    def table(
        self, request: Request, study_id: str, key: str, arm: _Text = None, size: _Size = None,
        audit_arm: _Text = None,
    ) -> Response:  # fmt: skip
        """The table of one chart as CSV."""
        asked = Asked(arm=arm, size=number(size), audit_arm=audit_arm)

        def answer(session: Session) -> Response:
            return answers.csv_table(page_charts(session, study_id, asked, LIGHT), key, study_id)

        return self._frame.read(request, answer)

    def report(self, request: Request, study_id: str, kind: str) -> Response:
        """The study's report: one file that needs nothing else, as HTML or Markdown."""
        if kind not in ("html", "md"):
            return self._frame.missing(request, f"a report comes as html or md, not as {kind}")

        def answer(session: Session) -> Response:
            spec = StudySpec.model_validate(studies.get(session, study_id).spec)
            result = result_document(session, study_id)
            headers = {"Content-Disposition": f'attachment; filename="{study_id}-report.{kind}"'}
            if kind == "md":
                return PlainTextResponse(report_markdown(result, spec), media_type="text/markdown", headers=headers)
            return HTMLResponse(report_html(result, spec), headers=headers)

        return self._frame.read(request, answer)


def routes(frame: Frame) -> Iterable[Route]:
    """Everything below one study's address."""
    pages = Study(frame)
    return [
        ("/studies/{study_id}", pages.page),
        ("/studies/{study_id}/figures.json", pages.figures),
        ("/studies/{study_id}/figures/{key}.csv", pages.table),
        ("/studies/{study_id}/report.{kind}", pages.report),
    ]
