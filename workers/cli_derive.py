"""`mutransfer derive`: the scaling rule of an optimizer that nobody derived, from its measured update law."""

from dataclasses import asdict
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mutransfer.errors import SpecError

#: An interval wider than this could be that of another simple fraction.
TELLING = 0.5
_SAID = {
    True: "the same",
    False: "the measurement disputes it",
    None: "which these intervals are too wide to dispute: more seeds or larger sides may tell",
}

if TYPE_CHECKING:  # `mutransfer --help` imports this module: torch waits for the command
    from mutransfer.published import PublishedRule
    from mutransfer.update_law import Exponent, UpdateLaw
    from optimizers.derive import Probe

Optimizer = Annotated[
    str, typer.Argument(metavar="MODULE:CLASS", help="A torch.optim.Optimizer, as package.module:Class.")
]
Option = Annotated[
    list[str] | None, typer.Option("--option", help="A keyword of its constructor, NAME=VALUE; may be repeated.")
]
Sides = Annotated[str, typer.Option(help="Sides of the matrices; all pairs are measured.")]
Seeds = Annotated[int, typer.Option(min=2, help="Seeds; intervals come from their spread and from the misfit.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def derive(
    optimizer: Optimizer, option: Option = None, sides: Sides = "32,64,128,256", seeds: Seeds = 4, as_json: Json = False
) -> None:
    """Measure how an optimizer's update grows with a matrix's sides, and print the learning-rate rule that follows.

    The spectral norm of the raw update is fitted as d_out^a * d_in^b over shapes whose sides vary independently; the
    spectral condition then gives the multiplier r_out^(1/2 - a) * r_in^(-1/2 - b). About a minute on a CPU.
    """
    from optimizers.derive import Probe

    options = _options(option or [])
    law = _measured(optimizer, options, Probe(sides=_sides(sides), seeds=seeds))
    published = _published(optimizer, options)
    if as_json:
        told = None if published is None else asdict(published) | {"agrees": _agrees(law, published)}
        typer.echo(json.dumps(law.model_dump(mode="json") | {"rule": law.rule, "published": told}, indent=2))
        return
    typer.echo(_text(optimizer, options, law, published))


def _published(optimizer: str, options: dict[str, Any]) -> "PublishedRule | None":
    """What is published for one of our optimizers; None for others, and for options that studies do not have."""
    from pydantic import ValidationError

    from mutransfer.published import published_rule
    from optimizers.external import load
    from optimizers.registry import algorithm_of

    algorithm = algorithm_of(load(optimizer))
    try:
        return None if algorithm is None else published_rule(algorithm, options)
    except ValidationError:
        return None


def _measured(optimizer: str, options: dict[str, Any], probe: "Probe") -> "UpdateLaw":
    from rich.console import Console
    from rich.progress import Progress

    from mutransfer.update_law import fit_law
    from optimizers.derive import measure
    from optimizers.external import load, without_decay

    made: Any = load(optimizer)

    def factory(parameters: list[Any], lr: float) -> Any:
        try:
            return made(parameters, lr=lr, **without_decay(optimizer, options))
        except (TypeError, ValueError) as error:
            raise SpecError.at("option", f"{optimizer} refuses {options}: {error}") from error

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"measuring {optimizer}", total=probe.seeds * len(probe.sides) ** 2)
        return fit_law(measure(factory, probe, progress=lambda: bar.advance(task)))


def _options(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, values read as YAML: `betas=[0.9, 0.95]`, `nesterov=true`, `eps=1.0e-8`."""
    import yaml

    options = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise SpecError.at("option", f"{pair!r} is not NAME=VALUE")
        options[name] = yaml.safe_load(value)
    return options


def _sides(text: str) -> tuple[int, ...]:
    try:
        sides = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise SpecError.at("sides", f"{text!r} is not a list of whole numbers such as 32,64,128,256") from None
    if len(sides) < 2 or sides[0] < 2:
        raise SpecError.at("sides", f"at least two different sides of 2 or more are needed, not {text!r}")
    return sides


def _text(optimizer: str, options: dict[str, Any], law: "UpdateLaw", published: "PublishedRule | None") -> str:
    lines = [
        f"{optimizer} {options or ''}".rstrip(),
        "update at LR 1: ||U||_2 ~ d_out^a * d_in^b",
        f"  a = {_exponent(law.out_exponent)}",
        f"  b = {_exponent(law.in_exponent)}",
        f"  misfit {law.misfit_octaves:.2f} octaves",
        f"LR multiplier under μP: {law.rule}",
    ]
    if published is not None:
        lines.append(f"published ({published.source}): {published.formula}, {_SAID[_agrees(law, published)]}")
    lines.append(_arm(optimizer, options, law))
    if None in (law.out_exponent.snapped, law.in_exponent.snapped):
        lines.append(
            "an exponent is no simple fraction: the rule uses it as measured; more seeds or larger sides may tell"
        )
    return "\n".join(lines)


def _agrees(law: "UpdateLaw", published: "PublishedRule") -> bool | None:
    """Whether the measured rule is the published one; None where another one could be within its intervals."""
    if published.formula == law.rule:
        return True
    wide = any(exponent.high - exponent.low > TELLING for exponent in (law.out_exponent, law.in_exponent))
    return None if wide else False


def _arm(optimizer: str, options: dict[str, Any], law: "UpdateLaw") -> str:
    import yaml

    exponents = [round(law.out_exponent.number, 3), round(law.in_exponent.number, 3)]
    arm: dict[str, Any] = {"optimizer": optimizer, "rule": "derived", "law": exponents}
    if options:
        arm["options"] = options
    return (
        "an arm of a study:\n  - " + yaml.safe_dump(arm, default_flow_style=True, sort_keys=False, width=10**6).strip()
    )


def _exponent(exponent: "Exponent") -> str:
    taken = f", taken as {exponent.snapped}" if exponent.snapped is not None else ""
    return f"{exponent.value:+.3f} [{exponent.low:+.3f}, {exponent.high:+.3f}]{taken}"
