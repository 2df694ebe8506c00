"""Every parameter is in exactly one group, with the numbers its scaling says; several algorithms make one step."""

import pytest
import torch

from models import build
from mutransfer.algorithms import OPTIONS
from mutransfer.errors import ScalingError
from mutransfer.parametrize import model_scaling
from mutransfer.trial import TrialSpec
from optimizers import build_optimizer
from optimizers.composite import Composite
from optimizers.muon import Muon
from optimizers.sgd import SGD
from tests.trials import small_trial
from tests.unit.optimizers.support import normal

OPTIMIZERS = list(OPTIONS)


def _optimizer(trial: TrialSpec) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    built = build(trial, vocab=11)
    return built.module, build_optimizer(built.module.named_parameters(), built.scaling, trial)


@pytest.mark.parametrize("family", [{}, {"family": "mlp", "head_dim": None}, {"norm_gain": True}])
@pytest.mark.parametrize("parametrization", ["sp", "mup"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_parameter_is_in_exactly_one_group(
    optimizer: str, parametrization: str, family: dict[str, object]
) -> None:
    module, built = _optimizer(
        small_trial(optimizer=optimizer, parametrization=parametrization, width=64, model=family)
    )
    grouped = [(name, id(p)) for g in built.param_groups for name, p in zip(g["names"], g["params"], strict=True)]
    assert sorted(grouped) == sorted((name, id(p)) for name, p in module.named_parameters())


def test_group_numbers_at_four_times_the_base_by_hand() -> None:
    trial = small_trial(optimizer="muon", width=64, lr_octaves=-5.0, train={"weight_decay": 0.01})
    _, optimizer = _optimizer(trial)
    of = {name: group for group in optimizer.param_groups for name in group["names"]}
    base = 2.0**-5
    assert of["embedding.weight"]["lr"] == base * 0.1
    assert of["readout.weight"]["lr"] == base * 0.1 / 4
    assert of["blocks.0.attention.query.weight"]["lr"] == base
    assert of["embedding.weight"]["eps"] == 1e-8 / 4
    assert of["readout.weight"]["eps"] == 1e-8
    assert of["blocks.1.mlp.up.weight"]["algorithm"] == "muon"
    for group in optimizer.param_groups:  # decay is independent of the LR: lr * weight_decay = lambda
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.01)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_groups_at_base_width_are_the_same_under_sp_and_mup(optimizer: str) -> None:
    def groups(parametrization: str) -> list[dict[str, object]]:
        _, built = _optimizer(small_trial(optimizer=optimizer, parametrization=parametrization))
        return [{k: v for k, v in group.items() if k != "params"} for group in built.param_groups]

    assert groups("mup") == groups("sp")


def test_a_parameter_without_scaling_is_refused() -> None:
    trial = small_trial()
    built = build(trial, vocab=11)
    extra = [*built.module.named_parameters(), ("stray", torch.zeros(2))]
    with pytest.raises(ScalingError, match="stray"):
        build_optimizer(extra, model_scaling(trial, vocab=11), trial)


def test_composite_steps_as_its_parts_do_and_round_trips() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [normal(6, 6, generator=generator) for _ in range(2)]
    gradients = [normal(6, 6, generator=generator) for _ in range(4)]

    def run(*, restart: bool) -> list[torch.Tensor]:
        a, b = (p.clone() for p in start)
        optimizer = Composite([Muon([a]), torch.optim.AdamW([b], lr=0.1)])
        for index in range(2):
            if restart and index == 1:
                state = optimizer.state_dict()
                optimizer = Composite([Muon([a]), torch.optim.AdamW([b], lr=0.1)])
                optimizer.load_state_dict(state)
            a.grad, b.grad = gradients[2 * index].clone(), gradients[2 * index + 1].clone()
            optimizer.step()
        return [a, b]

    parts = [p.clone() for p in start]
    apart = [Muon([parts[0]]), torch.optim.AdamW([parts[1]], lr=0.1)]
    for index in range(2):
        for part, optimizer, gradient in zip(parts, apart, gradients[2 * index :], strict=False):
            part.grad = gradient.clone()
            optimizer.step()
    for whole in (run(restart=False), run(restart=True)):
        assert all(torch.equal(x, y) for x, y in zip(whole, parts, strict=True))


def test_schedulers_reach_the_children_of_a_composite() -> None:
    composite = Composite([Muon([torch.zeros(2, 2)]), torch.optim.AdamW([torch.zeros(2)])])
    for group in composite.param_groups:
        group["lr"] = 0.5
    assert [child.param_groups[0]["lr"] for child in composite.children] == [0.5, 0.5]


def test_composite_refuses_a_shared_parameter_and_foreign_state() -> None:
    shared = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="exactly one algorithm"):
        Composite([Muon([shared]), torch.optim.AdamW([shared])])
    composite = Composite([Muon([shared]), torch.optim.AdamW([torch.zeros(2)])])
    with pytest.raises(ValueError, match="1 optimizers were saved, there are 2"):
        composite.load_state_dict({"children": [{}]})
    with pytest.raises(ValueError, match="cannot tell which algorithm"):
        composite.add_param_group({"params": [torch.zeros(1)]})


def test_sgd_decays_the_weights_and_not_the_gradient() -> None:
    weight = torch.full((2,), 3.0)
    weight.grad = torch.full((2,), 1.0)
    optimizer = SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    optimizer.step()
    torch.testing.assert_close(weight, torch.full((2,), 3.0 * (1 - 0.05) - 0.1))
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    torch.testing.assert_close(optimizer.state[weight]["momentum_buffer"], torch.ones(2))
