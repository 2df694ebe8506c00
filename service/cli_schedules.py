"""Commands about schedules and their nights, and `nightly check` for continuous integration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli_connect import URL_HELP, connect, load_study

if TYPE_CHECKING:
    from service.schedules.schemas import NightRead, ScheduleRead

Url = Annotated[str | None, typer.Option(envvar="MUTRANSFER_URL", help=URL_HELP, show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Which = Annotated[str, typer.Argument(help="Id or name of a schedule.", show_default=False)]
StudyFile = Annotated[Path, typer.Argument(help="Study that every night runs, YAML or JSON.", show_default=False)]
Cron = Annotated[str, typer.Option("--cron", help='Five fields: minute, hour, day, month, weekday: "30 2 * * *".')]
Zone = Annotated[str, typer.Option("--time-zone", help="IANA name, such as Europe/Berlin.")]
Policy = Annotated[str, typer.Option(help="While the night before still runs: skip, queue or replace.")]

schedules = typer.Typer(no_args_is_help=True, help="Studies that run again and again, compared with a baseline.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("create", create), ("list", list_schedules), ("show", show), ("change", change), ("pause", pause),
        ("resume", resume), ("run", run), ("history", history), ("night", night), ("pin", pin), ("unpin", unpin),
        ("delete", delete),
    ):  # fmt: skip
        schedules.command(name)(command)
    app.add_typer(schedules, name="schedules", rich_help_panel="Nights")


def create(
    file: StudyFile,
    cron: Cron,
    name: Annotated[str | None, typer.Option(help="Name of the schedule; the study's unless given.")] = None,
    time_zone: Zone = "UTC",
    concurrency: Policy = "skip",
    baseline: Annotated[str, typer.Option(help="Who sets the baseline: pinned, first or promote.")] = "first",
    promote_after: Annotated[int, typer.Option(help="Clean nights in a row, for `promote`.")] = 7,
    paused: Annotated[bool, typer.Option("--paused", help="Fire nothing until it is resumed.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Make a schedule of a study."""
    study = load_study(file)
    document = {
        "name": name or study.get("name", ""), "cron": cron, "time_zone": time_zone, "study": study,
        "concurrency": concurrency, "baseline": {"policy": baseline, "promote_after": promote_after},
        "paused": paused,
    }  # fmt: skip
    with connect(url) as client:
        made = client.schedules.create(document)
    typer.echo(made.model_dump_json(indent=2) if json else made.id)
    typer.echo(f"{made.name}: {_when(made)}", err=True)


def list_schedules(
    url: Url = None,
    project: Annotated[str | None, typer.Option(help="Only schedules of this project.")] = None,
    json: Json = False,
) -> None:
    """List schedules, newest first."""
    from service.cli_tables import console, simple_table

    with connect(url) as client:
        found = list(client.schedules.all(project=project))
    if json:
        typer.echo(_json_list(found))
        return
    rows = [(s.id, s.name, s.project, f"{s.cron} {s.time_zone}", _when(s), _latest(s)) for s in found]
    console().print(simple_table(("Id", "Name", "Project", "Cron", "Next", "Last night"), rows))


def show(which: Which, url: Url = None, json: Json = False) -> None:
    """Show a schedule: when it comes next, its baseline, how its last night went."""
    from service.cli_tables import console

    with connect(url) as client:
        found = client.schedules.get(which)
    if json:
        typer.echo(found.model_dump_json(indent=2))
        return
    out = console()
    out.print(f"{found.name} · {found.id} · project {found.project}", markup=False)
    out.print(f"{found.cron} {found.time_zone}: {_when(found)}", markup=False)
    pinned = ", pinned by hand" if found.baseline_pinned else ""
    out.print(f"baseline: {found.baseline_study_id or 'none yet'} (policy {found.baseline.policy.value}{pinned})")
    out.print(f"last night: {_latest(found)}", markup=False)
    if found.refused:
        out.print(f"this version takes its study no longer, nights fail: {found.refused}", markup=False)


def change(
    which: Which,
    file: Annotated[Path | None, typer.Option("--study", help="Another study to run.")] = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    cron: Annotated[str | None, typer.Option("--cron", help="Other slots.")] = None,
    time_zone: Annotated[str | None, typer.Option("--time-zone", help="Another time zone.")] = None,
    concurrency: Annotated[str | None, typer.Option(help="skip, queue or replace.")] = None,
    baseline: Annotated[str | None, typer.Option(help="pinned, first or promote.")] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Change a schedule; what is not given stays. Another question lets the baseline go."""
    given: dict[str, Any] = {"name": name, "cron": cron, "time_zone": time_zone, "concurrency": concurrency}
    changes = {field: value for field, value in given.items() if value is not None}
    if baseline is not None:
        changes["baseline"] = {"policy": baseline}
    if file is not None:
        changes["study"] = load_study(file)
    with connect(url) as client:
        _say(client.schedules.change(which, changes), json=json)


def pause(which: Which, url: Url = None, json: Json = False) -> None:
    """Fire no more nights until it is resumed. A night that runs goes on."""
    with connect(url) as client:
        _say(client.schedules.pause(which), json=json)


def resume(which: Which, url: Url = None, json: Json = False) -> None:
    """Go on with the next slot."""
    with connect(url) as client:
        _say(client.schedules.resume(which), json=json)


def run(which: Which, url: Url = None, json: Json = False) -> None:
    """Run a night now, between the slots; prints the id of its study."""
    with connect(url) as client:
        found = client.schedules.run(which)
    typer.echo(found.model_dump_json(indent=2) if json else found.study_id or f"night {found.id} {found.reason}")


def history(
    which: Which,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many nights, newest first.")] = 20,
    url: Url = None,
    json: Json = False,
) -> None:
    """List the nights of a schedule: what became of each slot."""
    from service.cli_tables import console, simple_table

    with connect(url) as client:
        page = client.schedules.nights(which, limit=limit, judgements=json)
    if json:
        typer.echo(page.model_dump_json(indent=2))
        return
    rows = [
        (str(n.id), n.local_time, "by hand" if n.manual else "", state_words(n), n.study_id or "", n.reason)
        for n in page.items
    ]
    console().print(simple_table(("Night", "Slot", "", "State", "Study", "Why"), rows))


def night(
    which: Which,
    night_id: Annotated[int, typer.Argument(help="Number of a night, from `history`.")],
    url: Url = None,
    json: Json = False,
) -> None:
    """Show one night: every figure beside the baseline's."""
    with connect(url) as client:
        found = client.schedules.night(which, night_id)
    if json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_night(found)


def pin(
    which: Which,
    study_id: Annotated[str, typer.Argument(help="A completed run of the same study.", show_default=False)],
    url: Url = None,
    json: Json = False,
) -> None:
    """Compare nights with this study until it is unpinned."""
    with connect(url) as client:
        _say(client.schedules.pin(which, study_id), json=json)


def unpin(which: Which, url: Url = None, json: Json = False) -> None:
    """Let the baseline go; the next completed night takes its place unless the policy is `pinned`."""
    with connect(url) as client:
        _say(client.schedules.unpin(which), json=json)


def delete(
    which: Which,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete a schedule with the history of its nights; the studies stay."""
    if not yes:
        typer.confirm(f"Delete {which} with the history of its nights?", abort=True)
    with connect(url) as client:
        client.schedules.delete(which)
    typer.echo(f"{which} is deleted")


def print_night(found: "NightRead") -> None:
    """One row a figure, flagged ones marked."""
    from service.cli_tables import console, simple_table

    out = console()
    out.print(f"night {found.id} of {found.local_time}: {state_words(found)} {found.reason}".rstrip(), markup=False)
    if found.judgement is None:
        return
    rows = [
        ("FLAG" if f.flagged else "", f.key, _span(f.night), _span(f.baseline), _span(f.change), f.unit)
        for f in found.judgement.figures
    ]
    labels = ("", "Figure", "Night", "Baseline", "Change", "Unit")
    out.print(simple_table(labels, rows, right=labels[2:5]))
    for reason in found.judgement.flags:
        out.print(f"flagged: {reason}", markup=False)


def state_words(found: "NightRead") -> str:
    """The state of a night in a word or two."""
    if found.flagged is None:
        return found.state.value
    return "flagged" if found.flagged else "clean" if found.baseline_study_id else "first night"


def _span(interval: Any) -> str:
    if interval is None:
        return ""
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return f"{interval.value:.4g}"
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def _when(schedule: "ScheduleRead") -> str:
    from service.schedules.slots import local_time

    if schedule.next_at is None:
        return "paused"
    return f"next {local_time(schedule.next_at.timestamp(), schedule.time_zone)}"


def _latest(schedule: "ScheduleRead") -> str:
    found = schedule.latest
    return "none yet" if found is None else f"{found.local_time}: {state_words(found)} {found.reason}".rstrip()


def _say(schedule: "ScheduleRead", *, json: bool) -> None:
    typer.echo(schedule.model_dump_json(indent=2) if json else f"{schedule.name}: {_when(schedule)}")


def _json_list(items: Any) -> str:
    from json import dumps

    return dumps([item.model_dump(mode="json") for item in items], indent=2)
