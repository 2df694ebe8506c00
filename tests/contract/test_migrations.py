from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from service.db.migrate import current, downgrade, upgrade
from service.db.session import make_engine
from service.db.tables import Base

TABLES = {
    "studies", "leases", "phases", "trials", "study_trials", "events", "outbox", "idempotency",
}  # fmt: skip


def _tables(url: str) -> set[str]:
    engine = make_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_forward_back_and_forward_again(database_url: str) -> None:
    assert current(database_url) is None
    upgrade(database_url)
    assert current(database_url) == "0001"
    assert _tables(database_url) == TABLES | {"alembic_version"}
    downgrade(database_url, "base")
    assert current(database_url) is None
    assert _tables(database_url) == {"alembic_version"}
    upgrade(database_url)
    assert _tables(database_url) == TABLES | {"alembic_version"}


def test_migrations_make_the_tables_that_the_code_expects(database_url: str) -> None:
    upgrade(database_url)
    engine = make_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [database_url] * 4))
    assert current(database_url) == "0001"
