"""Row 9: running studies are cancelled at random moments; their processes, their orphans, their slots."""

from dataclasses import dataclass
import time

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, p95, told
from benchmarks.chaos.harness import Lab, Site, stub_study, wait_until
from benchmarks.chaos.stub_optimizer import read_steps

STEPS = 100_000
STEP_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    cancels: int


def run(lab: Lab, size: Size) -> list[Figure]:
    """Study after study through one dispatcher with one slot. Every third is cancelled while it starts."""
    with lab.site() as site:
        dispatcher = site.spawn("dispatcher")
        site.wait_said(dispatcher, "dispatcher started")
        quiet = len(site.processes())
        seconds: list[float] = []
        while len(seconds) < size.cancels:
            number = len(seconds)
            spec = stub_study(site, rates=2, widths=(8,), steps=STEPS + number, seconds=STEPS * STEP_SECONDS)
            study_id = site.submit(spec)
            _wait_for_moment(lab, site, starting=number % 3 == 2)
            seconds.append(_cancel(site, study_id, quiet))
            lab.say(f"cancel {len(seconds)}: {seconds[-1]:.2f} s")
        site.wait_ended(size.cancels, seconds=60)
        cancelled = site.count("SELECT count(*) FROM studies WHERE state = 'cancelled'")
        left = len(site.processes()) - quiet
    return [
        at_least("cancellations", len(seconds), size.cancels),
        exactly("studies cancelled, each in the slot of the one before", cancelled, size.cancels),
        at_most("p95 from the request until all processes are gone (s)", p95(seconds), 5.0),
        told("median (s)", sorted(seconds)[len(seconds) // 2]),
        told("longest (s)", max(seconds)),
        exactly("orphans", left, 0),
    ]


def _wait_for_moment(lab: Lab, site: Site, *, starting: bool) -> None:
    have = len(read_steps(site.steps))
    wait_until(lambda: site.count("SELECT count(*) FROM studies WHERE state = 'running'") == 1, what="a running study")
    if starting:
        time.sleep(lab.rng.uniform(0.0, 8.0))
        return
    wait_until(lambda: len(read_steps(site.steps)) > have, what="a step")
    time.sleep(lab.rng.uniform(0.0, 2.0))


def _cancel(site: Site, study_id: str, quiet: int) -> float:
    started = time.monotonic()
    site.cancel(study_id)
    wait_until(lambda: len(site.processes()) <= quiet, what="the end of all processes", seconds=60)
    return time.monotonic() - started


ROW = Row(
    number=9,
    fault="cancellation of running studies",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(cancels=30),
    short=Size(cancels=1),
)
