"""Commands that serve: `up` runs everything on one machine, the others are its parts, one process each."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Serve"
    app.command("up", rich_help_panel=panel)(up)
    app.command("controller", rich_help_panel=panel)(controller)
    app.command("dispatcher", rich_help_panel=panel)(dispatcher)
    app.command("scheduler", rich_help_panel=panel)(scheduler)
    app.command("exporter", rich_help_panel=panel)(exporter)


def up(
    home: Annotated[Path | None, typer.Option(help="Folder for everything that is written (~/.mutransfer).")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the service; 0 for any free one (8400).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind (127.0.0.1). Any other needs a token.")] = None,
    token: Annotated[bool, typer.Option("--token", help="Ask callers for a token (always so under Slurm).")] = False,
    mlflow: Annotated[bool, typer.Option(help="Run an MLflow server too.")] = True,
    max_studies: Annotated[int, typer.Option(min=1, help="How many studies run at once.")] = 1,
    driver: Annotated[str, typer.Option(hidden=True, help="Module to run as driver.")] = "",
) -> None:
    """Run the whole service on this machine until Ctrl-C. Prints `ready URL` once it serves."""
    from service.settings import Settings
    from service.up import UpOptions
    from service.up import up as serve

    given = {"home": home, "port": port, "host": host}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    options = UpOptions(token=token, mlflow=mlflow, max_studies=max_studies, driver=driver)
    serve(settings, options, announce=lambda line: typer.echo(line), say=lambda line: typer.echo(line, err=True))


def controller() -> None:
    """Run the API and the dashboard. Settings come from MUTRANSFER_* variables."""
    from service.entrypoints import run_controller

    run_controller()


def dispatcher(
    max_studies: Annotated[int, typer.Option(min=1, help="How many studies run at once.")] = 1,
    driver: Annotated[str, typer.Option(hidden=True, help="Module to run as driver.")] = "",
) -> None:
    """Run the loop that claims studies and starts their drivers."""
    from service.entrypoints import run_dispatcher

    run_dispatcher(max_studies=max_studies, driver=driver)


def scheduler() -> None:
    """Run the loop that fires schedules, judges their nights and delivers notifications. Several may run."""
    from service.entrypoints import run_scheduler

    run_scheduler()


def exporter() -> None:
    """Run the mirror to the MLflow server at MUTRANSFER_MLFLOW_URL."""
    from service.entrypoints import run_exporter

    run_exporter()
