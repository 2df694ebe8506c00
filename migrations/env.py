"""Alembic's entry. The connection comes from service.db.migrate, or from the settings under the `alembic` command."""

from alembic import context
from sqlalchemy import Connection

from service.db.session import make_engine
from service.db.tables import Base
from service.settings import Settings


def run(connection: Connection) -> None:
    """Run the requested migrations inside the connection's transaction."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with make_engine(Settings().database_url).begin() as own:
        run(own)
