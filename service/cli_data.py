"""Commands that print numbers: recipe, judge, plan, verify, schema. All but `recipe` and `verify` need no service."""

from enum import StrEnum
import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli_connect import connect, load_study
from service.cli_study import Fresh, Json, StudyFile, StudyId, Url

if TYPE_CHECKING:
    from mutransfer.recipe import Recipe

EXIT_FAILED = 1
EXIT_NO_TRANSFER = 3


class RecipeFormat(StrEnum):
    """How a recipe is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    PYTHON = "python"
    MARKDOWN = "markdown"


class SchemaName(StrEnum):
    """The two documents with a published schema."""

    STUDY = "study"
    RESULT = "result"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Numbers"
    for command in (recipe, judge, plan, verify, schema):
        app.command(command.__name__, rich_help_panel=panel)(command)


def recipe(
    study_id: StudyId,
    width: Annotated[int, typer.Option("--width", "-w", min=1, help="Width of the model to train.")],
    depth: Annotated[int | None, typer.Option(min=1, help="Depth (the study's).")] = None,
    arm: Annotated[str | None, typer.Option(help="Arm (the best that transfers).")] = None,
    form: Annotated[RecipeFormat, typer.Option("--format", "-f", help="How to write it.")] = RecipeFormat.TABLE,
    url: Url = None,
) -> None:
    """What to set at a width, group by group. Exits 3, verdict first, when the arm does not transfer."""
    from mutransfer.result import Outcome

    with connect(url) as client:
        found = client.recipe(study_id, width=width, depth=depth, arm=arm)
    transfers = found.outcome is Outcome.TRANSFERS
    if not transfers and form is not RecipeFormat.TABLE:  # the table says so by itself, on standard output
        typer.echo(f"{found.arm}: {found.outcome.value}: {'; '.join(found.reasons)}", err=True)
    _print_recipe(found, form)
    if not transfers:
        raise typer.Exit(EXIT_NO_TRANSFER)


def _print_recipe(recipe: "Recipe", form: RecipeFormat) -> None:
    from mutransfer import snippet

    if form is RecipeFormat.TABLE:
        from service.cli_tables import console, recipe_table

        out = console()
        for line in (snippet.verdict_line(recipe), snippet.trust_line(recipe), snippet.conditions_line(recipe)):
            if line:
                out.print(line, markup=False)
        out.print(recipe_table(recipe))
        return
    writers = {
        RecipeFormat.JSON: lambda: recipe.model_dump_json(indent=2),
        RecipeFormat.YAML: lambda: snippet.recipe_yaml(recipe),
        RecipeFormat.PYTHON: lambda: snippet.snippet(recipe),
        RecipeFormat.MARKDOWN: lambda: snippet.recipe_markdown(recipe),
    }
    typer.echo(writers[form]().rstrip("\n"))


def judge(
    file: Annotated[Path, typer.Argument(help="CSV with the columns arm,width,lr,seed,loss.", show_default=False)],
    drift_tolerance: Annotated[float, typer.Option(help="τ in octaves.")] = 1.0,
    regret_tolerance: Annotated[float, typer.Option(help="ρ in nats per token.")] = 0.01,
    proxy: Annotated[
        int | None, typer.Option(help="Width whose optimum is transferred (a quarter of the largest).")
    ] = None,
    json: Json = False,
) -> None:
    """Judge sweeps that were run elsewhere."""
    from mutransfer.errors import SpecError
    from mutransfer.judge import judge_csv
    from service.cli_tables import console, print_verdict

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError.at(str(file), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    result = judge_csv(
        text, drift_tolerance_octaves=drift_tolerance, regret_tolerance_nats=regret_tolerance, proxy=proxy,
        name=file.stem,
    )  # fmt: skip
    if json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        print_verdict(result, console())


def plan(file: StudyFile, url: Url = None, fresh: Fresh = False, json: Json = False) -> None:
    """Say what a study would take, without running it: trials, tokens, device time, and what is known already.

    What is known a service has to tell: the one at `--url`, or the one that runs here.
    """
    from mutransfer.spec import parse_study
    from service.cli_connect import runs_here
    from service.cli_tables import console, plan_table, reuse_line
    from service.studies.checks import estimate_study

    document = load_study(file)
    spec, reuse = parse_study(document), None
    estimate = estimate_study(spec)
    if url is not None or runs_here():
        with connect(url) as client:
            reuse = client.plan(document, fresh=fresh).reuse
    if json:
        made = estimate.model_dump(mode="json") | {"reuse": None if reuse is None else reuse.model_dump(mode="json")}
        typer.echo(json_module.dumps(made, indent=2))
        return
    console().print(plan_table(estimate, spec.axis_name))
    if reuse is not None:
        typer.echo(reuse_line(reuse))


def verify(
    study_id: StudyId,
    from_mlflow: Annotated[bool, typer.Option("--from-mlflow", help="Judge from MLflow's runs alone.")] = True,
    mlflow_url: Annotated[str | None, typer.Option(help="MLflow's address (the one the study names).")] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Judge a study again from what MLflow holds; exits 1 unless that agrees with the service."""
    from service.cli_tables import console, verify_table
    from service.export.verify import compare, judge_from_mlflow, tracking_url

    del from_mlflow  # there is no other source yet; the option says what is meant
    with connect(url) as client:
        ours, study = client.result(study_id), client.get(study_id)
    theirs = judge_from_mlflow(tracking_url(mlflow_url, study.mlflow_url), study_id)
    differences = compare(ours, theirs)
    if json:
        document = {
            "study": study_id, "agrees": not differences, "differences": differences,
            "service": ours.model_dump(mode="json"), "mlflow": theirs.model_dump(mode="json"),
        }  # fmt: skip
        typer.echo(json_module.dumps(document, indent=2))
    else:
        out = console()
        out.print(verify_table(ours, theirs))
        out.print("\n".join(differences) or "MLflow's runs give the same verdict, number by number.", markup=False)
    if differences:
        raise typer.Exit(EXIT_FAILED)


def schema(name: Annotated[SchemaName, typer.Argument(help="Which document.", show_default=False)]) -> None:
    """Print the JSON Schema of a study or of a result."""
    from mutransfer.result import StudyResult
    from mutransfer.spec import StudySpec

    model = StudySpec if name is SchemaName.STUDY else StudyResult
    typer.echo(json_module.dumps(model.model_json_schema(), indent=2))
