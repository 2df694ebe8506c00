"""Rate limits: a bucket of requests a caller, refilled steadily, held in the memory of one controller."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
import time

CALLERS_KEPT = 10_000


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How many requests a second a caller may send in the long run, and how many at once after a pause."""

    per_second: float
    burst: float


class Limiter:
    """Counts the requests of each caller; the callers that were seen longest ago are forgotten."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = Lock()
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, at what time

    def wait_seconds(self, caller: str) -> float:
        """Take one request from a caller's bucket: 0.0, or in how many seconds the next one would be granted."""
        with self._lock:
            now = self._clock()
            left, at = self._callers.get(caller, (self._rate.burst, now))
            left = min(self._rate.burst, left + (now - at) * self._rate.per_second)
            granted = left >= 1.0
            self._callers[caller] = (left - 1.0 if granted else left), now
            self._callers.move_to_end(caller)
            if len(self._callers) > CALLERS_KEPT:
                self._callers.popitem(last=False)
        return 0.0 if granted else (1.0 - left) / self._rate.per_second
