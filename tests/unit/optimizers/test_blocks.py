"""Blocks, stacks and slots; and how the block-wise optimizers treat groups, missing gradients and partial stacks."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor

from optimizers.blocks import active_sides, blocks_of, plan_slots, splits, stacks_of
from optimizers.blockwise import BlockOptimizer
from optimizers.shampoo import Shampoo
from optimizers.soap import SOAP
from tests.unit.optimizers.trajectories import matrix

Builder = Callable[[Any], BlockOptimizer]
BUILDERS: list[Builder] = [
    SOAP,
    lambda p: SOAP(p, block_size=6),
    Shampoo,
    lambda p: Shampoo(p, graft="adam", block_size=6, every=4),
]
#: In blocks of 6: four shapes, 6 x 6 to 5 x 5, none of which lacks more than one rank under one gradient. So the first
#: eigenbases are unique but for signs, which no update depends on. Of a null space of two dimensions a solver chooses
#: any basis, on CUDA another one for a stack than for its matrices one by one, and the trajectories part for good.
SHAPE = (11, 11)
both = pytest.mark.parametrize("build", BUILDERS)


def _group(parameters: Sequence[Tensor], **options: Any) -> dict[str, Any]:
    return {"params": list(parameters), "block_size": None, "max_preconditioner_dim": 100, **options}


def test_splits_by_hand() -> None:
    assert splits(7, 3, active=True) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert splits(6, 3, active=True) == [slice(0, 3), slice(3, 6)]
    assert splits(7, 3, active=False) == splits(7, None, active=True) == splits(7, 9, active=True) == [slice(0, 7)]


def test_active_sides_by_hand() -> None:
    assert active_sides((8, 9), 8) == (True, False)
    assert active_sides((9, 8), 8) == (False, True)


@given(rows=st.integers(1, 30), columns=st.integers(1, 30), size=st.integers(1, 12), limit=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_blocks_tile_the_matrix(rows: int, columns: int, size: int, limit: int) -> None:
    parameter = torch.zeros(rows, columns)
    for block in blocks_of(parameter, _group([parameter], block_size=size, max_preconditioner_dim=limit)):
        block.of(parameter).add_(1.0)
    assert torch.equal(parameter, torch.ones(rows, columns))


@pytest.mark.parametrize(("device", "expected"), [("cpu", [3, 1, 1, 1]), ("meta", [3, 2, 1])])
def test_equal_blocks_share_a_stack_but_large_ones_stand_alone_on_a_cpu(device: str, expected: list[int]) -> None:
    """torch's `meta` stands for every device that is not a CPU: it has shapes and no numbers."""
    small, large = ([torch.zeros(n, n, device=device) for _ in range(many)] for n, many in ((8, 3), (130, 2)))
    stacks = stacks_of(_group([*small, *large, torch.zeros(8, 9, device=device)]))
    assert [len(stack.blocks) for stack in stacks] == expected


@given(costs=st.lists(st.floats(0.0, 100.0), max_size=40), every=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_no_slot_is_dearer_than_the_mean_and_one_job(costs: list[float], every: int) -> None:
    slots = plan_slots(costs, every)
    load = [sum(cost for cost, slot in zip(costs, slots, strict=True) if slot == s) for s in range(every)]
    assert max(load) <= sum(costs) / every + max(costs, default=0.0) + 1e-9


def test_slots_by_hand() -> None:
    assert plan_slots([1.0, 5.0, 1.0, 3.0, 1.0], 2) == [1, 0, 1, 1, 0]


@both
def test_a_stack_moves_as_its_matrices_one_by_one(build: Builder) -> None:
    together, alone = ([matrix(SHAPE, seed) for seed in range(3)] for _ in range(2))
    optimizers = [build(together), *(build([weight]) for weight in alone)]
    for step in range(12):
        for number, pair in enumerate(zip(together, alone, strict=True)):
            for weight in pair:
                weight.grad = matrix(SHAPE, 10 * step + number)
        for optimizer in optimizers:
            optimizer.param_groups[0]["stagger"] = False
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@both
def test_a_missing_gradient_leaves_its_matrix_alone_and_the_others_as_they_were(build: Builder) -> None:
    """One of three in a stack skips steps 0, 4 and 5; each must move as if trained on its own gradients only."""
    skipped = {0, 4, 5}
    together, alone = ([matrix(SHAPE, seed) for seed in range(3)] for _ in range(2))
    optimizer, singles = build(together), [build([weight]) for weight in alone]
    for step in range(12):
        before = together[1].clone()
        for number in range(3):
            gradient = None if number == 1 and step in skipped else matrix(SHAPE, 10 * step + number)
            together[number].grad, alone[number].grad = gradient, gradient
        for each in (optimizer, *singles):
            each.param_groups[0]["stagger"] = False
            each.step()
        assert (step in skipped) == torch.equal(before, together[1]) or step <= 1
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@both
def test_a_group_added_later_starts_its_own_clock(build: Builder) -> None:
    early, late, clean = matrix(SHAPE), matrix(SHAPE, 1), matrix(SHAPE, 1)
    optimizer = build([early])
    optimizer.param_groups[0]["stagger"] = False
    for step in range(3):
        early.grad = matrix(SHAPE, 50 + step)
        optimizer.step()
    step_before = optimizer.state[early]["step"]
    optimizer.add_param_group({"params": [late], "stagger": False})
    single = build([clean])
    single.param_groups[0]["stagger"] = False
    for step in range(12):
        late.grad, clean.grad, early.grad = matrix(SHAPE, step), matrix(SHAPE, step), matrix(SHAPE, step)
        optimizer.step()
        single.step()
    torch.testing.assert_close(late, clean, rtol=1e-5, atol=1e-5)
    assert optimizer.state[early]["step"] == step_before + 12


@both
def test_maximize_is_the_negative_gradient(build: Builder) -> None:
    up, down = matrix(SHAPE), matrix(SHAPE)
    rising, falling = build([up]), build([down])
    rising.param_groups[0]["maximize"] = True
    for step in range(5):
        up.grad, down.grad = matrix(SHAPE, step), -matrix(SHAPE, step)
        rising.step()
        falling.step()
    assert torch.equal(up, down)


@both
def test_empty_matrices_and_strided_gradients(build: Builder) -> None:
    empty, weight, twin = torch.ones(0, 3), matrix(SHAPE), matrix(SHAPE)
    optimizer, plain = build([empty, weight]), build([twin])
    for step in range(4):
        empty.grad, weight.grad = torch.ones(0, 3), matrix(SHAPE, step).T.contiguous().T
        twin.grad = matrix(SHAPE, step)
        optimizer.step()
        plain.step()
    torch.testing.assert_close(weight, twin)


@both
def test_a_scheduler_that_writes_lr_is_obeyed(build: Builder) -> None:
    weight = matrix(SHAPE)
    optimizer = build([weight])
    for step in range(5):
        before = weight.clone()
        optimizer.param_groups[0]["lr"] = 0.0 if step == 4 else 0.1
        weight.grad = matrix(SHAPE, step)
        optimizer.step()
    assert torch.equal(weight, before)


@both
def test_closure_runs_once_and_its_loss_is_returned(build: Builder) -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    optimizer = build([weight])

    def closure() -> float:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0


@both
def test_vectors_are_refused_and_leave_no_group_behind(build: Builder) -> None:
    optimizer = build([matrix((2, 2))])
    with pytest.raises(ValueError, match=r"matrices.*shape \(3,\)"):
        optimizer.add_param_group({"params": [torch.ones(3)]})
    assert len(optimizer.param_groups) == 1
