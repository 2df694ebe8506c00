"""Engines, sessions and transactions on SQLite and PostgreSQL.

SQLite runs in WAL mode; writing transactions begin IMMEDIATE, so that two writers queue instead of deadlocking, and
reading ones begin deferred, so that readers wait for nobody. JSON that holds NaN or an infinity is refused here, for
every table at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
import json
import sqlite3
import time
from typing import Any, TypeVar

from sqlalchemy import Connection, Double, Engine, Executable, create_engine, event, literal, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session, sessionmaker
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from mutransfer.errors import TransientError
from service.db.visibility import narrow

BUSY_TIMEOUT_SECONDS = 30.0
WAL_RETRY_SECONDS = 0.02
CONNECT_TIMEOUT_SECONDS = 10
RETRY_DELAYS_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)
_SQLITE_FAULTS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_FULL")

Sessions = sessionmaker[Session]
T = TypeVar("T")


class db_now(FunctionElement[float]):  # noqa: N801 - spelled like the SQL function it is
    """The database's clock in seconds since the epoch: one clock for all machines."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _now_sqlite(_element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _now_postgresql(_element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    # clock_timestamp, not now(): a transaction that waited for a lock must not see the time from before its wait.
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


def _dump_json(document: Any) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def make_engine(url: str) -> Engine:
    """An engine for `sqlite:///PATH` or `postgresql://…` (the psycopg driver is implied)."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed, json_serializer=_dump_json, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, pool_size=16
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(
        parsed,
        json_serializer=_dump_json,
        pool_pre_ping=True,
        pool_size=16,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS, "application_name": "mutransfer"},
    )


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")
    _enter_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")  # an accepted study survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _enter_wal(cursor: sqlite3.Cursor) -> None:
    # SQLite does not wait busy_timeout here: of two connections that turn a new file to WAL at once, one fails.
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(WAL_RETRY_SECONDS)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def session_factory(engine: Engine) -> Sessions:
    """Makes sessions: `with sessions.begin() as session:` is one writing transaction, committed at its end.

    A session shows a caller that is bound to a project the rows of that project only (`visibility`).
    """
    made = sessionmaker(engine, expire_on_commit=False)
    event.listen(made, "do_orm_execute", narrow)
    return made


@contextmanager
def reading(sessions: Sessions) -> Iterator[Session]:
    """A session on one consistent snapshot that takes no write lock; nothing in it is ever committed.

    Raises TransientError when the database does not answer.
    """
    engine: Engine = sessions.kw["bind"]
    isolation = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    try:
        with sessions(bind=engine.execution_options(reading=True, **isolation)) as session:
            yield session
    except DBAPIError as error:
        if not is_transient(error):
            raise
        raise TransientError(f"the database does not answer: {error.orig}") from error


def insert_new(session: Session, table: type[DeclarativeBase], values: Mapping[str, Any]) -> bool:
    """Insert one row unless a unique constraint already holds it. Returns whether it is new."""
    build = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = build(table).values(**values).on_conflict_do_nothing()
    # What came back, not the row count: drivers disagree on that for an insert that did nothing.
    return session.execute(statement.returning(literal(1))).first() is not None


def insert_all_new(
    session: Session, table: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]], key: InstrumentedAttribute[str]
) -> set[str]:
    """Insert rows but those that a unique constraint already holds. Returns the `key` of each new one."""
    if not rows:
        return set()
    build = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = build(table).on_conflict_do_nothing().returning(key)
    return set(session.scalars(statement, [dict(row) for row in rows]))


def is_transient(error: DBAPIError) -> bool:
    """Whether the machine is at fault (server away, file locked, deadlock, disk full), so that a retry may succeed."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    # SQLite also calls a missing table "operational"; its error code tells the machine's faults from ours.
    code = getattr(error.orig, "sqlite_errorname", None)
    return code is None or code.startswith(_SQLITE_FAULTS)


def transact(sessions: Sessions, work: Callable[[Session], T]) -> T:
    """Run `work` in one writing transaction and commit it; again after a transient fault.

    `work` must be safe to repeat: a connection lost during COMMIT leaves open whether it happened.
    Raises TransientError when the fault outlasts all retries (about 4 s, more where connecting itself blocks).
    """
    for delay in (*RETRY_DELAYS_SECONDS, None):
        try:
            with sessions.begin() as session:
                return work(session)
        except DBAPIError as error:
            if not is_transient(error):
                raise
            if delay is None:
                raise TransientError(f"the database does not answer: {error.orig}") from error
            time.sleep(delay)
    raise AssertionError("the last round returns or raises")


def execute(sessions: Sessions, statement: Executable) -> None:
    """Run one repeatable statement in a transaction of its own. Raises TransientError."""

    def work(session: Session) -> None:
        session.execute(statement)

    transact(sessions, work)
