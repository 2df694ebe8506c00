"""Trials of a study as people see them: one entry a (arm, axis value, LR, seed), however many phases use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session, defer

from mutransfer.errors import NotFoundError
from service.db.states import TrialState
from service.db.tables import StudyTrialRow, TrialRow

Place = tuple[str, int, float, int]  # (arm, axis value, LR in octaves, seed)

PLACE = (StudyTrialRow.arm, StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed)


@dataclass(frozen=True, kw_only=True)
class StudyTrial:
    """One trial at its place in a study."""

    place: Place
    phases: tuple[str, ...]
    reused: bool
    unavailable: bool
    row: TrialRow


def page(session: Session, study_id: str, *, after: Place | None, limit: int) -> list[StudyTrial]:
    """Up to `limit` trials beyond the place `after`, by arm, axis value, LR and seed; without spec and history."""
    places = select(*PLACE).where(StudyTrialRow.study_id == study_id).distinct().order_by(*PLACE).limit(limit)
    if after is not None:
        places = places.where(tuple_(*PLACE) > after)
    found = session.execute(places).all()
    if not found:
        return []
    query = (
        select(StudyTrialRow, TrialRow)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, tuple_(*PLACE) >= found[0], tuple_(*PLACE) <= found[-1])
        .order_by(*PLACE, StudyTrialRow.phase)
        .options(defer(TrialRow.spec), defer(TrialRow.result))
    )
    return _grouped(session.execute(query).all())


def one(session: Session, study_id: str, key: str) -> StudyTrial:
    """One trial of a study by its content key, with spec and result. Raises NotFoundError."""
    query = (
        select(StudyTrialRow, TrialRow)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, StudyTrialRow.trial_key == key)
        .order_by(*PLACE, StudyTrialRow.phase)
    )
    found = _grouped(session.execute(query).all())
    if not found:
        raise NotFoundError(f"study {study_id} has no trial {key}")
    return found[0]


def running(session: Session, study_id: str) -> list[Mapping[str, Any]]:
    """How far the trials are that run now."""
    query = (
        select(TrialRow.key, *PLACE, TrialRow.step, TrialRow.steps, TrialRow.train_loss_nats)
        .join(StudyTrialRow, StudyTrialRow.trial_key == TrialRow.key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.status == TrialState.RUNNING)
        .distinct()
        .order_by(*PLACE)
    )
    return [dict(row) for row in session.execute(query).mappings()]


def _place(use: StudyTrialRow) -> Place:
    return use.arm, use.axis_value, use.lr_octaves, use.seed


def _grouped(rows: Sequence[tuple[StudyTrialRow, TrialRow]]) -> list[StudyTrial]:
    grouped = []
    for place, members in groupby(rows, key=lambda row: _place(row[0])):
        uses = list(members)
        grouped.append(
            StudyTrial(
                place=place,
                phases=tuple(use.phase for use, _ in uses),
                reused=all(use.reused for use, _ in uses),
                unavailable=any(use.unavailable for use, _ in uses),
                row=uses[0][1],
            )
        )
    return grouped
