"""`derive` finds the laws of known optimizers without being told, and says so on the command line."""

from collections.abc import Callable
import json
from typing import Any

import pytest
import torch
from torch.optim import Optimizer
import typer
from typer.testing import CliRunner

from mutransfer.algorithms import Algorithm
from mutransfer.published import published_rule
from mutransfer.update_law import fit_law
from optimizers.adopt import ADOPT
from optimizers.derive import Probe, measure
from optimizers.lamb import LAMB
from optimizers.muon import Muon
from optimizers.sgd import SGD
from optimizers.shampoo import Shampoo
from optimizers.soap import SOAP
from optimizers.sophia import Sophia
from workers.cli import register

SMALL = Probe(sides=(32, 64, 128), seeds=4, last=8)
#: Found where a fixed Frobenius norm spreads over more directions the larger the matrix (docs/findings.md); published
#: are sqrt(r_out / r_in) for SOAP and 1 / r_in for Shampoo grafted to Adam's norm.
SPREAD = "r_out^(1/6) / r_in^(5/6)"
APP = typer.Typer()
register(APP)


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        pytest.param(lambda p, lr: torch.optim.NAdam(p, lr=lr), "1 / r_in", id="NAdam"),
        pytest.param(lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.0), "1 / r_in", id="AdamW"),
        pytest.param(lambda p, lr: Muon(p, lr=lr, scale="none"), "sqrt(r_out / r_in)", id="unscaled Muon"),
        pytest.param(lambda p, lr: SGD(p, lr=lr, momentum=0.9), "r_out / r_in", id="SGD"),
        pytest.param(lambda p, lr: LAMB(p, lr=lr), "1 / sqrt(r_in)", id="LAMB"),
    ],
)
def test_known_optimizers(made: Callable[[list[torch.nn.Parameter], float], Optimizer], rule: str) -> None:
    assert fit_law(measure(made, SMALL)).rule == rule


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        pytest.param(lambda p, lr: ADOPT(p, lr=lr), "1 / r_in", id="ADOPT"),
        pytest.param(lambda p, lr: Sophia(p, lr=lr), "1 / r_in", id="Sophia-G"),
        pytest.param(lambda p, lr: Sophia(p, lr=lr, estimator="hutchinson"), "1 / r_in", id="Sophia-H"),
        pytest.param(lambda p, lr: Shampoo(p, lr=lr, every=1), "sqrt(r_out / r_in)", id="Shampoo"),
        pytest.param(
            lambda p, lr: Shampoo(p, lr=lr, every=1, graft="adam"), SPREAD, id="Shampoo, Adam's norm, disputed"
        ),
        pytest.param(lambda p, lr: SOAP(p, lr=lr, every=1), SPREAD, id="SOAP, disputed"),
    ],
)
def test_rules_that_need_larger_sides(made: Callable[[list[torch.nn.Parameter], float], Optimizer], rule: str) -> None:
    """The default probe: at sides of 32 to 128 these exponents are still a few hundredths off."""
    assert fit_law(measure(made, Probe())).rule == rule


def test_the_same_seed_measures_the_same_and_seeds_differ() -> None:
    probe = Probe(sides=(8, 16), seeds=2, last=5)

    def made(parameters: list[torch.nn.Parameter], lr: float) -> Optimizer:
        return torch.optim.Adam(parameters, lr=lr)

    first = measure(made, probe)
    assert first == measure(made, probe)
    with torch.device("meta"):  # whatever the default device, it is measured on a CPU
        assert first == measure(made, probe)
    assert first[0].norm != first[4].norm


def _derive(*arguments: str, sides: str = "32,64,128", seeds: int = 4) -> Any:
    return CliRunner().invoke(APP, ["derive", *arguments, "--sides", sides, "--seeds", str(seeds)])


def test_the_command_prints_the_rule_and_an_arm() -> None:
    printed = _derive("torch.optim:NAdam", "--option", "betas=[0.9, 0.95]")
    assert printed.exit_code == 0, printed.output
    assert "1 / r_in" in printed.stdout
    assert "{optimizer: 'torch.optim:NAdam', rule: derived, law: [0.5, 0.5], options: {betas:" in printed.stdout
    document = json.loads(_derive("torch.optim:NAdam", "--json").stdout)
    assert document["out_exponent"]["snapped"] == "1/2"


@pytest.mark.parametrize(
    ("optimizer", "options", "rule"),
    [
        (Algorithm.ADAMW, {}, "1 / r_in"),
        (Algorithm.SGD, {}, "r_out / r_in"),
        (Algorithm.LAMB, {}, "1"),
        (Algorithm.SOAP, {}, "sqrt(r_out / r_in)"),
        (Algorithm.MUON, {"scale": "none"}, "sqrt(r_out / r_in)"),
        (Algorithm.MUON, {}, "1"),
        (Algorithm.SHAMPOO, {}, "sqrt(r_out / r_in)"),
        (Algorithm.SHAMPOO, {"exponent": 0.5}, "1"),
        (Algorithm.SHAMPOO, {"graft": "adam"}, "1 / r_in"),
    ],
)
def test_what_is_published(optimizer: Algorithm, options: dict[str, Any], rule: str) -> None:
    """The rows of shared/spec/scaling-rules.md for a hidden matrix, in the words that `derive` uses."""
    assert published_rule(optimizer, options).formula == rule


def test_a_dispute_with_the_published_rule_is_told() -> None:
    assert "published (G26: 1): 1, the measurement disputes it" in _derive("optimizers.lamb:LAMB").stdout
    few = {"sides": "8,16", "seeds": 2}
    assert "1, which these intervals are too wide to dispute" in _derive("optimizers.lamb:LAMB", **few).stdout
    assert json.loads(_derive("optimizers.lamb:LAMB", "--json", **few).stdout)["published"]["agrees"] is None
    told = json.loads(_derive("torch.optim:AdamW", "--json").stdout)["published"]
    assert (told["formula"], told["agrees"]) == ("1 / r_in", True)
    assert json.loads(_derive("torch.optim:NAdam", "--json").stdout)["published"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["torch.optim:Nope"], "cannot import"),
        (["no_colon"], "cannot import"),
        (["torch:Tensor"], "not a torch.optim.Optimizer"),
        (["torch.optim:NAdam", "--option", "betas"], "not NAME=VALUE"),
        (["torch.optim:NAdam", "--option", "nope=1"], "refuses"),
    ],
)
def test_bad_arguments_say_what_to_change(arguments: list[str], said: str) -> None:
    failed = _derive(*arguments)
    assert failed.exit_code != 0
    assert said in str(failed.exception) + failed.output
