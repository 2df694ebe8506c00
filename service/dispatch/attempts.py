"""When to stop trying a study whose driver keeps dying: pure rules over what has been recorded.

A driver that dies after getting something done may try again for ever: a machine that kills it now and then delays a
study and fails nothing. Only deaths in a row without progress between them count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from service.db.leases import LONGEST_PAUSE_SECONDS

MAX_CRASHES = 3  # exits with an error of its own: the same input will likely fail again
MAX_KILLS = 10  # ended by a signal (out of memory, an operator): the machine's fault, but not for ever
EX_TEMPFAIL = 75  # the driver's word for "lost my lease" or "database away": never counted


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One driver that ended without bringing its study to an end. `progress`: finished trials and phases by then."""

    progress: int
    exit_status: int

    @property
    def killed(self) -> bool:
        """Whether a signal ended it."""
        return self.exit_status < 0

    def describe(self) -> str:
        """In words."""
        return f"killed by signal {-self.exit_status}" if self.killed else f"exit status {self.exit_status}"


def without_progress(failures: Sequence[Failure]) -> list[Failure]:
    """The failures at the end, oldest first, since anything was last achieved."""
    if not failures:
        return []
    last = failures[-1].progress
    return list(takewhile(lambda failure: failure.progress == last, reversed(failures)))[::-1]


def is_exhausted(failures: Sequence[Failure]) -> bool:
    """Whether the study must be given up."""
    recent = without_progress(failures)
    kills = sum(failure.killed for failure in recent)
    return len(recent) - kills >= MAX_CRASHES or kills >= MAX_KILLS


def retry_delay_seconds(
    tries: int, *, first: float = 1.0, longest: float = LONGEST_PAUSE_SECONDS, draw: float = 0.0
) -> float:
    """How long to wait before try number `tries` + 1: doubles each time up to `longest`, less up to half of it.

    `draw` is uniform on [0, 1): studies that failed together do not all come back together.
    """
    return min(longest, first * 2.0 ** max(0, tries - 1)) * (1.0 - 0.5 * draw)
