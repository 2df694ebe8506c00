"""Tables of access: projects, API tokens, login sessions and the audit log."""

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import AutoId, Base, Json, one_of
from service.db.session import db_now
from service.db.states import Scope

DEFAULT_PROJECT = "default"  # the migration makes it, and nothing removes a project


class ProjectRow(Base):
    """What studies are grouped by: whose tokens see them, and how much they may use. None is no limit.

    `max_concurrent_trials` is how many trials may run at once, `device_hours` a budget over the project's whole life.
    """

    __tablename__ = "projects"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    max_concurrent_trials: Mapped[int | None] = mapped_column(default=None)
    device_hours: Mapped[float | None] = mapped_column(default=None)
    created_at: Mapped[float] = mapped_column(default=db_now())


class ApiTokenRow(Base):
    """Who may call the API: the SHA-256 of a secret of 256 random bits, never the secret. No project means all.

    `prefix` is the secret's beginning, by which a person recognises it. Rows are never deleted.
    """

    __tablename__ = "api_tokens"
    __table_args__ = (one_of("scope", Scope), UniqueConstraint("digest"))

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    name: Mapped[str]
    project: Mapped[str | None] = mapped_column(ForeignKey("projects.name"), default=None)
    scope: Mapped[str]
    prefix: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64))
    created_by: Mapped[str] = mapped_column(default="")
    created_at: Mapped[float] = mapped_column(default=db_now())
    expires_at: Mapped[float | None] = mapped_column(default=None)
    last_used_at: Mapped[float | None] = mapped_column(default=None)  # to the minute
    revoked_at: Mapped[float | None] = mapped_column(default=None)


class LoginSessionRow(Base):
    """A browser that has logged in: the SHA-256 of its cookie, and that of the token it stands for.

    The token is looked up at every request, so that a session never outlives it.
    """

    __tablename__ = "login_sessions"
    __table_args__ = (Index(None, "expires_at"),)

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    credential: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(default=db_now())
    expires_at: Mapped[float]


class AuditRow(Base):
    """Who changed what and when, written in the transaction of the change: it is there if and only if that is.

    `actor` is a token's id, or the kind of caller where there are no tokens; `actor_name` says it in words.
    """

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "project", "id"),)

    id: Mapped[int] = mapped_column(AutoId, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(default=db_now())
    actor: Mapped[str]
    actor_name: Mapped[str] = mapped_column(default="")
    action: Mapped[str]
    target: Mapped[str] = mapped_column(default="")
    project: Mapped[str | None] = mapped_column(default=None)
    outcome: Mapped[str] = mapped_column(default="done")
    request_id: Mapped[str] = mapped_column(default="")
    details: Mapped[Json] = mapped_column(default=dict)
