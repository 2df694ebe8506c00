"""Tables of schedules and their nights, and of the channels that people hear of them through.

Every row carries its project, by which callers that are bound to one are shown their own.
"""

from sqlalchemy import Boolean, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import AutoId, Base, Json, one_of
from service.db.session import db_now
from service.db.states_schedules import BaselinePolicy, ChannelKind, Concurrency, DeliveryState, NightState


class ScheduleRow(Base):
    """When a study is run again, and what its nights are compared with.

    `next_at` is the next slot that no scheduler has looked at; None while paused. `sensitivity` is a `Sensitivity`.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        one_of("concurrency", Concurrency),
        one_of("baseline_policy", BaselinePolicy),
        UniqueConstraint("project", "name"),
        Index(None, "next_at"),
    )

    id: Mapped[str] = mapped_column(String(29), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    project: Mapped[str] = mapped_column(String(64), ForeignKey("projects.name"))
    cron: Mapped[str]
    time_zone: Mapped[str]
    spec: Mapped[Json]  # the study that every night runs
    digest: Mapped[str]  # of `spec`
    concurrency: Mapped[str] = mapped_column(default=Concurrency.SKIP)
    baseline_policy: Mapped[str] = mapped_column(default=BaselinePolicy.FIRST)
    promote_after: Mapped[int] = mapped_column(default=7)  # clean nights, for the policy `promote`
    baseline_study_id: Mapped[str | None] = mapped_column(ForeignKey("studies.id", ondelete="SET NULL"), default=None)
    baseline_at: Mapped[float | None] = mapped_column(default=None)  # since when
    baseline_pinned: Mapped[bool] = mapped_column(Boolean, default=False)  # by hand: no policy replaces it
    sensitivity: Mapped[Json] = mapped_column(default=dict)
    next_at: Mapped[float | None] = mapped_column(default=None)
    created_at: Mapped[float] = mapped_column(default=db_now())
    updated_at: Mapped[float] = mapped_column(default=db_now())


class NightRow(Base):
    """One slot of a schedule: UNIQUE(schedule, fire time) is what makes it run at most once."""

    __tablename__ = "nights"
    __table_args__ = (
        one_of("state", NightState),
        UniqueConstraint("schedule_id", "fire_at"),
        Index(None, "state"),
        Index(None, "study_id"),
    )

    id: Mapped[int] = mapped_column(AutoId, primary_key=True, autoincrement=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    project: Mapped[str] = mapped_column(String(64))
    fire_at: Mapped[float]
    manual: Mapped[bool] = mapped_column(Boolean, default=False)
    missed: Mapped[int] = mapped_column(default=0)  # slots before this one that nobody was there for
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    study_id: Mapped[str | None] = mapped_column(ForeignKey("studies.id", ondelete="SET NULL"), default=None)
    baseline_study_id: Mapped[str | None] = mapped_column(String(29), default=None)  # what it was compared with
    judgement: Mapped[Json | None] = mapped_column(default=None)
    flagged: Mapped[bool | None] = mapped_column(Boolean, default=None)
    drifting: Mapped[bool | None] = mapped_column(Boolean, default=None)  # some arm's verdict says drifts
    created_at: Mapped[float] = mapped_column(default=db_now())
    ended_at: Mapped[float | None] = mapped_column(default=None)


class ChannelRow(Base):
    """Where people want to hear of nights. `schedule_id`: of one schedule only; None: of all of the project's.

    `target` is an URL, or e-mail addresses with commas. `secret` signs webhooks; it is shown once.
    """

    __tablename__ = "channels"
    __table_args__ = (one_of("kind", ChannelKind), UniqueConstraint("project", "name"))

    id: Mapped[str] = mapped_column(String(29), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    project: Mapped[str] = mapped_column(String(64), ForeignKey("projects.name"))
    schedule_id: Mapped[str | None] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), default=None)
    kind: Mapped[str]
    target: Mapped[str]
    secret: Mapped[str] = mapped_column(default="")
    events: Mapped[Json]  # {"of": [NightEvent, …]}
    created_at: Mapped[float] = mapped_column(default=db_now())


class DeliveryRow(Base):
    """One notification to one channel: written with the fact that it tells, sent until it arrives.

    `event` names the fact (`night/12/flagged`), once a channel. `log` holds the last attempts:
    {"attempts": [{"at", "error", "status"}, …]}.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        one_of("state", DeliveryState),
        UniqueConstraint("channel_id", "event"),
        Index(
            "ix_deliveries_due", "next_at", postgresql_where=text("state = 'waiting'"),
            sqlite_where=text("state = 'waiting'"),
        ),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(AutoId, primary_key=True, autoincrement=True)
    channel_id: Mapped[str] = mapped_column(ForeignKey("channels.id", ondelete="CASCADE"))
    project: Mapped[str] = mapped_column(String(64))
    event: Mapped[str]
    payload: Mapped[Json]
    state: Mapped[str] = mapped_column(default=DeliveryState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str] = mapped_column(default="")
    log: Mapped[Json] = mapped_column(default=dict)
    created_at: Mapped[float] = mapped_column(default=db_now())
    next_at: Mapped[float] = mapped_column(default=db_now())
    done_at: Mapped[float | None] = mapped_column(default=None)
