"""A driver's pulse: renews the lease, hears what people want, and ends a process that does not stop in time."""

from collections.abc import Callable
import threading
import time

import structlog

from mutransfer.errors import LeaseLostError, NotFoundError, OutdatedError, TransientError
from service.db.driver_store import DriverStore, Standing
from service.db.states import StudyState
from workers.allowance import Allowance
from workers.control import Control, StopReason

POLL_SECONDS = 1.0
#: How long the main thread may take from hearing of a cancellation or a lost lease to its end.
GRACE_SECONDS = 3.0

_log = structlog.get_logger(__name__)


class Heartbeat:
    """A thread beside the driver. While the database is away it keeps trying: the lease may still be ours after."""

    def __init__(
        self, store: DriverStore, control: Control, allowance: Allowance, *, ttl_seconds: float,
        overdue: Callable[[StopReason], None], limit_hours: float | None = None,
    ) -> None:  # fmt: skip
        """`overdue` is called from the thread when the grace is over; it should end the process."""
        self._store = store
        self._control = control
        self._allowance = allowance
        self._renew_seconds = ttl_seconds / 3.0
        self._overdue = overdue
        self._limit_hours = limit_hours
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End it; the lease then runs out by itself."""
        self._quit.set()
        if self._thread.is_alive():
            self._thread.join(timeout=POLL_SECONDS)

    def _run(self) -> None:
        renewed_at = float("-inf")
        while not self._quit.wait(min(POLL_SECONDS, self._renew_seconds)):
            try:
                if time.monotonic() - renewed_at >= self._renew_seconds:
                    self._store.renew()
                    renewed_at = time.monotonic()
                self._heed(self._store.standing(timed=self._limit_hours is not None))
                self._allowance.refresh()
                if self._allowance.is_over:
                    _log.info("the project's device-hours are used up: giving the study back")
                    self._control.stop(StopReason.DRAIN)
            except (LeaseLostError, NotFoundError) as error:
                _log.error("the lease is lost: stopping", reason=str(error))
                self._control.stop(StopReason.LEASE_LOST)
            except OutdatedError as error:
                _log.error("the database is another version's: stopping", reason=str(error))
                self._control.stop(StopReason.OUTDATED)
            except TransientError as error:
                _log.warning("heartbeat missed", error=str(error))
            if self._control.reason in (StopReason.CANCELLED, StopReason.TIMEOUT, StopReason.LEASE_LOST):
                return self._see_out(self._control.reason)
        return None

    def _heed(self, standing: Standing) -> None:
        is_changed = standing.revision != (self._store.revision or standing.revision)
        if standing.state is StudyState.CANCELLING:
            self._control.stop(StopReason.CANCELLED)
        elif standing.state in (StudyState.PAUSING, StudyState.PAUSED) or is_changed:
            self._control.stop(StopReason.DRAIN)
        elif self._limit_hours is not None and standing.running_seconds > self._limit_hours * 3600.0:
            self._control.stop(StopReason.TIMEOUT)
        elif standing.state.is_final:
            self._control.stop(StopReason.LEASE_LOST)

    def _see_out(self, reason: StopReason) -> None:
        if not self._quit.wait(GRACE_SECONDS):
            _log.error("the driver did not stop in time: ending it", reason=reason.value)
            self._overdue(reason)
