"""What lists show of each study, kept beside it; filled for the studies that there are."""

from collections.abc import Iterator
from typing import Any

from alembic import op
import sqlalchemy as sa

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTS = """
INSERT INTO study_summaries (study_id, trials_planned, trials_done, trials_failed, device_seconds)
SELECT s.id, coalesce(c.planned, 0), coalesce(c.done, 0), coalesce(c.failed, 0), coalesce(c.seconds, 0.0)
FROM studies s LEFT JOIN (
  SELECT u.study_id, count(*) AS planned, count(o.id) AS done,
    sum(CASE WHEN o.id IS NULL AND u.unavailable = 1 AND t.result IS NULL THEN 1 ELSE 0 END) AS failed,
    sum(CASE WHEN o.id IS NOT NULL AND u.reused = 0 THEN t.device_seconds ELSE 0.0 END) AS seconds
  FROM (
    SELECT study_id, trial_key, min(CASE WHEN reused THEN 1 ELSE 0 END) AS reused,
      max(CASE WHEN unavailable THEN 1 ELSE 0 END) AS unavailable
    FROM study_trials GROUP BY study_id, trial_key
  ) u
  JOIN trials t ON t.key = u.trial_key
  LEFT JOIN outbox o ON o.study_id = u.study_id AND o.kind = 'trial_result' AND o.key = u.trial_key
  GROUP BY u.study_id
) c ON c.study_id = s.id
"""


def upgrade() -> None:
    op.create_table(
        "study_summaries",
        sa.Column("study_id", sa.String(29), nullable=False),
        sa.Column("trials_planned", sa.Integer(), nullable=False),
        sa.Column("trials_done", sa.Integer(), nullable=False),
        sa.Column("trials_failed", sa.Integer(), nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column("brief", sa.JSON(none_as_null=True)),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_study_summaries_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", name="pk_study_summaries"),
    )
    op.execute(COUNTS)
    _briefs()


def downgrade() -> None:
    op.drop_table("study_summaries")


def _briefs() -> None:
    connection = op.get_bind()
    summaries = sa.table("study_summaries", sa.column("study_id", sa.String), sa.column("brief", sa.JSON))
    for study_id, result in _results(connection):
        for arm in result["arms"]:
            arm["curves"] = [{**curve, "points": [], "fit_coefficients": []} for curve in arm["curves"]]
        connection.execute(sa.update(summaries).where(summaries.c.study_id == study_id).values(brief=result))


def _results(connection: sa.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """One study at a time: a history of results need not fit into memory."""
    studies = sa.table("studies", sa.column("id", sa.String), sa.column("result", sa.JSON))
    ids = connection.scalars(sa.select(studies.c.id).where(studies.c.result.is_not(None))).all()
    for study_id in ids:
        yield study_id, connection.scalars(sa.select(studies.c.result).where(studies.c.id == study_id)).one()
