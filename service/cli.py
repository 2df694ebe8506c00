"""The command line, `mutransfer`. Commands live in `cli_*.py`; each imports what it needs when it runs.

Exit status: 0 done; 1 the study or the service failed; 2 bad input; 3 the verdict says no (`recipe`); 130 Ctrl-C.
Results go to standard output, everything else to standard error.
"""

from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from mutransfer.errors import ConflictError, MutransferError, NotFoundError, SpecError
from service import (
    cli_access,
    cli_actions,
    cli_channels,
    cli_data,
    cli_db,
    cli_gc,
    cli_nightly,
    cli_report,
    cli_schedules,
    cli_server,
    cli_study,
)

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class Commands(TyperGroup):
    """The group of all commands: the one place where an error of ours becomes a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except MutransferError as error:
            raise typer.Exit(report_error(error)) from None


def report_error(error: MutransferError) -> int:
    """Print an error that people can act upon; returns the exit status."""
    if isinstance(error, SpecError):
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        return EXIT_BAD_INPUT
    typer.echo(f"error: {error}", err=True)
    return EXIT_BAD_INPUT if isinstance(error, ConflictError | NotFoundError) else EXIT_FAILED


app = typer.Typer(
    name="mutransfer",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which learning rate do I set at full width, and how sure are you?",
)
for _module in (
    cli_access, cli_study, cli_actions, cli_report, cli_data, cli_schedules, cli_nightly, cli_channels, cli_server,
    cli_db, cli_gc,
):  # fmt: skip
    _module.register(app)


def load_extensions() -> None:
    """Let other installed parts (workers) add their commands: entry points of the group `mutransfer.commands`."""
    for entry_point in entry_points(group="mutransfer.commands"):
        try:
            register = entry_point.load()
        except ModuleNotFoundError:
            continue  # its extra is not installed here: a controller without torch lacks those commands
        register(app)


def main() -> None:
    """The console script."""
    load_extensions()
    app()


if __name__ == "__main__":
    main()
