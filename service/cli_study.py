"""Commands about studies on a service: run, submit, watch, list, show, logs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
import uuid

import typer

from service.cli_connect import URL_HELP, connect, study_text

if TYPE_CHECKING:
    from rich.console import Console

    from service.client import Client
    from service.studies.schemas import StudyRead

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

Url = Annotated[str | None, typer.Option(envvar="MUTRANSFER_URL", help=URL_HELP, show_default=False)]
StudyFile = Annotated[Path, typer.Argument(help="Study file, YAML or JSON (`-`: standard input).", show_default=False)]
StudyId = Annotated[str, typer.Argument(help="Id of a study, such as st_01….", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Run every trial anew: reuse no known result.")]
Priority = Annotated[int, typer.Option(min=-100, max=100, help="Studies of higher priority are driven first.")]
ReportDir = Annotated[Path | None, typer.Option("--report", help="Folder for the report, its figures and result.json.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Studies"
    for name, command in (
        ("run", run), ("submit", submit), ("watch", watch), ("list", list_studies), ("show", show),
        ("logs", logs),
    ):  # fmt: skip
        app.command(name, rich_help_panel=panel)(command)


def run(
    file: StudyFile,
    url: Url = None,
    json: Json = False,
    report_dir: ReportDir = None,
    fresh: Fresh = False,
    priority: Priority = 0,
    no_watch: Annotated[bool, typer.Option("--no-watch", help="Wait for the end without showing progress.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="Submit at most once under this key.")] = None,
) -> None:
    """Submit a study, watch it, print its verdict. Exits 0 on any finished study, 1 if it failed or was cancelled."""
    text = study_text(file)
    with connect(url) as client:
        _tell_reuse(client, text, fresh=fresh)
        study = client.submit(
            text, idempotency_key=idempotency_key or str(uuid.uuid4()), fresh=fresh, priority=priority
        )
        _see_through(client, study, json=json, report_dir=report_dir, quiet=no_watch)


def watch(study_id: StudyId, url: Url = None, json: Json = False, report_dir: ReportDir = None) -> None:
    """Come back to a study: watch it to its end and print its verdict."""
    with connect(url) as client:
        _see_through(client, client.get(study_id), json=json, report_dir=report_dir, quiet=False)


def submit(
    file: StudyFile,
    url: Url = None,
    json: Json = False,
    fresh: Fresh = False,
    priority: Priority = 0,
    idempotency_key: Annotated[str | None, typer.Option(help="Submit at most once under this key.")] = None,
) -> None:
    """Submit a study and return at once; prints its id."""
    text = study_text(file)
    with connect(url) as client:
        _tell_reuse(client, text, fresh=fresh)
        study = client.submit(
            text, idempotency_key=idempotency_key or str(uuid.uuid4()), fresh=fresh, priority=priority
        )
        typer.echo(study.model_dump_json(indent=2) if json else study.id)
        typer.echo(f"{study.name}: {_page(client, study)}", err=True)


def list_studies(
    url: Url = None,
    state: Annotated[str | None, typer.Option(help="Only studies in this state.")] = None,
    project: Annotated[str | None, typer.Option(help="Only studies of this project.")] = None,
    name: Annotated[str | None, typer.Option(help="Only studies with this in their name.")] = None,
    verdict: Annotated[str | None, typer.Option(help="Only studies with an arm of this verdict.")] = None,
    sort: Annotated[str, typer.Option(help="created, updated, name, project or state; with - in front, backward.")] = (
        "-created"
    ),
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    json: Json = False,
) -> None:
    """List studies, newest first unless sorted otherwise."""
    from service.cli_tables import console, simple_table

    with connect(url) as client:
        page = client.list(state=state, project=project, limit=limit, name=name, verdict=verdict, sort=sort)
    if json:
        typer.echo(page.model_dump_json(indent=2))
        return
    rows = [
        (s.id, s.name, s.project, s.state.value, s.phase or "", f"{s.trials_done}/{s.trials_planned}",
         s.created_at.astimezone().strftime("%Y-%m-%d %H:%M"))
        for s in page.items
    ]  # fmt: skip
    labels = ("Id", "Name", "Project", "State", "Phase", "Trials", "Submitted")
    console().print(simple_table(labels, rows, right=("Trials",)))


def show(study_id: StudyId, url: Url = None, json: Json = False) -> None:
    """Show a study: how far it is and what its curves say so far."""
    from service.cli_tables import console, print_verdict

    with connect(url) as client:
        result, study = client.result(study_id), client.get(study_id)
    if json:
        typer.echo(result.model_dump_json(indent=2))
        return
    out = console()
    out.print(f"{_page(client, study)}  {study.trials_done} of {study.trials_planned} trials", markup=False)
    if study.waiting is not None:
        out.print(f"waiting ({study.waiting.reason.value}): {study.waiting.message}", markup=False)
    if study.error:
        out.print(study.error, markup=False)
    print_verdict(result, out)


def logs(
    of: Annotated[str, typer.Argument(help="A study's id, or a trial's key (eight characters do).", metavar="ID")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 50,
    home: Annotated[Path | None, typer.Option(help="Home of the service on this machine.")] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Print the end of a study's driver log, on the machine where it ran; or what the service knows of a trial."""
    from mutransfer.errors import NotFoundError
    from service.dispatch.launchers import tail
    from service.runtime import default_home

    if not of.startswith("st_"):
        _trial_log(of, url, lines=lines, json=json)
        return
    path = (home or default_home()) / "logs" / f"{of}.log"
    if not path.is_file():
        raise NotFoundError(f"no log at {path}")
    typer.echo(tail(path, lines))


def _trial_log(key: str, url: str | None, *, lines: int, json: bool) -> None:
    with connect(url) as client:
        found = client.trial_log(key)
    if json:
        typer.echo(found.model_dump_json(indent=2))
        return
    steps = "" if found.steps is None else f", step {found.step} of {found.steps}"
    typer.echo(f"trial {found.key}: {found.status.value}, {found.attempts} failed attempts{steps}")
    for event in found.events:
        attempt = "" if event.attempt is None else f" attempt {event.attempt}"
        given_up = ", given up" if event.final else ""
        when = event.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        typer.echo(f"{when} {event.study_id} {event.kind}{attempt}{given_up} {event.text}".rstrip())
    if found.traceback:
        typer.echo("\n".join(found.traceback.rstrip().splitlines()[-lines:]))


def _tell_reuse(client: "Client", text: str, *, fresh: bool) -> None:
    from service.cli_tables import reuse_line

    typer.echo(reuse_line(client.plan(text, fresh=fresh).reuse), err=True)


def _page(client: "Client", study: "StudyRead") -> str:
    return f"{client.url}/studies/{study.id}"


def _see_through(client: "Client", study: "StudyRead", *, json: bool, report_dir: Path | None, quiet: bool) -> None:
    """Watch a study to its end, print what came out, and exit with its status."""
    from service.cli_tables import console

    err = console(stderr=True)
    err.print(f"{study.name} · {study.id}\n{_page(client, study)}", markup=False)
    try:
        _wait(client, study.id, err, quiet=quiet)
    except KeyboardInterrupt:
        where = f"{study.id}{_same_service(client)}"
        err.print("\nThe study goes on.")
        err.print(f"Come back: mutransfer watch {where}", markup=False, soft_wrap=True)
        err.print(f"End it:    mutransfer cancel {where}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _conclude(client, client.get(study.id), err, json=json, report_dir=report_dir)


def _same_service(client: "Client") -> str:
    from service.runtime import default_home, read_runtime

    return "" if read_runtime(default_home()).get("url") == client.url else f" --url {client.url}"


def _wait(client: "Client", study_id: str, err: "Console", *, quiet: bool) -> None:
    from service.cli_watch import follow

    events = client.watch(study_id)
    if quiet:
        for _ in events:
            pass
    else:
        follow(events, err)


def _conclude(client: "Client", study: "StudyRead", err: "Console", *, json: bool, report_dir: Path | None) -> None:
    from service.cli_tables import console, print_verdict

    result = client.result(study.id)
    if json:
        typer.echo(result.model_dump_json(indent=2))
    if study.state.value != "completed":
        err.print(f"{study.id} {study.state.value}: {study.error or 'no reason given'}", markup=False)
        raise typer.Exit(EXIT_FAILED)
    if not json:
        print_verdict(result, console())
    if report_dir is not None:
        for path in write_files(client, study, report_dir):
            err.print(f"written {path}", markup=False)
    err.print(f"{_page(client, study)}{f' · {study.mlflow_url}' if study.mlflow_url else ''}", markup=False)


def write_files(client: "Client", study: "StudyRead", folder: Path) -> list[Path]:
    """The report, its figures and result.json in `folder`; returns their paths."""
    from service.reports import write_report

    result = client.result(study.id)
    written = write_report(result, study.spec, folder)
    document = folder / "result.json"
    document.write_text(result.model_dump_json(indent=2) + "\n")
    return [*written, document]
