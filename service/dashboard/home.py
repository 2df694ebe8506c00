"""The list of studies; its filters are the URL's parameters."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from mutransfer.result import Outcome
from service.dashboard import queries
from service.dashboard.frame import MAX_TEXT, Frame, Route
from service.dashboard.queries import Filters
from service.db.states import StudyState
from service.reports.cards import spark
from service.settings import Settings

_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]


class Home:
    """The handlers, with what they share."""

    def __init__(self, frame: Frame, settings: Settings) -> None:
        self._frame = frame
        self._settings = settings

    def page(
        self, request: Request, state: _Text = None, verdict: _Text = None, q: _Text = None, before: _Text = None
    ) -> Response:
        """The list of studies."""
        filters = Filters(
            state=StudyState(state) if state in list(StudyState) else None,
            verdict=Outcome(verdict) if verdict in list(Outcome) else None, search=(q or "").strip(), before=before,
        )  # fmt: skip

        def answer(session: Session) -> Response:
            lines, more = queries.list_studies(session, filters)
            counts = queries.count_by_state(session)
            sparks = {line.row.id: spark(line.result) for line in lines if line.result is not None}
            active = any(counts.get(state, 0) for state in StudyState if not state.is_final)
            return self._frame.html(
                request, "home.html", here="home", lines=lines, more=more, counts=counts, filters=filters,
                sparks=sparks, active=active, states=[s.value for s in StudyState if counts.get(s.value)],
                outcomes=[outcome.value for outcome in Outcome], url=self._settings.url,
            )  # fmt: skip

        return self._frame.read(request, answer)


def routes(frame: Frame, settings: Settings) -> Iterable[Route]:
    """The list of studies."""
    return [("/", Home(frame, settings).page)]
