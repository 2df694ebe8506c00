"""What lists say of each study, kept beside it: reading a page of studies costs the page, not the studies' trials.

A summary counts the trials whose result the study has been told (its outbox messages), so that adding to it is exact.
All functions run inside a transaction that holds the study's lease row.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isclose
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, cast, func, select, update
from sqlalchemy.orm import Session

from mutransfer.result import Outcome, StudyResult
from service.db.outbox import OutboxKind
from service.db.tables import OutboxRow, StudyTrialRow, SummaryRow, TrialRow


def recount(session: Session, study_id: str) -> None:
    """Count a study's trials anew: after planning, after giving trials up or asking for them again."""
    planned, done, failed, seconds = session.execute(_counts(study_id)).one()
    counts = {"trials_planned": planned, "trials_done": done, "trials_failed": failed, "device_seconds": seconds}
    session.execute(update(SummaryRow).where(SummaryRow.study_id == study_id).values(counts))


def agrees(session: Session, study_id: str) -> bool:
    """Whether a study's summary says what a recount would, the last digits of seconds apart."""
    *counts, seconds = session.execute(_counts(study_id)).one()
    row = session.get(SummaryRow, study_id)
    if row is None:
        return False
    kept = [row.trials_planned, row.trials_done, row.trials_failed]
    return kept == list(counts) and isclose(row.device_seconds, seconds, rel_tol=1e-9, abs_tol=1e-6)


def add_results(session: Session, study_id: str, device_seconds: Iterable[float]) -> None:
    """Count trials whose result the study has just been told, by their cost."""
    seconds = list(device_seconds)
    if seconds:
        counts: dict[Any, ColumnElement[Any]] = {
            SummaryRow.trials_done: SummaryRow.trials_done + len(seconds),
            SummaryRow.device_seconds: SummaryRow.device_seconds + sum(seconds),
        }
        added = update(SummaryRow).where(SummaryRow.study_id == study_id).values(counts)
        if session.scalar(added.returning(SummaryRow.trials_failed)):
            recount(session, study_id)  # one that was given up may have a result after all


def note_result(session: Session, study_id: str, result: StudyResult | None) -> None:
    """Keep of a finished study's result what lists show, or forget it."""
    brief = None if result is None else in_brief(result).model_dump(mode="json")
    outcomes = {arm.verdict.outcome for arm in result.arms} if result else set()
    verdicts = "".join(mark(outcome) for outcome in sorted(outcomes))
    session.execute(update(SummaryRow).where(SummaryRow.study_id == study_id).values(brief=brief, verdicts=verdicts))


def mark(outcome: Outcome) -> str:
    """How `SummaryRow.verdicts` says that an arm has this verdict."""
    return f"|{outcome.value}|"


def briefs(session: Session, study_ids: Sequence[str]) -> Mapping[str, StudyResult]:
    """The result of each completed study, in brief."""
    query = select(SummaryRow.study_id, SummaryRow.brief).where(
        SummaryRow.study_id.in_(study_ids), SummaryRow.brief.is_not(None)
    )
    return {study_id: StudyResult.model_validate(brief) for study_id, brief in session.execute(query)}


def in_brief(result: StudyResult) -> StudyResult:
    """The result without the points and polynomials of its curves: everything that a list shows, and little more."""
    bare = {"points": (), "fit_coefficients": ()}
    arms = tuple(
        arm.model_copy(update={"curves": tuple(curve.model_copy(update=bare) for curve in arm.curves)})
        for arm in result.arms
    )
    return result.model_copy(update={"arms": arms})


def _counts(study_id: str) -> Any:
    uses = (
        select(
            StudyTrialRow.trial_key,
            func.min(cast(StudyTrialRow.reused, Integer)).label("reused"),
            func.max(cast(StudyTrialRow.unavailable, Integer)).label("unavailable"),
        )
        .where(StudyTrialRow.study_id == study_id)
        .group_by(StudyTrialRow.trial_key)
        .subquery()
    )
    told = and_(
        OutboxRow.study_id == study_id,
        OutboxRow.kind == OutboxKind.TRIAL_RESULT.value,
        OutboxRow.key == uses.c.trial_key,
    )
    done = OutboxRow.id.is_not(None)
    return (
        select(
            func.count(),
            func.count(OutboxRow.id),
            func.count().filter(and_(~done, uses.c.unavailable == 1, TrialRow.result.is_(None))),
            func.coalesce(func.sum(TrialRow.device_seconds).filter(and_(done, uses.c.reused == 0)), 0.0),
        )
        .select_from(uses)
        .join(TrialRow, TrialRow.key == uses.c.trial_key)
        .outerjoin(OutboxRow, told)
    )
