"""Inverse roots, eigenbases and their refreshes by size: `python -m benchmarks.roots [--device cuda]`.

Shampoo takes roots by `eigh` or by Newton's iteration, whichever the device is faster at; SOAP refreshes a basis by QR.
Statistics are those of gradients whose columns fall by four decades, so that many eigenvalues lie below the ridge of a
millionth; exponent 1/4. Errors are relative, the worst of the stack, against eigenvalues in double precision.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
import statistics
import time

import torch
from torch import Tensor

from benchmarks.machine import machine_with
from optimizers.roots import inverse_root_by_eigh, inverse_root_by_newton, is_faster_by_newton, power_iteration_qr

#: (size, matrices). 154 of 256 are what Shampoo renews in a step at width 1024 in blocks of 256.
SIZES = {
    "cpu": ((16, 64), (64, 16), (128, 8), (256, 4), (512, 1)),
    "cuda": (
        (16, 512), (32, 512), (64, 1), (64, 8), (64, 256), (128, 1), (128, 4), (128, 256), (256, 1), (256, 2),
        (256, 154), (512, 1), (512, 32), (1024, 1), (1024, 8), (2048, 1), (2048, 2), (4096, 1),
    ),
}  # fmt: skip
REPEATS = 5
RIDGE = 1e-6


def statistics_of(size: int, matrices: int, device: str) -> Tensor:
    """`(matrices, size, size)`."""
    generator = torch.Generator().manual_seed(size)
    gradients = torch.randn(matrices, size, size, generator=generator) * torch.logspace(0, -4, size)
    return (gradients @ gradients.mT).to(device)


def milliseconds(work: Callable[[], object], device: str) -> float:
    """The median by the clock, until the device has finished; the first call, which prepares, does not count."""
    taken = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken[1:])


def _error(found: Tensor, exact: Tensor) -> float:
    return float((torch.linalg.matrix_norm(found.double() - exact) / torch.linalg.matrix_norm(exact)).max())


def row(size: int, matrices: int, device: str) -> str:
    """One line of the table."""
    A = statistics_of(size, matrices, device)
    by_eigh = partial(inverse_root_by_eigh, A, exponent=0.25, relative=RIDGE)
    by_newton = partial(inverse_root_by_newton, A, power=4, relative=RIDGE)
    exact = inverse_root_by_eigh(A.double(), exponent=0.25, relative=RIDGE)
    basis = torch.linalg.qr(A)[0]
    times = [milliseconds(work, device) for work in (by_eigh, by_newton, partial(power_iteration_qr, A, basis))]
    errors = [_error(work(), exact) for work in (by_eigh, by_newton)]
    figures = "".join(f"{t:12.2f}" for t in times) + "".join(f"{e:12.1e}" for e in errors)
    taken = "Newton" if is_faster_by_newton(A.shape, A.device, A.dtype) else "eigh"
    return f"{size:5d}{matrices:10d}{figures}  {taken}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roots", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=list(SIZES), help="where to measure (default cpu)")
    device = parser.parse_args(arguments).device
    torch.set_num_threads(1)
    print(machine_with(device))
    columns = ("ms by eigh", "by Newton", "QR refresh", "error: eigh", "Newton")
    print(f"{'size':>5}{'matrices':>10}" + "".join(f"{name:>12}" for name in columns) + "  taken")
    for size, matrices in SIZES[device]:
        print(row(size, matrices, device), flush=True)


if __name__ == "__main__":
    main()
