"""How many trials of a study may run at once by its project's quota: asked for by the pulse, heeded by the supply."""

from collections.abc import Callable
import threading

from service.db.quotas import Grant

Ask = Callable[[int, int], Grant]


class Allowance:
    """Slots of one driver. While they are counted nothing starts, so that never more run than the database says."""

    def __init__(self, ask: Ask) -> None:
        """`ask(wanted, running)` takes slots; it raises TransientError when the database does not answer."""
        self._ask = ask
        self._lock = threading.Lock()
        self._wanted = 0
        self._running = 0  # at most so many run
        self._slots: int | None = 0
        self._is_spent = False
        self._is_hungry = False

    def want(self, trials: int) -> None:
        """So many could run at once. Nothing is asked for before."""
        self._wanted = trials

    @property
    def is_over(self) -> bool:
        """Whether a trial waits that the project's budget does not allow, and nothing runs any more."""
        with self._lock:
            return self._is_spent and self._is_hungry and self._running == 0

    def take(self, running: int) -> bool:
        """Whether one more trial may start beside the `running` ones; it counts as started until the next call."""
        with self._lock:
            self._running = running
            if self._slots is not None and running >= self._slots:
                return False
            self._running = running + 1
            return True

    def note_hunger(self, is_hungry: bool) -> None:
        """Whether a trial waits that might not start."""
        self._is_hungry = is_hungry

    def refresh(self) -> None:
        """Ask anew. Raises TransientError; nothing starts then until the next time."""
        if not self._wanted:
            return
        with self._lock:
            before, running = self._slots, self._running
            if before is not None:
                self._slots = 0  # an answer may be lost after it was written
        granted = self._ask(self._wanted, running)
        with self._lock:
            self._slots, self._is_spent = granted.slots, granted.is_spent
