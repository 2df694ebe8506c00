"""Commands of access: whoami, tokens, projects, the audit log. Through the service, or (`--local`) in its database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mutransfer.errors import Problem, SpecError
from service.cli_connect import connect
from service.cli_study import Json, Url
from service.db.states import Scope

if TYPE_CHECKING:  # `mutransfer --help` imports this module: pydantic waits for the command
    from pydantic import BaseModel
    from sqlalchemy.orm import Session

    from service.auth.schemas import TokenCreate, TokenMade

token = typer.Typer(no_args_is_help=True, help="Make, list and revoke API tokens.")
project = typer.Typer(no_args_is_help=True, help="Make projects, show and set their limits.")

Local = Annotated[
    bool, typer.Option("--local", help="Work on the database of MUTRANSFER_DATABASE_URL itself, past the service.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Access"
    app.add_typer(token, name="token", rich_help_panel=panel)
    app.add_typer(project, name="project", rich_help_panel=panel)
    app.command("whoami", rich_help_panel=panel)(whoami)
    app.command("audit-log", rich_help_panel=panel)(audit_log)


def whoami(url: Url = None, json: Json = False) -> None:
    """Who you are to the service, and what you may do."""
    with connect(url) as client:
        found = client.whoami()
    if json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        typer.echo(f"{found.name or found.id}: {found.scope.value}, {found.project or 'all projects'}")


@token.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for.", show_default=False)],
    scope: Annotated[Scope, typer.Option(help="What it may do; each includes the ones before.")] = Scope.SUBMIT,
    project: Annotated[str | None, typer.Option(help="The only project that it sees. Default: all.")] = None,
    days: Annotated[float | None, typer.Option(help="How many days it works. Default: until it is revoked.")] = None,
    local: Local = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Make a token and print its secret, once. From the first token on every caller needs one."""
    wanted = _wanted({"name": name, "scope": scope, "project": project, "expires_in_days": days})
    made = _create_locally(wanted) if local else _create(wanted, url)
    if json:
        typer.echo(made.model_dump_json(indent=2))
        return
    what = f"{made.id}: {made.scope.value}, {made.project or 'all projects'}"
    typer.echo(f"{what}. The secret is shown this once:", err=True)
    typer.echo(made.secret)


def _wanted(fields: Mapping[str, Any]) -> "TokenCreate":
    from pydantic import ValidationError

    from service.auth.schemas import TokenCreate

    try:
        return TokenCreate.model_validate(fields)
    except ValidationError as error:
        problems = [Problem(field=str(fault["loc"][0]), message=fault["msg"]) for fault in error.errors()]
        raise SpecError(problems) from None


def _create(wanted: "TokenCreate", url: str | None) -> "TokenMade":
    with connect(url) as client:
        return client.create_token(wanted)


def _create_locally(wanted: "TokenCreate") -> "TokenMade":
    from service.auth.schemas import TokenMade
    from service.db import tokens

    with _database() as session:
        # Whoever reaches the database can always make another one: no first token needs to be an administrator's.
        row, secret = tokens.create(session, wanted.request(), other_admin=True)
        return TokenMade.made(row, secret)


@token.command("list")
def list_tokens(url: Url = None, json: Json = False) -> None:
    """All tokens, newest first, those that have ended too."""
    with connect(url) as client:
        found = list(client.tokens())
    columns = ("id", "name", "scope", "project", "prefix", "last_used_at", "expires_at", "revoked_at")
    _show(found, columns, json=json)


@token.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="The token's id.", show_default=False)],
    local: Local = False,
    url: Url = None,
) -> None:
    """End a token at once, and the browser sessions that stand for it."""
    if local:
        from service.db import tokens

        with _database() as session:
            tokens.revoke(session, token_id)
    else:
        with connect(url) as client:
            client.revoke_token(token_id)
    typer.echo(f"{token_id} is revoked", err=True)


@project.command("list")
def list_projects(url: Url = None, json: Json = False) -> None:
    """Projects and their limits."""
    with connect(url) as client:
        found = list(client.projects())
    _show(found, ("name", "max_concurrent_trials", "device_hours", "created_at"), json=json)


@project.command("set")
def set_project(
    name: Annotated[str, typer.Argument(help="The project's name.", show_default=False)],
    max_trials: Annotated[int | None, typer.Option(help="Trials that may run at once; -1 for no limit.")] = None,
    device_hours: Annotated[float | None, typer.Option(help="Budget over its whole life; -1 for no limit.")] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Make a project, or change its limits; what is not given stays."""
    given: dict[str, float | int | None] = {"max_concurrent_trials": max_trials, "device_hours": device_hours}
    limits = {field: None if value == -1 else value for field, value in given.items() if value is not None}
    with connect(url) as client:
        found = client.set_project(name, limits)
    _show([found], ("name", "max_concurrent_trials", "device_hours"), json=json)


def audit_log(
    project: Annotated[str | None, typer.Option(help="Of this project.")] = None,
    actor: Annotated[str | None, typer.Option(help="By this token's id.")] = None,
    action: Annotated[str | None, typer.Option(help="Of this kind, such as study.cancel.")] = None,
    target: Annotated[str | None, typer.Option(help="Of this study, token or project.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, newest first.")] = 50,
    url: Url = None,
    json: Json = False,
) -> None:
    """Who changed what and when, newest first."""
    wanted = {"project": project, "actor": actor, "action": action, "target": target}
    with connect(url) as client:
        found = list(client.audit_log(wanted, limit=limit))
    _show(found, ("at", "actor_name", "actor", "action", "target", "project", "request_id"), json=json)


@contextmanager
def _database() -> Iterator["Session"]:
    """One transaction in the database of the settings, as the person at this shell."""
    import getpass

    from service.db import migrate
    from service.db.actors import Actor, acting
    from service.db.session import make_engine, session_factory
    from service.settings import Settings

    url = Settings().prepare_home().database_url
    if migrate.current(url) != migrate.head():
        raise SpecError.at(
            "MUTRANSFER_DATABASE_URL", "this database is not up to date: run `mutransfer db upgrade` first"
        )
    engine = make_engine(url)
    try:
        with acting(Actor(id="shell", name=getpass.getuser())), session_factory(engine).begin() as session:
            yield session
    finally:
        engine.dispose()


def _show(rows: "Sequence[BaseModel]", columns: Sequence[str], *, json: bool) -> None:
    if json:
        typer.echo(json_module.dumps([row.model_dump(mode="json") for row in rows], indent=2))
        return
    from rich.table import Table

    from service.cli_tables import console

    table = Table()
    for column in columns:
        table.add_column(column.removesuffix("_at").replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(getattr(row, column)) for column in columns))
    console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)
