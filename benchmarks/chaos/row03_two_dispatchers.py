"""Row 3: two dispatchers share many studies; the one with leases is stopped for three lifetimes of them, and wakes."""

from dataclasses import dataclass
import os
import signal
import time

from sqlalchemy import text

from benchmarks.chaos.figures import Figure, Row, at_least, exactly, told
from benchmarks.chaos.harness import Lab, Site, wait_until
from benchmarks.chaos.node import TRIALS, WITNESSES
from service.db.studies import Submission, submit
from tests import study_builders as build

NAMES = ("a", "b")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    studies: int
    stops: int
    ttl_seconds: float
    limit: int = 8


def run(lab: Lab, size: Size) -> list[Figure]:
    """Stop and wake the two in turn while there is work."""
    with lab.site(MUTRANSFER_LEASE_TTL_SECONDS=f"{size.ttl_seconds:g}") as site:
        _prepare(site, size.studies)
        nodes = {name: _node(site, name, size) for name in NAMES}
        wait_until(lambda: site.count("SELECT count(*) FROM chaos_claims") >= 2 * size.limit, what="first claims")
        stops, held = 0, 0
        while stops < size.stops:
            name = NAMES[stops % 2]
            held += _stop_and_wake(site, nodes[name].pid, name, size)
            stops += 1
            lab.say(f"stop {stops}: {site.count(ENDED_WELL)} of {size.studies} studies completed")
        site.wait_ended(size.studies)
        return _figures(site, size, stops, held)


ENDED_WELL = "SELECT count(*) FROM studies WHERE state = 'completed'"
FINISHED_TWICE = (
    "SELECT count(*) FROM (SELECT study_id FROM events WHERE kind = 'finished' "
    "GROUP BY study_id HAVING count(*) > 1) AS t"
)


def _prepare(site: Site, studies: int) -> None:
    with site.sessions.begin() as session:
        for statement in WITNESSES:
            session.execute(text(statement))
    for number in range(studies):  # a batch of its own each: no study reuses another's trials
        spec = build.spec(name=f"study {number}", train__batch=4 + number)
        submit(site.sessions, Submission(spec=spec, trials_expected=TRIALS))


def _node(site: Site, name: str, size: Size):  # type: ignore[no-untyped-def]
    return site.python("-m", "benchmarks.chaos.node", "--name", name, "--limit", str(size.limit), name=name)


def _stop_and_wake(site: Site, pid: int, name: str, size: Size) -> int:
    """Returns how many studies it held when it was stopped."""
    held = (
        f"SELECT count(*) FROM leases JOIN studies ON id = study_id WHERE state = 'running' AND owner LIKE '{name}:%'"
    )
    wait_until(lambda: site.count(held) > 0, what="a lease of the one to be stopped", seconds=120)
    count = site.count(held)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(3.0 * size.ttl_seconds)
    os.kill(pid, signal.SIGCONT)
    time.sleep(1.0)
    return count


def _figures(site: Site, size: Size, stops: int, held: int) -> list[Figure]:
    count = site.count
    return [
        at_least("stops", stops, size.stops),
        at_least("leases held when stopped", held, stops),
        exactly("studies completed", count(ENDED_WELL), size.studies),
        exactly("double claims", count("SELECT count(*) FROM chaos_doubles"), 0),
        exactly("stale writes accepted", count("SELECT count(*) FROM chaos_writes WHERE mine <> lease"), 0),
        at_least("stale writers refused", count("SELECT count(*) FROM chaos_refused"), 1),
        exactly("studies finished twice", count(FINISHED_TWICE), 0),
        exactly(
            "trials with a result", count("SELECT count(*) FROM trials WHERE result IS NOT NULL"), TRIALS * size.studies
        ),
        exactly(
            "results told", count("SELECT count(*) FROM outbox WHERE kind = 'trial_result'"), TRIALS * size.studies
        ),
        told("claims", count("SELECT count(*) FROM chaos_claims")),
        told("writes", count("SELECT count(*) FROM chaos_writes")),
    ]


ROW = Row(
    number=3,
    fault="two dispatchers; the lease holder stopped for 3 × TTL (SIGSTOP, SIGCONT)",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(studies=500, stops=4, ttl_seconds=10.0),
    short=Size(studies=16, stops=1, ttl_seconds=1.5, limit=4),
)
