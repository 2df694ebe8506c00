"""The dashboard's routes: pages, their figures, and static files. Reading only; actions go through the API."""

from collections.abc import Callable
from http import HTTPStatus
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session
from starlette.routing import Match
from starlette.types import Scope

from mutransfer.errors import NotFoundError
from mutransfer.spec import StudySpec
from service.auth.scopes import OPEN, READ
from service.dashboard import queries
from service.dashboard.assets import FOREVER, Assets, packed
from service.dashboard.queries import Filters
from service.dashboard.study_page import Asked, page_chart, page_charts, study_view
from service.db import studies
from service.db.events import EventKind
from service.db.session import Sessions, reading
from service.db.states import StudyState
from service.reports.cards import spark
from service.reports.html import report_html
from service.reports.markdown import report_markdown
from service.reports.palette import LIGHT, THEMES
from service.reports.templating import render
from service.settings import Settings
from service.studies.read import result_document

_NO_CACHE = "no-cache"
_Text = Annotated[str | None, Query(max_length=100)]
_Size = Annotated[str | None, Query(max_length=12)]


def _number(text: str | None) -> int | None:
    """A positive whole number, None for anything else: a form's empty field is no error."""
    return int(text) if text and text.isascii() and text.isdigit() and int(text) > 0 else None


class Dashboard:
    """The handlers, with what they share."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._settings = settings
        self._sessions = sessions
        self._assets = Assets()

    def _html(self, name: str, *, status: HTTPStatus = HTTPStatus.OK, **context: Any) -> Response:
        page = render(name, assets=self._assets, **context)
        return HTMLResponse(page, status_code=int(status), headers={"Cache-Control": _NO_CACHE})

    def missing(self, what: str) -> Response:
        """The page for an address that leads nowhere."""
        return self._html("missing.html", status=HTTPStatus.NOT_FOUND, what=what)

    def home(self, state: _Text = None, q: _Text = None, before: _Text = None) -> Response:
        """The list of studies; its filters are the URL's parameters."""
        known = state if state in list(StudyState) else None
        filters = Filters(state=StudyState(known) if known else None, search=(q or "").strip(), before=before)
        with reading(self._sessions) as session:
            lines, more = queries.list_studies(session, filters)
            counts = queries.count_by_state(session)
        sparks = {line.row.id: spark(line.result) for line in lines if line.result is not None}
        active = any(counts.get(state, 0) for state in StudyState if not state.is_final)
        return self._html(
            "home.html", lines=lines, more=more, counts=counts, filters=filters, sparks=sparks, active=active,
            states=[state.value for state in StudyState if counts.get(state.value)], url=self._settings.url,
        )  # fmt: skip

    def study(
        self, study_id: str, arm: _Text = None, size: _Size = None, recipe_width: _Size = None,
        recipe_arm: _Text = None, audit_arm: _Text = None,
    ) -> Response:  # fmt: skip
        """One study, top to bottom."""
        asked = Asked(
            arm=arm, size=_number(size), recipe_width=_number(recipe_width), recipe_arm=recipe_arm,
            audit_arm=audit_arm,
        )  # fmt: skip
        try:
            with reading(self._sessions) as session:
                view = study_view(session, study_id, asked)
        except NotFoundError as error:
            return self.missing(str(error))
        return self._html("study.html", view=view, kinds=[kind.value for kind in EventKind])

    def figures(
        self, request: Request, study_id: str, theme: str = "light", arm: _Text = None, size: _Size = None,
        audit_arm: _Text = None,
    ) -> Response:  # fmt: skip
        """All charts of a study's page in one theme, as Plotly figures."""
        asked = Asked(arm=arm, size=_number(size), audit_arm=audit_arm)
        colours = THEMES.get(theme, LIGHT)

        def read(session: Session) -> Response:
            found = [chart.document() for chart in page_charts(session, study_id, asked, colours)]
            body = json.dumps({"charts": found}, separators=(",", ":")).encode()
            return packed(request, body, "application/json", cache=_NO_CACHE)

        return self._found(read)

    def table(
        self, study_id: str, key: str, arm: _Text = None, size: _Size = None, audit_arm: _Text = None
    ) -> Response:
        """The table of one chart as CSV."""
        asked = Asked(arm=arm, size=_number(size), audit_arm=audit_arm)

        def read(session: Session) -> Response:
            chart = page_chart(session, study_id, key, asked)
            name = f'attachment; filename="{study_id}-{key}.csv"'
            return Response(chart.table.csv(), media_type="text/csv", headers={"Content-Disposition": name})

        return self._found(read)

    def report(self, study_id: str, kind: str) -> Response:
        """The study's report: one file that needs nothing else, as HTML or Markdown."""
        if kind not in ("html", "md"):
            return self.missing(f"a report comes as html or md, not as {kind}")

        def read(session: Session) -> Response:
            spec = StudySpec.model_validate(studies.get(session, study_id).spec)
            result = result_document(session, study_id)
            headers = {"Content-Disposition": f'attachment; filename="{study_id}-report.{kind}"'}
            if kind == "md":
                return PlainTextResponse(report_markdown(result, spec), media_type="text/markdown", headers=headers)
            return HTMLResponse(report_html(result, spec), headers=headers)

        return self._found(read)

    def _found(self, read: Callable[[Session], Response]) -> Response:
        try:
            with reading(self._sessions) as session:
                return read(session)
        except NotFoundError as error:
            return self.missing(str(error))

    def static(self, request: Request, path: str) -> Response:
        """A static file of exactly this version."""
        asset = self._assets.find(path)
        return self.missing(f"no file {path}") if asset is None else asset.response(request, cache=FOREVER)

    def icon(self) -> Response:
        """Browsers ask for this whatever a page says."""
        return RedirectResponse(self._assets.url("mark.svg"))

    def anything(self, path: str) -> Response:
        """Whatever no other route knows."""
        return self.missing(f"/{path}")


class _PageRoute(APIRoute):
    """A route of the dashboard: it leaves everything below `/api/` to the API, unknown addresses included."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if scope["path"].startswith("/api/") else super().matches(scope)


def router(settings: Settings, sessions: Sessions) -> APIRouter:
    """All routes of the dashboard. Include it last: it answers every unknown address with its own page."""
    pages, routes = Dashboard(settings, sessions), APIRouter(include_in_schema=False)
    for path, handler, demand in (
        ("/", pages.home, READ),
        ("/studies/{study_id}", pages.study, READ),
        ("/studies/{study_id}/figures.json", pages.figures, READ),
        ("/studies/{study_id}/figures/{key}.csv", pages.table, READ),
        ("/studies/{study_id}/report.{kind}", pages.report, READ),
        ("/static/{path:path}", pages.static, OPEN),
        ("/favicon.ico", pages.icon, OPEN),
        ("/{path:path}", pages.anything, READ),
    ):
        routes.add_api_route(
            path, handler, methods=["GET"], response_class=HTMLResponse, route_class_override=_PageRoute,
            dependencies=[demand],
        )  # fmt: skip
    return routes
