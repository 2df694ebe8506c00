"""Fixtures that all tests share: databases, a browser, a clean environment.

`database_url` runs a test once on SQLite and once on PostgreSQL; `postgres_database` makes fresh databases on demand;
`chromium` is the path of a browser. What is missing fails the test with what to install: nothing is skipped.
"""

from collections.abc import Callable, Iterator
import faulthandler
import logging
import os
from pathlib import Path
import sys

import pytest
import structlog

# Before anything imports torch, ray or mlflow: one thread a process, no settings of the developer's, no telemetry.
for _name in [name for name in os.environ if name.startswith("MUTRANSFER_")]:
    del os.environ[_name]
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    RAY_USAGE_STATS_ENABLED="0",
    DO_NOT_TRACK="1",
    GIT_PYTHON_REFRESH="quiet",
)

from tests.browser import find_chromium  # noqa: E402
from tests.postgres_server import PostgresServer, database_factory, drop_databases, running_server  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
EXIT_SECONDS = 60.0


def pytest_unconfigure() -> None:
    """A thread that a test left behind must not hold up the interpreter's end: say which one, and fail."""
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=sys.__stderr__)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One real PostgreSQL for the whole session, started by the first test that needs it."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """A function: each call makes a fresh, empty database and returns its SQLAlchemy URL. Dropped after the test."""
    created: list[str] = []
    yield database_factory(postgres_server, created)
    drop_databases(postgres_server, created)


@pytest.fixture
def postgres_url(postgres_database: Callable[[], str]) -> str:
    """The SQLAlchemy URL of a fresh, empty PostgreSQL database."""
    return postgres_database()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'contract.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium that a browser test may drive."""
    found = find_chromium()
    if found is None:
        pytest.fail("Chromium is not installed: run `make test`, which installs it (or says what to install)")
    return found


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Leaves logging as it was for the other tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level
