"""Row 8: SIGTERM of the dispatcher, as of a machine that shuts down, at random moments of a running study."""

from dataclasses import dataclass
import time

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, p95, told
from benchmarks.chaos.harness import Lab, Site, outcome, stub_study, wait_until
from benchmarks.chaos.stub_optimizer import read_steps

STEPS = 100_000
STEP_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    stops: int


def run(lab: Lab, size: Size) -> list[Figure]:
    """Stop, look at what is left, go on. Every third stop falls into the start."""
    with lab.site() as site:
        site.submit(stub_study(site, rates=2, widths=(8,), steps=STEPS, seconds=STEPS * STEP_SECONDS))
        seconds: list[float] = []
        freed = 0
        while len(seconds) < size.stops:
            dispatcher = site.spawn("dispatcher")
            site.wait_said(dispatcher, "dispatcher started")
            _wait_for_moment(lab, site, starting=len(seconds) % 3 == 2)
            started = time.monotonic()
            dispatcher.terminate()
            wait_until(lambda: not site.processes(), what="the end of all processes", seconds=60)
            dispatcher.poll()
            seconds.append(time.monotonic() - started)
            freed += site.count("SELECT count(*) FROM leases WHERE owner = ''")
            lab.say(f"stop {len(seconds)}: {seconds[-1]:.1f} s")
        found, steps = outcome(site), read_steps(site.steps)
    return [
        at_least("stops", len(seconds), size.stops),
        at_most("drained, p95 (s)", p95(seconds), 10.0),
        at_most("drained, longest (s)", max(seconds), 10.0),
        exactly("attempts counted as failures", found["failed attempts"], 0),
        exactly("leases given back", freed, size.stops),
        at_least("steps taken", len(steps), size.stops),
        told("steps taken again after a stop", len(steps) - len({(s.trial, s.step) for s in steps})),
    ]


def _wait_for_moment(lab: Lab, site: Site, *, starting: bool) -> None:
    if starting:
        wait_until(lambda: site.driver_pids(), what="a driver")
        time.sleep(lab.rng.uniform(0.0, 8.0))
        return
    have = len(read_steps(site.steps))
    wait_until(lambda: len(read_steps(site.steps)) > have + 10, what="a step")
    time.sleep(lab.rng.uniform(0.0, 3.0))


ROW = Row(
    number=8,
    fault="SIGTERM of the dispatcher under a running study",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(stops=10),
    short=Size(stops=1),
)
