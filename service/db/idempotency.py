"""Requests that carry an idempotency key are carried out once, however often they are sent.

The key is written in the transaction that does what was asked. Who sends the request again, because the answer was
lost, is told of the study that it was carried out on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from mutransfer.errors import ConflictError
from service.db.session import Sessions, insert_new, reading, transact
from service.db.tables import IdempotencyRow, StudyRow


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request. Without a key it is carried out each time; `body_digest` tells requests of one key apart."""

    key: str | None
    body_digest: str


class _KeyTakenError(Exception):
    """Another request with this key was committed while ours was being carried out."""


def once(sessions: Sessions, asked: Asked, work: Callable[[Session], StudyRow]) -> tuple[str, bool]:
    """Do `work`, which returns the study that it is about, in one transaction, unless that was done for this request.

    Returns the study's id, and whether it was done now. Raises ConflictError when the key was used for another
    request, and what `work` raises.
    """
    while True:
        try:
            return transact(sessions, lambda session: _once(session, asked, work))
        except _KeyTakenError:
            continue  # now it is there to be found
        except ConflictError:  # perhaps with this very request, sent twice and just carried out
            with reading(sessions) as session:
                known = known_study(session, asked)
            if known is None:
                raise
            return known, False


def known_study(session: Session, asked: Asked) -> str | None:
    """The study that this request was carried out on before. Raises ConflictError as `once`."""
    known = session.get(IdempotencyRow, asked.key) if asked.key else None
    if known is None:
        return None
    seen = session.get(StudyRow, known.study_id)
    if seen is None or known.body_digest != asked.body_digest:
        other = f"another request, on study {seen.id}" if seen else "a request in another project"
        raise ConflictError(f"Idempotency-Key {asked.key!r} was used for {other}")
    return seen.id


def _once(session: Session, asked: Asked, work: Callable[[Session], StudyRow]) -> tuple[str, bool]:
    if (known := known_study(session, asked)) is not None:
        return known, False
    row = work(session)
    if asked.key:
        values = {
            "key": asked.key, "project": row.project, "body_digest": asked.body_digest, "study_id": row.id,
        }  # fmt: skip
        if not insert_new(session, IdempotencyRow, values):
            raise _KeyTakenError
    return row.id, True
