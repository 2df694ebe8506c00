"""Commands that change accepted studies: cancel, pause, resume, retry, extend, clone, priority."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
import uuid

import typer

from mutransfer.errors import SpecError
from service.cli_connect import connect, load_study
from service.cli_study import Fresh, Json, Priority, StudyId, Url

if TYPE_CHECKING:
    from service.studies.schemas import StudyRead

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE: a dotted path and a YAML value.", show_default=False)
]
ChangesFile = Annotated[
    Path | None, typer.Option("--changes", help="Merge patch, JSON or YAML (`-`: standard input).", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (cancel, pause, resume, retry, extend, clone, priority):
        app.command(command.__name__, rich_help_panel="Actions")(command)


def cancel(study_id: StudyId, url: Url = None, json: Json = False) -> None:
    """Cancel a study: queued at once, running as soon as its trials have stopped."""
    with connect(url) as client:
        _say(client.cancel(study_id), json=json)


def pause(study_id: StudyId, url: Url = None, json: Json = False) -> None:
    """Let a study rest: its trials are checkpointed, its devices freed, until it is resumed."""
    with connect(url) as client:
        _say(client.pause(study_id), json=json)


def resume(study_id: StudyId, url: Url = None, json: Json = False) -> None:
    """Let a paused study go on from its checkpoints."""
    with connect(url) as client:
        _say(client.resume(study_id), json=json)


def retry(
    study_id: StudyId,
    trial: Annotated[str | None, typer.Argument(help="Key of one trial that was given up.", show_default=False)] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Try a failed or cancelled study again with the results it has, or one trial that a study has given up."""
    with connect(url) as client:
        _say(client.retry(study_id) if trial is None else client.retry_trial(study_id, trial), json=json)


def extend(
    study_id: StudyId,
    targets: Annotated[str | None, typer.Option(help="Targets to add, such as 512,1024.", show_default=False)] = None,
    proxies: Annotated[str | None, typer.Option(help="Proxies to add.", show_default=False)] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Most seeds a rate.", show_default=False)] = None,
    low: Annotated[float | None, typer.Option(help="Lowest rate, octaves.", show_default=False)] = None,
    high: Annotated[float | None, typer.Option(help="Highest rate, octaves.", show_default=False)] = None,
    settings: SetOption = None,
    changes: ChangesFile = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Ask more of a study that has ended: more sizes, seeds or rates. Its finished trials are kept."""
    given = _changes(changes, settings)
    with connect(url) as client:
        study = client.get(study_id)
        axis, field = study.spec.axis, "widths" if study.spec.depth is None else "depth"
        more: list[dict[str, Any]] = [
            {field: {"targets": _added(axis.targets, targets, "targets")}} if targets else {},
            {field: {"proxy": _added(axis.proxy, proxies, "proxies")}} if proxies else {},
            {"search": {"seeds": {"max": seeds}}} if seeds is not None else {},
            {"search": {"lr_octaves": {"low": low}}} if low is not None else {},
            {"search": {"lr_octaves": {"high": high}}} if high is not None else {},
        ]
        for part in more:
            given = _joined(given, part)
        _say(client.extend(study_id, given), json=json)


def clone(
    study_id: StudyId,
    settings: SetOption = None,
    changes: ChangesFile = None,
    fresh: Fresh = False,
    priority: Priority = 0,
    url: Url = None,
    json: Json = False,
    idempotency_key: Annotated[str | None, typer.Option(help="Submit at most once under this key.")] = None,
) -> None:
    """Submit a study like this one, with changes of any kind; prints its id."""
    given = _changes(changes, settings)
    with connect(url) as client:
        study = client.clone(
            study_id, given, fresh=fresh, priority=priority, idempotency_key=idempotency_key or str(uuid.uuid4())
        )
    typer.echo(study.model_dump_json(indent=2) if json else study.id)


def priority(
    study_id: StudyId,
    number: Annotated[int, typer.Argument(min=-100, max=100, help="The highest is driven first.")],
    url: Url = None,
    json: Json = False,
) -> None:
    """Set a study's priority; put `--` before a negative one."""
    with connect(url) as client:
        _say(client.set_priority(study_id, number), json=json, besides=f", priority {number}")


def _say(study: "StudyRead", *, json: bool, besides: str = "") -> None:
    typer.echo(study.model_dump_json(indent=2) if json else f"{study.id} is {study.state.value}{besides}")


def _added(known: Sequence[int], text: str, option: str) -> list[int]:
    try:
        return sorted({*known, *(int(part) for part in text.split(","))})
    except ValueError:
        raise SpecError.at(f"--{option}", f"{text!r} is no list of whole numbers such as 512,1024") from None


def _changes(file: Path | None, settings: Sequence[str] | None) -> Mapping[str, Any]:
    """A merge patch from a file, then from `--set` options."""
    made: Mapping[str, Any] = load_study(file) if file is not None else {}
    for setting in settings or ():
        made = _joined(made, _setting(setting))
    return made


def _joined(first: Any, second: Any) -> Any:
    """Both patches in one; nulls stay, for they restore defaults."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return second
    return {**first, **{name: _joined(first.get(name), value) for name, value in second.items()}}


def _setting(text: str) -> Any:
    """`search.seeds.max=8` as a patch."""
    import yaml

    path, sign, value = text.partition("=")
    if not sign or not path:
        raise SpecError.at("--set", f"{text!r} is not FIELD=VALUE, such as search.seeds.max=8")
    try:
        made: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SpecError.at("--set", f"{value!r} is no YAML value: {error}") from None
    for name in reversed(path.split(".")):
        made = {name: made}
    return made
