"""What a list of studies may be asked for: filters, order, page, as the parameters of `GET /studies`."""

from datetime import UTC, datetime

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from mutransfer.errors import SpecError
from mutransfer.result import Outcome
from service import cursors
from service.db import study_lists
from service.db.states import StudyState
from service.db.study_lists import Order, Place, StudyFilter
from service.db.tables import StudyRow
from service.studies import rendered

MAX_CURSOR = 500  # characters


class StudyQuery(BaseModel):
    """The parameters of a list."""

    state: StudyState | None = None
    project: str | None = Field(default=None, max_length=64, pattern=r"^[a-z0-9-]*$")
    name: str | None = Field(default=None, max_length=100, description="A part of the name, in any case.")
    verdict: Outcome | None = Field(default=None, description="The verdict of one arm at least.")
    created_after: datetime | None = Field(default=None, description="UTC unless it says otherwise.")
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    sort: Order = Order.NEWEST
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(
        default=None, max_length=MAX_CURSOR, description="`next_cursor` of the page before; of the same `sort`."
    )

    def filter(self) -> StudyFilter:
        """The filters. Raises SpecError for a time that has no number."""
        moments = {
            name: _seconds(name, getattr(self, name))
            for name in ("created_after", "created_before", "updated_after", "updated_before")
        }
        return StudyFilter(state=self.state, project=self.project, name=self.name, verdict=self.verdict, **moments)

    def place(self) -> Place | None:
        """Where the page begins. Raises SpecError for a cursor that is none, or of another order."""
        return place_at(self.cursor, self.sort) if self.cursor else None


def place_at(cursor: str, sort: Order) -> Place:
    """The place that `cursor_at` wrote down. Raises SpecError for a cursor that is none, or of another order."""
    kind = float if sort.removeprefix("-") == "updated" else str
    order, value, study_id = cursors.decode(cursor, str, kind, str)
    if order != sort:
        raise SpecError.at("cursor", f"belongs to a list of sort={order}: ask for that, or begin without a cursor")
    return value, study_id


def cursor_at(row: StudyRow, sort: Order) -> str:
    """Where a study is in a list of this order, for an address."""
    return cursors.encode([sort, *study_lists.place_of(row, sort)])


def page_text(session: Session, query: StudyQuery) -> str:
    """The page that is asked for, as the JSON text of a `StudyPage`."""
    rows = study_lists.find(session, query.filter(), query.sort, after=query.place(), limit=query.limit + 1)
    shown, following = rows[: query.limit], None
    if len(rows) > query.limit:
        following = cursor_at(shown[-1], query.sort)
    return rendered.page_text(session, shown, following)


def _seconds(name: str, moment: datetime | None) -> float | None:
    if moment is None:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except OverflowError:
        raise SpecError.at(name, "is too far away") from None
