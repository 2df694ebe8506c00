"""The dashboard's routes, collected: each page's module adds its own here. Static files, and what leads nowhere."""

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from service.auth.scopes import OPEN, READ
from service.dashboard import compare, home, schedules, study, submit, system, trials
from service.dashboard.assets import FOREVER, Assets
from service.dashboard.frame import Frame, Route
from service.db.session import Sessions
from service.settings import Settings

_STATIC, _ICON = "/static/{path:path}", "/favicon.ico"
_OPEN = (_STATIC, _ICON)  # the login page shows them


class Files:
    """Static files, and the answer to every other address."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def static(self, request: Request, path: str) -> Response:
        """A static file of exactly this version."""
        asset = self._frame.assets.find(path)
        if asset is None:
            return self._frame.missing(request, f"no file {path}")
        return asset.response(request, cache=FOREVER)

    def icon(self) -> Response:
        """Browsers ask for this whatever a page says."""
        return RedirectResponse(self._frame.assets.url("mark.svg"))

    def anything(self, request: Request, path: str) -> Response:
        """Whatever no other route knows."""
        return self._frame.missing(request, f"/{path}")

    def routes(self) -> Iterable[Route]:
        """Included last."""
        return [(_STATIC, self.static), (_ICON, self.icon), ("/{path:path}", self.anything)]


class _PageRoute(APIRoute):
    """A route of the dashboard: it leaves everything below `/api/` to the API, unknown addresses included."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if scope["path"].startswith("/api/") else super().matches(scope)


def router(settings: Settings, sessions: Sessions) -> APIRouter:
    """All routes of the dashboard. Include it last: it answers every unknown address with its own page."""
    frame, routes = Frame(Assets(), sessions), APIRouter(include_in_schema=False)
    found = [
        *home.routes(frame, settings),
        *study.routes(frame),
        *trials.routes(frame),
        *compare.routes(frame),
        *submit.routes(frame, settings),
        *schedules.routes(frame),
        *system.routes(frame, settings),
        *Files(frame).routes(),
    ]
    frame.show(path for path, _ in found)
    for path, handler in found:
        routes.add_api_route(
            path, handler, methods=["GET"], response_class=HTMLResponse, route_class_override=_PageRoute,
            dependencies=[OPEN if path in _OPEN else READ],
        )  # fmt: skip
    return routes
