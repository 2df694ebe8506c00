"""Explicit spectral normalisation around other optimizers, and its estimate of the spectral norm."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers.composite import Composite
from optimizers.lamb import LAMB
from optimizers.muon import Muon
from optimizers.soap import SOAP
from optimizers.spectral import SpectrallyNormalised, largest_row_rms, spectral_norm
from tests.unit.optimizers.trajectories import check_resumes_bit_for_bit, descend, matrix

SHAPES = [(24, 24), (40, 10), (10, 40)]
CHILDREN: dict[str, Any] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
    "sgd": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9),
    "muon": lambda p: Muon(p, lr=0.02),
    "soap": lambda p: SOAP(p, lr=0.003),
    "lamb": lambda p: LAMB(p, lr=0.01),
}


def _top(U: Tensor) -> float:
    return float(torch.linalg.svdvals(U.double())[0])


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (3, 8), (64, 64), (128, 32), (32, 128)])
@pytest.mark.parametrize("rank", [2, 200])
def test_spectral_norm_against_an_svd(shape: tuple[int, int], rank: int) -> None:
    """A start vector that knows nothing: exact at low rank, at most 3 % low where the spectrum is flat, never high."""
    U = torch.stack([matrix((shape[0], rank), i) @ matrix((rank, shape[1]), 9 + i) for i in range(3)]) * 1e-6
    norms, vectors = spectral_norm(U, torch.ones(3, shape[1]))
    exact = torch.linalg.svdvals(U)[:, 0]
    ratio = norms / exact
    assert ratio.min() > (0.97 if rank > 2 else 1.0 - 1e-4)
    assert ratio.max() < 1.0 + 1e-5
    torch.testing.assert_close(torch.linalg.vector_norm(vectors, dim=-1), torch.ones(3))
    torch.testing.assert_close((U @ vectors.unsqueeze(-1)).flatten(1).norm(dim=-1), norms, rtol=1e-3, atol=0.0)


def test_a_start_vector_orthogonal_to_the_top_direction_is_overruled() -> None:
    """On a matrix so large that the iterates of both start vectors do not span everything."""
    diagonal = torch.ones(60)
    diagonal[50] = 5.0
    norms, _ = spectral_norm(torch.diag(diagonal).unsqueeze(0), torch.eye(60)[:1])
    assert norms.item() == pytest.approx(5.0)


def test_warm_starts_close_in() -> None:
    """On a matrix that does not change, twelve steps leave an error of 1e-3 at most."""
    U, v = matrix((96, 96)).unsqueeze(0), torch.ones(1, 96)
    for _ in range(12):
        norms, v = spectral_norm(U, v)
    assert norms.item() == pytest.approx(_top(U[0]), rel=1e-3)


@pytest.mark.parametrize("name", CHILDREN)
def test_the_step_has_the_wished_norm_and_the_childs_direction(name: str) -> None:
    """Four steps; the LR is obeyed whatever it is, and a rectangular matrix carries sqrt(d_out / d_in)."""
    ours, alone = ([matrix(shape, i) for i, shape in enumerate(SHAPES)] for _ in range(2))
    optimizer, child = SpectrallyNormalised(CHILDREN[name](ours)), CHILDREN[name](alone)
    for step, lr in enumerate([0.5, 0.1, 0.2, 0.01]):
        befores = [p.clone() for p in ours]
        optimizer.param_groups[0]["lr"] = lr
        for p, q in zip(ours, alone, strict=True):
            q.copy_(p)
            p.grad = matrix((p.shape[0], p.shape[1]), 50 + step) * 1e-3
            q.grad = p.grad.clone()
        optimizer.step()
        child.step()
        for p, q, before in zip(ours, alone, befores, strict=True):
            move, theirs = p - before, q - before
            if name == "soap" and step == 0:  # its first gradient sets up the basis
                assert torch.equal(p, before)
                continue
            assert _top(move) == pytest.approx(lr * math.sqrt(p.shape[0] / p.shape[1]), rel=0.02)
            assert torch.nn.functional.cosine_similarity(move.flatten(), theirs.flatten(), dim=0) > 0.9999


def test_lookups_get_their_largest_row_rms() -> None:
    """(rows, width): row 2 moves by an RMS of lr, row 0 by half of it, row 1 stays."""
    table = torch.zeros(3, 4)
    table.grad = torch.tensor([[1.0, -1.0, 1.0, 1.0], [0.0] * 4, [2.0, 2.0, -2.0, 2.0]])
    SpectrallyNormalised(torch.optim.SGD([{"params": [table], "norm": "rms"}], lr=0.3)).step()
    torch.testing.assert_close(table, -0.15 * torch.tensor([[1.0, -1.0, 1.0, 1.0], [0.0] * 4, [2.0, 2.0, -2.0, 2.0]]))
    assert largest_row_rms(table.unsqueeze(0)).item() == pytest.approx(0.3)


@pytest.mark.parametrize("norm", ["spectral", "rms"])
def test_a_vector_moves_by_an_rms_of_lr(norm: str) -> None:
    """As a matrix with one input: spectral norm sqrt(d), times the lr."""
    vector = torch.zeros(4)
    vector.grad = torch.tensor([1.0, 2.0, 3.0, 4.0])
    SpectrallyNormalised(torch.optim.SGD([{"params": [vector], "norm": norm}], lr=0.3)).step()
    assert vector.square().mean().sqrt().item() == pytest.approx(0.3)


def test_decay_is_decoupled_and_outside_the_norm() -> None:
    """With AdamW, whose own decay would join the update, and SGD, whose own would join the gradient."""
    for build in (torch.optim.AdamW, torch.optim.SGD):
        plain, decayed = matrix((8, 8)), matrix((8, 8))
        for weight, decay in ((plain, 0.0), (decayed, 0.5)):
            weight.grad = matrix((8, 8), 7)
            SpectrallyNormalised(build([weight], lr=0.1, weight_decay=decay)).step()
        torch.testing.assert_close(decayed - 0.95 * matrix((8, 8)), plain - matrix((8, 8)))


def test_options_are_back_after_a_step_even_one_that_fails() -> None:
    weight = matrix((4, 4))
    child = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5)
    optimizer = SpectrallyNormalised(child)
    weight.grad = matrix((4, 4), 1)
    optimizer.step()
    child.step = lambda: 1 / 0  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert (child.param_groups[0]["lr"], child.param_groups[0]["weight_decay"]) == (0.1, 0.5)


def test_zero_updates_stay_zero_and_missing_gradients_leave_alone() -> None:
    still, missing, empty = matrix((4, 4)), matrix((4, 4)), torch.ones(0, 4)
    still.grad, empty.grad = torch.zeros(4, 4), torch.ones(0, 4)
    SpectrallyNormalised(torch.optim.SGD([still, missing, empty], lr=0.1, weight_decay=0.0)).step()
    assert torch.equal(still, matrix((4, 4)))
    assert torch.equal(missing, matrix((4, 4)))


def test_small_updates_on_half_precision_weights_keep_their_direction() -> None:
    """Read off at a huge LR, so a gradient of 1e-6 is not lost against weights of 1."""
    weight = torch.ones(8, 8, dtype=torch.bfloat16)
    gradient = matrix((8, 8), 3).to(torch.bfloat16) * 1e-6
    weight.grad = gradient.clone()
    SpectrallyNormalised(torch.optim.SGD([weight], lr=1.0)).step()
    moved = (1.0 - weight.float()).flatten()
    assert torch.nn.functional.cosine_similarity(moved, gradient.float().flatten(), dim=0) > 0.999
    assert weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", CHILDREN)
def test_resumes_bit_for_bit(name: str) -> None:
    check_resumes_bit_for_bit(lambda p: SpectrallyNormalised(CHILDREN[name](p)), [(16, 8), (16, 8), (12, 12)], steps=4)


def test_the_warm_vector_is_part_of_the_state() -> None:
    """Without it a resumed run would estimate other norms: on a flat spectrum the runs would part."""
    weight = matrix((64, 64))
    optimizer = SpectrallyNormalised(torch.optim.SGD([weight], lr=0.1))
    descend(optimizer, [weight], 3)
    saved = optimizer.state_dict()
    assert [tuple(v.shape) for v in saved["vectors"]] == [(64,)]
    other = SpectrallyNormalised(torch.optim.SGD([weight], lr=0.1))
    other.load_state_dict(saved)
    assert torch.equal(other.state_dict()["vectors"][0], saved["vectors"][0])


def test_a_copy_goes_on_alone() -> None:
    weights = [matrix((8, 8)), matrix((8, 4), 1)]
    optimizer = SpectrallyNormalised(torch.optim.AdamW(weights))
    descend(optimizer, weights, 3)
    twin = copy.deepcopy(optimizer)
    others = [p for group in twin.param_groups for p in group["params"]]
    descend(twin, others, 3, first=3)
    assert not torch.equal(weights[0], others[0])
    descend(optimizer, weights, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def test_groups_are_the_childs_and_new_ones_reach_it() -> None:
    first, second = matrix((4, 4)), matrix((4, 4), 1)
    child = torch.optim.AdamW([first], lr=0.1)
    optimizer = SpectrallyNormalised(child)
    optimizer.add_param_group({"params": [second], "norm": "rms", "names": ["x"]})
    assert optimizer.param_groups is child.param_groups
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [group["lr"] for group in child.param_groups] == scheduler.get_last_lr() == [0.05, 0.05]


def test_it_works_within_a_composite_and_around_one() -> None:
    first, second = matrix((4, 4)), matrix((4, 4), 1)
    children = [Muon([first], lr=0.1), torch.optim.AdamW([second], lr=0.1, weight_decay=0.0)]
    for optimizer in (
        Composite([SpectrallyNormalised(c) for c in children]),
        SpectrallyNormalised(Composite(children)),
    ):
        before = [first.clone(), second.clone()]
        descend(optimizer, [first, second], 1)
        for weight, old in zip((first, second), before, strict=True):
            assert _top(weight - old) == pytest.approx(0.1, rel=1e-3)


def test_what_cannot_be_normalised_is_refused() -> None:
    with pytest.raises(ValueError, match="norm must be one of spectral, rms, got 'max'"):
        SpectrallyNormalised(torch.optim.SGD([{"params": [matrix((2, 2))], "norm": "max"}]))
    optimizer = SpectrallyNormalised(torch.optim.SGD([matrix((2, 2))]))
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        optimizer.add_param_group({"params": torch.ones(2, 2, 2)})
    assert len(optimizer.param_groups) == 1
