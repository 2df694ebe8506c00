"""Row 4: the machine of a lease holder dies; another dispatcher takes the study over."""

from dataclasses import dataclass
import time

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, p95, told
from benchmarks.chaos.harness import Lab, Site, family, kill, wait_until
from service.processes import Child
from tests.integration.ops.conftest import STUB, stub_study

EPOCH = "SELECT max(epoch) FROM leases"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    kills: int
    ttl_seconds: float


def run(lab: Lab, size: Size) -> list[Figure]:
    """Kill driver and dispatcher at once, at a random moment between two renewals; then bring another one."""
    with lab.site(MUTRANSFER_LEASE_TTL_SECONDS=f"{size.ttl_seconds:g}") as site:
        study_id = site.submit(stub_study("hang"))
        holder = _dispatcher(site)
        _wait_for_driver(site, study_id)
        waiting = _dispatcher(site)
        seconds: list[float] = []
        while len(seconds) < size.kills:
            site.wait_said(waiting, "dispatcher started")
            time.sleep(lab.rng.uniform(0.0, size.ttl_seconds / 3))
            seconds.append(_takeover(site, holder))
            lab.say(f"kill {len(seconds)}: claimed after {seconds[-1]:.2f} s")
            _wait_for_driver(site, study_id)
            holder, waiting = waiting, _dispatcher(site)
        states = site.count("SELECT count(*) FROM studies WHERE state = 'running'")
    return [
        at_least("kills", len(seconds), size.kills),
        at_most("p95 until the new claim is written (s)", p95(seconds), size.ttl_seconds + 2.0),
        told("median (s)", sorted(seconds)[len(seconds) // 2]),
        told("longest (s)", max(seconds)),
        exactly("studies still running", states, 1),
    ]


def _dispatcher(site: Site) -> Child:
    return site.spawn("dispatcher", "--driver", STUB[-1])


def _wait_for_driver(site: Site, study_id: str) -> None:
    """Until the driver of the present epoch holds the lease."""
    pids = site.home / f"{study_id}.pids"

    def up() -> bool:
        return pids.exists() and len(pids.read_text().split()) == 2

    wait_until(up, what="the driver", seconds=120)
    pids.unlink()


def _takeover(site: Site, holder: Child) -> float:
    epoch = site.count(EPOCH)
    doomed = family(holder)
    kill(doomed[::-1])  # the driver first: told of its dispatcher's death it would give the lease back
    started = time.monotonic()
    wait_until(lambda: site.count(EPOCH) > epoch, what="a new claim", seconds=120, every=0.02)
    took = time.monotonic() - started
    holder.sweep()
    return took


ROW = Row(
    number=4,
    fault="takeover of the lease of a machine that died (kill -9 of dispatcher and driver)",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(kills=20, ttl_seconds=10.0),
    short=Size(kills=2, ttl_seconds=3.0),
)
