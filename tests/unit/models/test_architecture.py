"""The kernel's parameter lists and the modules that are built from the same spec are one thing."""

import pytest
import torch

from models import build
from models.registry import FAMILIES
from mutransfer.architecture import architecture, at_width
from mutransfer.errors import ScalingError, SpecError
from mutransfer.spec import BUILTIN_FAMILIES
from tests.trials import small_trial

MODELS = {
    "head size": {"head_dim": 8},
    "head count": {"head_dim": None, "heads": 2},
    "layernorm with gains": {"norm": "layernorm", "norm_gain": True},
    "qk norm": {"qk_norm": True},
    "llama": {"family": "llama"},
    "llama, grouped, head size": {"family": "llama", "head_dim": 4, "queries_per_kv": 2, "mlp_ratio": 3},
    "llama, grouped, head count": {"family": "llama", "head_dim": None, "heads": 4, "queries_per_kv": 4},
    "llama with gains": {"family": "llama", "norm_gain": True, "qk_norm": True},
    "mlp": {"family": "mlp", "head_dim": None},
}


def test_every_family_that_a_spec_accepts_can_be_built() -> None:
    assert set(FAMILIES) == set(BUILTIN_FAMILIES)


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize(("width", "depth"), [(16, 2), (64, 3)])
def test_module_parameters_are_the_architectures(changes: dict[str, object], width: int, depth: int) -> None:
    trial = small_trial(width=width, model={**changes, "depth": depth})
    built = build(trial, vocab=11)
    described = architecture(trial.model, width=width, depth=depth, vocab=11)
    actual = [(name, tuple(p.shape)) for name, p in built.module.named_parameters()]
    assert actual == [(info.name, info.shape) for info in described]
    assert sum(p.numel() for p in built.module.parameters()) == built.scaling.parameter_count


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
def test_no_position_sees_a_later_token(changes: dict[str, object]) -> None:
    # Zero readouts would hide a leak behind constant logits.
    trial = small_trial(model={**changes, "init": {"readout": "inverse_width"}})
    module = build(trial, vocab=11).module.eval()
    ids_BT = torch.arange(16).remainder(11)[None]
    changed_BT = ids_BT.clone()
    changed_BT[0, 9] += 1
    with torch.no_grad():
        difference_T = (module(ids_BT) - module(changed_BT)).abs().amax(dim=(0, 2))
    assert difference_T[:9].max() == 0.0
    assert difference_T[9] > 1e-4


def test_affine_widths_give_back_the_architecture() -> None:
    model = small_trial().model
    at = {w: architecture(model, width=w, depth=2, vocab=11) for w in (16, 32, 4096)}
    assert at_width(at[16], at[32], (16, 32), 4096) == at[4096]


def test_own_model_is_held_to_its_description() -> None:
    own = {"family": "examples.own_model:build", "head_dim": None, "depth": 1}
    built = build(small_trial(width=64, model=own), vocab=11, packages=["examples"])
    assert built.module(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 11)
    hidden = next(p for p in built.scaling.parameters if p.info.name == "layers.0.gate.weight")
    assert hidden.lr_multiplier == 0.25


@pytest.mark.parametrize(
    ("family", "packages", "says"),
    [
        ("examples.own_model:build", [], "not in an allowed package"),
        ("examples.own_model:absent", ["examples"], "cannot import"),
        ("examples.missing:build", ["examples"], "cannot import"),
    ],
)
def test_own_model_that_cannot_be_had_names_the_field(family: str, packages: list[str], says: str) -> None:
    trial = small_trial(model={"family": family, "head_dim": None})
    with pytest.raises(SpecError, match=f"model.family: .*{says}"):
        build(trial, vocab=11, packages=packages)


def test_scaling_of_another_model_is_refused() -> None:
    wide, narrow = build(small_trial(width=64), vocab=11), build(small_trial(), vocab=11)
    from models.init import initialise

    with pytest.raises(ScalingError, match="not those its scaling describes"):
        initialise(narrow.module, wide.scaling, seed=0)
