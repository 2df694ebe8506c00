"""What users of torch expect of any optimizer, for all of ours: add a `Case` for a new one.

What an algorithm computes is for its own tests; here a run is compared only with another run of the same optimizer.
"""

from collections.abc import Callable, Iterable, Mapping
import copy
from dataclasses import dataclass, field
import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.adopt import ADOPT
from optimizers.composite import Composite
from optimizers.lamb import LAMB
from optimizers.muon import Muon
from optimizers.sgd import SGD
from optimizers.shampoo import Shampoo
from optimizers.soap import SOAP
from optimizers.sophia import Sophia
from optimizers.spectral import SpectrallyNormalised
from tests.unit.optimizers.support import DEVICE, assert_close, descend, tensors

MATRICES = ((6, 6), (8, 4), (4, 8), (5, 3))
ANY_SHAPE = (*MATRICES, (7,), (2, 3, 4))
ALL_AT_ONCE = {"stagger": False}


@dataclass(frozen=True)
class Case:
    """An optimizer with options away from its defaults, and the shapes it trains.

    `independent` holds what makes a parameter's run the same whoever else is trained beside it. `maximize_rounds` is
    for torch's fused SGD on CUDA, whose last bits differ with `maximize`.
    """

    build: Callable[..., Optimizer]
    options: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...] = ANY_SHAPE
    independent: Mapping[str, Any] = field(default_factory=dict)
    maximize_rounds: bool = False

    def __call__(self, params: Iterable[Any], **options: Any) -> Optimizer:
        return self.build(params, **{**self.options, **options})

    def parameters(self) -> list[Tensor]:
        return tensors(self.shapes)


def _spectral_adam(params: Iterable[Any], **options: Any) -> Optimizer:
    return SpectrallyNormalised(torch.optim.AdamW(params, **options))


CASES = {
    "adamw": Case(torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1, "fused": True}),
    "sgd": Case(
        SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "fused": True}, maximize_rounds=DEVICE == "cuda"
    ),
    "adopt": Case(ADOPT, {"lr": 0.1, "betas": (0.8, 0.99), "weight_decay": 0.1}),
    "lamb": Case(LAMB, {"lr": 0.1, "weight_decay": 0.1}),
    "sophia": Case(Sophia, {"lr": 0.1, "rho": 0.5, "every": 2, "weight_decay": 0.1}),
    "sophia-h": Case(Sophia, {"lr": 0.1, "rho": 0.5, "estimator": "hutchinson", "weight_decay": 0.1}),
    "shampoo": Case(Shampoo, {"lr": 0.1, "every": 2, "graft": "adam", "weight_decay": 0.1}, MATRICES, ALL_AT_ONCE),
    "soap": Case(SOAP, {"lr": 0.1, "every": 2, "weight_decay": 0.1}, MATRICES, ALL_AT_ONCE),
    "muon": Case(Muon, {"lr": 0.1, "weight_decay": 0.1}, MATRICES),
    "spectral": Case(_spectral_adam, {"lr": 0.1, "weight_decay": 0.1}, (*MATRICES, (7,))),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def _equal(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_it_moves_every_parameter(case: Case) -> None:
    parameters = case.parameters()
    descend(case(parameters), parameters, range(3))
    assert not any(torch.equal(p, start) for p, start in zip(parameters, case.parameters(), strict=True))


def test_closure_runs_once_a_step_with_gradients_on_and_its_loss_is_returned(case: Case) -> None:
    parameter = torch.ones(2, 2, requires_grad=True)
    optimizer, losses = case([parameter]), list[float]()

    def closure() -> float:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        losses.append(loss.item())
        return losses[-1]

    returned = [optimizer.step(closure) for _ in range(3)]
    assert returned == losses
    assert losses[0] == 4.0
    assert losses[-1] < 4.0


def test_groups_keep_their_own_learning_rate_and_extra_keys(case: Case) -> None:
    """One optimizer over two groups is two optimizers, and what else a group carries stays."""
    together, apart = case.parameters(), case.parameters()
    rates = (0.2, 0.01)
    extra = {"algorithm": "any"}
    groups = [{"params": together[i::2], "lr": lr, "names": ["w"], **extra} for i, lr in enumerate(rates)]
    optimizer = case(groups, **case.independent)
    descend(optimizer, together, range(4))
    singles = [case(apart[i::2], lr=lr, **case.independent) for i, lr in enumerate(rates)]
    descend(_Both(singles), apart, range(4))
    assert _equal(together, apart)
    assert [(g["lr"], g["names"], g["algorithm"]) for g in optimizer.param_groups] == [
        (lr, ["w"], "any") for lr in rates
    ]


class _Both:
    """Steps several optimizers on the same gradients."""

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers = optimizers

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


def test_a_group_added_later_trains_from_then_on(case: Case) -> None:
    parameters = case.parameters()
    optimizer = case(parameters[:1])
    descend(optimizer, parameters, range(2))
    assert _equal(parameters[1:], case.parameters()[1:])
    optimizer.add_param_group({"params": parameters[1:], "lr": 0.05})
    descend(optimizer, parameters, range(2, 6))
    assert not any(torch.equal(p, start) for p, start in zip(parameters, case.parameters(), strict=True))
    assert optimizer.param_groups[1]["weight_decay"] == 0.1


def test_a_parameter_cannot_stand_in_two_groups(case: Case) -> None:
    parameters = case.parameters()
    optimizer = case(parameters)
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": parameters[:1]})
    assert len(optimizer.param_groups) == 1


def test_maximize_is_the_negative_gradient(case: Case) -> None:
    """Gradients that do not feed back, so that both runs see the same ones."""
    up, down = case.parameters(), case.parameters()
    one, other = case(up, maximize=True), case(down)
    for step in range(4):
        for a, b, gradient in zip(up, down, tensors(case.shapes, seed=step + 9), strict=True):
            a.grad, b.grad = gradient.clone(), -gradient
        one.step()
        other.step()
        assert _equal([p.grad for p in up if p.grad is not None], tensors(case.shapes, seed=step + 9))
    if case.maximize_rounds:
        assert_close(up, down, tolerance=1e-6)
    else:
        assert _equal(up, down)


def test_gradients_are_left_as_they_were(case: Case) -> None:
    parameters = case.parameters()
    optimizer = case(parameters)
    for step in range(3):
        given = tensors(case.shapes, seed=step)
        for parameter, gradient in zip(parameters, given, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        assert _equal([p.grad for p in parameters if p.grad is not None], given)


def test_parameters_without_a_gradient_are_left_alone(case: Case) -> None:
    parameters = case.parameters()
    optimizer = case(parameters)
    optimizer.step()
    assert _equal(parameters, case.parameters())
    for _ in range(3):
        for parameter, gradient in zip(parameters[1:], tensors(case.shapes[1:], seed=1), strict=True):
            parameter.grad = gradient
        optimizer.step()
    assert torch.equal(parameters[0], case.parameters()[0])
    assert not torch.equal(parameters[1], case.parameters()[1])


def test_empty_parameters_are_left_alone(case: Case) -> None:
    empty, parameter = torch.ones(0, 3), torch.ones(3, 3)
    optimizer = case([empty, parameter])
    for _ in range(3):
        empty.grad, parameter.grad = torch.ones(0, 3), torch.ones(3, 3)
        optimizer.step()
    assert torch.isfinite(parameter).all()
    assert not torch.equal(parameter, torch.ones(3, 3))


def test_zero_gradients_give_finite_weights(case: Case) -> None:
    """As behind a zero-initialised readout, whose first gradients are exactly 0."""
    parameters = case.parameters()
    optimizer = case(parameters)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    descend(optimizer, parameters, range(3))
    assert all(torch.isfinite(p).all() for p in parameters)


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_saved_state_goes_on_bit_for_bit(case: Case, stop: int) -> None:
    """Through a file read with weights_only, into an optimizer with other options, as a resumed trial does."""
    whole, halves = case.parameters(), case.parameters()
    descend(case(whole), whole, range(8))
    first = case(halves)
    descend(first, halves, range(stop))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second = case(halves, lr=0.7)
    second.load_state_dict(torch.load(stream, weights_only=True))
    descend(second, halves, range(stop, 8))
    assert _equal(whole, halves)


def test_saved_state_is_a_copy_of_nothing_it_shares(case: Case) -> None:
    """Loading one state into two optimizers gives two runs that do not disturb one another."""
    start = case.parameters()
    optimizer = case(start)
    descend(optimizer, start, range(3))
    state = copy.deepcopy(optimizer.state_dict())
    runs = []
    for _ in range(2):
        parameters = [p.clone() for p in start]
        copied = case(parameters)
        copied.load_state_dict(copy.deepcopy(state))
        descend(copied, parameters, range(3, 7))
        runs.append(parameters)
    assert _equal(*runs)


def test_a_deep_copy_goes_on_by_itself(case: Case) -> None:
    parameters = case.parameters()
    optimizer = case(parameters)
    descend(optimizer, parameters, range(3))
    twin = copy.deepcopy(optimizer)
    copies = [p for group in twin.param_groups for p in group["params"]]
    descend(optimizer, parameters, range(3, 6))
    descend(twin, copies, range(3, 6))
    assert _equal(parameters, copies)


def test_it_works_within_a_composite(case: Case) -> None:
    """Beside another algorithm, saved and loaded with it."""
    ours, alone, vector = case.parameters(), case.parameters(), torch.ones(3)
    composite = Composite([case(ours), torch.optim.AdamW([vector])])
    vector.grad = torch.ones(3)
    descend(composite, ours, range(3))
    saved = composite.state_dict()
    composite = Composite([case(ours), torch.optim.AdamW([vector])])
    composite.load_state_dict(saved)
    descend(composite, ours, range(3, 6))
    descend(case(alone), alone, range(6))
    assert _equal(ours, alone)


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"weight_decay": -0.1}])
def test_bad_options_are_refused(case: Case, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|Invalid"):
        case(case.parameters(), **bad)
