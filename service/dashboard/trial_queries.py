"""The trials of a study as its pages list them: filtered, in order, page by page. Read only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, and_, case, func, select, tuple_
from sqlalchemy.orm import Session

from service.db.base import MOST_BIG_INTEGER, MOST_INTEGER
from service.db.states import TrialState
from service.db.tables import StudyTrialRow, TrialRow
from service.db.trial_pages import PLACE, Place

PAGE_SIZE = 100
_GIVEN_UP = and_(StudyTrialRow.unavailable, TrialRow.result.is_(None))
#: A trial that this study has given up has failed for it, whatever another study makes of it.
_STATUS: ColumnElement[str] = case((_GIVEN_UP, TrialState.FAILED.value), else_=TrialRow.status)


@dataclass(frozen=True, kw_only=True)
class TrialFilters:
    """What a list of trials shows: all of it is in the page's address. `after` is the place it starts beyond."""

    arm: str | None = None
    size: int | None = None
    lr_octaves: float | None = None
    status: TrialState | None = None
    after: Place | None = None

    def query(self) -> str:
        """The address's query."""
        after = None if self.after is None else ":".join(str(part) for part in self.after)
        own = {
            "arm": self.arm, "size": self.size, "lr": None if self.lr_octaves is None else f"{self.lr_octaves:g}",
            "status": self.status.value if self.status else None, "after": after,
        }  # fmt: skip
        return urlencode({name: value for name, value in own.items() if value is not None})

    def beyond(self, place: Place | None) -> "TrialFilters":
        """The same list from another place on."""
        return replace(self, after=place)


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """One trial at its place in a study, without spec and history."""

    key: str
    arm: str
    size: int
    lr_octaves: float
    seed: int
    status: str
    loss_nats: float | None
    train_loss_nats: float | None
    step: int
    steps: int | None
    attempts: int
    device_seconds: float
    reused: bool

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return self.arm, self.size, self.lr_octaves, self.seed


def parse_place(text: str | None) -> Place | None:
    """A place out of an address; None for what is none."""
    parts = (text or "").rsplit(":", 3)
    try:
        place = parts[0], int(parts[1]), float(parts[2]), int(parts[3])
    except (IndexError, ValueError):
        return None
    return place if abs(place[1]) <= MOST_INTEGER and abs(place[3]) <= MOST_BIG_INTEGER else None


def list_trials(session: Session, study_id: str, filters: TrialFilters) -> tuple[list[TrialLine], bool]:
    """One page of trials by arm, size, rate and seed, and whether more follow."""
    query = (
        select(
            TrialRow.key, StudyTrialRow.arm, StudyTrialRow.axis_value.label("size"), StudyTrialRow.lr_octaves,
            StudyTrialRow.seed, func.min(_STATUS).label("status"), TrialRow.loss_nats, TrialRow.train_loss_nats,
            TrialRow.step, TrialRow.steps, TrialRow.attempts, TrialRow.device_seconds,
            func.min(case((StudyTrialRow.reused, 1), else_=0)).label("reused"),
        )
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, *_wanted(filters))
        .group_by(TrialRow.key, *PLACE)
        .order_by(*PLACE)
        .limit(PAGE_SIZE + 1)
    )  # fmt: skip
    if filters.after is not None:
        query = query.where(tuple_(*PLACE) > filters.after)
    rows = session.execute(query).mappings().all()
    lines = [TrialLine(**{**row, "reused": bool(row["reused"])}) for row in rows[:PAGE_SIZE]]
    return lines, len(rows) > PAGE_SIZE


def count_trials(session: Session, study_id: str) -> dict[str, int]:
    """How many trials of a study are in each state."""
    uses = (
        select(StudyTrialRow.trial_key, func.min(_STATUS).label("status"))
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id)
        .group_by(StudyTrialRow.trial_key)
        .subquery()
    )
    return dict(session.execute(select(uses.c.status, func.count()).group_by(uses.c.status)).all())


def _wanted(filters: TrialFilters) -> Sequence[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.arm is not None:
        found.append(StudyTrialRow.arm == filters.arm)
    if filters.size is not None:
        found.append(StudyTrialRow.axis_value == filters.size)
    if filters.lr_octaves is not None:
        found.append(func.abs(StudyTrialRow.lr_octaves - filters.lr_octaves) < 1e-6)
    if filters.status is not None:
        found.append(_STATUS.in_([filters.status.value]))
    return found
