"""Browser sessions: a random cookie stands for the token that its owner logged in with."""

import secrets

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.db import audit
from service.db.session import db_now
from service.db.tables_access import LoginSessionRow
from service.db.tokens import digest_of

LIFETIME_SECONDS = 7 * 24 * 3600.0


def begin(session: Session, credential: str) -> str:
    """Start a session for the token of this digest; returns its cookie. Sessions that have ended are swept out."""
    session.execute(delete(LoginSessionRow).where(LoginSessionRow.expires_at <= db_now()))
    cookie = secrets.token_urlsafe(32)
    row = LoginSessionRow(
        digest=digest_of(cookie), credential=credential, expires_at=db_now() + LIFETIME_SECONDS
    )  # fmt: skip
    session.add(row)
    audit.record(session, "login", "dashboard")
    session.flush()
    return cookie


def credential(session: Session, cookie: str) -> str | None:
    """The digest of the token that a cookie stands for, None for an unknown or ended session."""
    query = select(LoginSessionRow.credential).where(
        LoginSessionRow.digest == digest_of(cookie), LoginSessionRow.expires_at > db_now()
    )
    return session.scalar(query)


def end(session: Session, cookie: str) -> None:
    """End the session of a cookie."""
    ended = delete(LoginSessionRow).where(LoginSessionRow.digest == digest_of(cookie))
    if session.scalar(ended.returning(LoginSessionRow.digest)) is not None:
        audit.record(session, "logout", "dashboard")
