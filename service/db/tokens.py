"""API tokens: make, list, revoke, recognise. The secret is told once; the database knows its SHA-256 alone.

A secret has 256 random bits, so that a plain hash of it can be neither guessed nor reversed, and finding it by its
digest tells a caller nothing about other digests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
import secrets

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from mutransfer.errors import AccessError, ConflictError, NotFoundError, SpecError
from service.db import audit
from service.db.actors import SERVICE, Actor, acting, current_actor
from service.db.session import db_now
from service.db.states import Scope
from service.db.tables_access import ApiTokenRow, LoginSessionRow, ProjectRow
from service.ids import new_token_id

SECRET_PREFIX = "mut_"  # noqa: S105 - by which scanners for leaked secrets may know ours
PREFIX_LENGTH = len(SECRET_PREFIX) + 6
USE_NOTED_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """What a new token may do, and for how long. No project: all of them; no seconds: until it is revoked."""

    name: str
    scope: Scope
    project: str | None = None
    lifetime_seconds: float | None = None


def digest_of(secret: str) -> str:
    """What the database keeps of a secret."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def create(session: Session, wanted: TokenRequest, *, other_admin: bool) -> tuple[ApiTokenRow, str]:
    """Make a token; returns it, and its secret, which nothing can tell again.

    `other_admin`: whether someone can administer the service without any token of the database. Raises AccessError for
    a token beyond the caller's own powers, SpecError for an unknown project, ConflictError when the token would leave
    nobody who can make another.
    """
    _check_powers(session, wanted)
    if not other_admin and not _is_full_admin(wanted) and not _has_full_admin(session):
        raise ConflictError(
            "the first token closes the service to callers without one: make one of scope admin without a project first"
        )
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    row = ApiTokenRow(
        id=new_token_id(), name=wanted.name, project=wanted.project, scope=wanted.scope, prefix=secret[:PREFIX_LENGTH],
        digest=digest_of(secret), created_by=current_actor().id,
        expires_at=None if wanted.lifetime_seconds is None else db_now() + wanted.lifetime_seconds,
    )  # fmt: skip
    session.add(row)
    details = {"name": wanted.name, "scope": wanted.scope, "expires": wanted.lifetime_seconds}
    audit.record(session, "token.create", row.id, project=wanted.project, details=details)
    session.flush()
    session.refresh(row)
    return row, secret


def _check_powers(session: Session, wanted: TokenRequest) -> None:
    bound = current_actor().project
    if bound is not None and wanted.project != bound:
        raise AccessError(f"this token is bound to the project {bound}: it can make tokens of that project only")
    if wanted.project is not None and session.get(ProjectRow, wanted.project) is None:
        known = f"make it with `mutransfer project set {wanted.project}`"
        raise SpecError.at("project", f"there is no project {wanted.project!r}: {known}")


def _is_full_admin(token: TokenRequest) -> bool:
    return token.scope is Scope.ADMIN and token.project is None and token.lifetime_seconds is None


def _has_full_admin(session: Session) -> bool:
    query = select(ApiTokenRow.id).where(
        ApiTokenRow.scope == Scope.ADMIN, ApiTokenRow.project.is_(None), ApiTokenRow.revoked_at.is_(None),
        or_(ApiTokenRow.expires_at.is_(None), ApiTokenRow.expires_at > db_now()),
    )  # fmt: skip
    with acting(SERVICE):  # whoever asks: such a token belongs to no project
        return session.scalar(query.limit(1)) is not None


def page(session: Session, *, after: str | None, limit: int) -> Sequence[ApiTokenRow]:
    """Up to `limit` tokens below the id `after`, newest first, those that have ended too."""
    query = select(ApiTokenRow).order_by(ApiTokenRow.id.desc()).limit(limit)
    if after is not None:
        query = query.where(ApiTokenRow.id < after)
    return session.scalars(query).all()


def get(session: Session, token_id: str) -> ApiTokenRow:
    """One token. Raises NotFoundError."""
    row = session.get(ApiTokenRow, token_id)
    if row is None:
        raise NotFoundError(f"no token {token_id}")
    return row


def revoke(session: Session, token_id: str) -> ApiTokenRow:
    """End a token at once, and every browser session that stands for it. Nothing when it is revoked already."""
    row = get(session, token_id)
    session.refresh(row, with_for_update=True)
    if row.revoked_at is None:
        row.revoked_at = db_now()  # an SQL expression, evaluated at flush
        session.execute(delete(LoginSessionRow).where(LoginSessionRow.credential == row.digest))
        audit.record(session, "token.revoke", row.id, project=row.project, details={"name": row.name})
        session.flush()
        session.refresh(row)
    return row


def any_exist(session: Session) -> bool:
    """Whether a token was ever made; also one that has ended closes the door for good."""
    return session.scalar(select(ApiTokenRow.id).limit(1)) is not None


def bearer(session: Session, digest: str) -> Actor | None:
    """Who presents the secret of this digest, None for an unknown, expired or revoked one."""
    query = select(ApiTokenRow).where(
        ApiTokenRow.digest == digest, ApiTokenRow.revoked_at.is_(None),
        or_(ApiTokenRow.expires_at.is_(None), ApiTokenRow.expires_at > db_now()),
    )  # fmt: skip
    row = session.scalar(query)
    return None if row is None else Actor(id=row.id, name=row.name, scope=Scope(row.scope), project=row.project)


def note_use(session: Session, token_id: str) -> None:
    """Remember that a token is in use, to the minute: not every request needs to write."""
    stale = or_(ApiTokenRow.last_used_at.is_(None), ApiTokenRow.last_used_at < db_now() - USE_NOTED_SECONDS)
    session.execute(update(ApiTokenRow).where(ApiTokenRow.id == token_id, stale).values(last_used_at=db_now()))
