"""The loop of a background process: do a round, wait, and sit out faults of the machine."""

from collections.abc import Callable
import signal
import threading
from types import FrameType

from sqlalchemy.exc import DBAPIError
import structlog

from mutransfer.errors import TransientError
from service.db.session import is_transient

LONGEST_WAIT_SECONDS = 10.0

log = structlog.get_logger(__name__)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. Call from the main thread."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop


def repeat(work: Callable[[], object], *, stop: threading.Event, every_seconds: float) -> None:
    """Call `work` every `every_seconds` until `stop`; while the database is away, less and less often."""
    wait = every_seconds
    while not stop.wait(wait):
        try:
            work()
            wait = every_seconds
        except (TransientError, DBAPIError) as error:
            if isinstance(error, DBAPIError) and not is_transient(error):
                raise
            wait = min(LONGEST_WAIT_SECONDS, 2.0 * wait)
            log.warning("the database does not answer: waiting", error=str(error), seconds=wait)
