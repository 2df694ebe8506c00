"""Commands that need torch. They join `mutransfer` where workers are installed (entry point `mutransfer.commands`)."""

from pathlib import Path
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli_connect import load_study
from workers.cli_audit import audit, find_arm
from workers.cli_derive import derive

if TYPE_CHECKING:  # `mutransfer --help` imports this module: what is slow to import waits for the command
    from mutransfer.trial import TrialResult, TrialSpec

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A study file (YAML or JSON).")]
Arm = Annotated[str, typer.Option(help="Name of the arm; the first one unless given.")]
Width = Annotated[int | None, typer.Option(help="Value of the study's axis; the smallest proxy unless given.")]
LrOctaves = Annotated[float, typer.Option(help="log2 of the base learning rate.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of initialisation and data order.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("trial", rich_help_panel="Workers")(trial)
    app.command("audit", rich_help_panel="Workers")(audit)
    app.command("derive", rich_help_panel="Workers")(derive)


def trial(file: StudyFile, lr_octaves: LrOctaves, arm: Arm = "", width: Width = None, seed: Seed = 0) -> None:
    """Train one trial of a study here, without a service, and print its result as JSON.

    Nothing is stored: this is for trying out settings, a model or a new machine.
    """
    from mutransfer.spec import parse_study
    from mutransfer.trial import trial_spec

    spec = parse_study(load_study(file))
    value = spec.axis.proxy[0] if width is None else width
    wanted = trial_spec(spec, find_arm(spec, arm), value, lr_octaves, seed)
    typer.echo(_train(wanted).model_dump_json(indent=2))


def _train(wanted: "TrialSpec") -> "TrialResult":
    from service.settings import Settings
    from workers.data import prepare
    from workers.environment import device_type
    from workers.train import Trainer

    settings = Settings()
    # As for drivers: models of one's own are found in the working directory.
    sys.path.append(str(Path.cwd()))
    data = prepare(wanted.data, settings.storage / "data")
    data.check(context=wanted.model.context)
    trainer = Trainer(wanted, data, device=device_type(), model_packages=settings.model_packages)
    while not trainer.done:
        trainer.run(100)
        typer.echo(f"\rstep {trainer.step_index} of {trainer.steps}", nl=False, err=True)
    typer.echo(err=True)
    return trainer.finish()
