"""What the API says of tokens, projects and the audit log."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.db.actors import Actor
from service.db.states import Scope
from service.db.tables_access import ApiTokenRow, AuditRow, ProjectRow
from service.db.tokens import TokenRequest
from service.studies.schemas import utc

PROJECT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"  # as in a study
MAX_LIFETIME_DAYS = 3650.0
DAY_SECONDS = 24 * 3600.0
MAX_TRIALS = 1_000_000
MAX_HOURS = 1e9

Item = TypeVar("Item")

ProjectName = Annotated[str, Field(pattern=PROJECT_PATTERN, examples=["default"])]


class Page(BaseModel, Generic[Item]):
    """One page of a list; `next_cursor` fetches the next page, None on the last."""

    items: list[Item]
    next_cursor: str | None


class TokenCreate(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[ -~]+$", examples=["nightly"])]
    scope: Scope = Field(description="read: look; submit: change studies too; admin: tokens, projects, the log too.")
    project: ProjectName | None = Field(default=None, description="The only project that it sees; null for all.")
    expires_in_days: Annotated[float, Field(gt=0.0, le=MAX_LIFETIME_DAYS)] | None = Field(
        default=None, description="null: until it is revoked."
    )

    def request(self) -> TokenRequest:
        """The same for the database."""
        days = self.expires_in_days
        lifetime = None if days is None else days * DAY_SECONDS
        return TokenRequest(name=self.name, scope=self.scope, project=self.project, lifetime_seconds=lifetime)


class TokenRead(BaseModel):
    """A token, without its secret."""

    id: str
    name: str
    scope: Scope
    project: str | None
    prefix: str = Field(description="How the secret begins.")
    created_by: str
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: ApiTokenRow) -> "TokenRead":
        """The token in `row`."""
        return cls(**_token_fields(row))


class TokenMade(TokenRead):
    """A new token with its secret, which is told this once."""

    secret: str

    @classmethod
    def made(cls, row: ApiTokenRow, secret: str) -> "TokenMade":
        """The token in `row`, of this secret."""
        return cls(secret=secret, **_token_fields(row))


def _token_fields(row: ApiTokenRow) -> dict[str, Any]:
    return {
        "id": row.id, "name": row.name, "scope": Scope(row.scope), "project": row.project, "prefix": row.prefix,
        "created_by": row.created_by, "created_at": utc(row.created_at), "expires_at": utc(row.expires_at),
        "last_used_at": utc(row.last_used_at), "revoked_at": utc(row.revoked_at),
    }  # fmt: skip


class TokenPage(Page[TokenRead]):
    """Tokens, newest first."""


class ProjectSet(BaseModel):
    """Limits of a project; a field left out stays as it is, null removes the limit."""

    model_config = ConfigDict(extra="forbid")

    max_concurrent_trials: Annotated[int, Field(ge=0, le=MAX_TRIALS)] | None = None
    device_hours: Annotated[float, Field(ge=0.0, le=MAX_HOURS, allow_inf_nan=False)] | None = None


class ProjectRead(BaseModel):
    """A project and its limits; null is no limit."""

    name: str
    max_concurrent_trials: int | None = Field(description="How many of its trials may run at once.")
    device_hours: float | None = Field(description="Its budget over its whole life.")
    created_at: datetime | None

    @classmethod
    def of(cls, row: ProjectRow) -> "ProjectRead":
        """The project in `row`."""
        return cls(
            name=row.name, max_concurrent_trials=row.max_concurrent_trials, device_hours=row.device_hours,
            created_at=utc(row.created_at),
        )  # fmt: skip


class ProjectPage(Page[ProjectRead]):
    """Projects by name."""


class AuditEntry(BaseModel):
    """One change: who made it, what it was, when, and in which request."""

    id: int
    at: datetime | None
    actor: str = Field(description="A token's id; local, home or service where there is no token.")
    actor_name: str
    action: str
    target: str
    project: str | None
    outcome: str
    request_id: str
    details: dict[str, Any]

    @classmethod
    def of(cls, row: AuditRow) -> "AuditEntry":
        """The entry in `row`."""
        return cls(
            id=row.id, at=utc(row.at), actor=row.actor, actor_name=row.actor_name, action=row.action,
            target=row.target, project=row.project, outcome=row.outcome, request_id=row.request_id, details=row.details,
        )  # fmt: skip


class AuditPage(Page[AuditEntry]):
    """Entries of the audit log, newest first."""


class Whoami(BaseModel):
    """Who the caller is to the service."""

    id: str
    name: str
    scope: Scope
    project: str | None = Field(description="The only project that it sees; null for all.")

    @classmethod
    def of(cls, actor: Actor) -> "Whoami":
        """The caller `actor`."""
        return cls(id=actor.id, name=actor.name, scope=actor.scope, project=actor.project)
