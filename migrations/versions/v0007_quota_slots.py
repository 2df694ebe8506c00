"""Leases say how many trials their study may run at once."""

from alembic import op
import sqlalchemy as sa

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = ("slots", "slots_wanted")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("leases", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("leases") as leases:  # what a row has comes from the application, as elsewhere
        for name in COLUMNS:
            leases.alter_column(name, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("leases") as leases:
        for name in COLUMNS:
            leases.drop_column(name)
