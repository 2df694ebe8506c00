"""Commands that keep the database: `mutransfer db …`. They work on the database itself; no service needs to run."""

from collections.abc import Iterator
from contextlib import contextmanager
import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from service.cli_study import Json

EXIT_FAILED = 1

db = typer.Typer(no_args_is_help=True, help="Upgrade, copy, back up, restore and check the database.")

Url = Annotated[
    str | None,
    typer.Option("--database-url", envvar="MUTRANSFER_DATABASE_URL", help="The database (SQLite in the home)."),
]
File = Annotated[Path, typer.Argument(help="The backup's file.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(db, name="db", rich_help_panel="Operate")


@db.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go forward to.")] = "head", url: Url = None
) -> None:
    """Bring the database up to date. Several processes may do so at once; interrupted, it changed nothing."""
    from service.db import migrate

    with _faults():
        address = _address(url)
        before = migrate.current(address)
        migrate.upgrade(address, revision)
        typer.echo(f"{before or 'empty'} → {migrate.current(address)}")


@db.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Revision to go back to, `base` for nothing.", show_default=False)],
    yes: Yes = False,
    url: Url = None,
) -> None:
    """Go back to an older revision, before running an older version. What newer tables held is lost: back up first."""
    from service.db import migrate

    if not yes:
        typer.confirm(f"Go back to {revision}? What newer tables held is lost.", abort=True, err=True)
    with _faults():
        address = _address(url)
        before = migrate.current(address)
        migrate.downgrade(address, revision)
        typer.echo(f"{before or 'empty'} → {migrate.current(address) or 'empty'}")


@db.command()
def current(
    url: Url = None,
    json: Json = False,
    must_match: Annotated[bool, typer.Option("--check", help="Exit 1 unless it is up to date.")] = False,
) -> None:
    """Print the database's revision, and the newest that this version knows."""
    from service.db import migrate

    with _faults():
        at, newest = migrate.current(_address(url)), migrate.head()
    if json:
        typer.echo(json_module.dumps({"current": at, "head": newest, "up_to_date": at == newest}))
    else:
        typer.echo(f"{at or 'empty'}{'' if at == newest else f' (newest: {newest}; run `mutransfer db upgrade`)'}")
    if must_match and at != newest:
        raise typer.Exit(EXIT_FAILED)


@db.command()
def copy(
    to: Annotated[
        str, typer.Option("--to", envvar="MUTRANSFER_TARGET_URL", help="The empty database.", show_default=False)
    ],
    url: Url = None,
) -> None:
    """Copy everything into an empty database, such as from SQLite to PostgreSQL. The service must not run."""
    from service.db.copy import copy as copy_database

    with _faults():
        copied = copy_database(_address(url), _checked("--to", to))
    typer.echo(f"copied {copied.total} rows: {', '.join(f'{name} {count}' for name, count in copied.rows.items())}")


@db.command()
def backup(file: File, url: Url = None) -> None:
    """Write the database into one file, checked. Safe while the service runs."""
    from service.db.backup import backup as write_backup

    with _faults():
        write_backup(_address(url), file)
    typer.echo(f"{file}: {file.stat().st_size} bytes")


@db.command()
def restore(file: File, url: Url = None) -> None:
    """Fill an empty database from a backup, and check it."""
    from service.db.backup import restore as read_backup

    with _faults():
        copied = read_backup(file, _address(url))
    typer.echo(f"restored {copied.total} rows: {', '.join(f'{name} {count}' for name, count in copied.rows.items())}")


@db.command()
def check(url: Url = None) -> None:
    """Check that the database is whole and agrees with itself. Exits 1 when it is not."""
    from service.db.integrity import problems

    with _faults():
        found = problems(_address(url))
    for problem in found:
        typer.echo(problem)
    if found:
        raise typer.Exit(EXIT_FAILED)
    typer.echo("sound")


def _address(url: str | None) -> str:
    from service.settings import Settings

    return _checked("--database-url", url) if url else Settings().prepare_home().database_url


def _checked(option: str, url: str) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    from mutransfer.errors import SpecError

    try:
        known = make_url(url).get_backend_name() in ("sqlite", "postgresql", "postgres")
    except ArgumentError:
        known = False
    if not known:
        raise SpecError.at(option, "not the address of a database: give sqlite:///PATH or postgresql://…")
    return url


@contextmanager
def _faults() -> Iterator[None]:
    """Say what a person can do about a revision or a server that is wrong."""
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    from mutransfer.errors import SpecError, TransientError

    try:
        yield
    except CommandError as error:
        raise SpecError.at("revision", str(error)) from None
    except DBAPIError as error:
        raise TransientError(f"the database does not answer as it should: {error.orig}") from error
