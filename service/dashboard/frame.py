"""The frame that every page hangs in: navigation, assets, what the visitor may do. One for the whole dashboard.

A page is a template that extends `base.html` and a handler that ends in `frame.html(request, "page.html", …)`. Its
module has `routes(frame, …)`, which `pages.router` collects. An entry of PLACES is shown once its path has a route.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from mutransfer.errors import NotFoundError
from service.dashboard.actions import may_change
from service.dashboard.assets import Assets
from service.db.session import Sessions, reading
from service.reports.templating import render

NO_CACHE = "no-cache"
#: The query parameters of pages are free text: what cannot be meant is ignored, never an error.
MAX_TEXT = 100

Handler = Callable[..., Response]
Route = tuple[str, Handler]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One entry of the navigation. `key` is what `here=` names, `shortcut` the key pressed after `g`."""

    key: str
    path: str
    label: str
    shortcut: str


PLACES = (
    Place(key="home", path="/", label="Home", shortcut="h"),
    Place(key="compare", path="/compare", label="Compare", shortcut="c"),
    Place(key="submit", path="/submit", label="Submit", shortcut="s"),
    Place(key="schedules", path="/schedules", label="Schedules", shortcut="n"),
    Place(key="system", path="/system", label="System", shortcut="y"),
)


class Frame:
    """Renders templates inside the frame."""

    def __init__(self, assets: Assets, sessions: Sessions) -> None:
        self.assets = assets
        self._sessions = sessions
        self._places: tuple[Place, ...] = ()

    def show(self, paths: Iterable[str]) -> None:
        """The paths that have pages: the navigation leads to these."""
        served = set(paths)
        self._places = tuple(place for place in PLACES if place.path in served)

    def has(self, key: str) -> bool:
        """Whether a place is there to be linked to."""
        return any(place.key == key for place in self._places)

    def html(
        self, request: Request, template: str, *, here: str = "", status: HTTPStatus = HTTPStatus.OK, **context: Any
    ) -> Response:
        """A page. `here` is the place in the navigation that it belongs to."""
        page = render(
            template, assets=self.assets, places=self._places, here=here, frame=self, request=request,
            may_change=may_change(), **context,
        )  # fmt: skip
        return HTMLResponse(page, status_code=int(status), headers={"Cache-Control": NO_CACHE})

    def missing(self, request: Request, what: str) -> Response:
        """The page for an address that leads nowhere."""
        return self.html(request, "missing.html", status=HTTPStatus.NOT_FOUND, what=what)

    def read(self, request: Request, answer: Callable[[Session], Response]) -> Response:
        """What `answer` makes of one snapshot of the database; the page for nothing where it finds nothing."""
        try:
            with reading(self._sessions) as session:
                return answer(session)
        except NotFoundError as error:
            return self.missing(request, str(error))
