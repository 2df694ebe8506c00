"""The list of studies; its filters are the URL's parameters."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from mutransfer.errors import SpecError
from mutransfer.result import Outcome
from service.dashboard import queries
from service.dashboard.frame import MAX_TEXT, Frame, Route
from service.dashboard.queries import Filters
from service.db.states import StudyState
from service.db.study_lists import Order
from service.reports.cards import spark
from service.settings import Settings
from service.studies.listing import MAX_CURSOR, cursor_at

#: The orders that the page offers, with their names.
ORDERS = {
    Order.NEWEST: "newest first", Order.OLDEST: "oldest first", Order.UPDATED_LAST: "last changed first",
    Order.NAME: "by name",
}  # fmt: skip
_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]


class Home:
    """The handlers, with what they share."""

    def __init__(self, frame: Frame, settings: Settings) -> None:
        self._frame = frame
        self._settings = settings

    def page(
        self, request: Request, state: _Text = None, verdict: _Text = None, q: _Text = None, sort: _Text = None,
        cursor: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
    ) -> Response:  # fmt: skip
        """The list of studies."""
        filters = Filters(
            state=StudyState(state) if state in list(StudyState) else None,
            verdict=Outcome(verdict) if verdict in list(Outcome) else None, search=(q or "").strip(),
            order=Order(sort) if sort in ORDERS else Order.NEWEST, cursor=cursor,
        )  # fmt: skip

        def answer(session: Session) -> Response:
            lines, more = queries.list_studies(session, filters)
            following = cursor_at(lines[-1].row, filters.order) if more else None
            counts = queries.count_by_state(session)
            sparks = {line.row.id: spark(line.result) for line in lines if line.result is not None}
            active = any(counts.get(state, 0) for state in StudyState if not state.is_final)
            return self._frame.html(
                request, "home.html", here="home", lines=lines, following=following, counts=counts, filters=filters,
                orders=ORDERS, sparks=sparks, active=active, url=self._settings.url,
                states=[s.value for s in StudyState if counts.get(s.value)], outcomes=[o.value for o in Outcome],
            )  # fmt: skip

        try:
            return self._frame.read(request, answer)
        except SpecError as error:  # an address that was cut or written by hand
            return self._frame.missing(request, str(error))


def routes(frame: Frame, settings: Settings) -> Iterable[Route]:
    """The list of studies."""
    return [("/", Home(frame, settings).page)]
