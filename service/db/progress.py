"""How far one study is, read from its rows: points of its curves, what is recorded, what it has cost.

The driver decides what to run next from these, and the API judges from the same, so that both see one truth.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mutransfer.result import Cost
from mutransfer.spec import StudySpec, Verification
from mutransfer.trial import Observation
from service.db.states import TrialState
from service.db.tables import PhaseRow, StudyTrialRow, TrialRow

CurveKey = tuple[str, int]  # (arm, axis value)
WITH_RESULT = (TrialState.FINISHED, TrialState.DIVERGED)
SEARCH_PHASE = "search"
TUNE_PHASE = "tune"
TUNED = "tuned"  # in the tune phase's payload: {arm: {hyperparameter: value}}
KEPT = "kept"  # in the payload of a search that was opened again: the rates that it recorded before, which stay
RECORDED = "recorded"  # in the search phase's payload: {arm: LR in octaves, or None when unbracketed}


def observations(session: Session, study_id: str) -> dict[CurveKey, tuple[Observation, ...]]:
    """All finished and diverged trials of a study by curve, each (LR, seed) once, rising."""
    query = (
        select(
            StudyTrialRow.arm, StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed,
            TrialRow.loss_nats,
        )
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.status.in_(WITH_RESULT))
        .distinct()  # a trial of the transfer phase serves the verify phase too
    )  # fmt: skip
    curves: defaultdict[CurveKey, list[Observation]] = defaultdict(list)
    for arm, axis_value, lr_octaves, seed, loss in session.execute(query):
        curves[arm, axis_value].append(Observation(lr_octaves=lr_octaves, seed=seed, loss_nats=loss))
    return {key: tuple(sorted(found, key=lambda o: (o.lr_octaves, o.seed))) for key, found in sorted(curves.items())}


def unavailable(session: Session, study_id: str) -> dict[CurveKey, set[tuple[float, int]]]:
    """(LR, seed) of trials that this study has given up, by curve."""
    query = (
        select(StudyTrialRow.arm, StudyTrialRow.axis_value, StudyTrialRow.lr_octaves, StudyTrialRow.seed)
        .join(TrialRow, TrialRow.key == StudyTrialRow.trial_key)
        .where(StudyTrialRow.study_id == study_id, StudyTrialRow.unavailable, TrialRow.status.not_in(WITH_RESULT))
    )
    curves: defaultdict[CurveKey, set[tuple[float, int]]] = defaultdict(set)
    for arm, axis_value, lr_octaves, seed in session.execute(query):
        curves[arm, axis_value].add((lr_octaves, seed))
    return dict(curves)


def recorded(session: Session, study_id: str) -> Mapping[str, float | None]:
    """The LR recorded for each arm when the search phase finished, in octaves; empty before.

    A search that was opened again has those rates that stay.
    """
    payload = session.scalar(
        select(PhaseRow.payload).where(PhaseRow.study_id == study_id, PhaseRow.name == SEARCH_PHASE)
    )
    found: Mapping[str, float | None] = (payload or {}).get(RECORDED) or (payload or {}).get(KEPT) or {}
    return found


def tuned(session: Session, study_id: str) -> Mapping[str, Mapping[str, float]]:
    """The hyperparameters settled for each arm when the tune phase finished; empty before, or without one."""
    found: Mapping[str, Mapping[str, float]] = _payload(session, study_id, TUNE_PHASE).get(TUNED, {})
    return found


def _payload(session: Session, study_id: str, phase: str) -> Mapping[str, Any]:
    """What a finished phase decided; empty before."""
    query = select(PhaseRow.payload).where(
        PhaseRow.study_id == study_id, PhaseRow.name == phase, PhaseRow.finished_at.is_not(None)
    )
    return session.scalars(query).one_or_none() or {}


def cost(session: Session, study_id: str, spec: StudySpec) -> Cost:
    """What the study took. Reused trials cost nothing, but count towards what searching at the target would cost."""
    rows = _result_rows(session, study_id)
    used: dict[str, tuple[bool, float, int]] = {}
    at_target: dict[str, float] = {}
    target = spec.axis.targets[-1] if spec.axis.targets else None
    for key, axis_value, reused, device_seconds, tokens in rows:
        first = used.get(key)
        used[key] = (reused and (first is None or first[0]), device_seconds, tokens)
        if axis_value == target:
            at_target[key] = device_seconds
    spent = [(seconds, tokens) for is_reused, seconds, tokens in used.values() if not is_reused]
    return Cost(
        device_seconds=sum(seconds for seconds, _ in spent),
        tokens=sum(tokens for _, tokens in spent),
        trials=len(used),
        reused=len(used) - len(spent),
        direct_search_device_seconds=sum(at_target.values()) if spec.verify is Verification.FULL else None,
    )


def _result_rows(session: Session, study_id: str) -> Sequence[tuple[str, int, bool, float, int]]:
    query = (
        select(
            TrialRow.key, StudyTrialRow.axis_value, StudyTrialRow.reused, TrialRow.device_seconds, TrialRow.tokens
        )
        .join(StudyTrialRow, StudyTrialRow.trial_key == TrialRow.key)
        .where(StudyTrialRow.study_id == study_id, TrialRow.status.in_(WITH_RESULT))
        .order_by(TrialRow.key, StudyTrialRow.axis_value)
    )  # fmt: skip
    return session.execute(query).all()
