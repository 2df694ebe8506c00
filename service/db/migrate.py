"""Brings a database to the newest revision, or to another. Safe to call from several processes at once."""

from collections.abc import Callable

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, text

import migrations
from service.db.session import make_engine

# Any fixed number: processes that migrate the same PostgreSQL database wait for each other on it.
ADVISORY_LOCK = 7_236_401_955


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database at `url` forward; a new SQLite file is created in an existing folder."""
    _run(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Migrate backward (`base`: to nothing). What dropped tables held is gone."""
    _run(url, lambda config: command.downgrade(config, revision))


def current(url: str) -> str | None:
    """The revision that the database is at, None when it is empty."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def head() -> str:
    """The newest revision that this version knows."""
    newest = ScriptDirectory.from_config(config()).get_current_head()
    assert newest is not None  # noqa: S101 - the first tables are a revision
    return newest


def is_known(revision: str) -> bool:
    """Whether this version can migrate from `revision`."""
    return any(script.revision == revision for script in ScriptDirectory.from_config(config()).walk_revisions())


def config() -> Config:
    """Alembic's configuration: the scripts lie in the installed package `migrations`."""
    made = Config()
    # The option is interpolated: a percent sign in the path has to be doubled.
    made.set_main_option("script_location", next(iter(migrations.__path__)).replace("%", "%%"))
    return made


def _run(url: str, migrate: Callable[[Config], None]) -> None:
    engine = make_engine(url)
    if engine.dialect.name == "sqlite":
        # Altering a table on SQLite rebuilds it: dropping the old one must not cascade to rows that refer to it.
        event.listen(engine, "connect", lambda dbapi, _record: dbapi.execute("PRAGMA foreign_keys = OFF"))
    try:
        with engine.begin() as connection:  # one transaction: all steps or none, on both databases
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
            made = config()
            made.attributes["connection"] = connection
            migrate(made)
    finally:
        engine.dispose()
