"""Commands that write files: `report` and `export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.cli_connect import connect
from service.cli_study import StudyId, Url


class ReportForm(StrEnum):
    """How a report is written."""

    HTML = "html"
    MD = "md"
    PDF = "pdf"


class ExportForm(StrEnum):
    """How data (`csv`, `parquet`) and charts (`svg`, `png`, `pdf`) are written."""

    CSV = "csv"
    PARQUET = "parquet"
    SVG = "svg"
    PNG = "png"
    PDF = "pdf"


_DATA = ("trials", "fits")
_STDOUT = Path("-")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, export):
        app.command(command.__name__, rich_help_panel="Studies")(command)


def report(
    study_id: StudyId,
    url: Url = None,
    form: Annotated[
        list[ReportForm] | None, typer.Option("--format", "-f", help="Only this form; may be repeated (all).")
    ] = None,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(),
) -> None:
    """Write a study's report: HTML that opens offline, Markdown, PDF; without --format also figures and result.json."""
    with connect(url) as client:
        study = client.get(study_id)
        folder.mkdir(parents=True, exist_ok=True)
        if form is None:
            from service.cli_study import write_files

            for path in write_files(client, study, folder):
                typer.echo(str(path))
        for one in form or [ReportForm.PDF]:
            path = folder / f"report.{one.value}"
            path.write_bytes(client.report(study_id, form=one.value))
            typer.echo(str(path))


def export(
    study_id: StudyId,
    what: Annotated[
        str, typer.Argument(help="trials, fits, or a chart: optimal-lr, loss-lr, training, …", show_default=False)
    ] = "trials",
    url: Url = None,
    form: Annotated[
        ExportForm | None, typer.Option("--format", "-f", help="csv or parquet (csv); charts: svg, png or pdf (svg).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, `-` for standard output (WHAT.FORMAT).")
    ] = None,
    theme: Annotated[str | None, typer.Option(help="Of a chart: light or dark (light).")] = None,
    arm: Annotated[str | None, typer.Option(help="Whose training curves or audit a chart shows.")] = None,
) -> None:
    """Write the trials or the fits of a study as CSV or parquet, or one of its charts as an image."""
    is_data = what in _DATA
    chosen = form or (ExportForm.CSV if is_data else ExportForm.SVG)
    _check(what, chosen, is_data=is_data)
    with connect(url) as client:
        body = (
            client.export(study_id, what, form=chosen.value) if is_data
            else client.figure(study_id, what, form=chosen.value, theme=theme, arm=arm)
        )  # fmt: skip
    if output == _STDOUT:
        typer.get_binary_stream("stdout").write(body)
        return
    path = output or Path(f"{what}.{chosen.value}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    typer.echo(str(path))


def _check(what: str, form: ExportForm, *, is_data: bool) -> None:
    from mutransfer.errors import SpecError

    if is_data != (form in (ExportForm.CSV, ExportForm.PARQUET)):
        use = "csv or parquet" if is_data else "svg, png or pdf (its numbers are in `fits` and `trials`)"
        raise SpecError.at("--format", f"{what} cannot be written as {form.value}: use {use}")
