"""What lists of studies are filtered and ordered by: when a study last changed, and the verdicts of its arms."""

from alembic import op
import sqlalchemy as sa

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("studies") as studies:
        studies.add_column(sa.Column("updated_at", sa.Double(), nullable=False, server_default="0"))
    op.execute("UPDATE studies SET updated_at = coalesce(finished_at, started_at, created_at)")
    with op.batch_alter_table("studies") as studies:
        studies.alter_column("updated_at", server_default=None, existing_type=sa.Double(), existing_nullable=False)
    for column in ("updated_at", "name"):
        op.create_index(f"ix_studies_{column}_id", "studies", [column, "id"])
    with op.batch_alter_table("study_summaries") as summaries:
        summaries.add_column(sa.Column("verdicts", sa.Text(), nullable=False, server_default=""))
    with op.batch_alter_table("study_summaries") as summaries:
        summaries.alter_column("verdicts", server_default=None, existing_type=sa.Text(), existing_nullable=False)
    _verdicts()


def downgrade() -> None:
    op.drop_column("study_summaries", "verdicts")
    for column in ("updated_at", "name"):
        op.drop_index(f"ix_studies_{column}_id", "studies")
    with op.batch_alter_table("studies") as studies:
        studies.drop_column("updated_at")


def _verdicts() -> None:
    """One study at a time: a history of results need not fit into memory."""
    connection = op.get_bind()
    summaries = sa.table(
        "study_summaries", sa.column("study_id", sa.String), sa.column("brief", sa.JSON), sa.column("verdicts", sa.Text)
    )
    ids = connection.scalars(sa.select(summaries.c.study_id).where(summaries.c.brief.is_not(None))).all()
    for study_id in ids:
        own = summaries.c.study_id == study_id
        brief = connection.scalars(sa.select(summaries.c.brief).where(own)).one()
        found = "".join(f"|{name}|" for name in sorted({arm["verdict"]["outcome"] for arm in brief["arms"]}))
        connection.execute(sa.update(summaries).where(own).values(verdicts=found))
