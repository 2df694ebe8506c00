"""What the exporter reads of a study, as plain values. Times in seconds since the epoch."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from mutransfer.errors import NotFoundError
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from mutransfer.trial import TrialResult, TrialSpec
from service.db import progress
from service.db.session import Sessions, reading, transact
from service.db.states import StudyState
from service.db.tables import StudyRow, StudyTrialRow, TrialRow


@dataclass(frozen=True, kw_only=True, order=True)
class Use:
    """One place that a trial has on the study's curves. Two arms with equal settings share one trial."""

    arm: str
    axis_value: int
    lr_octaves: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study as the exporter tells it."""

    id: str
    spec: StudySpec
    digest: str
    state: StudyState
    error: str
    created_at: float
    finished_at: float | None
    result: StudyResult | None
    recorded: dict[str, float | None]  # LR by arm in octaves, empty before the search has ended
    tuned: Mapping[str, Mapping[str, float]]  # hyperparameters by arm, empty before the tune phase has ended


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of one study. `result` is None when the study gave it up; `traceback` then says why."""

    key: str
    spec: TrialSpec
    uses: tuple[Use, ...]
    reused: bool
    created_at: float
    finished_at: float
    result: TrialResult | None
    traceback: str


class Records:
    """Reads for the exporter, and the one thing it writes: where a study's run is."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def study(self, study_id: str) -> StudyRecord:
        """One study. Raises NotFoundError."""
        with reading(self._sessions) as session:
            row = session.get(StudyRow, study_id)
            if row is None:
                raise NotFoundError(f"no study {study_id}")
            return StudyRecord(
                id=row.id, spec=StudySpec.model_validate(row.spec), digest=row.digest, state=StudyState(row.state),
                error=row.error, created_at=row.created_at, finished_at=row.finished_at,
                result=StudyResult.model_validate(row.result) if row.result else None,
                recorded=dict(progress.recorded(session, study_id)),
                tuned=progress.tuned(session, study_id),
            )  # fmt: skip

    def trial_keys(self, study_id: str) -> list[str]:
        """Keys of all trials with something to tell: a result, or given up for good."""
        query = (
            select(TrialRow.key)
            .join(StudyTrialRow, StudyTrialRow.trial_key == TrialRow.key)
            .where(StudyTrialRow.study_id == study_id)
            .where(TrialRow.result.is_not(None) | StudyTrialRow.unavailable)
            .distinct()
            .order_by(TrialRow.key)
        )
        with reading(self._sessions) as session:
            return list(session.scalars(query))

    def trial(self, study_id: str, key: str) -> TrialRecord:
        """One trial of a study. Raises NotFoundError."""
        with reading(self._sessions) as session:
            return _trial(session, study_id, key)

    def set_mlflow_url(self, study_id: str, url: str) -> None:
        """Store where people find the study's run; nothing is written when it is stored already."""
        statement = update(StudyRow).where(StudyRow.id == study_id, StudyRow.mlflow_url != url)
        transact(self._sessions, lambda session: session.execute(statement.values(mlflow_url=url)) and None)

    def rebase_mlflow_urls(self, base: str) -> int:
        """Point links at a tracking server that has moved to `base`. Returns how many changed."""
        query = select(StudyRow.id, StudyRow.mlflow_url).where(StudyRow.mlflow_url != "")
        with reading(self._sessions) as session:
            stored = session.execute(query).all()
        moved = [(study, base + url[url.index("/#/") :]) for study, url in stored if not url.startswith(base + "/#/")]
        for study, url in moved:
            self.set_mlflow_url(study, url)
        return len(moved)


def _trial(session: Session, study_id: str, key: str) -> TrialRecord:
    row = session.get(TrialRow, key)
    used = session.scalars(
        select(StudyTrialRow).where(StudyTrialRow.study_id == study_id, StudyTrialRow.trial_key == key)
    ).all()
    if row is None or not used:
        raise NotFoundError(f"study {study_id} has no trial {key}")
    uses: defaultdict[Use, bool] = defaultdict(lambda: True)  # -> whether every phase found it known
    for use in used:
        place = Use(arm=use.arm, axis_value=use.axis_value, lr_octaves=use.lr_octaves, seed=use.seed)
        uses[place] = uses[place] and use.reused
    return TrialRecord(
        key=key, spec=TrialSpec.model_validate(row.spec), uses=tuple(sorted(uses)), reused=all(uses.values()),
        created_at=row.created_at, finished_at=row.finished_at or row.updated_at,
        result=TrialResult.model_validate(row.result) if row.result else None, traceback=row.traceback,
    )  # fmt: skip
