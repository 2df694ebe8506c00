"""A new SQLite file is turned to WAL beside other connections that do the same."""

from collections.abc import Iterator
from pathlib import Path
import sqlite3
from threading import Timer
import time

import pytest
from sqlalchemy.exc import OperationalError

from service.db import session
from service.db.session import make_engine

HELD_SECONDS = 0.3


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that holds the write lock of a file still in SQLite's first journal mode."""
    connection = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def test_a_new_file_that_another_connection_writes_is_waited_for(other: sqlite3.Connection, tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'new.db'}")
    release = Timer(HELD_SECONDS, other.execute, ["ROLLBACK"])
    started = time.monotonic()
    release.start()
    with engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert time.monotonic() - started >= HELD_SECONDS
    release.join()
    engine.dispose()


@pytest.mark.usefixtures("other")
def test_a_file_that_stays_locked_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BUSY_TIMEOUT_SECONDS", 0.1)
    engine = make_engine(f"sqlite:///{tmp_path / 'new.db'}")
    with pytest.raises(OperationalError, match="locked"), engine.begin():
        pass
    engine.dispose()
