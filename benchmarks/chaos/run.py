"""Runs one row on one database in a folder of its own."""

from collections.abc import Callable
import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
from random import Random
import shutil
import tempfile
import time

from benchmarks.chaos.figures import Figure, Row
from benchmarks.chaos.harness import Lab
from benchmarks.machine import machine
from tests.postgres_server import running_server


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it. `error` is set when the row could not be run to its end, which is a failure too."""

    figures: list[Figure]
    seconds: float
    machine: str = ""
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every figure met its bar."""
        return not self.error and all(figure.passed for figure in self.figures)


def run_row(row: Row, size: object, database: str, *, say: Callable[[str], None], seed: int = 0) -> Outcome:
    """Run and measure."""
    folder = Path(tempfile.mkdtemp(prefix="mt-chaos-", dir="/tmp"))  # short: sockets lie below
    here, started = _machine(), time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = stack.enter_context(running_server()) if database == "postgresql" else None
        lab = Lab(folder=folder, database=database, server=server, rng=Random(seed), say=say)
        try:
            figures, error = row.run(lab, size), ""
        except TimeoutError as late:  # what a row waits for in vain is its result
            figures, error = [], str(late)
    return Outcome(figures=figures, seconds=time.monotonic() - started, machine=here, error=error)


def _machine() -> str:
    """The machine as a row finds it; `shared` where others are using it already."""
    return machine() + (", shared with other work" if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1) else "")
