"""Why a driver stops early, said once and heard everywhere: by the training loop, by waits, by the main thread."""

from collections.abc import Callable
from enum import StrEnum
import threading
from typing import TypeVar

import structlog

from mutransfer.errors import TransientError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class StopReason(StrEnum):
    """What ends a driver before its study."""

    CANCELLED = "cancelled"  # a person cancelled the study: kill its trials
    TIMEOUT = "timeout"  # the study has run for longer than the operator allows: kill its trials
    DRAIN = "drain"  # SIGTERM, a pause, or a study that was changed: checkpoint, give the study back
    OUTDATED = "outdated"  # the database was migrated for another version: checkpoint, write nothing more
    LEASE_LOST = "lease_lost"  # another driver has the study, or it has ended: leave everything as it is


class Stopped(BaseException):
    """Raised by whoever notices that the driver must stop; no Exception, so that Tune's loop lets it through."""

    def __init__(self, reason: StopReason) -> None:
        self.reason = reason
        super().__init__(reason.value)


class Control:
    """Holds the reason to stop, if any. Safe for threads and signal handlers."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._reason: StopReason | None = None

    def stop(self, reason: StopReason) -> None:
        """Ask everyone to stop. The first reason holds, but a lost lease overrides all."""
        if self._reason is None or reason is StopReason.LEASE_LOST:
            self._reason = reason
        self._stopping.set()

    @property
    def reason(self) -> StopReason | None:
        """Why to stop; None while the driver should go on."""
        return self._reason

    def check(self) -> None:
        """Raises Stopped when the driver must stop."""
        if self._reason is not None:
            raise Stopped(self._reason)

    def patiently(self, work: Callable[[], T], *, every_seconds: float = 1.0) -> T:
        """Do `work`, again while it raises TransientError. Raises Stopped between two tries."""
        while True:
            self.check()
            try:
                return work()
            except TransientError as error:
                _log.warning("waiting for the machine", error=str(error))
                self._stopping.wait(every_seconds)
