"""Studies that pause, that are retried and extended, and that have a priority."""

from alembic import op
import sqlalchemy as sa

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BEFORE = ("queued", "running", "cancelling", "completed", "failed", "cancelled")
AFTER = ("queued", "running", "pausing", "paused", "cancelling", "completed", "failed", "cancelled")


def upgrade() -> None:
    with op.batch_alter_table("studies") as studies:
        studies.add_column(sa.Column("revision", sa.Integer(), nullable=False, server_default="1"))
        studies.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    _states(AFTER)
    with op.batch_alter_table("studies") as studies:  # what a row has comes from the application, as elsewhere
        studies.alter_column("revision", server_default=None)
        studies.alter_column("priority", server_default=None)
        studies.create_index("ix_studies_state_priority_id", ["state", "priority", "id"])


def downgrade() -> None:
    op.execute("UPDATE studies SET state = 'queued' WHERE state IN ('pausing', 'paused')")
    with op.batch_alter_table("studies") as studies:
        studies.drop_index("ix_studies_state_priority_id")
        studies.drop_column("priority")
        studies.drop_column("revision")
    _states(BEFORE)


def _states(allowed: tuple[str, ...]) -> None:
    names = ", ".join(f"'{state}'" for state in allowed)
    with op.batch_alter_table("studies") as studies:
        studies.drop_constraint(op.f("ck_studies_state"), type_="check")
        studies.create_check_constraint(op.f("ck_studies_state"), f"state IN ({names})")
