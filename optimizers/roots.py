"""Eigenbases and inverse powers of symmetric positive semidefinite matrices, one `(n, n)` or a stack `(S, n, n)`.

Inverse powers go through `eigh`, which on a CPU costs about ten products. On CUDA, where it takes most stacks one
matrix after the other, those go through Newton's iteration (optimizers.newton): some twenty steps of three or four
products, of all matrices at once. `python -m benchmarks.roots` times both.

What looks at its data (is all of it finite, did all of it converge) is an operator to torch.compile, which then has
nothing to break a graph for.
"""

from collections.abc import Sequence
import math

import torch
from torch import Tensor
from torch.library import custom_op

from optimizers.newton import newton_inverse_root, newton_power

#: On CUDA, sizes above the first have no batched solver, and up to the second Newton's iteration is faster than `eigh`;
#: its calls, some 400, cost as much as `eigh` of 8 matrices of 64, or of one of 512 (H200, docs/optimizer-speed.md).
NEWTON_SIZES = (32, 1024)
NEWTON_ROWS = 512
#: The host waits for an answer, which a captured CUDA graph cannot do.
ASKS_ITS_DATA = (torch.Tag.cudagraph_unsafe,)


@custom_op("mutransfer::finite_eigh", mutates_args=(), tags=ASKS_ITS_DATA)
def finite_eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors. A matrix with nan or inf gives nan, where torch's raises.

    A diverged trial is to end with a loss that is nan, not with an error from LAPACK. Matrices on which the solver does
    not converge are solved in double precision.
    """
    finite = torch.isfinite(A).all(dim=-1).all(dim=-1)
    tame = A if bool(finite.all()) else torch.where(finite[..., None, None], A, 0.0)
    try:
        values, vectors = torch.linalg.eigh(tame)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, vectors = (t.to(A.dtype) for t in torch.linalg.eigh(tame.double()))
    if tame is A:
        return values, vectors
    nan = float("nan")
    return torch.where(finite[..., None], values, nan), torch.where(finite[..., None, None], vectors, nan)


@finite_eigh.register_fake
def _(A: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(A)
    return values, vectors


def eigenbasis(A: Tensor) -> Tensor:
    """Orthonormal eigenvectors as columns, by falling eigenvalue."""
    vectors: Tensor = finite_eigh(A)[1]
    return vectors.flip(-1)


def inverse_root(A: Tensor, *, exponent: float, eps: float = 0.0, relative: float = 0.0) -> Tensor:
    """`(A + (eps + relative * l) I) ** -exponent`, with `l` the largest eigenvalue.

    Eigenvalues below `l` times the dtype's epsilon are rounding errors of either sign, and are raised to that. A zero
    matrix gives the identity: with nothing known there is nothing to precondition by. The device decides how,
    see `is_faster_by_newton`.
    """
    power = newton_power(exponent)
    if power is not None and is_faster_by_newton(A.shape, A.device, A.dtype):
        root: Tensor = inverse_root_by_newton(A, power=power, eps=eps, relative=relative)
        return root
    return inverse_root_by_eigh(A, exponent=exponent, eps=eps, relative=relative)


def is_faster_by_newton(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether matrices `(S, N, N)` or `(N, N)` go by Newton's iteration: enough, in single precision, on CUDA."""
    smallest, largest = NEWTON_SIZES
    fits = smallest < shape[-1] <= largest and math.prod(shape[:-1]) >= NEWTON_ROWS
    return fits and device.type == "cuda" and dtype == torch.float32


def inverse_root_by_eigh(A: Tensor, *, exponent: float, eps: float = 0.0, relative: float = 0.0) -> Tensor:
    """`inverse_root` for every exponent, through eigenvalues."""
    values, vectors = finite_eigh(A)
    top = values[..., -1:]
    raised = values.maximum(top * torch.finfo(A.dtype).eps) + (eps + relative * top)
    root = (vectors * raised.pow(-exponent).unsqueeze(-2)) @ vectors.mT
    return torch.where(top.unsqueeze(-1) == 0.0, torch.eye(A.shape[-1], dtype=A.dtype, device=A.device), root)


@custom_op("mutransfer::inverse_root_by_newton", mutates_args=(), tags=ASKS_ITS_DATA)
def inverse_root_by_newton(A: Tensor, *, power: int, eps: float = 0.0, relative: float = 0.0) -> Tensor:
    """`inverse_root` for the exponent `1 / power`, by products; by eigenvalues where those did not converge."""
    stack = A if A.ndim == 3 else A.unsqueeze(0)
    roots, good = newton_inverse_root(stack, power=power, eps=eps, relative=relative)
    if not bool(good.all()):
        rest = ~good
        roots[rest] = inverse_root_by_eigh(stack[rest], exponent=1.0 / power, eps=eps, relative=relative)
    return roots.view_as(A)


@inverse_root_by_newton.register_fake
def _(A: Tensor, **_: float) -> Tensor:
    return A.new_empty(A.shape)


def power_iteration_qr(A: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """One step of subspace iteration from the basis `Q` towards the eigenbasis of `A`, columns sorted first.

    Columns of `Q` are ordered by falling Rayleigh quotient `q' A q`, then `A Q` is orthonormalised. Returns the new
    basis and the order `(..., n)` in which the old columns were taken.
    """
    P = A @ Q
    order = (Q * P).sum(dim=-2).argsort(dim=-1, descending=True)
    P = P.gather(-1, order.unsqueeze(-2).expand_as(P))
    return orthonormal(P), order


def orthonormal(P: Tensor) -> Tensor:
    """The `Q` of `P = Q R`, by Householder reflections: torch.linalg.qr without the tenth it spends on `R`."""
    reflections, scales = torch.geqrf(P)
    Q: Tensor = torch.linalg.householder_product(reflections, scales)
    return Q
