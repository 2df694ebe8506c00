"""Inverse roots by Newton's iteration against eigenvalues in double precision, and where they are left to `eigh`.

The iteration serves CUDA, but is called here directly, so that either device proves it.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers import newton, roots, shampoo
from optimizers.newton import POWERS, full_precision, largest_eigenvalue, newton_inverse_root, newton_power
from optimizers.roots import inverse_root, inverse_root_by_eigh, inverse_root_by_newton, is_faster_by_newton
from optimizers.shampoo import Shampoo, shampoo_reference
from tests.unit.optimizers.support import DEVICE
from tests.unit.optimizers.trajectories import distance, gradients_for, matrix, run

DOUBLE = torch.float64
ULP = torch.finfo(torch.float32).eps
#: The statistics of one gradient of rank 1: singular, of trace 1.
RANK_ONE = torch.full((4, 4), 0.25)


def _with_eigenvalues(values: Tensor, seed: int = 0) -> Tensor:
    Q = torch.linalg.qr(matrix((len(values), len(values)), seed, DOUBLE))[0]
    A = (Q * values.to(Q)) @ Q.T
    return ((A + A.T) / 2.0).float()


def _spectra(size: int, condition: float) -> Tensor:
    """A geometric one, one large eigenvalue above the rest, and one below: `(3, size, size)`."""
    small = torch.full((size,), 1.0 / condition)
    geometric = torch.logspace(0.0, float(torch.log10(small[0])), size, dtype=DOUBLE)
    above, below = small.clone(), torch.ones(size)
    above[0], below[-1] = 1.0, small[0]
    return torch.stack([_with_eigenvalues(v, seed) for seed, v in enumerate((geometric, above, below))])


def _errors(found: Tensor, A: Tensor, power: int, **ridge: float) -> Tensor:
    """Relative to the root in double precision, Frobenius norms: `(S,)`."""
    exact = inverse_root_by_eigh(A.double(), exponent=1 / power, **ridge)
    norms: Tensor = torch.linalg.matrix_norm(found.double() - exact) / torch.linalg.matrix_norm(exact)
    return norms


def _first_order(condition: float, power: int) -> float:
    """What an error of one unit in the last place of the largest eigenvalue does to the root of the smallest."""
    return ULP * condition / power + 2e-6


@pytest.mark.parametrize("power", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("size", [1, 2, 5, 33, 128])
def test_roots_equal_those_in_double_precision(size: int, condition: float, power: int) -> None:
    """As well as single precision allows: a ridge of a millionth, under spectra that reach down to it."""
    A = _spectra(size, condition)
    found, good = newton_inverse_root(A, power=power, relative=1e-6)
    assert good.all()
    assert _errors(found, A, power, relative=1e-6).max() < _first_order(condition, power)


@pytest.mark.parametrize("power", [2, 4])
def test_statistics_of_few_gradients_are_served_as_well_as_by_eigh(power: int) -> None:
    """Rank 8 of 128, a ridge of a millionth: most eigenvalues are the ridge's. `eigh` in single precision errs more."""
    A = torch.stack([g @ g.T for g in (matrix((128, 8), seed) for seed in range(3))])
    found, good = newton_inverse_root(A, power=power, relative=1e-6)
    assert good.all()
    by_eigh = inverse_root_by_eigh(A, exponent=1 / power, relative=1e-6)
    assert _errors(found, A, power, relative=1e-6).max() < 0.5 * _errors(by_eigh, A, power, relative=1e-6).min()


@pytest.mark.parametrize("power", list(POWERS))
def test_the_smallest_ridge_that_is_tried_leaves_steps_enough(power: int) -> None:
    _, good = newton_inverse_root(_spectra(16, 1e9), power=power, relative=1.01 * newton.RIDGE_ULPS * ULP)
    assert good.all()


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("ridge", [{"relative": 1e-2}, {"eps": 1e-2}, {"eps": 3e-3, "relative": 3e-3}])
def test_the_ridge_is_that_of_eigh_at_any_scale(scale: float, ridge: dict[str, float]) -> None:
    """Scaled, an absolute ridge scales too. Squares of what stands here would over- and underflow."""
    A = _spectra(24, 1e6) * scale
    ridge = {name: value * scale if name == "eps" else value for name, value in ridge.items()}
    assert _errors(inverse_root_by_newton(A, power=4, **ridge), A, 4, **ridge).max() < 1e-5


def test_an_absolute_ridge_far_above_the_matrix_is_all_there_is() -> None:
    root = inverse_root_by_newton(1e-20 * RANK_ONE, power=4, eps=16.0)
    torch.testing.assert_close(root, 0.5 * torch.eye(4))


@pytest.mark.parametrize("top", [1, 2, 64])
def test_the_largest_eigenvalue_is_never_too_high_and_hardly_too_low(top: int) -> None:
    """The others as near as 8192 powers cannot part them, which is the bound's worst case: `128 ** (-1 / 8192)`."""
    values = torch.cat([torch.ones(top), torch.full((128 - top,), 1.0 - 4e-4)])
    found = float(largest_eigenvalue(_with_eigenvalues(values).unsqueeze(0)))
    assert 0.9994 < found < 1.0 + 1e-6


@pytest.mark.parametrize("gap", [1e-3, 1e-2, 0.1])
def test_the_largest_eigenvalue_is_exact_where_the_others_are_apart(gap: float) -> None:
    """By a thousandth of it, and all of them, it is off by a ten-thousandth."""
    values = torch.full((128,), 1.0 - gap)
    values[0] = 1.0
    found = float(largest_eigenvalue(_with_eigenvalues(values).unsqueeze(0)))
    assert found == pytest.approx(1.0, abs=1e-4 if gap == 1e-3 else 1e-6)


def test_zero_matrices_give_the_identity_and_empty_ones_nothing() -> None:
    stack = torch.stack([torch.zeros(3, 3), 16.0 * torch.eye(3)])
    for ridge in ({"eps": 1e-12}, {"eps": 1e-3}, {"relative": 1e-6}):
        found, good = newton_inverse_root(stack, power=4, **ridge)
        assert good.tolist() == [True, ridge != {"eps": 1e-12}]
        torch.testing.assert_close(found[0], torch.eye(3))
        torch.testing.assert_close(
            inverse_root_by_newton(stack, power=4, **ridge),
            inverse_root_by_eigh(stack, exponent=0.25, **ridge),
            rtol=1e-5,
            atol=1e-5,
        )
    for shape in ((0, 5, 5), (3, 0, 0)):
        assert inverse_root_by_newton(torch.ones(shape), power=2).shape == shape


def test_one_matrix_is_a_stack_of_one() -> None:
    A = _spectra(12, 1e3)[0]
    torch.testing.assert_close(
        inverse_root_by_newton(A, power=2, relative=1e-6), inverse_root_by_newton(A[None], power=2, relative=1e-6)[0]
    )


#: What the iteration cannot do: an eigenvalue well below zero, and what a diverged trial brings.
INDEFINITE = torch.diag(torch.tensor([1.0, 0.5, 0.1, -1e-3]))
NAN, INF = torch.full((4, 4), float("nan")), torch.full((4, 4), float("inf"))


def test_what_does_not_converge_is_left_to_eigh_and_spoils_nothing_else() -> None:
    tame = torch.diag(torch.tensor([1.0, 0.5, 0.1, 0.01]))
    stack = torch.stack([tame, INDEFINITE, NAN, INF, 7.0 * tame])
    found, good = newton_inverse_root(stack, power=4, relative=1e-6)
    assert good.tolist() == [True, False, False, False, True]
    assert found[~good].isnan().all()
    filled = inverse_root_by_newton(stack, power=4, relative=1e-6)
    alone, _ = newton_inverse_root(tame[None], power=4, relative=1e-6)
    torch.testing.assert_close(filled[[0, 4]], torch.cat([alone, 7.0**-0.25 * alone]))
    assert torch.equal(filled[1], inverse_root_by_eigh(INDEFINITE[None], exponent=0.25, relative=1e-6)[0])
    assert filled[2:4].isnan().all()


def test_a_singular_matrix_without_a_ridge_to_speak_of_is_left_to_eigh() -> None:
    """Its rounding errors may be larger than the ridge, and of either sign. The others are solved all the same."""
    stack = torch.stack([RANK_ONE, 1e-8 * RANK_ONE])
    _, good = newton_inverse_root(stack, power=2, eps=1e-12)
    assert good.tolist() == [False, True]
    filled = inverse_root_by_newton(stack, power=2, eps=1e-12)
    assert torch.equal(filled[0], inverse_root_by_eigh(stack[:1], exponent=0.5, eps=1e-12)[0])
    assert _errors(filled[1:], stack[1:], 2, eps=1e-12) < _first_order(1e4, 2)


def test_a_matrix_that_needs_more_steps_than_there_are_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each stops by itself: the easy ones are done long before."""
    monkeypatch.setattr(newton, "STEPS", 10)
    stack = torch.cat([torch.eye(6)[None], _spectra(6, 1e6)[:1], 2.0 * torch.eye(6)[None]])
    _, good = newton_inverse_root(stack, power=4, relative=1e-6)
    assert good.tolist() == [True, False, True]
    found = inverse_root_by_newton(stack, power=4, relative=1e-6)
    assert _errors(found, stack, 4, relative=1e-6).max() < 0.03


def test_the_stop_is_as_near_as_it_says() -> None:
    """Well conditioned, so that rounding hides nothing: whatever the step it stopped at, 1e-6 is left."""
    A = torch.stack([torch.diag(torch.tensor([1.0, x])) for x in torch.linspace(0.05, 1.0, 60).tolist()])
    for power in POWERS:
        found, _ = newton_inverse_root(A, power=power, relative=1e-6)
        assert _errors(found, A, power, relative=1e-6).max() < 2e-6


def test_each_leaves_the_iteration_when_it_is_done_or_has_overflowed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, original = list[int](), newton._distance_from_identity

    def counted(M: Tensor) -> Tensor:
        sizes.append(len(M))
        return original(M)

    monkeypatch.setattr(newton, "_distance_from_identity", counted)
    stack = torch.stack([torch.eye(4), torch.diag(torch.tensor([1.0, 0.1, 1e-3, 1e-5])), INDEFINITE, NAN])
    _, good = newton_inverse_root(stack, power=4, relative=1e-6)
    assert good.tolist() == [True, True, False, False]
    assert sizes[0] == 3  # nan is not tried
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert len(sizes) < newton.STEPS


def test_a_large_stack_is_worked_on_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    A = torch.cat([_spectra(8, 1e2)] * 3)
    whole, _ = newton_inverse_root(A, power=4, relative=1e-6)
    sizes, original = list[int](), newton._inverse_root

    def counted(chunk: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        sizes.append(len(chunk))
        return original(chunk, *rest)

    monkeypatch.setattr(newton, "_inverse_root", counted)
    monkeypatch.setattr(newton, "CHUNK_NUMEL", 4 * 64)
    cut, good = newton_inverse_root(A, power=4, relative=1e-6)
    assert sizes == [4, 4, 1]
    assert good.shape == (9,)
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=["highest", "high"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """What a training script may have set: with `high`, products in single precision on CUDA go by TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def test_tf32_changes_no_bit_of_the_roots(precision: str) -> None:
    """And is what it was afterwards."""
    A, kept = _spectra(64, 1e6), torch.backends.cuda.matmul.fp32_precision
    found, good = newton_inverse_root(A, power=4, relative=1e-6)
    assert good.all()
    assert (torch.backends.cuda.matmul.fp32_precision, torch.get_float32_matmul_precision()) == (kept, precision)
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, newton_inverse_root(A, power=4, relative=1e-6)[0])


@pytest.mark.usefixtures("precision")
def test_full_precision_is_set_and_taken_back_after_an_error_too() -> None:
    kept = torch.backends.cuda.matmul.fp32_precision
    with full_precision():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == kept
    with pytest.raises(ZeroDivisionError), full_precision():
        raise ZeroDivisionError
    assert torch.backends.cuda.matmul.fp32_precision == kept


def test_exponents_by_hand() -> None:
    assert [newton_power(e) for e in (1.0, 0.5, 1 / 3, 0.25, 0.125)] == [1, 2, 3, 4, 8]
    assert [newton_power(e) for e in (0.3, 2.0, 0.75, 1 / 9)] == [None] * 4


@pytest.mark.parametrize(
    ("shape", "device", "dtype", "expected"),
    [
        ((154, 256, 256), "cuda", torch.float32, True),
        ((512, 512), "cuda", torch.float32, True),
        ((1, 1024, 1024), "cuda", torch.float32, True),
        ((1, 1025, 1025), "cuda", torch.float32, False),  # eigh is faster
        ((500, 32, 32), "cuda", torch.float32, False),  # eigh has a batched solver
        ((8, 64, 64), "cuda", torch.float32, True),
        ((7, 64, 64), "cuda", torch.float32, False),  # not worth the calls
        ((256, 256), "cuda", torch.float32, False),
        ((154, 256, 256), "cuda", DOUBLE, False),
        ((154, 256, 256), "cpu", torch.float32, False),
    ],
)
def test_what_is_faster_by_newton(shape: tuple[int, ...], device: str, dtype: torch.dtype, expected: bool) -> None:
    assert is_faster_by_newton(shape, torch.device(device), dtype) == expected


def test_the_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA Newton's iteration is called for exponents that are one over an integer; on a CPU `eigh` always."""
    taken, original = list[int](), roots.newton_inverse_root

    def spy(A: Tensor, *, power: int, **ridge: float) -> tuple[Tensor, Tensor]:
        taken.append(power)
        return original(A, power=power, **ridge)

    monkeypatch.setattr(roots, "newton_inverse_root", spy)
    A = torch.cat([_spectra(40, 1e3)] * 5)
    for exponent in (0.25, 0.3, 0.5):
        expected = inverse_root_by_eigh(A, exponent=exponent, relative=1e-6)
        torch.testing.assert_close(inverse_root(A, exponent=exponent, relative=1e-6), expected, rtol=1e-2, atol=1e-3)
    assert taken == ([] if DEVICE == "cpu" else [4, 2])


@pytest.mark.parametrize("options", [{}, {"eps": 1e-12, "eps_mode": "absolute"}, {"exponent": 0.5, "graft": "adam"}])
def test_shampoo_on_such_roots_is_near_its_reference(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """To what `test_shampoo` asks of roots by eigenvalues."""

    def by_newton(A: Tensor, *, exponent: float, **ridge: float) -> Tensor:
        return inverse_root_by_newton(A, power=round(1.0 / exponent), **ridge)

    monkeypatch.setattr(shampoo, "inverse_root", by_newton)
    start, gradients = matrix((24, 10), dtype=DOUBLE), gradients_for((24, 10), 20, DOUBLE)
    expected = shampoo_reference(start, gradients, lr=0.1, **options)
    single = run(Shampoo([w := start.float()], lr=0.1, **options), w, [gradient.float() for gradient in gradients])
    assert distance(single.double(), expected, start) < 3e-4
