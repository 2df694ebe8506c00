"""The tables, and nothing else: one ORM class a table, each ending in `Row`.

Times (`*_at`) are seconds since the epoch by the database's clock (`session.db_now`). JSON columns hold plain JSON
text, never JSONB: what is stored comes back bit for bit. `migrations/` creates exactly these tables; a test compares.
Tables of one area live in `tables_*.py`, imported here.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.db import tables_access, tables_schedules  # noqa: F401 - so that Base.metadata is whole for importers
from service.db.base import AutoId, Json, one_of
from service.db.base import Base as Base
from service.db.session import db_now
from service.db.states import PhaseState, StudyState, TrialState


class StudyRow(Base):
    """One accepted study: what was asked, how far it is, what came out."""

    __tablename__ = "studies"
    __table_args__ = (
        one_of("state", StudyState),
        Index(None, "state", "id"),
        Index(None, "state", "priority", "id"),
        Index(None, "project", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "name", "id"),
    )

    id: Mapped[str] = mapped_column(String(29), primary_key=True)
    name: Mapped[str]
    project: Mapped[str]
    spec: Mapped[Json]
    digest: Mapped[str]
    nonce: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default=StudyState.QUEUED)
    error: Mapped[str] = mapped_column(default="")
    facts: Mapped[Json | None] = mapped_column(default=None)
    result: Mapped[Json | None] = mapped_column(default=None, deferred=True)  # large: read where it is asked for
    mlflow_url: Mapped[str] = mapped_column(default="")
    trials_expected: Mapped[int | None] = mapped_column(BigInteger, default=None)
    revision: Mapped[int] = mapped_column(Integer, default=1)  # rises when the study is retried or extended
    priority: Mapped[int] = mapped_column(Integer, default=0)  # the highest is claimed first
    created_at: Mapped[float] = mapped_column(default=db_now())
    updated_at: Mapped[float] = mapped_column(default=db_now(), onupdate=db_now())  # when this row last changed
    started_at: Mapped[float | None] = mapped_column(default=None)
    finished_at: Mapped[float | None] = mapped_column(default=None)


class LeaseRow(Base):
    """Who drives a study. Made with the study, expired from birth, so that claiming is one guarded update.

    `epoch` counts claims: a driver of an older epoch is refused every write.
    """

    __tablename__ = "leases"
    __table_args__ = (Index(None, "expires_at"),)

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    owner: Mapped[str] = mapped_column(default="")
    epoch: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[float] = mapped_column(default=0.0)
    slots: Mapped[int] = mapped_column(default=0)  # trials that may run at once, counted where a project has a limit
    slots_wanted: Mapped[int] = mapped_column(default=0)  # as many as could run if there was none


class SummaryRow(Base):
    """What lists show of a study, so that nobody counts its trials to list it. Written with what it counts.

    `brief` is the result without the points of its curves, None until there is a result.
    """

    __tablename__ = "study_summaries"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    trials_planned: Mapped[int] = mapped_column(default=0)
    trials_done: Mapped[int] = mapped_column(default=0)
    trials_failed: Mapped[int] = mapped_column(default=0)
    device_seconds: Mapped[float] = mapped_column(default=0.0)
    brief: Mapped[Json | None] = mapped_column(default=None)
    verdicts: Mapped[str] = mapped_column(default="")  # of its arms, each once: `|drifts||transfers|`


class PhaseRow(Base):
    """One phase of one study, recorded once. `payload` is what the phase decided, such as the recorded LRs."""

    __tablename__ = "phases"
    __table_args__ = (one_of("state", PhaseState),)

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default=PhaseState.RUNNING)
    payload: Mapped[Json] = mapped_column(default=dict)
    started_at: Mapped[float] = mapped_column(default=db_now())
    finished_at: Mapped[float | None] = mapped_column(default=None)


class TrialRow(Base):
    """One run, shared by every study and phase that asks for the same content key. A result never changes."""

    __tablename__ = "trials"
    __table_args__ = (one_of("status", TrialState),)

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[Json]
    status: Mapped[str] = mapped_column(default=TrialState.PLANNED)
    attempts: Mapped[int] = mapped_column(default=0)
    step: Mapped[int] = mapped_column(BigInteger, default=0)
    steps: Mapped[int | None] = mapped_column(BigInteger, default=None)
    train_loss_nats: Mapped[float | None] = mapped_column(default=None)
    result: Mapped[Json | None] = mapped_column(default=None)
    loss_nats: Mapped[float | None] = mapped_column(default=None)  # of `result`, for lists that need no history
    tokens: Mapped[int] = mapped_column(BigInteger, default=0)  # of `result`
    device_seconds: Mapped[float] = mapped_column(default=0.0)  # of `result`
    traceback: Mapped[str] = mapped_column(default="")
    created_at: Mapped[float] = mapped_column(default=db_now())
    updated_at: Mapped[float] = mapped_column(default=db_now())
    finished_at: Mapped[float | None] = mapped_column(default=None)


class StudyTrialRow(Base):
    """That a phase of a study uses a trial. `reused`: its result was known before this study asked.

    `unavailable`: given up for this study after its last attempt, never asked again.
    """

    __tablename__ = "study_trials"
    __table_args__ = (Index(None, "trial_key"),)

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    arm: Mapped[str] = mapped_column(primary_key=True)
    axis_value: Mapped[int] = mapped_column(primary_key=True)
    lr_octaves: Mapped[float] = mapped_column(primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    trial_key: Mapped[str] = mapped_column(ForeignKey("trials.key"))
    reused: Mapped[bool] = mapped_column(Boolean, default=False)
    unavailable: Mapped[bool] = mapped_column(Boolean, default=False)


class EventRow(Base):
    """Something that happened to a study. Writers hold the study's lease row, so ids rise in commit order."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "study_id", "id"),)

    id: Mapped[int] = mapped_column(AutoId, primary_key=True, autoincrement=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    kind: Mapped[str]
    payload: Mapped[Json] = mapped_column(default=dict)
    at: Mapped[float] = mapped_column(default=db_now())


class OutboxRow(Base):
    """A message to the outside (MLflow), written with the fact that it tells; delivered at least once."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("study_id", "kind", "key"),
        Index(
            "ix_outbox_due", "next_at", postgresql_where=text("done_at IS NULL"), sqlite_where=text("done_at IS NULL")
        ),
    )

    id: Mapped[int] = mapped_column(AutoId, primary_key=True, autoincrement=True)
    kind: Mapped[str]
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(default="")
    payload: Mapped[Json] = mapped_column(default=dict)
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str] = mapped_column(default="")
    created_at: Mapped[float] = mapped_column(default=db_now())
    next_at: Mapped[float] = mapped_column(default=db_now())
    done_at: Mapped[float | None] = mapped_column(default=None)


class IdempotencyRow(Base):
    """That a request with this key has been carried out, and on which study."""

    __tablename__ = "idempotency"

    key: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    body_digest: Mapped[str]
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    created_at: Mapped[float] = mapped_column(default=db_now())
