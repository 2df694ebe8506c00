"""What the files of the service still serve, asked before anything is removed. All read, none writes."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from service.db.states import StudyState
from service.db.tables import StudyRow, StudyTrialRow, TrialRow
from service.db.trials import chunks

FINAL = tuple(state for state in StudyState if state.is_final)


class Standing(StrEnum):
    """What a trial's checkpoints and spooled results are good for."""

    UNKNOWN = "unknown"  # no trial of this database
    DONE = "done"  # its result is stored
    ACTIVE = "active"  # a study that has not ended needs it
    IDLE = "idle"  # every study that asked has ended; a retry would go on from here


def standings(session: Session, keys: Iterable[str]) -> Mapping[str, Standing]:
    """The standing of each trial."""
    wanted = list(keys)
    active = exists().where(
        StudyTrialRow.trial_key == TrialRow.key, StudyRow.id == StudyTrialRow.study_id, StudyRow.state.not_in(FINAL)
    )
    found: dict[str, Standing] = {}
    for part in chunks(wanted):
        query = select(TrialRow.key, TrialRow.result.is_not(None), active).where(TrialRow.key.in_(part))
        for key, is_done, is_active in session.execute(query):
            found[key] = Standing.DONE if is_done else Standing.ACTIVE if is_active else Standing.IDLE
    return {key: found.get(key, Standing.UNKNOWN) for key in wanted}


def ended_at(session: Session, study_ids: Iterable[str]) -> Mapping[str, float | None]:
    """When each study ended, by the database's clock; None while it has not. Unknown studies are left out."""
    found: dict[str, float | None] = {}
    for part in chunks(study_ids):
        query = select(StudyRow.id, StudyRow.state, StudyRow.finished_at).where(StudyRow.id.in_(part))
        for study_id, state, finished_at in session.execute(query):
            found[study_id] = finished_at if StudyState(state).is_final else None
    return found


def data_used_at(session: Session) -> Mapping[str, float | None]:
    """When the last study on each data fingerprint ended; None while one has not."""
    used: dict[str, float | None] = {}
    query = select(StudyRow.facts, StudyRow.state, StudyRow.finished_at).where(StudyRow.facts.is_not(None))
    for facts, state, finished_at in session.execute(query):
        fingerprint = (facts or {}).get("environment", {}).get("data_fingerprint")
        ended = finished_at if StudyState(state).is_final else None
        known = used.get(fingerprint, 0.0)
        used[fingerprint] = None if known is None or ended is None else max(known, ended)
    return used


def run_urls(session: Session) -> Mapping[str, str]:
    """Where MLflow shows each study that has ended."""
    query = select(StudyRow.id, StudyRow.mlflow_url).where(StudyRow.state.in_(FINAL), StudyRow.mlflow_url != "")
    return dict(session.execute(query).all())
