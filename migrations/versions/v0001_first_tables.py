"""First tables: studies with their leases, phases, trials, events, outbox and idempotency keys."""

from alembic import op
import sqlalchemy as sa

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("idempotency", "outbox", "events", "study_trials", "trials", "phases", "leases", "studies")


def _json() -> sa.JSON:
    return sa.JSON(none_as_null=True)


def _auto_id() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("id", kind, autoincrement=True, nullable=False)


def _study_id() -> sa.Column[str]:
    return sa.Column("study_id", sa.String(29), nullable=False)


def _of_study(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=f"fk_{table}_study_id", ondelete="CASCADE")


def upgrade() -> None:
    _studies()
    _leases_and_phases()
    _trials()
    _messages()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


def _studies() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.String(29), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("spec", _json(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("facts", _json()),
        sa.Column("result", _json()),
        sa.Column("mlflow_url", sa.Text(), nullable=False),
        sa.Column("trials_expected", sa.BigInteger()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'cancelling', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_studies_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
    )
    op.create_index("ix_studies_state_id", "studies", ["state", "id"])
    op.create_index("ix_studies_project_id", "studies", ["project", "id"])


def _leases_and_phases() -> None:
    op.create_table(
        "leases",
        _study_id(),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        _of_study("leases"),
        sa.PrimaryKeyConstraint("study_id", name="pk_leases"),
    )
    op.create_index("ix_leases_expires_at", "leases", ["expires_at"])
    op.create_table(
        "phases",
        _study_id(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("payload", _json(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.CheckConstraint("state IN ('running', 'finished')", name=op.f("ck_phases_state")),
        _of_study("phases"),
        sa.PrimaryKeyConstraint("study_id", "name", name="pk_phases"),
    )


def _trials() -> None:
    op.create_table(
        "trials",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("spec", _json(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.BigInteger()),
        sa.Column("train_loss_nats", sa.Double()),
        sa.Column("result", _json()),
        sa.Column("loss_nats", sa.Double()),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.CheckConstraint(
            "status IN ('planned', 'running', 'finished', 'diverged', 'failed')", name=op.f("ck_trials_status")
        ),
        sa.PrimaryKeyConstraint("key", name="pk_trials"),
    )
    op.create_table(
        "study_trials",
        _study_id(),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("axis_value", sa.Integer(), nullable=False),
        sa.Column("lr_octaves", sa.Double(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("trial_key", sa.String(64), nullable=False),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column("unavailable", sa.Boolean(), nullable=False),
        _of_study("study_trials"),
        sa.ForeignKeyConstraint(["trial_key"], ["trials.key"], name="fk_study_trials_trial_key"),
        sa.PrimaryKeyConstraint("study_id", "phase", "arm", "axis_value", "lr_octaves", "seed", name="pk_study_trials"),
    )
    op.create_index("ix_study_trials_trial_key", "study_trials", ["trial_key"])


def _messages() -> None:
    op.create_table(
        "events",
        _auto_id(),
        _study_id(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", _json(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        _of_study("events"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_study_id_id", "events", ["study_id", "id"])
    op.create_table(
        "outbox",
        _auto_id(),
        sa.Column("kind", sa.Text(), nullable=False),
        _study_id(),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("payload", _json(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("done_at", sa.Double()),
        _of_study("outbox"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("study_id", "kind", "key", name="uq_outbox_study_id_kind_key"),
    )
    waiting = sa.text("done_at IS NULL")
    op.create_index("ix_outbox_due", "outbox", ["next_at"], postgresql_where=waiting, sqlite_where=waiting)
    op.create_table(
        "idempotency",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("body_digest", sa.Text(), nullable=False),
        _study_id(),
        sa.Column("created_at", sa.Double(), nullable=False),
        _of_study("idempotency"),
        sa.PrimaryKeyConstraint("key", name="pk_idempotency"),
    )
