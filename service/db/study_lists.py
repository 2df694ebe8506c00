"""Lists of studies: which ones, in which order, page by page. A page begins beyond a place, so that it costs the same
however far it is from the first, and nothing is missed or told twice when studies come in meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, defer

from mutransfer.result import Outcome
from service.db.states import StudyState
from service.db.summaries import mark
from service.db.tables import StudyRow, SummaryRow

Place = tuple[str | float, str]  # the last study's value of what orders the list, and its id


class Order(StrEnum):
    """How a list is ordered; `-` turns it round. Equals are ordered by the time they were made."""

    NEWEST = "-created"
    OLDEST = "created"
    UPDATED_LAST = "-updated"
    UPDATED_FIRST = "updated"
    NAME = "name"
    NAME_BACK = "-name"
    PROJECT = "project"
    PROJECT_BACK = "-project"
    STATE = "state"
    STATE_BACK = "-state"

    @property
    def is_descending(self) -> bool:
        """Whether the largest comes first."""
        return self.startswith("-")

    @property
    def column(self) -> InstrumentedAttribute[Any]:
        """What is compared. Ids rise with the time that a study was made."""
        columns: dict[str, InstrumentedAttribute[Any]] = {
            "created": StudyRow.id, "updated": StudyRow.updated_at, "name": StudyRow.name, "project": StudyRow.project,
            "state": StudyRow.state,
        }  # fmt: skip
        return columns[self.removeprefix("-")]


@dataclass(frozen=True, kw_only=True)
class StudyFilter:
    """Which studies are asked for; None is no restriction. Times are seconds since the epoch, ends included.

    `name` is a part of it in any case; `verdict` is that of one arm at least.
    """

    state: StudyState | None = None
    project: str | None = None
    name: str | None = None
    verdict: Outcome | None = None
    created_after: float | None = None
    created_before: float | None = None
    updated_after: float | None = None
    updated_before: float | None = None


def find(session: Session, wanted: StudyFilter, order: Order, *, after: Place | None, limit: int) -> Sequence[StudyRow]:
    """Up to `limit` studies beyond the place `after`, without their large columns."""
    query = _narrowed(select(StudyRow).options(defer(StudyRow.spec), defer(StudyRow.facts)), wanted)
    return session.scalars(ordered(query, order, after=after).limit(limit)).all()


def ordered(query: Select[StudyRow], order: Order, *, after: Place | None) -> Select[StudyRow]:
    """The query in this order, from beyond the place `after`."""
    place = tuple_(order.column, StudyRow.id)
    if after is not None:
        query = query.where(place < after if order.is_descending else place > after)
    columns = dict.fromkeys((order.column, StudyRow.id))
    return query.order_by(*(column.desc() if order.is_descending else column.asc() for column in columns))


def place_of(row: StudyRow, order: Order) -> Place:
    """Where a study is in a list of this order."""
    return getattr(row, order.column.key), row.id


def _narrowed(query: Select[StudyRow], wanted: StudyFilter) -> Select[StudyRow]:
    for column, value in ((StudyRow.state, wanted.state), (StudyRow.project, wanted.project)):
        if value is not None:
            query = query.where(column == value)
    for moment, first, last in (
        (StudyRow.created_at, wanted.created_after, wanted.created_before),
        (StudyRow.updated_at, wanted.updated_after, wanted.updated_before),
    ):
        query = query if first is None else query.where(moment >= first)
        query = query if last is None else query.where(moment <= last)
    if wanted.name:
        query = query.where(func.lower(StudyRow.name).contains(wanted.name.lower(), autoescape=True))
    if wanted.verdict is not None:
        judged = select(SummaryRow.study_id).where(SummaryRow.verdicts.contains(mark(wanted.verdict)))
        query = query.where(StudyRow.id.in_(judged))
    return query
