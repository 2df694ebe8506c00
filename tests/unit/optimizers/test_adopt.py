"""ADOPT against its authors' package, its plain reference, and by hand."""

import adopt as authors
import pytest
import torch

from optimizers.adopt import ADOPT, adopt_reference
from tests.unit.optimizers.support import assert_close, descend, tensors

# The package calls what torch has renamed since.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use _accelerator_graph_capture_health_check:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch._utils.is_compiling` is deprecated:UserWarning"),
]

OPTIONS = {"lr": 0.03, "betas": (0.9, 0.99), "eps": 1e-6}


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_parity_with_the_authors(weight_decay: float) -> None:
    """Exact but for rounding: they write the moving average and the decay as a difference."""
    ours, theirs = tensors(), tensors()
    descend(ADOPT(ours, **OPTIONS, weight_decay=weight_decay), ours, range(25))
    descend(authors.ADOPT(theirs, **OPTIONS, weight_decay=weight_decay, decouple=True), theirs, range(25))
    assert_close(ours, theirs, tolerance=1e-6)


def test_parity_with_the_authors_bit_for_bit_without_the_fused_pass() -> None:
    """In another memory order the same formulas as theirs are used: foreach on CUDA, a loop on a CPU, as by default."""
    start = tensors([(16, 16), (48, 16)])
    ours, theirs = [p.mT.contiguous().mT for p in start], [p.mT.contiguous().mT for p in start]
    descend(ADOPT(ours, **OPTIONS), ours, range(25))
    descend(authors.ADOPT(theirs, **OPTIONS, decouple=True), theirs, range(25))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_it_equals_its_reference(weight_decay: float) -> None:
    (start,) = tensors([(12, 9)], dtype=torch.float64)
    given = tensors([(12, 9)] * 20, seed=3, dtype=torch.float64)
    weight = start.clone()
    optimizer = ADOPT([weight], **OPTIONS, weight_decay=weight_decay)
    for gradient in given:
        weight.grad = gradient
        optimizer.step()
    expected = adopt_reference(start, given, **OPTIONS, weight_decay=weight_decay)
    assert_close([weight], [expected], tolerance=1e-13)


def test_the_first_steps_by_hand() -> None:
    """Step 0 neither moves nor decays; the first update is clipped at 1, the second at 2^(1/4)."""
    weight = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    optimizer = ADOPT([weight], lr=0.1, betas=(0.5, 0.75), eps=0.5, weight_decay=0.2)
    moved = [[1.0, 1.0, 1.0]]
    # u = clip(g / max(|first g|, eps), 1): 4/2 -> 1, -1/2, 0.1/0.5
    moved.append([0.98 - 0.1 * 0.5 * u for u in (1.0, -0.5, 0.2)])
    for gradient, expected in zip([[2.0, 2.0, 0.0], [4.0, -1.0, 0.1]], moved, strict=True):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64))
    weight.grad = torch.tensor([1e6, 0.0, 0.0], dtype=torch.float64)
    before = weight.clone()
    optimizer.step()
    momentum = 0.5 * 0.5 * 1.0 + 0.5 * 2**0.25
    assert weight[0].item() == pytest.approx(0.98 * before[0].item() - 0.1 * momentum)


def test_a_parameter_that_comes_later_starts_at_its_own_step_zero() -> None:
    early, late = tensors([(4, 4), (4, 4)])
    optimizer = ADOPT([early, late], **OPTIONS)
    descend(optimizer, [early], range(3))
    (start,) = [late.clone()]
    late.grad = torch.ones_like(late)
    optimizer.step()
    assert torch.equal(late, start)


def test_eps_of_each_group_is_its_own() -> None:
    one, two = tensors([(4, 4)] * 2, seed=4, scale=1e-3)
    two.copy_(one)
    optimizer = ADOPT([{"params": [one], "eps": 1e-2}, {"params": [two], "eps": 1.0}], lr=0.1)
    for scale in (1.0, 0.5):
        one.grad, two.grad = (torch.full((4, 4), 1e-3 * scale) for _ in range(2))
        optimizer.step()
    first, second = optimizer.state[one]["exp_avg"], optimizer.state[two]["exp_avg"]
    torch.testing.assert_close(first, 100 * second)


@pytest.mark.parametrize("bad", [{"betas": (1.0, 0.9)}, {"eps": 0.0}])
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ADOPT(tensors(), **bad)  # type: ignore[arg-type]
