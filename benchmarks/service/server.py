"""The PostgreSQL that the service's benchmark runs on: the tests' server code over a data folder that is kept.

Settings are PostgreSQL's own defaults, so that a commit is on the disk when it is answered (fsync, synchronous_commit
and full_page_writes on, shared_buffers 128 MB).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from tests.postgres_server import PostgresServer, find_binaries

DURABLE = {"listen_addresses": "127.0.0.1"}
SAID = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "server_version")


@contextmanager
def kept_server(folder: Path) -> Iterator[PostgresServer]:
    """A durable server over `folder`, made when it is not there, and stopped but kept at the end."""
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError("PostgreSQL is not installed: `make prepare-tests` installs it (or says what to install)")
    server = PostgresServer(binaries, folder, settings=DURABLE)
    if not (folder / "data" / "PG_VERSION").exists():
        folder.mkdir(parents=True, exist_ok=True)
        server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def database(server: PostgresServer, name: str) -> str:
    """The URL of a database, made empty when it is not there."""
    import psycopg

    with psycopg.connect(server.url(driver="postgresql"), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
    if found is None:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return server.url(name)


def settings_said(server: PostgresServer) -> dict[str, str]:
    """What the server says of the settings that decide how honest a figure is."""
    import psycopg

    with psycopg.connect(server.url(driver="postgresql")) as connection:
        query = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)"
        return dict(connection.execute(query, [list(SAID)]).fetchall())
