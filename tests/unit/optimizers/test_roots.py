"""Inverse powers and eigenbases of positive semidefinite matrices."""

import pytest
import torch
from torch import Tensor

from optimizers.roots import eigenbasis, finite_eigh, inverse_root, power_iteration_qr
from tests.unit.optimizers.trajectories import matrix


def _with_eigenvalues(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    Q = torch.linalg.qr(matrix((len(values), len(values)), dtype=torch.float64))[0]
    return ((Q * torch.tensor(values, dtype=torch.float64)) @ Q.T).to(dtype)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_the_root_raised_is_the_inverse(power: int) -> None:
    A = _with_eigenvalues([4.0, 2.0, 1.0, 0.1])
    root = inverse_root(A, exponent=1 / power, eps=0.5)
    shifted = A + 0.5 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.matrix_power(root, power) @ shifted, torch.eye(4, dtype=torch.float64))


def test_relative_eps_makes_the_root_follow_the_scale() -> None:
    A = _with_eigenvalues([4.0, 2.0, 0.0, 0.0])
    one, hundred = (inverse_root(s * A, exponent=0.5, relative=1e-3) for s in (1.0, 100.0))
    torch.testing.assert_close(one, 10.0 * hundred)
    assert torch.linalg.eigvalsh(one)[-1].item() == pytest.approx((4.0 * 1e-3) ** -0.5)


def test_single_precision_error_at_condition_a_million() -> None:
    values = [10.0**-k for k in range(7)]
    exact = inverse_root(_with_eigenvalues(values), exponent=0.25, eps=1e-12)
    single = inverse_root(_with_eigenvalues(values, torch.float32), exponent=0.25, eps=1e-12)
    assert (single.double() - exact).norm() < 0.02 * exact.norm()


def test_rounding_below_zero_is_raised_to_the_floor() -> None:
    """A rank-one matrix in single precision has eigenvalues of either sign near 1e-7; none gives nan or 1e6."""
    g = matrix((64, 1))
    root = inverse_root(g @ g.T, exponent=0.5, eps=1e-20)
    top = float(g.square().sum())
    assert torch.linalg.eigvalsh(root)[-1].item() <= 1.01 * (top * torch.finfo(torch.float32).eps) ** -0.5


def test_zero_matrices_in_a_stack_give_the_identity() -> None:
    stack = torch.stack([torch.zeros(3, 3), 16.0 * torch.eye(3)])
    roots = inverse_root(stack, exponent=0.25, eps=1e-12)
    torch.testing.assert_close(roots, torch.stack([torch.eye(3), torch.eye(3) / 2]))


def test_nan_stays_with_its_matrix() -> None:
    stack = torch.stack([torch.full((3, 3), float("inf")), torch.eye(3)])
    values, vectors = finite_eigh(stack)
    assert values[0].isnan().all()
    assert vectors[0].isnan().all()
    torch.testing.assert_close(values[1], torch.ones(3))


def test_eigenbasis_is_sorted_and_power_iteration_keeps_a_settled_basis() -> None:
    A = _with_eigenvalues([1.0, 5.0, 3.0])
    Q = eigenbasis(A)
    torch.testing.assert_close(Q.T @ A @ Q, torch.diag(torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)))
    shuffled = Q[:, [2, 0, 1]]
    new, order = power_iteration_qr(A, shuffled)
    assert order.tolist() == [1, 2, 0]
    torch.testing.assert_close(new.abs(), Q.abs())
