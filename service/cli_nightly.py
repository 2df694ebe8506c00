"""`mutransfer nightly check`: whether the last night of a schedule is as it should be, as an exit status."""

from datetime import UTC, datetime
from enum import StrEnum
import time
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli_connect import connect
from service.cli_schedules import Json, Url, Which, print_night, state_words

if TYPE_CHECKING:
    from service.client import Client
    from service.schedules.schemas import NightRead

EXIT_FAILED = 1
EXIT_FOUND = 3
POLL_SECONDS = 2.0

nightly = typer.Typer(no_args_is_help=True, help="Nights as continuous integration asks for them.")


class FailOn(StrEnum):
    """What makes the check fail."""

    FLAG = "flag"  # a figure differs from the baseline
    VERDICT = "verdict"  # some arm's learning rate drifts
    NEVER = "never"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    nightly.callback()(_group)
    nightly.command("check")(check)
    app.add_typer(nightly, name="nightly", rich_help_panel="Nights")


def _group() -> None:
    """Nights as continuous integration asks for them."""


def check(
    which: Which,
    fail_on: Annotated[list[FailOn] | None, typer.Option("--fail-on", help="May be given twice.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Run a night now, and wait for it.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a night that runs or waits.")] = False,
    max_age_hours: Annotated[
        float | None, typer.Option(min=0.0, help="An older night counts as none: the schedule may have died.")
    ] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Look at the last night of a schedule.

    Exit status: 0 it is fine; 3 what `--fail-on` names was found (default: flag); 1 there is no night to look at: none
    yet, too old, still running, its study failed or was refused, or the service does not answer; 2 bad input.
    """
    with connect(url) as client:
        found = client.schedules.run(which) if run else _last(client, which)
        if found is not None and (run or wait):
            found = _wait(client, which, found)
        if found is not None and found.state.is_final:
            found = client.schedules.night(which, found.id)
    if json:
        typer.echo("null" if found is None else found.model_dump_json(indent=2))
    elif found is not None:
        print_night(found)
    raise typer.Exit(_status(found, fail_on or [FailOn.FLAG], max_age_hours))


def _last(client: "Client", which: str) -> "NightRead | None":
    """The newest night that was not skipped."""
    page = client.schedules.nights(which, limit=200)
    return next((night for night in page.items if night.state.value != "skipped"), None)


def _wait(client: "Client", which: str, night: "NightRead") -> "NightRead":
    while not night.state.is_final:
        time.sleep(POLL_SECONDS)
        night = client.schedules.night(which, night.id)
    return night


def _status(night: "NightRead | None", fail_on: list[FailOn], max_age_hours: float | None) -> int:
    if night is None:
        return _no_night("no night has run yet")
    age = (datetime.now(UTC) - night.fire_at).total_seconds() / 3600.0
    if max_age_hours is not None and age > max_age_hours:
        return _no_night(f"the last night is {age:.1f} hours old, more than {max_age_hours:g}: does the scheduler run?")
    if night.flagged is None:
        return _no_night(f"the last night is {state_words(night)}: {night.reason or 'not judged'}")
    found = {FailOn.FLAG: night.flagged, FailOn.VERDICT: bool(night.drifting), FailOn.NEVER: False}
    said = ", ".join(what.value for what in fail_on if found[what])
    typer.echo(f"night {night.id}: {state_words(night)}" + (f"; fails on {said}" if said else ""), err=True)
    return EXIT_FOUND if said else 0


def _no_night(why: str) -> int:
    typer.echo(f"error: {why}", err=True)
    return EXIT_FAILED
