"""Inverse p-th roots of a stack of positive definite matrices by products alone, in single precision.

`torch.linalg.eigh` on CUDA decomposes the matrices of a stack one after the other, some milliseconds each; products
of a stack are one call. A coupled Newton iteration (Guo and Higham 2006, doi 10.1137/050643374), with `B` the matrix
and its ridge, `b` its largest eigenvalue and `c = (p + 1) / (2 b)`:

    M = c B    X = c^(1/p) I
    T = ((p + 1) I - M) / p    X <- X T    M <- T^p M    until M = I; then X = B^(-1/p)

**Why it converges from there.** All iterates are polynomials in `B`, so `X^p B = M` stays true and each eigenvalue
`m` of `M` goes its own way, `m <- f(m) = m ((p + 1 - m) / p)^p`. On `(0, p + 1)` f is positive, and
`f'(m) = ((p + 1 - m) / p)^(p - 1) (1 - m) (p + 1) / p` has the sign of `1 - m`: f rises to its maximum `f(1) = 1` and
falls from there. So one step brings all of `(0, p + 1)` into `(0, 1]`, from where `m <= f(m) <= 1` climbs to the one
fixed point there, 1: by the factor `((p + 1) / p)^p >= 2` a step while m is small, and quadratically near 1, as
`f'(1) = 0`. The eigenvalues of `c B` lie in `(0, (p + 1) / 2]`. That is half of what is allowed: it leaves the bound on
`b` room to err by a factor of two, and sends no large eigenvalue back to where it would be among the smallest. From
there the smallest needs about `log2(b / smallest)` steps at most, whence `STEPS`.

Rounding costs less than it does `eigh` in single precision, whose error in every eigenvalue is that of the largest:
`python -m benchmarks.roots` finds a tenth to a half of its error under a ridge of a millionth.

Legend: `S` matrices `(N, N)`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

#: An eigenvalue of `M` may miss 1 by this when the iteration stops; the last step squares it, to about 1e-6.
TOLERANCE = 1e-3
#: Roots that are taken this way: exponents 1 to 1/8.
POWERS = range(1, 9)
#: Below this many units in the last place of the largest eigenvalue a ridge does not make a matrix definite: rounding
#: in the statistics has given it eigenvalues as far below zero.
RIDGE_ULPS = 4.0
#: From the smallest eigenvalue such a ridge leaves, 2^-21 of the largest, up to 1, and seven to settle there.
STEPS = 28
#: Squarings behind `largest_eigenvalue`.
SQUARINGS = 12
#: Elements of the matrices worked on at a time. There are some seven temporaries of that size.
CHUNK_NUMEL = 2**25


def newton_power(exponent: float) -> int | None:
    """The `p` of an exponent `1 / p` that the iteration can take, else None."""
    near = [p for p in POWERS if abs(p * exponent - 1.0) < 1e-9]
    return near[0] if near else None


def largest_eigenvalue(A: Tensor) -> Tensor:
    """Of positive semidefinite matrices `(S, N, N)`: `(S,)`, at most `1 - N^(-1/8192)` too low, 0.1 % at N = 4096.

    The mean of the eigenvalues, weighted by their `2 k`-th powers, `k = 2^SQUARINGS`: `tr(A^k A A^k) / tr(A^k A^k)`. By
    the inequality of power means it is at least `N^(-1/2k)` times the largest.
    """
    power = _normalised(A)
    for _ in range(SQUARINGS):
        power = _normalised(power @ power)
    return ((A @ power) * power).sum(dim=(-2, -1))


def newton_inverse_root(A: Tensor, *, power: int, eps: float = 0.0, relative: float = 0.0) -> tuple[Tensor, Tensor]:
    """`(A + (eps + relative * l) I) ** (-1 / power)` for `A (S, N, N)`, `l` the largest eigenvalue; and which are good.

    `good (S,)` is False where the iteration did not come within `TOLERANCE`, or was not tried for want of a ridge; such
    a root is nan. A zero matrix gives the identity. Products are in full precision, whatever TF32 is set to.
    """
    if not A.numel():
        return A.clone(), torch.ones(len(A), dtype=torch.bool, device=A.device)
    with full_precision():
        chunks = torch.split(A, max(1, CHUNK_NUMEL // A[0].numel()))
        found = [_inverse_root(chunk, power, eps, relative) for chunk in chunks]
    roots, good = zip(*found, strict=True)
    return torch.cat(roots), torch.cat(good)


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 in products of single precision on CUDA, for a while: its ten bits would undo small eigenvalues."""
    matmul = torch.backends.cuda.matmul
    kept = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = kept


def _inverse_root(A: Tensor, power: int, eps: float, relative: float) -> tuple[Tensor, Tensor]:
    size = A.diagonal(dim1=-2, dim2=-1).amax(dim=-1)  # of a semidefinite matrix its largest entry
    is_zero = size == 0.0
    size = torch.where(is_zero, 1.0, size)
    A = (A + A.mT) / (2.0 * size[:, None, None])
    top = torch.where(is_zero, 1.0, largest_eigenvalue(A))
    ridge = eps / size + relative * top
    B = _scaled(A, is_zero, ridge, scale=1.0 / (top + ridge))
    is_fit = is_zero | (ridge >= RIDGE_ULPS * torch.finfo(A.dtype).eps * top)
    roots, good = _iterate(B, power, is_fit)
    factor = torch.where(is_zero, 1.0, (size * (top + ridge)).pow(-1.0 / power))
    return roots.mul_(factor[:, None, None]), good


def _scaled(A: Tensor, is_zero: Tensor, ridge: Tensor, *, scale: Tensor) -> Tensor:
    """`scale (A + ridge I)`, eigenvalues in `(0, 1]`; the identity for a zero matrix."""
    B = A * torch.where(is_zero, 0.0, scale)[:, None, None]
    B.diagonal(dim1=-2, dim2=-1).add_(torch.where(is_zero, 1.0, scale * ridge)[:, None])
    return B


def _iterate(B: Tensor, power: int, is_fit: Tensor) -> tuple[Tensor, Tensor]:
    """`B ** (-1 / power)` for eigenvalues in `(0, 1]`, and where that was reached; nan elsewhere.

    Every matrix stops by itself: at the tolerance, or when it has overflowed.
    """
    roots, good = torch.full_like(B, float("nan")), torch.zeros_like(is_fit)
    places = is_fit.nonzero().squeeze(-1)
    c = (power + 1) / 2.0
    M = c * B[places]
    X = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device).mul(c ** (1.0 / power)).expand_as(M)
    for _ in range(STEPS):
        T = _newton_factor(M, power)
        X = X @ T
        error = _distance_from_identity(M)
        going = (error > TOLERANCE) & error.isfinite()
        if not bool(going.all()):
            done = error <= TOLERANCE
            roots[places[done]], good[places[done]] = X[done], True
            places, M, X, T = places[going], M[going], X[going], T[going]
        if not len(places):
            break
        M = torch.linalg.matrix_power(T, power) @ M
    return roots, good


def _newton_factor(M: Tensor, power: int) -> Tensor:
    """`((p + 1) I - M) / p`."""
    T = M * (-1.0 / power)
    T.diagonal(dim1=-2, dim2=-1).add_((power + 1) / power)
    return T


def _distance_from_identity(M: Tensor) -> Tensor:
    """A bound on how far any eigenvalue is from 1: the Frobenius norm of `M - I`."""
    E = M.clone()
    E.diagonal(dim1=-2, dim2=-1).sub_(1.0)
    norm: Tensor = torch.linalg.matrix_norm(E)
    return norm


def _normalised(A: Tensor) -> Tensor:
    """Of Frobenius norm 1; zero stays zero."""
    norm = torch.linalg.matrix_norm(A, keepdim=True)
    return A / torch.where(norm == 0.0, 1.0, norm)
