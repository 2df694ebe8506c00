"""What is known of one trial, across the studies that use it: for people who ask why it failed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session, defer

from mutransfer.errors import ConflictError, NotFoundError
from service.db.events import Event, EventKind
from service.db.tables import EventRow, StudyTrialRow, TrialRow

KINDS = (EventKind.TRIAL_STARTED, EventKind.TRIAL_FAILED, EventKind.TRIAL_RESULT)
EVENTS = 200  # the newest of each study


@dataclass(frozen=True, kw_only=True)
class TrialLog:
    """A trial with what happened to it, oldest first, and the studies that use it."""

    row: TrialRow
    study_ids: Sequence[str]
    events: Sequence[tuple[str, Event]]  # study, event


def find(session: Session, prefix: str) -> TrialLog:
    """The trial whose key begins with `prefix`, among those of studies that the caller may see.

    Raises NotFoundError, and ConflictError when several do.
    """
    # 'g' follows every hexadecimal digit: a range, which an index serves in any collation.
    begins = StudyTrialRow.trial_key >= prefix, StudyTrialRow.trial_key < f"{prefix}g"
    keys = session.scalars(select(StudyTrialRow.trial_key).where(*begins).distinct().limit(2)).all()
    if not keys:
        raise NotFoundError(f"no trial {prefix}")
    if len(keys) > 1:
        raise ConflictError(f"several trials begin with {prefix}: give more of the key")
    uses = select(StudyTrialRow.study_id).where(StudyTrialRow.trial_key == keys[0]).distinct()
    study_ids = session.scalars(uses.order_by(StudyTrialRow.study_id)).all()
    row = session.get_one(TrialRow, keys[0], options=[defer(TrialRow.spec), defer(TrialRow.result)])
    events = [(study_id, event) for study_id in study_ids for event in _events(session, study_id, keys[0])]
    return TrialLog(row=row, study_ids=study_ids, events=sorted(events, key=lambda entry: (entry[1].at, entry[1].id)))


def _events(session: Session, study_id: str, key: str) -> list[Event]:
    mine = cast(EventRow.payload, Text).contains(f'"key":"{key}"', autoescape=True)
    query = select(EventRow).where(EventRow.study_id == study_id, EventRow.kind.in_(KINDS), mine)
    rows = session.scalars(query.order_by(EventRow.id.desc()).limit(EVENTS))
    return [Event(id=row.id, kind=EventKind(row.kind), payload=row.payload, at=row.at) for row in rows]
