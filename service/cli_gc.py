"""`mutransfer gc`: free the disk of what no study needs."""

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli_study import Json

if TYPE_CHECKING:
    from service.gc import Plan

EXIT_FAILED = 1
DAY_SECONDS = 86_400.0
GB = 10**9


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gc", rich_help_panel="Operate")(gc)


def gc(
    older_than: Annotated[
        float, typer.Option(min=0.0, metavar="DAYS", help="Keep what ended or was used within so many days.")
    ] = 14.0,
    budget: Annotated[
        float | None, typer.Option(min=0.0, metavar="GB", help="Remove more, oldest first, until so much is left.")
    ] = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Reports in the MLflow of `up` as well; `report` writes them anew.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    json: Json = False,
) -> None:
    """Remove checkpoints, spools, prepared data and logs that nothing needs, on the machine with the storage.

    What a study in progress needs stays, whatever the budget; exits 1 when it alone exceeds the budget.
    """
    from mutransfer.errors import ConflictError
    from service import gc as collector
    from service.db.migrate import current, head
    from service.db.session import make_engine, session_factory
    from service.settings import Settings

    settings = Settings().prepare_home()
    if current(settings.database_url) != head():
        raise ConflictError(f"the database at {settings.home} is not up to date: run `mutransfer db upgrade`")
    engine = make_engine(settings.database_url)
    try:
        items = collector.survey(settings, session_factory(engine), artifacts=artifacts)
    finally:
        engine.dispose()
    policy = collector.Policy(
        retention_seconds=older_than * DAY_SECONDS, budget_bytes=None if budget is None else int(budget * GB)
    )
    made = collector.plan(items, policy)
    freed = sum(item.size_bytes for item in made.removed) if dry_run else collector.remove(made.removed)
    if json:
        typer.echo(json_module.dumps(_document(made, freed, dry_run=dry_run), indent=2))
    else:
        _say(made, freed, dry_run=dry_run)
    if made.over_bytes:
        typer.echo(f"over the budget by {_size(made.over_bytes)}: studies in progress need it", err=True)
        raise typer.Exit(EXIT_FAILED)


def _document(made: "Plan", freed: int, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "removed": [
            {"kind": item.kind, "path": str(item.path), "bytes": item.size_bytes, "why": item.why}
            for item in made.removed
        ],
        "freed_bytes": freed,
        "kept_bytes": sum(item.size_bytes for item in made.kept),
        "over_budget_bytes": made.over_bytes,
    }


def _say(made: "Plan", freed: int, *, dry_run: bool) -> None:
    from service.gc import totals

    for item in made.removed:
        typer.echo(f"{item.kind:10} {_size(item.size_bytes):>9}  {item.path}  ({item.why})", err=True)
    for kind, (count, size) in sorted(totals(made.kept).items()):
        typer.echo(f"kept {count} of {kind}, {_size(size)}")
    typer.echo(f"{'would free' if dry_run else 'freed'} {_size(freed)} ({len(made.removed)} removed)")


def _size(count: int) -> str:
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"
