"""Muon against torch's own, against its plain reference, and as torch users expect an optimizer to behave."""

import math

import pytest
import torch
from torch import Tensor

from mutransfer.algorithms import MuonScale
from mutransfer.scaling import muon_factor
from optimizers.muon import Muon, compute_dtype, newton_schulz, newton_schulz_reference
from tests.unit.optimizers.support import DEVICE, normal

SHAPES = [(16, 16), (48, 16), (16, 48), (5, 3)]

#: How far a step may be from the reference in fp32, relative to its norm. On CUDA a step is computed in bf16, which
#: rounds to 2^-8; the polynomials enlarge that, most on the smallest singular values: 1.2 to 2.9 % on these shapes.
STEP_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.04}[compute_dtype(torch.device(DEVICE))]


def _matrices(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [normal(shape, generator=generator) for shape in SHAPES]


def _descend(optimizer: torch.optim.Optimizer, parameters: list[Tensor], steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = normal(parameter.shape, generator=generator) + parameter.detach()
        optimizer.step()


def _assert_is_step(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).norm() < STEP_TOLERANCE * expected.norm()


@pytest.mark.parametrize("coefficients", ["quintic", "polar_express"])
@pytest.mark.parametrize("shape", [*SHAPES, (64, 256)])
def test_newton_schulz_equals_its_reference(shape: tuple[int, int], coefficients: str) -> None:
    matrix = normal(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fast = newton_schulz(matrix, steps=5, eps=1e-7, dtype=torch.float64, coefficients=coefficients)
    plain = newton_schulz_reference(matrix, steps=5, eps=1e-7, coefficients=coefficients)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_polar_express_applies_its_polynomials_to_the_singular_values(steps: int) -> None:
    """Against an SVD: `U p(S / (1.02 ||S||)) V'`, with the published triples written out here once more."""
    triples = [
        (8.1566, -22.4833, 15.8788),
        (4.0429, -2.8089, 0.5000),
        (3.8917, -2.7725, 0.5061),
        (3.2858, -2.3681, 0.4645),
        (2.3465, -1.7098, 0.4232),
    ]
    matrix = normal(48, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / (1.02 * values.norm())
    for a, b, c in triples[:steps]:
        values = a * values + b * values**3 + c * values**5
    result = newton_schulz(matrix, steps=steps, eps=1e-7, dtype=torch.float64, coefficients="polar_express")
    torch.testing.assert_close(result, (left * values) @ right, rtol=1e-9, atol=1e-9)


def test_polar_express_lifts_small_singular_values_where_the_quintic_does_not() -> None:
    """From a thousandth of the norm up they end in [0.84, 1.15]; the quintic's end at 0.47 and up."""
    values = torch.logspace(-3, 0, 64, dtype=torch.float64)
    Q = torch.linalg.qr(normal(64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
    matrix = (Q * (values / values.norm()).clamp(min=1e-3)) @ Q.T
    lifted = {
        name: torch.linalg.svdvals(newton_schulz(matrix, steps=5, eps=1e-7, dtype=torch.float64, coefficients=name))
        for name in ("quintic", "polar_express")
    }
    assert lifted["polar_express"].min() > 0.84
    assert lifted["polar_express"].max() < 1.15
    assert lifted["quintic"].min() < 0.5


def test_polar_express_stays_finite_in_half_precision_and_on_rank_one() -> None:
    """The norm of a rank-one matrix rounded up past 1 is where the undivided iteration would diverge."""
    vector = normal(64, 1, generator=torch.Generator().manual_seed(3))
    matrix = vector @ vector.T
    result = newton_schulz(matrix, steps=5, eps=1e-7, dtype=torch.bfloat16, coefficients="polar_express")
    assert torch.linalg.svdvals(result)[0] < 1.2


def test_groups_may_differ_in_coefficients() -> None:
    quintic, express = _matrices(), _matrices()
    for parameter in (*quintic, *express):
        parameter.grad = parameter.clone()
    groups = [{"params": quintic}, {"params": express, "coefficients": "polar_express"}]
    Muon(groups, lr=1.0, scale="none").step()
    for a, b, start in zip(quintic, express, _matrices(), strict=True):
        expected = newton_schulz_reference(start, steps=5, eps=1e-7, coefficients="polar_express")
        _assert_is_step(start - b, expected)
        assert (a - b).norm() > 0.15 * expected.norm()  # the two end 19 to 25 % apart


def test_a_stack_is_its_matrices_one_by_one() -> None:
    stack = normal(3, 8, 24, generator=torch.Generator().manual_seed(3))
    together = newton_schulz(stack, steps=5, eps=1e-7, dtype=torch.float32)
    alone = torch.stack([newton_schulz(matrix, steps=5, eps=1e-7, dtype=torch.float32) for matrix in stack])
    torch.testing.assert_close(together, alone)


def test_newton_schulz_orthogonalises() -> None:
    """Singular vectors are kept and singular values end in the quintic's band around 1."""
    matrix = normal(32, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    result = newton_schulz(matrix, steps=5, eps=1e-7, dtype=torch.float64)
    values = left.mT @ result @ right.mT
    assert (values - torch.diag(values.diagonal())).abs().max() < 1e-9
    assert values.diagonal().min() > 0.6
    assert values.diagonal().max() < 1.3


@pytest.mark.parametrize("nesterov", [True, False])
def test_parity_with_torch_over_twenty_steps(nesterov: bool) -> None:
    """torch.optim.Muon orthogonalises in bf16, so both are brought to the same trajectory to about one percent."""
    ours, theirs = _matrices(), [m.clone() for m in _matrices()]
    options = {"lr": 0.02, "momentum": 0.95, "nesterov": nesterov, "weight_decay": 0.1}
    _descend(Muon(ours, scale="original", **options), ours, 20)
    _descend(torch.optim.Muon(theirs, adjust_lr_fn="original", **options), theirs, 20)
    for a, b, start in zip(ours, theirs, _matrices(), strict=True):
        assert (a - b).norm() < 0.02 * (a - start).norm()


@pytest.mark.parametrize("scale", list(MuonScale))
def test_one_step_by_hand(scale: MuonScale) -> None:
    """The first direction is a positive multiple of the gradient; decay uses the unadjusted LR."""
    matrix = normal(6, 3, generator=torch.Generator().manual_seed(5))
    gradient = normal(6, 3, generator=torch.Generator().manual_seed(6))
    decayed = matrix * (1 - 0.1 * 0.5)
    matrix.grad = gradient.clone()
    Muon([matrix], lr=0.1, weight_decay=0.5, scale=scale).step()
    expected = 0.1 * muon_factor(scale, 6, 3) * newton_schulz_reference(gradient, steps=5, eps=1e-7)
    _assert_is_step(decayed - matrix, expected)


def test_shape_factors_by_hand() -> None:
    factors = {scale: muon_factor(scale, 8, 2) for scale in MuonScale}
    assert factors == {"none": 1.0, "spectral": 2.0, "original": 2.0, "rms": pytest.approx(0.2 * math.sqrt(8))}
    assert muon_factor(MuonScale.SPECTRAL, 2, 8) == 0.5
    assert muon_factor(MuonScale.ORIGINAL, 2, 8) == 1.0


def test_maximize_is_the_negative_gradient() -> None:
    up, down = _matrices(), _matrices()
    for a, b, gradient in zip(up, down, _matrices(9), strict=True):
        a.grad, b.grad = gradient.clone(), -gradient
    Muon(up, maximize=True).step()
    Muon(down).step()
    assert all(torch.equal(a, b) for a, b in zip(up, down, strict=True))


def test_missing_gradients_and_empty_matrices_are_left_alone() -> None:
    still, empty = torch.ones(2, 2), torch.ones(0, 3)
    empty.grad = torch.ones(0, 3)
    Muon([still, empty]).step()
    assert torch.equal(still, torch.ones(2, 2))


def test_closure_runs_once_and_its_loss_is_returned() -> None:
    matrix = torch.ones(2, 2, requires_grad=True)
    optimizer = Muon([matrix])

    def closure() -> float:
        optimizer.zero_grad()
        loss = matrix.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert not torch.equal(matrix.detach(), torch.ones(2, 2))


def test_saved_state_goes_on_bit_for_bit() -> None:
    whole, halves = _matrices(), _matrices()
    one = Muon(whole)
    _descend(one, whole, 6)
    first = Muon(halves)
    _descend(first, halves, 3)
    second = Muon(halves)
    second.load_state_dict(first.state_dict())
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        for parameter in halves:
            gradient = normal(parameter.shape, generator=generator) + parameter.detach()
            parameter.grad = gradient if step >= 3 else None
        if step >= 3:
            second.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": -1.0},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"scale": "huge"},
        {"coefficients": "septic"},
        {"coefficients": "polar_express", "newton_schulz_steps": 6},
    ],
)
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|not a valid"):
        Muon(_matrices(), **bad)  # type: ignore[arg-type]


def test_vectors_are_refused_and_leave_no_group_behind() -> None:
    optimizer = Muon(_matrices())
    with pytest.raises(ValueError, match=r"matrices; this parameter has shape \(3,\)"):
        optimizer.add_param_group({"params": [torch.ones(3)]})
    assert len(optimizer.param_groups) == 1
