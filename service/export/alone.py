"""One exporter a database: a second one stands by until the first is gone.

Delivery finds what is there before it creates; two exporters at once could both find nothing. On PostgreSQL the lock is
the database's and holds between machines; SQLite serves one machine, where a file's lock does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import fcntl
from pathlib import Path
import threading

from sqlalchemy import Engine, text
import structlog

ADVISORY_LOCK = 7_236_401_956  # any fixed number but the migrations'
RETRY_SECONDS = 1.0

Take = Callable[[], bool]

log = structlog.get_logger(__name__)


@contextmanager
def alone(engine: Engine, home: Path, stop: threading.Event) -> Iterator[bool]:
    """Wait to be the only exporter; False when `stop` came first."""
    holder = _advisory_lock(engine) if engine.dialect.name == "postgresql" else _file_lock(home / "exporter.lock")
    with holder as take:
        said = False
        while not (taken := take()) and not stop.wait(RETRY_SECONDS):
            if not said:
                log.info("another exporter is at work: standing by")
                said = True
        yield taken


@contextmanager
def _advisory_lock(engine: Engine) -> Iterator[Take]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        statement = text("SELECT pg_try_advisory_lock(:lock)")
        yield lambda: bool(connection.scalar(statement, {"lock": ADVISORY_LOCK}))
        # The lock is the session's: a pooled connection must not keep it.
        connection.invalidate()


@contextmanager
def _file_lock(path: Path) -> Iterator[Take]:
    with path.open("a") as file:

        def take() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        yield take
