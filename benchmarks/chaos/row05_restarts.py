"""Row 5: PostgreSQL restarts again and again under a running service, and once stays away for long."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
import signal
import time

from sqlalchemy import text

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, told
from benchmarks.chaos.harness import Lab, Site, outcome, stub_study, wait_until
from mutransfer.errors import TransientError
from tests.postgres_server import PostgresServer, running_server

HOWS = (signal.SIGINT, signal.SIGQUIT)  # a fast shutdown; a crash


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it, in seconds. A restart every `gaps`, for `duration`; the outage falls into the middle."""

    duration: float
    gaps: tuple[float, float]
    outage: float
    rates: int


@dataclass(kw_only=True)
class Seen:
    """What was counted."""

    restarts: int = 0
    studies: int = 0
    spooled: int = 0
    drained: tuple[float, ...] = ()


def run(lab: Lab, size: Size) -> list[Figure]:
    """Studies of stub trials, one after the other, through one dispatcher, on a server of the row's own."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        site = stack.enter_context(replace(lab, server=server).site())
        _keep_commits(site)
        site.spawn("dispatcher")
        seen, until = Seen(), time.monotonic() + size.duration
        _submit(site, size, seen)
        wait_until(lambda: site.count("SELECT count(*) FROM trials WHERE result IS NOT NULL") > 0, what="a result")
        until, away = time.monotonic() + size.duration, False
        while time.monotonic() < until:
            time.sleep(lab.rng.uniform(*size.gaps))
            long = not away and time.monotonic() > until - size.duration / 2
            away = away or long
            _restart(lab, site, server, seen, seconds=size.outage if long else 0.0)
            _submit(site, size, seen)
            lab.say(f"restart {seen.restarts}: {seen.studies} studies, {seen.spooled} results spooled")
        if not away:
            _restart(lab, site, server, seen, seconds=size.outage)
        site.wait_ended(seen.studies)
        found = outcome(site)
        gave_up = site.count("SELECT count(*) FROM studies WHERE state = 'failed'")
    trials = 4 * size.rates * seen.studies
    return [
        at_least("restarts", seen.restarts, max(1, int(size.duration // size.gaps[1]))),
        exactly("results", found["results"], trials),
        exactly("results lost (planned without one)", found["planned"] - found["results"], 0),
        exactly("results told more than once", found["told"] + found["events"] - 2 * trials, 0),
        exactly("attempts counted as failures of a trial", found["failed attempts"], 0),
        exactly("trials given up", found["given up"], 0),
        exactly("studies failed", gave_up, 0),
        at_least("results that lay in the spool", seen.spooled, 1),
        at_most("spool drained after the server was back, longest (s)", max(seen.drained, default=0.0), 10.0),
        told("studies", seen.studies),
    ]


def _keep_commits(site: Site) -> None:
    """The tests' server answers before a commit is on disk, and a crash of it would then lose commits."""
    engine = site.sessions.kw["bind"]
    with engine.begin() as connection:
        connection.execute(text(f'ALTER DATABASE "{engine.url.database}" SET synchronous_commit = on'))
    engine.dispose()


def _submit(site: Site, size: Size, seen: Seen) -> None:
    """Another study when the last one has ended. Each has a length of its own, so that none reuses trials."""
    while site.count("SELECT count(*) FROM studies WHERE state IN ('queued', 'running')") == 0:
        try:
            site.submit(stub_study(site, rates=size.rates, steps=10 + seen.studies))
        except TransientError:
            continue
        seen.studies += 1


def _restart(lab: Lab, site: Site, server: PostgresServer, seen: Seen, *, seconds: float) -> None:
    port = server.port
    server.stop(lab.rng.choice(HOWS))
    time.sleep(seconds)
    server.start()
    if server.port != port:
        raise TimeoutError("the server's port was taken while it was down: run the row again")
    back = time.monotonic()
    lying = set(_spooled(site))
    seen.restarts += 1
    seen.spooled += len(lying)
    # What was spooled during the outage; a result that is spooled later belongs to the next one.
    wait_until(lambda: not lying & set(_spooled(site)), what="an empty spool", seconds=120)
    seen.drained = (*seen.drained, time.monotonic() - back)


def _spooled(site: Site) -> Iterable[str]:
    return [path.name for path in (site.home / "storage" / "spool").glob("*/*.json")]


ROW = Row(
    number=5,
    fault="PostgreSQL restarted every 5 to 40 s, by turns stopped and crashed, with one outage of 30 s",
    databases=("postgresql",),
    run=run,
    long=Size(duration=600.0, gaps=(5.0, 40.0), outage=30.0, rates=30),
    short=Size(duration=0.0, gaps=(1.0, 2.0), outage=7.0, rates=4),
)
