"""Studies as the JSON text of `StudyRead`, at the cost of copying it.

A study's spec was checked when it was accepted, and its text is kept bit for bit: it goes into the answer as it is,
neither parsed nor checked again. Fifty studies would cost a tenth of a second otherwise.
"""

from collections.abc import Mapping, Sequence
import json

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from service.db import studies, waiting
from service.db.tables import StudyRow
from service.db.waiting import Waiting
from service.studies.schemas import StudyRead


def study_text(session: Session, study_id: str) -> str:
    """One study. Raises NotFoundError."""
    row = studies.get(session, study_id)
    return study_texts(session, [row], {row.id: waiting.why(session, row)})[0]


def page_text(session: Session, rows: Sequence[StudyRow], next_cursor: str | None) -> str:
    """A `StudyPage` of several."""
    return f'{{"items":[{",".join(study_texts(session, rows))}],"next_cursor":{json.dumps(next_cursor)}}}'


def study_texts(
    session: Session, rows: Sequence[StudyRow], waits: Mapping[str, Waiting | None] | None = None
) -> list[str]:
    """Each study with its progress, and with what it waits for where that is given."""
    why = waits or {}
    ids = [row.id for row in rows]
    tallies = studies.tallies(session, ids)
    specs: dict[str, str] = dict(
        session.execute(select(StudyRow.id, cast(StudyRow.spec, Text)).where(StudyRow.id.in_(ids))).all()
    )
    return [
        f'{StudyRead.without_spec(row, tallies[row.id], why.get(row.id))[:-1]},"spec":{specs[row.id]}}}' for row in rows
    ]
