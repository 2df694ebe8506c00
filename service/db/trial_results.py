"""Whole results of trials, for comparisons and exports: what a list of trials leaves out. Read only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from mutransfer.trial import TrialResult
from service.db.tables import StudyTrialRow, TrialRow
from service.db.trial_pages import PLACE, Place, StudyTrial, page

PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class PlacedResult:
    """A finished trial's result at its place in a study."""

    arm: str
    axis_value: int
    lr_octaves: float
    seed: int
    result: TrialResult


def at_rates(session: Session, study_id: str, arm: str, rates: Sequence[tuple[int, float]]) -> list[PlacedResult]:
    """Results of one arm at (axis value, LR in octaves) pairs, all seeds, in the order of their places."""
    wanted = set(rates)
    query = (
        select(*PLACE, TrialRow.result)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(
            StudyTrialRow.study_id == study_id,
            StudyTrialRow.arm == arm,
            StudyTrialRow.axis_value.in_({value for value, _ in wanted}),
            StudyTrialRow.lr_octaves.in_({rate for _, rate in wanted}),
            TrialRow.result.is_not(None),
        )
        .order_by(*PLACE)
    )
    found = {}
    for name, value, rate, seed, result in session.execute(query):
        if (value, rate) in wanted:
            found[value, rate, seed] = PlacedResult(
                arm=name, axis_value=value, lr_octaves=rate, seed=seed, result=TrialResult.model_validate(result)
            )
    return list(found.values())


def all_trials(session: Session, study_id: str) -> Iterator[StudyTrial]:
    """Every trial of a study by arm, axis value, LR and seed, without spec and history."""
    after: Place | None = None
    while True:
        found = page(session, study_id, after=after, limit=PAGE)
        yield from found
        if len(found) < PAGE:
            return
        after = found[-1].place
