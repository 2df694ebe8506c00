"""A migrated database on both backends, and studies in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
import shutil

import pytest
from sqlalchemy import text

from mutransfer.spec import StudySpec
from service.db import projects, studies
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.migrate import upgrade
from service.db.session import Sessions, make_engine, session_factory
from service.db.studies import Submission
from service.db.tables import Base
from service.db.tables_access import DEFAULT_PROJECT
from tests import study_builders as build
from tests.contract.schedule_world import Nights
from tests.postgres_server import PostgresServer, database_factory, drop_databases

TTL_SECONDS = 30.0


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no rows, to copy."""
    path = tmp_path_factory.mktemp("contract") / "migrated.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database with all tables, that tests clear behind them."""
    created: list[str] = []
    url = database_factory(postgres_server, created)()
    upgrade(url)
    yield url
    drop_databases(postgres_server, created)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    """Sessions on a database with all tables and no rows, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "contract.db")
        engine = make_engine(f"sqlite:///{tmp_path / 'contract.db'}")
    else:
        engine = make_engine(request.getfixturevalue("migrated_postgres"))
    yield session_factory(engine)
    if request.param == "postgres":
        tables = ", ".join(Base.metadata.tables)
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        with session_factory(engine).begin() as session:
            projects.ensure(session, DEFAULT_PROJECT)  # as the migration does
    engine.dispose()


@pytest.fixture
def submit(sessions: Sessions) -> Callable[..., str]:
    """Submit a study (the small one unless given); returns its id."""

    def submit_one(spec: StudySpec | None = None, **options: str) -> str:
        submission = Submission(spec=spec or build.spec(), trials_expected=12, **options)
        return studies.submit(sessions, submission)[0]

    return submit_one


@pytest.fixture
def drive(sessions: Sessions) -> Callable[[], DriverStore]:
    """Claim the oldest free study and return its driver's store."""

    def claim() -> DriverStore:
        claim = Leases(sessions).claim_next("test", TTL_SECONDS)
        assert claim is not None
        return DriverStore(sessions, claim.study_id, claim.epoch, ttl_seconds=TTL_SECONDS)

    return claim


@pytest.fixture
def world(sessions: Sessions) -> Nights:
    """Nights under a clock that only the test moves."""
    return Nights(sessions)
