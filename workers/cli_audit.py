"""`mutransfer audit`: the exponents of a study's models in width, measured here and compared with the rules.

Exit status: 0 nothing failed, or the arm is the SP control, which is expected to; 1 a μP arm failed; 2 bad input.
"""

from pathlib import Path
import sys
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
import typer

from mutransfer.errors import SpecError
from service.cli_connect import load_study

if TYPE_CHECKING:
    from mutransfer.audit import AuditResult, AuditRun, AuditSetting, Exponent, LayerAudit
    from mutransfer.spec import ArmSpec, StudySpec

EXIT_FAILED = 1
PLAIN_WIDTH = 160  # columns where the output is no terminal

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A study file (YAML or JSON).")]
Arm = Annotated[str, typer.Option(help="Name of the arm; the first one unless given.")]
Widths = Annotated[
    str, typer.Option(help="Three widths or more, as 32,64,128,256; the study's own unless given.", show_default=False)
]
Steps = Annotated[int, typer.Option(min=8, help="Steps to count, from the first at which a matrix moves.")]
Seeds = Annotated[int, typer.Option(min=1, help="Runs a width, each with its own draws and data order.")]
LrOctaves = Annotated[
    float | None, typer.Option(help="log2 of the base learning rate; a quarter up the study's grid unless given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

_HEADINGS = {
    "weight": "weight at start", "update": "change of weight", "output": "output", "output_change": "change of output",
}  # fmt: skip
_STYLES = {"pass": "green", "fail": "bold red", "undecided": "yellow"}


def audit(
    file: StudyFile,
    arm: Arm = "",
    widths: Widths = "",
    steps: Steps = 10,
    seeds: Seeds = 2,
    lr_octaves: LrOctaves = None,
    json: Json = False,
) -> None:
    """Measure how each layer's weights and outputs grow with width, and hold that to the scaling rules.

    Trains the study's models for a few steps at a constant rate, without a service; nothing is stored. Exits 1 when a
    μP arm fails; an SP arm is expected to.
    """
    from mutransfer.audit import judge_audit
    from mutransfer.spec import Parametrization, parse_study
    from workers.audit import audit_setting

    study = parse_study(load_study(file))
    setting = audit_setting(study, find_arm(study, arm), steps=steps, lr_octaves=lr_octaves)
    ladder = parse_widths(widths) if widths else study.audit_widths or study.default_audit_widths
    runs = _run(_checked(study, ladder), setting, ladder, seeds)
    result = judge_audit(runs, setting)
    if json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        _print(result)
    if result.check == "fail" and setting.arm.parametrization is Parametrization.MUP:
        raise typer.Exit(EXIT_FAILED)


def find_arm(spec: "StudySpec", name: str) -> "ArmSpec":
    """The arm called `name`, the first when it is empty. Raises SpecError when there is none."""
    for arm in spec.arms:
        if name in ("", arm.name):
            return arm
    known = ", ".join(arm.name for arm in spec.arms)
    raise SpecError.at("--arm", f"the study has no arm {name!r}: use one of {known}")


def parse_widths(text: str) -> tuple[int, ...]:
    """`32,64,128` as numbers. Raises SpecError for anything else, and for fewer than three widths."""
    try:
        widths = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise SpecError.at("--widths", f"{text!r} is no list of widths such as 32,64,128,256") from None
    if len(widths) < 3 or widths[0] < 1:
        raise SpecError.at("--widths", f"an exponent needs three widths or more, all positive, not {text!r}")
    return widths


def _checked(study: "StudySpec", widths: tuple[int, ...]) -> "StudySpec":
    """The study with `widths` as its own, so that the format's checks (heads, sides) hold for them too."""
    from mutransfer.spec import parse_study

    if study.depth is not None:
        return study
    document = study.model_dump(mode="json")
    return parse_study({**document, "widths": {"base": study.widths.base, "proxy": list(widths), "targets": []}})


def _run(study: "StudySpec", setting: "AuditSetting", widths: tuple[int, ...], seeds: int) -> "list[AuditRun]":
    from service.settings import Settings
    from workers.audit import run_audit
    from workers.data import prepare
    from workers.environment import device_type

    settings = Settings()
    # As for drivers: models of one's own are found in the working directory.
    sys.path.append(str(Path.cwd()))
    data = prepare(study.data, settings.storage / "data")
    data.check(context=study.model.context)
    with _progress() as progress:
        task = progress.add_task("audit", total=len(widths) * seeds)
        return run_audit(
            study, setting, data, widths=widths, seeds=seeds, device=device_type(),
            model_packages=settings.model_packages,
            on_run=lambda run: progress.update(task, advance=1, description=f"width {run.width}, seed {run.seed}"),
        )  # fmt: skip


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)


def _print(result: "AuditResult") -> None:
    out = Console(highlight=False)
    out = out if out.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)
    out.print(audit_table(result))
    for problem in result.problems:
        out.print(f"problem: {problem}", style="bold red", markup=False)
    out.print(summary(result), markup=False)


def audit_table(result: "AuditResult") -> Table:
    """One row a layer: the exponent in width of each quantity with its 95 % interval, the prediction, the check."""
    title = (
        f"{result.arm.name}: exponents in width over {', '.join(map(str, result.widths))} "
        f"at 2^{result.lr_octaves:g}, {result.steps} steps, {result.seeds} seeds"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right")
    table.add_column("predicted", justify="right")
    table.add_column("check")
    for layer in result.layers:
        table.add_row(*_cells(layer))
    return table


def _cells(layer: "LayerAudit") -> list[str]:
    of = {exponent.quantity.value: exponent for exponent in layer.exponents}
    predicted = sorted({exponent.predicted for exponent in layer.exponents})
    shown = [_cell(of.get(quantity)) for quantity in _HEADINGS]
    check = f"[{_STYLES[layer.check.value]}]{layer.check.value}[/]"
    return [layer.name, *shown, ", ".join(_number(value) for value in predicted), check]


def _cell(exponent: "Exponent | None") -> str:
    if exponent is None:
        return "–"
    found = exponent.measured
    if found is None or found.low is None or found.high is None:
        return f"[{_STYLES['fail']}]{exponent.reason}[/]"
    text = f"{_number(found.value)} \\[{_number(found.low)}, {_number(found.high)}]"
    return f"[{_STYLES[exponent.check.value]}]{text}[/]"


def _number(value: float) -> str:
    text = f"{value:+.2f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def summary(result: "AuditResult") -> str:
    """The verdict in a sentence, naming the layers where a failure comes from."""
    from mutransfer.audit import suspects

    count, border = len(result.layers), f"±{result.tolerance:g}"
    if result.check == "pass":
        return f"pass: all {count} matrices follow their predictions within {border}"
    if result.check == "undecided":
        open_ = sum(layer.check == "undecided" for layer in result.layers)
        return (
            f"undecided: {open_} of {count} matrices have an interval that straddles {border}, none lies outside; "
            "more seeds, larger widths or a lower rate may tell"
        )
    return f"fail: {', '.join(suspects(result)) or 'the ladder'}"
