"""Questions that a study's rows answer, shared by the API, the dashboard and the exporter. All read, none writes."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from sqlalchemy.orm import Session

from mutransfer.audit import AuditResult
from mutransfer.base import digest
from mutransfer.errors import ConflictError, NotFoundError
from mutransfer.facts import StudyFacts
from mutransfer.judge import CurveData, judge_study
from mutransfer.plan import Phase
from mutransfer.recipe import Recipe, recipe
from mutransfer.result import Cost, StudyRef, StudyResult
from mutransfer.spec import StudySpec
from service.db import events, progress, studies, trial_pages, waiting
from service.db.states import PhaseState, StudyState
from service.studies.schemas import StudyRead

JUDGED_KEPT = 64


def study(session: Session, study_id: str) -> StudyRead:
    """One study with its progress. Raises NotFoundError."""
    row = studies.get(session, study_id)
    return StudyRead.of(row, studies.tallies(session, [row.id])[row.id], waiting.why(session, row))


def curve_data(session: Session, study_id: str) -> list[CurveData]:
    """The finished trials of a study by curve."""
    points = progress.observations(session, study_id)
    missing = progress.unavailable(session, study_id)
    return [
        CurveData(
            arm=arm,
            axis_value=value,
            observations=points.get((arm, value), ()),
            unavailable=frozenset(missing.get((arm, value), ())),
        )
        for arm, value in sorted({*points, *missing})
    ]


def result_document(session: Session, study_id: str) -> StudyResult:
    """The stored result of a completed study, else the judgement over what has finished so far. NotFoundError."""
    row = studies.get(session, study_id)
    if row.result is not None:
        return StudyResult.model_validate(row.result)
    spec = StudySpec.model_validate(row.spec)
    return _judged(
        spec,
        curve_data(session, study_id),
        recorded=dict(progress.recorded(session, study_id)),
        tuned=progress.tuned(session, study_id),
        ref=StudyRef(id=row.id, name=row.name, state=row.state),
        cost=progress.cost(session, study_id, spec),
    )


def audits(session: Session, study_id: str) -> tuple[AuditResult, ...]:
    """The audit of each arm. Raises NotFoundError while there is none."""
    spec = StudySpec.model_validate(studies.get(session, study_id).spec)
    if spec.audit is None:
        raise NotFoundError(
            f"study {study_id} asks for no audit: give it an `audit` section, or run `mutransfer audit`"
        )
    done = [p for p in studies.phases(session, study_id) if p.name == Phase.AUDIT and p.state == PhaseState.FINISHED]
    if not done:
        raise NotFoundError(f"the audit of study {study_id} has not finished yet")
    return tuple(AuditResult.model_validate(found) for found in done[0].payload["audits"])


def facts(session: Session, study_id: str) -> StudyFacts:
    """What the workers found out about data and environment. Raises ConflictError before they have started."""
    row = studies.get(session, study_id)
    if row.facts is None:
        raise ConflictError(f"study {study_id} has not started yet: its data and environment are not known")
    return StudyFacts.model_validate(row.facts)


def study_recipe(
    session: Session, study_id: str, *, width: int, depth: int | None = None, arm: str | None = None
) -> Recipe:
    """What to set at `width`. Raises NotFoundError, ConflictError before any result, SpecError for a bad width."""
    spec = StudySpec.model_validate(studies.get(session, study_id).spec)
    known = facts(session, study_id)
    return recipe(spec, result_document(session, study_id), known, width=width, depth=depth, arm=arm)


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """How far a study is at one consistent moment: what watchers compare to know that something has changed."""

    progress: dict[str, Any]
    last_event: int
    is_over: bool


def pulse(session: Session, study_id: str) -> Pulse:
    """The pulse of one study. Raises NotFoundError."""
    row = studies.get(session, study_id)
    progress = {
        "state": row.state,
        "trials_expected": row.trials_expected,
        **asdict(studies.tallies(session, [study_id])[study_id]),
        "running": trial_pages.running(session, study_id),
    }
    return Pulse(
        progress=progress,
        last_event=events.last_event(session, study_id),
        is_over=StudyState(row.state).is_final,
    )


# The fit bootstraps; several watchers of one running study must not each pay for it.
_judged_before: OrderedDict[str, StudyResult] = OrderedDict()
_judged_lock = Lock()


def _judged(
    spec: StudySpec, curves: list[CurveData], *, recorded: dict[str, float | None],
    tuned: Mapping[str, Mapping[str, float]], ref: StudyRef, cost: Cost,
) -> StudyResult:  # fmt: skip
    key = _identity(spec, curves, recorded, ref, cost) + digest({"tuned": tuned})
    with _judged_lock:
        if key in _judged_before:
            _judged_before.move_to_end(key)
            return _judged_before[key]
    result = judge_study(spec, curves, recorded=recorded, study=ref, cost=cost, tuned=tuned)
    with _judged_lock:
        _judged_before[key] = result
        while len(_judged_before) > JUDGED_KEPT:
            _judged_before.popitem(last=False)
    return result


def _identity(
    spec: StudySpec, curves: list[CurveData], recorded: dict[str, float | None], ref: StudyRef, cost: Cost
) -> str:
    return digest(
        {
            "spec": spec.model_dump(mode="json"),
            "curves": [
                (
                    curve.arm,
                    curve.axis_value,
                    [(o.lr_octaves, o.seed, o.loss_nats) for o in curve.observations],
                    sorted(curve.unavailable),
                )
                for curve in curves
            ],
            "recorded": recorded,
            "ref": ref.model_dump(),
            "cost": cost.model_dump(),
        }
    )
