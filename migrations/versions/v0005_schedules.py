"""Schedules and their nights; channels and what is delivered to them."""

from alembic import op
import sqlalchemy as sa

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _schedules()
    _nights()
    _channels()
    _deliveries()


def downgrade() -> None:
    for table in ("deliveries", "channels", "nights", "schedules"):
        op.drop_table(table)


def _id() -> sa.Column:
    return sa.Column(
        "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
    )  # fmt: skip


def _json(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=nullable)


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(29), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        _json("spec"),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Text(), nullable=False),
        sa.Column("baseline_policy", sa.Text(), nullable=False),
        sa.Column("promote_after", sa.Integer(), nullable=False),
        sa.Column("baseline_study_id", sa.String(29)),
        sa.Column("baseline_at", sa.Double()),
        sa.Column("baseline_pinned", sa.Boolean(), nullable=False),
        _json("sensitivity"),
        sa.Column("next_at", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.CheckConstraint("concurrency IN ('skip', 'queue', 'replace')", name=op.f("ck_schedules_concurrency")),
        sa.CheckConstraint(
            "baseline_policy IN ('pinned', 'first', 'promote')", name=op.f("ck_schedules_baseline_policy")
        ),
        sa.ForeignKeyConstraint(["project"], ["projects.name"], name="fk_schedules_project"),
        sa.ForeignKeyConstraint(
            ["baseline_study_id"], ["studies.id"], name="fk_schedules_baseline_study_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("project", "name", name="uq_schedules_project_name"),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])


def _nights() -> None:
    op.create_table(
        "nights",
        _id(),
        sa.Column("schedule_id", sa.String(29), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("fire_at", sa.Double(), nullable=False),
        sa.Column("manual", sa.Boolean(), nullable=False),
        sa.Column("missed", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("study_id", sa.String(29)),
        sa.Column("baseline_study_id", sa.String(29)),
        _json("judgement", nullable=True),
        sa.Column("flagged", sa.Boolean()),
        sa.Column("drifting", sa.Boolean()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'judged', 'failed', 'skipped')", name=op.f("ck_nights_state")
        ),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name="fk_nights_schedule_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_nights_study_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_nights"),
        sa.UniqueConstraint("schedule_id", "fire_at", name="uq_nights_schedule_id_fire_at"),
    )
    op.create_index("ix_nights_state", "nights", ["state"])
    op.create_index("ix_nights_study_id", "nights", ["study_id"])


def _channels() -> None:
    op.create_table(
        "channels",
        sa.Column("id", sa.String(29), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("schedule_id", sa.String(29)),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        _json("events"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('webhook', 'slack', 'email')", name=op.f("ck_channels_kind")),
        sa.ForeignKeyConstraint(["project"], ["projects.name"], name="fk_channels_project"),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name="fk_channels_schedule_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
        sa.UniqueConstraint("project", "name", name="uq_channels_project_name"),
    )


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        _id(),
        sa.Column("channel_id", sa.String(29), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        _json("payload"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        _json("log"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("done_at", sa.Double()),
        sa.CheckConstraint("state IN ('waiting', 'delivered', 'given_up')", name=op.f("ck_deliveries_state")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name="fk_deliveries_channel_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("channel_id", "event", name="uq_deliveries_channel_id_event"),
    )
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "ix_deliveries_due", "deliveries", ["next_at"], postgresql_where=waiting, sqlite_where=waiting
    )  # fmt: skip
