"""An optimizer that tells every step to a file, takes its time, and goes wrong where it is told to.

With it the real driver, Ray and trainer run trials whose length does not depend on the machine, and a row can see from
outside which process took which step when, also of steps whose results were lost with their process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import os
from pathlib import Path
import sys
import time
from typing import Any

import torch

MLFLOW = "mlflow"
Trial = tuple[float, int]  # peak learning rate (octaves), width


class Witnessed(torch.optim.AdamW):
    """AdamW. `seconds` is slept a step; `crash`, `hang`, `nan` are the peak rates (log2) that go wrong at step 3.

    That at `poisoned_width` alone.
    """

    def __init__(
        self, params: Any, lr: float, *, log: str = "", seconds: float = 0.0, work: int = 0,
        crash: tuple[float, ...] = (), hang: tuple[float, ...] = (), nan: tuple[float, ...] = (),
        poisoned_width: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, **options)
        self._log, self._seconds, self._work = log, seconds, work
        self._lr_octaves = round(float(torch.tensor(lr).log2()), 3)
        self._width = next(p.shape[1] for group in self.param_groups for p in group["params"] if p.dim() == 2)
        self._poison = {"crash": crash, "hang": hang, "nan": nan} if self._width == poisoned_width else {}

    def step(self, closure: Any = None) -> Any:
        """A step of AdamW, told."""
        answer = super().step(closure)
        first = self.param_groups[0]["params"][0]
        done = int(self.state[first]["step"])  # resumed from a checkpoint with everything else
        if self._work:
            square = torch.ones(self._work, self._work)
            square @ square
        self._tell(done)
        time.sleep(self._seconds)
        if done == 3:
            self._go_wrong(first)
        return answer

    def _tell(self, step: int) -> None:
        if self._log:
            clocks = f"{time.monotonic():.6f} {time.thread_time():.6f}"
            known = int(MLFLOW in sys.modules)
            line = f"{os.getpid()} {clocks} {self._lr_octaves} {self._width} {step} {known}\n"
            with Path(self._log).open("a") as stream:
                stream.write(line)

    def _go_wrong(self, parameter: torch.Tensor) -> None:
        ways = {way for way, rates in self._poison.items() if any(abs(r - self._lr_octaves) < 0.01 for r in rates)}
        if "crash" in ways:
            os._exit(9)
        if "hang" in ways:
            time.sleep(3600)
        if "nan" in ways:
            with torch.no_grad():
                parameter.fill_(float("nan"))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of the file. Times are of the machine's monotonic clock, and the training thread's own."""

    pid: int
    at: float
    thread_seconds: float
    lr_octaves: float
    width: int
    step: int
    mlflow: bool

    @property
    def trial(self) -> Trial:
        """Which trial took it."""
        return self.lr_octaves, self.width


def read_steps(path: Path) -> list[Step]:
    """All whole lines so far."""
    return list(_read(path)) if path.exists() else []


def _read(path: Path) -> Iterator[Step]:
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) == 7:
            pid, at, thread, rate, width, step, mlflow = fields
            yield Step(
                pid=int(pid), at=float(at), thread_seconds=float(thread), lr_octaves=float(rate), width=int(width),
                step=int(step), mlflow=mlflow == "1",
            )  # fmt: skip


def executions(steps: list[Step]) -> int:
    """How often a trial was begun in a process: once each, were it not for faults."""
    begun = {}
    for step in steps:
        begun.setdefault((step.trial, step.pid), step)
    return len(begun)
