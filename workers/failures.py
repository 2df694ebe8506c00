"""Whose fault it is that a trial ended without a result, and when it is tried again: pure rules.

The user's fault is not tried again: the same input fails again. A trial's own fault (its code raised, its process died
or hung) is tried again a few times. The machine's fault (a node was lost, a disk is full) is tried again for long, and
counts as the trial's own only when it comes so often that the trial must be what breaks the machines.
"""

from enum import StrEnum
import errno

from mutransfer.errors import ScalingError, SpecError, TransientError

MAX_ATTEMPTS = 3  # failures of its own until a trial is given up
MAX_MACHINE_FAULTS = 10  # in a row, until one counts as the trial's own
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
#: What the operating system says when the machine, not the program, is at fault.
_MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN)


class Fault(StrEnum):
    """Whose fault a failure is."""

    TRIAL = "trial"
    MACHINE = "machine"
    SPEC = "spec"


def fault_of(error: BaseException) -> Fault:
    """Of an exception that a trial raised."""
    if isinstance(error, SpecError | ScalingError):
        return Fault.SPEC
    if isinstance(error, TransientError) or (isinstance(error, OSError) and error.errno in _MACHINE_ERRORS):
        return Fault.MACHINE
    return Fault.TRIAL


def delay_seconds(tries: int, *, draw: float) -> float:
    """How long to wait after failure number `tries` (from 1): doubles each time up to a cap, less up to half of it.

    `draw` is uniform on [0, 1): trials that failed together do not all come back together.
    """
    longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (tries - 1))
    return longest * (1.0 - 0.5 * draw)
