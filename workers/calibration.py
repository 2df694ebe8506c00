"""How fast this machine is right now, by a fixed matrix product: what throughput is divided by from night to night.

Measured in the trial's own process, a few milliseconds at a time while it trains, and outside the time that the trial
is charged. It draws no random numbers, so that a trial ends bit-equal with or without it.

A CPU is measured in its own seconds, and the speed is scaled by the share of the time that this process had it: a
machine full of others slows a trial by taking it off the CPU, which a product of milliseconds would seldom see.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
import time

import torch

#: Side of the product's matrices, and products a measurement, by device type.
SIZES = {"cpu": (192, 4), "cuda": (2048, 8)}
EVERY_SECONDS = 1.0
_GIGA = 1e9


class Calibration:
    """Measures now and then; `gflops` is the middle of what was measured, in 10⁹ operations a second."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side, self._repeats = SIZES.get(device.type, SIZES["cpu"])
        self._matrix_NN = torch.linspace(-1.0, 1.0, self._side**2, device=device).reshape(self._side, self._side)
        self._next_at = 0.0
        self._clock = time.perf_counter if device.type == "cuda" else time.process_time
        self._measured: list[float] = []
        self._wall_seconds = self._own_seconds = 0.0

    def measure_when_due(self) -> None:
        """Measure at the first call, and at most once a second after that."""
        if time.perf_counter() >= self._next_at:
            self._measured.append(self._measure())
            self._next_at = time.perf_counter() + EVERY_SECONDS

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the time inside, that the trial is charged, and how much of it this process had the device."""
        wall, own = time.perf_counter(), self._clock()
        yield
        self._wall_seconds += time.perf_counter() - wall
        self._own_seconds += self._clock() - own

    @property
    def gflops(self) -> float | None:
        """The middle of the measurements times the share of the time, None before the first."""
        if not self._measured:
            return None
        share = self._own_seconds / self._wall_seconds if self._wall_seconds else 1.0
        return median(self._measured) * share

    @torch.no_grad()
    def _measure(self) -> float:
        self._product()  # whatever the step before left in caches and queues
        started = self._clock()
        for _ in range(self._repeats):
            self._product()
        seconds = self._clock() - started
        return 2.0 * self._side**3 * self._repeats / seconds / _GIGA

    def _product(self) -> None:
        torch.mm(self._matrix_NN, self._matrix_NN)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
