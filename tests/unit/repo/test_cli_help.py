"""What the command line says of its options is what we wrote: rich takes `[words]` for markup and drops them."""

from collections.abc import Iterator

import click
import typer

from service.cli import app


def _helps(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for name, inner in getattr(command, "commands", {}).items():
        yield from _helps(inner, f"{path} {name}")


def test_no_help_holds_what_rich_drops() -> None:
    helps = dict(_helps(typer.main.get_command(app), "mutransfer"))
    assert len(helps) > 150
    assert [path for path, text in helps.items() if "[" in text] == []
