"""Commands about notifications: channels, and the log of what was delivered."""

from typing import Annotated

import typer

from service.cli_connect import connect
from service.cli_schedules import Json, Url

Which = Annotated[str, typer.Argument(help="Id or name of a channel.", show_default=False)]

channels = typer.Typer(no_args_is_help=True, help="Where news of nights go, and what became of them.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("add", add), ("list", list_channels), ("test", send_test), ("remove", remove), ("log", log), ("retry", retry)
    ):  # fmt: skip
        channels.command(name)(command)
    app.add_typer(channels, name="channels", rich_help_panel="Nights")


def add(
    name: Annotated[str, typer.Argument(help="Name of the channel.", show_default=False)],
    kind: Annotated[str, typer.Option(help="webhook, slack or email.")],
    target: Annotated[str, typer.Option(help="URL, or e-mail addresses with commas.")],
    project: Annotated[str, typer.Option(help="Project whose nights are told.")] = "default",
    schedule: Annotated[str | None, typer.Option(help="Only this schedule's nights.")] = None,
    event: Annotated[
        list[str] | None, typer.Option(help="flagged, failed, recovered or clean; all but clean unless given.")
    ] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Make a channel. For a webhook, prints the secret that signs it, once."""
    document: dict[str, object] = {"name": name, "kind": kind, "target": target, "project": project}
    document |= {"schedule": schedule} if schedule else {}
    document |= {"events": event} if event else {}
    with connect(url) as client:
        made = client.channels.create(document)
    if json:
        typer.echo(made.model_dump_json(indent=2))
        return
    typer.echo(made.id)
    if made.secret:
        typer.echo(f"secret, shown this once: {made.secret}", err=True)


def list_channels(
    url: Url = None,
    project: Annotated[str | None, typer.Option(help="Only channels of this project.")] = None,
    json: Json = False,
) -> None:
    """List channels."""
    from service.cli_tables import console, simple_table

    with connect(url) as client:
        found = client.channels.list(project=project)
    if json:
        typer.echo(found.model_dump_json(indent=2))
        return
    rows = [
        (c.id, c.name, c.project, c.kind.value, c.target, c.schedule_id or "all", ", ".join(c.events))
        for c in found.items
    ]  # fmt: skip
    console().print(simple_table(("Id", "Name", "Project", "Kind", "Target", "Schedule", "Events"), rows))


def send_test(which: Which, url: Url = None, json: Json = False) -> None:
    """Send a test message; `channels log` says what became of it."""
    with connect(url) as client:
        made = client.channels.test(which)
    typer.echo(made.model_dump_json(indent=2) if json else str(made.id))


def remove(which: Which, url: Url = None) -> None:
    """Delete a channel with its delivery log."""
    with connect(url) as client:
        client.channels.delete(which)
    typer.echo(f"{which} is deleted")


def log(
    url: Url = None,
    channel: Annotated[str | None, typer.Option(help="Only to this channel.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, delivered or given_up.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 20,
    json: Json = False,
) -> None:
    """Show what was delivered, what waits, and what went wrong."""
    from service.cli_tables import console, simple_table

    with connect(url) as client:
        page = client.channels.deliveries(channel=channel, state=state, limit=limit)
    if json:
        typer.echo(page.model_dump_json(indent=2))
        return
    rows = [
        (str(d.id), d.created_at.astimezone().strftime("%Y-%m-%d %H:%M"), d.channel, d.state.value, str(d.attempts),
         d.title, d.error)
        for d in page.items
    ]  # fmt: skip
    console().print(simple_table(("Id", "Made", "Channel", "State", "Attempts", "Message", "Error"), rows))


def retry(
    delivery: Annotated[int, typer.Argument(help="Number of a delivery, from `log`.")], url: Url = None
) -> None:  # fmt: skip
    """Put a delivery back into the queue."""
    with connect(url) as client:
        typer.echo(f"{client.channels.send_again(delivery).id} is waiting")
