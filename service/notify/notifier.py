"""The notifier: takes deliveries that are due, tries each, and tries again later, less and less often.

Several may run: each delivery is claimed for a while before it is tried. One that dies in between is tried again after
that while, so that a message arrives at least once, and after a crash perhaps twice under the same delivery id.
"""

from collections.abc import Callable
import threading

import structlog

from service.db.channels import Deliveries, Delivery
from service.loops import repeat
from service.notify.senders import DeliveryError

POLL_SECONDS = 1.0
HOLD_SECONDS = 120.0  # longer than any attempt takes
FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 3600.0
ATTEMPTS = 32  # about a day
_BELOW_LONGEST = 10  # doublings after which the longest delay holds; keeps the power small

Send = Callable[[Delivery], str]
log = structlog.get_logger(__name__)


def delay_after(attempts: int) -> float | None:
    """Seconds until the next attempt when so many have failed; None when there is none."""
    if attempts >= ATTEMPTS:
        return None
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempts - 1, _BELOW_LONGEST))


class Notifier:
    """One notifier over one database. `send` makes one attempt, and raises DeliveryError where it does not arrive."""

    def __init__(
        self, deliveries: Deliveries, send: Send, *, delay: Callable[[int], float | None] = delay_after
    ) -> None:
        self._deliveries = deliveries
        self._send = send
        self._delay = delay

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set."""
        repeat(lambda: self.drain(stop), stop=stop, every_seconds=POLL_SECONDS)

    def drain(self, stop: threading.Event | None = None) -> int:
        """Try everything that is due once; returns how many arrived."""
        arrived = 0
        for delivery_id in self._deliveries.due():
            if stop is not None and stop.is_set():
                break
            delivery = self._deliveries.claim(delivery_id, HOLD_SECONDS)
            arrived += delivery is not None and self._try(delivery)
        return arrived

    def _try(self, delivery: Delivery) -> bool:
        try:
            said = self._send(delivery)
        except DeliveryError as error:
            self._postpone(delivery, str(error))
            return False
        except Exception as error:  # the edge of this process: a fault of one message must not stop all others
            log.exception("cannot be delivered", delivery=delivery.id, event_name=delivery.event)
            self._postpone(delivery, f"{type(error).__name__}: {error}")
            return False
        self._deliveries.delivered(delivery.id, said)
        log.info("notification delivered", delivery=delivery.id, event_name=delivery.event)
        return True

    def _postpone(self, delivery: Delivery, error: str) -> None:
        delay = self._delay(delivery.attempts + 1)
        self._deliveries.failed(delivery.id, error, delay_seconds=delay)
        log.warning("notification delayed", delivery=delivery.id, again_in_seconds=delay, error=error[:200])
