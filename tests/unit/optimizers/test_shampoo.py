"""Shampoo against pytorch-optimizer's two, against its plain reference, and as torch users expect."""

import math
from typing import Any
import warnings

import pytest
import torch
from torch import Tensor

from optimizers.shampoo import Shampoo, shampoo_reference
from tests.unit.optimizers.trajectories import check_resumes_bit_for_bit, distance, gradients_for, matrix, run

DOUBLE = torch.float64
SHAPES = [(16, 16), (48, 16), (16, 48), (40, 24), (5, 3)]


def _oracle(name: str, parameter: Tensor, **options: Any) -> torch.optim.Optimizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the package warns of while it is imported is not ours
        import pytorch_optimizer
    optimizer: torch.optim.Optimizer = getattr(pytorch_optimizer, name)([parameter], **options)
    return optimizer


@pytest.mark.parametrize("shape", SHAPES)
def test_sum_form_against_pytorch_optimizer(shape: tuple[int, int]) -> None:
    """25 steps, to 5e-5 of the way travelled, single precision."""
    ours, theirs, gradients = matrix(shape), matrix(shape), gradients_for(shape, 25)
    options = {"momentum": 0.0, "statistics": "sum", "eps": 1e-6, "eps_mode": "absolute"}
    run(Shampoo([ours], lr=0.01, **options), ours, gradients)
    run(_oracle("Shampoo", theirs, lr=0.01, matrix_eps=1e-6), theirs, gradients)
    assert distance(ours, theirs, matrix(shape)) < 5e-5


@pytest.mark.parametrize("block_size", [512, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_ema_form_against_pytorch_optimizer(shape: tuple[int, int], block_size: int) -> None:
    """25 steps, to 5e-5. The oracle does not correct the EMA's bias and lets eps decay with it: undone by lr and eps.

    With `c = 1 - beta2^t`: `(A / c + eps_t)^-1/4` on both sides is `sqrt(c)` times `(A + c eps_t)^-1/4` on both.
    """
    ours, theirs = matrix(shape), matrix(shape)
    optimizer = Shampoo([ours], momentum=0.0, beta2=0.999, eps_mode="absolute", block_size=block_size)
    oracle = _oracle(
        "ScalableShampoo",
        theirs,
        lr=0.01,
        betas=(0.0, 0.999),
        start_preconditioning_step=1,
        preconditioning_compute_steps=1,
        graft_type=0,
        nesterov=False,
        use_svd=True,
        shape_interpretation=False,
        block_size=block_size,
    )
    for t, gradient in enumerate(gradients_for(shape, 25), start=1):
        decayed = 0.999**t
        optimizer.param_groups[0].update(lr=0.01 / math.sqrt(1 - decayed), eps=1e-6 * decayed / (1 - decayed))
        run(optimizer, ours, [gradient])
        run(oracle, theirs, [gradient])
    assert distance(ours, theirs, matrix(shape)) < 5e-5


@pytest.mark.parametrize("shape", [(16, 16), (24, 10), (10, 24)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eps": 1e-3, "eps_mode": "absolute", "weight_decay": 0.3},
        {"exponent": 0.5, "eps": 1e-4},
        {"statistics": "sum", "exponent": 0.5, "momentum": 0.0, "eps": 1e-3},
        {"graft": "adam"},
        {"graft": "adam", "graft_betas": (0.5, 0.9), "graft_eps": 0.1},
        {"graft": "sgd", "momentum": 0.5},
        {"block_size": 7},
        {"block_size": 8, "graft": "adam"},
        {"max_preconditioner_dim": 16},
        {"max_preconditioner_dim": 16, "block_size": 8, "graft": "sgd"},
        {"max_preconditioner_dim": 4},
    ],
)
def test_equals_its_reference(shape: tuple[int, int], options: dict[str, Any]) -> None:
    """In double, twenty steps, to 1e-10 of the way travelled."""
    start, gradients = matrix(shape, dtype=DOUBLE), gradients_for(shape, 20, DOUBLE)
    options = {"lr": 0.1, **options}
    expected = shampoo_reference(start, gradients, **options)
    double = run(Shampoo([w := start.clone()], **options), w, gradients)
    assert distance(double, expected, start) < 1e-10


@pytest.mark.parametrize("options", [{}, {"eps": 1e-12, "eps_mode": "absolute"}, {"exponent": 0.5, "graft": "adam"}])
def test_single_precision_is_near_the_reference(options: dict[str, Any]) -> None:
    """To 3e-4 of the way travelled: what is lost are the roots of nearly singular statistics."""
    start, gradients = matrix((24, 10), dtype=DOUBLE), gradients_for((24, 10), 20, DOUBLE)
    expected = shampoo_reference(start, gradients, lr=0.1, **options)
    single = run(Shampoo([w := start.float()], lr=0.1, **options), w, [gradient.float() for gradient in gradients])
    assert distance(single.double(), expected, start) < 3e-4


def test_a_diagonal_gradient_by_hand() -> None:
    """`L = R = diag(16, 81)`: a quarter a side gives `G / sqrt(G^2)`, halves a side `G / G^2`."""
    for exponent, expected in ((0.25, [1.0, 1.0]), (0.5, [1 / 4, 1 / 9])):
        weight = torch.zeros(2, 2, dtype=DOUBLE)
        gradient = torch.diag(torch.tensor([4.0, 9.0], dtype=DOUBLE))
        run(Shampoo([weight], lr=1.0, exponent=exponent, eps=1e-15), weight, [gradient])
        torch.testing.assert_close(-weight, torch.diag(torch.tensor(expected, dtype=DOUBLE)))


def test_grafted_steps_have_adams_norm() -> None:
    """First step of Adam: every entry +-1, so the norm is sqrt(12 x 20) times the LR, in however many blocks."""
    for block_size in (None, 7):
        start = matrix((12, 20))
        optimizer = Shampoo([w := start.clone()], lr=0.1, graft="adam", block_size=block_size)
        moved = run(optimizer, w, gradients_for((12, 20), 1)) - start
        assert moved.norm().item() == pytest.approx(0.1 * math.sqrt(240), rel=1e-5)


def test_between_turns_the_roots_stand_still() -> None:
    """`every` 5, not staggered: roots of step 1 rule steps 1 to 5."""
    weight = matrix((6, 6))
    optimizer = Shampoo([weight], every=5, stagger=False)
    roots = []
    for gradient in gradients_for((6, 6), 11):
        run(optimizer, weight, [gradient])
        roots.append(optimizer.state[weight]["blocks"][0]["left_root"].clone())
    changes = [step for step in range(1, 11) if not torch.equal(roots[step], roots[step - 1])]
    assert changes == [5, 10]


def test_staggered_roots_change_one_side_at_a_time() -> None:
    weights = [matrix((130, 130)), matrix((130, 130), 1)]
    optimizer = Shampoo(weights, every=4)
    changed: list[list[str]] = []
    old: dict[str, Tensor] = {}
    for step in range(9):
        for number, weight in enumerate(weights):
            weight.grad = matrix((130, 130), 10 * step + number)
        optimizer.step()
        states = [optimizer.state[weight]["blocks"][0] for weight in weights]
        new = {f"{i}{side}": state[f"{side}_root"] for i, state in enumerate(states) for side in ("left", "right")}
        changed.append([name for name, root in new.items() if name not in old or not torch.equal(root, old[name])])
        old = {name: root.clone() for name, root in new.items()}
    assert [len(names) for names in changed] == [4, 1, 1, 1, 1, 1, 1, 1, 1]
    assert sorted(name for names in changed[1:5] for name in names) == sorted(old)


@pytest.mark.parametrize("eps_mode", ["relative", "absolute"])
def test_stale_first_roots_do_not_blow_up_what_they_have_not_seen(eps_mode: str) -> None:
    """Gradients of rank 2 on width 32: no update is three times as long as the longest under roots of every step."""
    longest = []
    for every in (1, 10):
        weight = torch.zeros(32, 32)
        optimizer = Shampoo([weight], lr=1.0, momentum=0.0, every=every, eps=1e-9, eps_mode=eps_mode)
        lengths = []
        for step in range(10):
            before = weight.clone()
            run(optimizer, weight, [matrix((32, 2), step) @ matrix((2, 32), 50 + step)])
            lengths.append((weight - before).norm().item())
        longest.append(max(lengths))
    assert longest[1] < 3.0 * longest[0]


@pytest.mark.parametrize("options", [{}, {"block_size": 8, "graft": "adam"}, {"every": 5, "graft": "sgd"}])
def test_resumes_bit_for_bit(options: dict[str, Any]) -> None:
    check_resumes_bit_for_bit(lambda p: Shampoo(p, **options), [(16, 8), (16, 8), (8, 16), (12, 12)])


def test_zero_gradients_do_not_start_the_clock() -> None:
    """Else the roots of step 1, `eps ** -e`, would multiply the first real gradient by a million."""
    late, clean = matrix((8, 8)), matrix((8, 8))
    options: dict[str, Any] = {"every": 10, "eps": 1e-12, "eps_mode": "absolute"}
    run(Shampoo([late], **options), late, [torch.zeros(8, 8), *gradients_for((8, 8), 5)])
    run(Shampoo([clean], **options), clean, gradients_for((8, 8), 5))
    assert torch.equal(late, clean)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": -1.0},
        {"momentum": 1.0},
        {"beta2": -0.1},
        {"graft_betas": (0.9, 1.0)},
        {"exponent": 0.0},
        {"eps": 0.0},
        {"statistics": "mean"},
        {"eps_mode": "huge"},
        {"graft": "lamb"},
        {"max_preconditioner_dim": 0},
    ],
)
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Shampoo([matrix((2, 2))], **bad)
