"""SOAP against pytorch-optimizer's, against its plain reference, and through blocks, one side and staggering."""

import copy
import math
from typing import Any
import warnings

import pytest
import torch
from torch import Tensor

from optimizers.soap import SOAP, soap_reference
from tests.unit.optimizers.trajectories import check_resumes_bit_for_bit, descend, distance, gradients_for, matrix, run

DOUBLE = torch.float64


def _oracle(parameter: Tensor, **options: Any) -> torch.optim.Optimizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the package warns of while it is imported is not ours
        import pytorch_optimizer
    optimizer: torch.optim.Optimizer = pytorch_optimizer.SOAP([parameter], **options)
    return optimizer


def _from_the_same_bases(ours: Tensor, theirs: Tensor, gradient: Tensor, **options: Any) -> tuple[SOAP, Any]:
    """Both after the first gradient, which only sets up the bases, and ours then given the oracle's.

    The first statistics of a matrix that is not square are rank deficient. The basis of their null space is arbitrary,
    the last bit decides it, and the last bit differs between processors; the trajectories would part for good.
    """
    soap, oracle = SOAP([ours], stagger=False, **options), _oracle(theirs, **options)
    run(soap, ours, [gradient])
    run(oracle, theirs, [gradient])
    state, bases = soap.state[ours]["blocks"][0], oracle.state[theirs]["Q"]
    for side, basis in zip(("left", "right"), bases, strict=True):
        _check_is_eigenbasis(state[side], state[f"{side}_basis"])
        state[f"{side}_basis"].copy_(basis)
    return soap, oracle


def _check_is_eigenbasis(A: Tensor, Q: Tensor) -> None:
    """That the columns of `Q` are orthonormal eigenvectors of `A` by falling eigenvalue, to single precision."""
    rotated, scale = Q.mT @ A @ Q, A.norm()
    values = rotated.diagonal()
    assert float((rotated - values.diag()).norm()) < 1e-5 * scale
    assert float((Q.mT @ Q - torch.eye(len(Q))).norm()) < 1e-4
    assert float((values[1:] - values[:-1]).max()) < 1e-5 * scale


@pytest.mark.parametrize("shape", [(16, 16), (64, 64), (48, 16), (16, 48), (40, 24)])
def test_parity_with_pytorch_optimizer_over_forty_steps(shape: tuple[int, int]) -> None:
    """To 5e-5 of the way travelled, single precision; three refreshes of both bases."""
    ours, theirs, gradients = matrix(shape), matrix(shape), gradients_for(shape, 41)
    options = {"lr": 3e-3, "betas": (0.95, 0.9), "weight_decay": 0.1}
    soap, oracle = _from_the_same_bases(ours, theirs, gradients[0], **options)
    run(soap, ours, gradients[1:])
    run(oracle, theirs, gradients[1:])
    assert distance(ours, theirs, matrix(shape)) < 5e-5


def test_parity_with_pytorch_optimizer_on_one_side() -> None:
    shape = (48, 16)
    ours, theirs, gradients = matrix(shape), matrix(shape), gradients_for(shape, 31)
    run(SOAP([ours], stagger=False, max_preconditioner_dim=32), ours, gradients)
    run(_oracle(theirs, lr=3e-3, weight_decay=0.0, max_precondition_dim=32), theirs, gradients)
    assert distance(ours, theirs, matrix(shape)) < 5e-5


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((16, 16), {}),
        ((24, 24), {"betas": (0.9, 0.99), "shampoo_beta": 0.8, "eps": 1e-3, "every": 3}),
        ((24, 8), {"max_preconditioner_dim": 8, "weight_decay": 0.2}),
        ((8, 24), {"max_preconditioner_dim": 8}),
        ((8, 24), {"max_preconditioner_dim": 4}),
    ],
)
def test_equals_its_reference_in_double(shape: tuple[int, int], options: dict[str, Any]) -> None:
    start, gradients = matrix(shape, dtype=DOUBLE), gradients_for(shape, 25, DOUBLE)
    ours = run(SOAP([weight := start.clone()], stagger=False, **options), weight, gradients)
    assert distance(ours, soap_reference(start, gradients, **options), start) < 1e-10


def test_blocks_are_matrices_of_their_own() -> None:
    """A 20 x 12 matrix in blocks of 8: six blocks, those at the edges smaller."""
    start, gradients = matrix((20, 12), dtype=DOUBLE), gradients_for((20, 12), 25, DOUBLE)
    expected = torch.empty_like(start)
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
        for columns in (slice(0, 8), slice(8, 12)):
            alone = start[rows, columns].clone()
            pieces = [gradient[rows, columns].contiguous() for gradient in gradients]
            expected[rows, columns] = run(SOAP([alone], stagger=False), alone, pieces)
    whole = run(SOAP([weight := start.clone()], stagger=False, block_size=8), weight, gradients)
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-9)


def test_staggered_sides_turn_in_their_slots() -> None:
    """Two 16 x 16 matrices, four sides, `every` 4: slots 0 to 3 in order."""
    weights, options = [matrix((16, 16), seed, DOUBLE) for seed in (0, 1)], {"every": 4, "lr": 0.01}
    starts = [weight.clone() for weight in weights]
    optimizer = SOAP(weights, **options)
    gradients = [gradients_for((16, 16), 40, DOUBLE)[part::2] for part in (0, 1)]
    for pair in zip(*gradients, strict=True):
        for weight, gradient in zip(weights, pair, strict=True):
            weight.grad = gradient
        optimizer.step()
    # Sides are planned stack by stack and side by side: left of both, then right of both.
    for number, slots in enumerate([(0, 2), (1, 3)]):
        expected = soap_reference(starts[number], gradients[number], slots=slots, **options)
        assert distance(weights[number], expected, starts[number]) < 1e-10


def test_the_first_gradient_only_sets_up_the_basis() -> None:
    weight = run(SOAP([w := matrix((6, 4))], weight_decay=0.5), w, gradients_for((6, 4), 1))
    assert torch.equal(weight, matrix((6, 4)))


def test_a_scalar_is_adam_by_hand() -> None:
    """In one dimension the basis is +-1: Adam on the second gradient, decay after the step."""
    weight = torch.tensor([[2.0]])
    run(SOAP([weight], lr=0.1, betas=(0.9, 0.99), eps=0.5, weight_decay=0.3), weight, [torch.tensor([[3.0]])] * 2)
    step = 0.1 * math.sqrt(0.01) / 0.1 * (0.1 * 3.0) / (math.sqrt(0.01 * 9.0) + 0.5)
    assert weight.item() == pytest.approx((2.0 - step) * (1.0 - 0.1 * 0.3), rel=1e-6)


def test_zero_first_gradients_do_not_start_the_clock() -> None:
    late, clean = matrix((8, 8)), matrix((8, 8))
    gradients = gradients_for((8, 8), 15)
    run(SOAP([late]), late, [torch.zeros(8, 8), torch.zeros(8, 8), *gradients])
    run(SOAP([clean]), clean, gradients)
    assert torch.equal(late, clean)


@pytest.mark.parametrize("options", [{}, {"block_size": 8}, {"max_preconditioner_dim": 12}])
def test_resumes_bit_for_bit(options: dict[str, Any]) -> None:
    check_resumes_bit_for_bit(lambda p: SOAP(p, **options), [(16, 8), (16, 8), (8, 16), (12, 12)])


def test_a_copy_goes_on_alone() -> None:
    """deepcopy (and pickle) take the state along and share none of it."""
    weights = [matrix((8, 8)), matrix((8, 8), 1)]
    optimizer = SOAP(weights)
    descend(optimizer, weights, 5)
    twin = copy.deepcopy(optimizer)
    others = twin.param_groups[0]["params"]
    descend(twin, others, 7, first=5)
    assert not torch.equal(weights[0], others[0])
    descend(optimizer, weights, 7, first=5)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def test_half_precision_weights_keep_single_precision_state() -> None:
    def build(parameters: Any) -> SOAP:
        return SOAP(parameters, lr=0.01)

    weights = [matrix((8, 8), dtype=torch.bfloat16)]
    optimizer = build(weights)
    descend(optimizer, weights, 5)
    loaded = build(weights)
    loaded.load_state_dict(optimizer.state_dict())
    blocks = loaded.state[weights[0]]["blocks"]
    assert blocks[0]["left"].dtype == torch.float32
    assert torch.equal(blocks[0]["left"], optimizer.state[weights[0]]["blocks"][0]["left"])


def test_a_gradient_of_nan_ends_in_nan_and_not_in_an_error() -> None:
    for when in (0, 3):
        weight = matrix((8, 8))
        gradients = gradients_for((8, 8), 30)
        gradients[when] = torch.full((8, 8), float("nan"))
        run(SOAP([weight]), weight, gradients)
        assert weight.isnan().all()


@pytest.mark.parametrize(
    "bad",
    [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"shampoo_beta": 1.5}, {"eps": 0.0}, {"every": 0}, {"block_size": 0}],
)
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SOAP([matrix((2, 2))], **bad)
