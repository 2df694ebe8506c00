"""Keeps a few programs running: restarts what dies, with growing pauses, and ends them all without orphans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import time

from service.processes import Child, descendants, end_all, reap_adopted, send

GRACE_SECONDS = 11.0  # the dispatcher gives its drivers up to 9
STEADY_SECONDS = 60.0  # a program that ran this long starts its back-off anew
LONGEST_DELAY_SECONDS = 30.0
LOG_BYTES = 10_000_000  # a larger log is put aside (one generation) when its program starts

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Program:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]


@dataclass(kw_only=True)
class Kept:
    """A program with its present process. Times are those of time.monotonic()."""

    program: Program
    log: Path
    child: Child
    started_at: float
    deaths: int = 0  # in a row
    restart_at: float | None = None  # set while it waits for its next start


class Supervisor:
    """Single-threaded: call `tick` a few times a second from the main thread."""

    def __init__(self, *, logs: Path, say: Say) -> None:
        self._logs = logs
        self._say = say
        self._kept: list[Kept] = []

    def start(self, program: Program) -> Kept:
        """Start a program for the first time; its output is appended to `logs`/NAME.log."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{program.name}.log"
        kept = Kept(program=program, log=log, child=_spawn(program, log), started_at=time.monotonic())
        self._kept.append(kept)
        return kept

    def tick(self) -> None:
        """Notice deaths, restart what is due."""
        reap_adopted([kept.child.pid for kept in self._kept])
        now = time.monotonic()
        for kept in self._kept:
            if kept.restart_at is not None and now >= kept.restart_at:
                kept.child, kept.started_at, kept.restart_at = _spawn(kept.program, kept.log), now, None
            elif kept.restart_at is None and (status := kept.child.poll()) is not None:
                self._died(kept, status, now)

    def _died(self, kept: Kept, status: int, now: float) -> None:
        kept.child.sweep()
        kept.deaths = 1 if now - kept.started_at > STEADY_SECONDS else kept.deaths + 1
        delay = min(LONGEST_DELAY_SECONDS, 0.5 * 2.0 ** (kept.deaths - 1))
        kept.restart_at = now + delay
        self._say(f"{kept.program.name} ended with status {status}; again in {delay:g} s (log: {kept.log})")

    def end(self) -> None:
        """End everything, and whatever a killed program had left to us."""
        end_all([kept.child for kept in self._kept], grace_seconds=GRACE_SECONDS)
        deadline = time.monotonic() + 3.0
        while (left := descendants(os.getpid())) and time.monotonic() < deadline:
            send(left, signal.SIGKILL)
            time.sleep(0.05)
        reap_adopted([])


def _spawn(program: Program, log: Path) -> Child:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as stream:
        return Child(program.command, env=program.env, log=stream)
