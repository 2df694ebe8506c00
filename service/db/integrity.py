"""What must hold of a database at rest, beyond what its constraints hold: checked after a restore, and on request."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, exists, func, select, text
from sqlalchemy.orm import Session

from service.db import summaries
from service.db.copy import snapshot
from service.db.migrate import current, head
from service.db.outbox import OutboxKind
from service.db.session import make_engine
from service.db.states import StudyState
from service.db.tables import LeaseRow, OutboxRow, StudyRow, StudyTrialRow, SummaryRow, TrialRow


def problems(url: str) -> list[str]:
    """What is wrong with the database at `url`, in words; empty when nothing is."""
    at = current(url)
    if at != head():
        return [f"the database is at revision {at}, this version needs {head()}"]
    engine = make_engine(url)
    try:
        with snapshot(engine) as connection:
            return [*_of_the_file(connection), *_of_the_rows(connection)]
    finally:
        engine.dispose()


def _of_the_file(connection: Connection) -> Iterator[str]:
    """PostgreSQL holds its constraints by itself; a file may have been damaged or edited."""
    if connection.dialect.name != "sqlite":
        return
    for (said,) in connection.execute(text("PRAGMA integrity_check")):
        if said != "ok":
            yield f"the file is damaged: {said}"
    for table, row, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


def _of_the_rows(connection: Connection) -> Iterator[str]:
    session = Session(connection)
    for name, row in (("lease", LeaseRow), ("summary", SummaryRow)):
        missing = select(StudyRow.id).where(~exists().where(row.study_id == StudyRow.id))
        yield from (f"study {study_id} has no {name}" for study_id in session.scalars(missing))
    has_result = TrialRow.status.in_(("finished", "diverged"))
    torn = select(TrialRow.key).where(has_result != TrialRow.result.is_not(None))
    yield from (
        f"trial {key} has a result and another status, or a status and no result" for key in session.scalars(torn)
    )
    untold = select(StudyRow.id).where(
        StudyRow.state == StudyState.COMPLETED,
        StudyRow.result.is_(None) | ~_told(OutboxKind.STUDY_FINISHED),
    )
    yield from (f"study {study_id} has completed without a result or a message" for study_id in session.scalars(untold))
    orphans = select(func.count()).where(
        OutboxRow.kind == OutboxKind.TRIAL_RESULT.value,
        ~exists().where(StudyTrialRow.study_id == OutboxRow.study_id, StudyTrialRow.trial_key == OutboxRow.key),
    )
    if count := session.scalar(orphans):
        yield f"{count} messages tell of trials that their study does not use"
    for study_id in session.scalars(select(StudyRow.id).order_by(StudyRow.id)):
        if not summaries.agrees(session, study_id):
            yield f"the summary of study {study_id} does not count its trials"


def _told(kind: OutboxKind) -> ColumnElement[bool]:
    return exists().where(OutboxRow.study_id == StudyRow.id, OutboxRow.kind == kind.value)
