"""What the nights of a schedule measured, from their rows, as the judgement reads it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mutransfer.audit import AuditResult
from mutransfer.errors import NotFoundError
from mutransfer.nights import FigureKind, Judgement, NightData, NightTrial
from mutransfer.plan import Phase
from mutransfer.result import StudyResult
from mutransfer.spec import Parametrization
from service.db.progress import WITH_RESULT
from service.db.states import PhaseState
from service.db.tables import PhaseRow, StudyRow, StudyTrialRow, TrialRow
from service.db.tables_schedules import NightRow

PAST_NIGHTS = 200


def night_data(session: Session, study_id: str) -> NightData:
    """Everything that a completed study measured. Raises NotFoundError when it is gone or has no result."""
    row = session.get(StudyRow, study_id)
    if row is None or row.result is None:
        raise NotFoundError(f"study {study_id} has no result to compare")
    return NightData(
        result=StudyResult.model_validate(row.result), trials=_trials(session, study_id),
        audits=_audits(session, study_id),
    )  # fmt: skip


def past_speeds(session: Session, schedule_id: str, baseline_study_id: str) -> Mapping[str, list[float]]:
    """By arm, the throughput changes (shares) of nights without a flag against this baseline, newest first."""
    query = (
        select(NightRow.judgement)
        .where(NightRow.schedule_id == schedule_id, NightRow.baseline_study_id == baseline_study_id)
        .where(NightRow.flagged.is_(False))
        .order_by(NightRow.id.desc())
        .limit(PAST_NIGHTS)
    )
    found: dict[str, list[float]] = {}
    for document in session.scalars(query):
        for figure in Judgement.model_validate(document).figures:
            if figure.kind is FigureKind.THROUGHPUT and figure.arm and figure.change is not None:
                found.setdefault(figure.arm, []).append(figure.change.value)
    return found


def _trials(session: Session, study_id: str) -> tuple[NightTrial, ...]:
    query = (
        select(
            StudyTrialRow.arm, StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed,
            TrialRow.loss_nats, TrialRow.tokens, TrialRow.device_seconds,
            TrialRow.result["calibration_gflops"].as_float(), TrialRow.result["device"].as_string(),
            TrialRow.result["resumed_from_step"].as_integer(),
        )
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.status.in_(WITH_RESULT))
        .order_by(StudyTrialRow.arm, StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed)
    )  # fmt: skip
    found = {tuple(row[:4]): _trial(*row) for row in session.execute(query)}  # once, whichever phases used it
    return tuple(found.values())


def _trial(
    arm: str, axis_value: int, lr_octaves: float, seed: int, loss_nats: float | None, tokens: int, seconds: float,
    gflops: float | None, device: str | None, resumed: int | None,
) -> NightTrial:  # fmt: skip
    timed = seconds > 0.0 and not resumed  # an interrupted run was timed on two machines, or at two times
    return NightTrial(
        arm=arm, axis_value=axis_value, lr_octaves=lr_octaves, seed=seed, loss_nats=loss_nats,
        tokens_per_second=tokens / seconds if timed else None, calibration_gflops=gflops if timed else None,
        device=device or "",
    )  # fmt: skip


def _audits(session: Session, study_id: str) -> Mapping[str, AuditResult]:
    query = select(PhaseRow.payload).where(
        PhaseRow.study_id == study_id, PhaseRow.name == Phase.AUDIT, PhaseRow.state == PhaseState.FINISHED
    )
    payload: Mapping[str, Any] = session.scalars(query).one_or_none() or {}
    found = [AuditResult.model_validate(audit) for audit in payload.get("audits", ())]
    return {audit.arm.name: audit for audit in found if audit.arm.parametrization is Parametrization.MUP}
