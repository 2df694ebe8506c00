"""A scheduler whose clock is a file that somebody else moves: `python -m benchmarks.nights.clock_process URL FILE`."""

from pathlib import Path
import sys
import time

from service.db.session import make_engine, session_factory
from service.schedules.scheduler import Scheduler

POLL_SECONDS = 0.01


def main(url: str, clock: Path) -> None:
    """Tick until killed."""
    scheduler = Scheduler(session_factory(make_engine(url)), clock=lambda _session: float(clock.read_text()))
    while True:
        scheduler.tick()
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
