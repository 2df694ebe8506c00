"""What pages read from the database beyond service.db: lists with a search, histories, the last events. Read only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, defer

from mutransfer.result import Outcome, StudyResult
from mutransfer.trial import HistoryPoint
from service.db import summaries
from service.db.events import Event, EventKind
from service.db.states import StudyState
from service.db.studies import Tally, tallies
from service.db.study_lists import Order, ordered
from service.db.tables import EventRow, StudyRow, StudyTrialRow, SummaryRow, TrialRow
from service.studies.listing import place_at

PAGE_SIZE = 50


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a list of studies shows: all of it is in the page's URL. `cursor`: the study that the page starts after."""

    state: StudyState | None = None
    verdict: Outcome | None = None
    search: str = ""
    order: Order = Order.NEWEST
    cursor: str | None = None

    def query(self, **changes: str | None) -> dict[str, str]:
        """The URL's query parameters, with some changed or (None) left out."""
        own = {
            "state": self.state.value if self.state else None, "verdict": self.verdict.value if self.verdict else None,
            "q": self.search or None, "sort": None if self.order is Order.NEWEST else self.order.value,
            "cursor": self.cursor,
        }  # fmt: skip
        return {name: value for name, value in (own | changes).items() if value}


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """One study in a list. `result` is in brief, without its curves' points; None until the study has completed."""

    row: StudyRow
    tally: Tally
    result: StudyResult | None


def list_studies(session: Session, filters: Filters) -> tuple[list[StudyLine], bool]:
    """One page of studies, and whether more follow. Raises SpecError for a cursor that is none, or of another order."""
    after = place_at(filters.cursor, filters.order) if filters.cursor else None
    query = ordered(select(StudyRow).options(defer(StudyRow.facts)), filters.order, after=after).limit(PAGE_SIZE + 1)
    if filters.state is not None:
        query = query.where(StudyRow.state == filters.state)
    if filters.verdict is not None:
        judged = select(SummaryRow.study_id).where(SummaryRow.verdicts.contains(summaries.mark(filters.verdict)))
        query = query.where(StudyRow.id.in_(judged))
    if filters.search:
        wanted = filters.search.lower()
        query = query.where(
            or_(
                func.lower(StudyRow.name).contains(wanted, autoescape=True),
                func.lower(StudyRow.id).contains(wanted, autoescape=True),
                func.lower(StudyRow.project).contains(wanted, autoescape=True),
            )
        )
    rows = list(session.scalars(query))
    shown = rows[:PAGE_SIZE]
    counts = tallies(session, [row.id for row in shown])
    briefs = summaries.briefs(session, [row.id for row in shown if row.state == StudyState.COMPLETED])
    lines = [StudyLine(row=row, tally=counts[row.id], result=briefs.get(row.id)) for row in shown]
    return lines, len(rows) > PAGE_SIZE


def count_by_state(session: Session) -> Mapping[str, int]:
    """How many studies are in each state."""
    query = select(StudyRow.state, func.count()).group_by(StudyRow.state)
    return dict(session.execute(query).all())


def last_events(session: Session, study_id: str, limit: int) -> list[Event]:
    """The newest events of a study, newest first."""
    query = select(EventRow).where(EventRow.study_id == study_id).order_by(EventRow.id.desc()).limit(limit)
    return [
        Event(id=row.id, kind=EventKind(row.kind), payload=row.payload, at=row.at) for row in session.scalars(query)
    ]


@dataclass(frozen=True, kw_only=True)
class TrialHistory:
    """A finished trial's training losses at its place in a study."""

    axis_value: int
    lr_octaves: float
    seed: int
    history: tuple[HistoryPoint, ...]


def finished_places(session: Session, study_id: str, arm: str) -> Sequence[tuple[int, float, int]]:
    """(axis value, LR in octaves, seed) of an arm's trials that have a result, in that order."""
    query = (
        select(StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, StudyTrialRow.arm == arm, TrialRow.finished_at.is_not(None))
        .where(TrialRow.result.is_not(None))
        .distinct()
        .order_by(StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed)
    )
    return session.execute(query).all()


def histories(
    session: Session, study_id: str, arm: str, places: Sequence[tuple[int, float, int]]
) -> list[TrialHistory]:
    """The histories of trials at `places` of one arm, in the order of the places."""
    wanted = set(places)
    query = (
        select(StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed, TrialRow.result)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(
            StudyTrialRow.study_id == study_id,
            StudyTrialRow.arm == arm,
            StudyTrialRow.axis_value.in_({place[0] for place in wanted}),
            StudyTrialRow.lr_octaves.in_({place[1] for place in wanted}),
            StudyTrialRow.seed.in_({place[2] for place in wanted}),
            TrialRow.result.is_not(None),
        )
    )
    found = {(value, rate, seed): result for value, rate, seed, result in session.execute(query)}
    return [_history(place, found[place]) for place in places if place in found]


def _history(place: tuple[int, float, int], result: Mapping[str, Any] | None) -> TrialHistory:
    points = (result or {}).get("history", ())
    return TrialHistory(
        axis_value=place[0],
        lr_octaves=place[1],
        seed=place[2],
        history=tuple(HistoryPoint.model_validate(point) for point in points),
    )
