"""Child processes that leave nothing behind: own sessions, fate sharing, and an end that always comes.

Every child starts a session of its own. Whatever it starts stays in that session, however it regroups itself (Ray
gives each worker its own process group), so that ending a child means ending its session. On Linux a child is also told
by the kernel to stop when its parent dies, so that `kill -9` of a parent leaves no orphan either.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import ctypes
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    state: str  # one letter, Z for a zombie


def process_table() -> Iterator[ProcessInfo]:
    """Every process of this machine that we may see; empty where there is no /proc (macOS)."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name may hold spaces and brackets: fields are counted from the last bracket.
            fields = entry.read_text().rpartition(")")[2].split()
            yield ProcessInfo(
                pid=int(entry.parent.name), state=fields[0], parent=int(fields[1]), session=int(fields[3])
            )


def session_members(session: int) -> list[int]:
    """Ids of the living processes of one session."""
    return [info.pid for info in process_table() if info.session == session and info.state != "Z"]


def descendants(root: int) -> list[int]:
    """Ids of the living processes below `root`, zombies left out."""
    children: dict[int, list[ProcessInfo]] = {}
    for info in process_table():
        children.setdefault(info.parent, []).append(info)
    found, todo = [], [root]
    while todo:
        for info in children.get(todo.pop(), ()):
            todo.append(info.pid)
            if info.state != "Z":
                found.append(info.pid)
    return found


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Signal each process; those already gone are skipped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux only)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_adopted(own: Sequence[int]) -> None:
    """Collect the exit status of adopted orphans, leaving our `own` children to their Popen objects."""
    while True:
        try:
            peeked = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if peeked is None or peeked.si_pid in own:
            return
        os.waitpid(peeked.si_pid, 0)


def _share_fate() -> None:
    """Runs in the child between fork and exec: ask the kernel for SIGTERM when the parent dies."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


class Child:
    """A subprocess with its session. Start it from the main thread: fate is shared with the starting thread."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], log: IO[bytes] | None) -> None:
        self.command = tuple(command)
        self._popen = subprocess.Popen(  # noqa: S603 - the command is ours
            self.command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log is not None else None,
            start_new_session=True,
            preexec_fn=_share_fate,
        )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its session."""
        return self._popen.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs (negative: minus the signal that ended it)."""
        return self._popen.poll()

    def terminate(self) -> None:
        """Ask the process itself to stop; it ends its own children in good order."""
        if self.poll() is None:
            send([self.pid], signal.SIGTERM)

    def sweep(self) -> None:
        """Kill whatever is left of the session and collect the child."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + 2.0
        while (left := session_members(self.pid)) and time.monotonic() < deadline:
            send(left, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        self._popen.wait()


def end_all(children: Sequence[Child], *, grace_seconds: float) -> None:
    """SIGTERM to all at once; after `grace_seconds` SIGKILL; then nothing of their sessions is left."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_seconds
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for child in children:
        child.sweep()
