"""Copies a whole database into an empty one, on either kind: every row as it is, and the sequences behind the ids.

JSON travels as the text that is stored, never parsed. The source is read in one snapshot and the target written in one
transaction: a copy that was interrupted leaves the target empty.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    text,
)

from mutransfer.errors import ConflictError
from service.db.migrate import current, head, upgrade
from service.db.session import db_now, make_engine
from service.db.tables import Base, LeaseRow

CHUNK = 1000  # rows a statement
#: Rows that migrations make by themselves, by table: a target that holds no more is empty.
MADE_BY_MIGRATIONS: Mapping[str, int] = {"projects": 1}


@dataclass(frozen=True, kw_only=True)
class Copied:
    """How many rows of each table were copied."""

    rows: Mapping[str, int]

    @property
    def total(self) -> int:
        """Of all tables."""
        return sum(self.rows.values())


def copy(source_url: str, target_url: str, *, live: bool = False) -> Copied:
    """Copy every row of `source_url` into the empty database at `target_url`, which is migrated first.

    `live`: though studies of the source are being driven, as for a backup; what they write meanwhile stays behind.
    Raises ConflictError when the source is not at this version's revision, or a study of it is being driven, and when
    the target is not empty.
    """
    if current(source_url) != head():
        raise ConflictError(
            f"the source is at revision {current(source_url)}, not {head()}: run `mutransfer db upgrade`"
        )
    if current(target_url) not in (None, head()):
        raise ConflictError(f"the target is at revision {current(target_url)}: give an empty database")
    upgrade(target_url)
    with _engines(source_url, target_url) as (source, target), snapshot(source) as reader, target.begin() as writer:
        if not live:
            _require_idle(reader)
        _require_empty(writer)
        for table in reversed(Base.metadata.sorted_tables):
            writer.execute(delete(table))
        copied = Copied(rows={table.name: _copy_table(reader, writer, table) for table in Base.metadata.sorted_tables})
        _verify(writer, copied)
    return copied


@contextmanager
def _engines(*urls: str) -> Iterator[tuple[Engine, ...]]:
    engines = tuple(make_engine(url) for url in urls)
    try:
        yield engines
    finally:
        for engine in engines:
            engine.dispose()


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment, and writes nothing."""
    isolation = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with engine.execution_options(reading=True, **isolation).connect() as connection:
        yield connection


def _require_idle(source: Connection) -> None:
    driven = select(LeaseRow.study_id).where(LeaseRow.owner != "", LeaseRow.expires_at > db_now()).limit(1)
    if (study_id := source.scalar(driven)) is not None:
        raise ConflictError(f"study {study_id} is being driven from the source: stop the service first")


def _require_empty(target: Connection) -> None:
    for table in Base.metadata.sorted_tables:
        count = target.scalar(select(func.count()).select_from(table)) or 0
        if count > MADE_BY_MIGRATIONS.get(table.name, 0):
            raise ConflictError(f"the target is not empty: {table.name} holds {count} rows. Give an empty database")


def _copy_table(source: Connection, target: Connection, table: Table) -> int:
    statement, count = _insertion(table, target.dialect.name), 0
    names = [f"v_{column.name}" for column in table.columns]
    for rows in _pages(source, table):
        target.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
        count += len(rows)
    for column in _numbered(table):
        _continue_sequence(source, target, column)
    return count


def _pages(source: Connection, table: Table) -> Iterator[Sequence[Any]]:
    columns = [cast(column, Text) if isinstance(column.type, JSON) else column for column in table.columns]
    query = select(*columns).order_by(*table.primary_key.columns)
    with source.execution_options(yield_per=CHUNK).execute(query) as result:
        for rows in result.partitions():
            yield [tuple(row) for row in rows]


def _insertion(table: Table, dialect: str) -> Any:
    def value(column: Column[Any]) -> Any:
        if not isinstance(column.type, JSON):
            return bindparam(f"v_{column.name}", type_=column.type)
        document = bindparam(f"v_{column.name}", type_=Text())
        # SQLite stores JSON as the text it is given; a cast there would make numbers of it.
        return document if dialect == "sqlite" else cast(document, JSON)

    return insert(table).values({column.name: value(column) for column in table.columns})


def _numbered(table: Table) -> Iterator[Column[Any]]:
    """Columns whose values the database gives out."""
    return (column for column in table.columns if column.primary_key and column.autoincrement is True)


def _continue_sequence(source: Connection, target: Connection, column: Column[Any]) -> None:
    """No id is given out twice, not even one whose row is gone: watchers resume after ids."""
    if target.dialect.name != "postgresql":
        return  # SQLite goes on behind the largest one by itself
    used = max(source.scalar(select(func.max(column))) or 0, _given_out(source, column))
    if used:
        name = target.scalar(select(func.pg_get_serial_sequence(column.table.name, column.name)))
        target.execute(text("SELECT setval(CAST(:name AS regclass), :used)"), {"name": name, "used": used})


def _given_out(source: Connection, column: Column[Any]) -> int:
    if source.dialect.name != "postgresql":
        return 0
    sequence = source.scalar(select(func.pg_get_serial_sequence(column.table.name, column.name)))
    last, is_called = source.execute(text(f"SELECT last_value, is_called FROM {sequence}")).one()  # noqa: S608 - ours
    return int(last) if is_called else 0


def _verify(target: Connection, copied: Copied) -> None:
    for table in Base.metadata.sorted_tables:
        found = target.scalar(select(func.count()).select_from(table))
        if found != copied.rows[table.name]:
            raise ConflictError(f"{copied.rows[table.name]} rows of {table.name} were copied, {found} arrived")
