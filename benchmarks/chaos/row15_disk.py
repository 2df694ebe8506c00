"""Row 15: no room for checkpoints, none for the spool; the database's clock an hour back; a corrupt checkpoint.

A full disk is had without one: the name that a writer is about to use leads to /dev/full, and the kernel refuses.
"""

from dataclasses import dataclass
import os
from pathlib import Path
import sqlite3
import time
from typing import Any

from sqlalchemy import event, text

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly
from benchmarks.chaos.harness import Lab, Site, kill, outcome, results, stub_study, wait_until
from benchmarks.chaos.lives import Life
from benchmarks.chaos.stub_optimizer import Step, read_steps
from service.db.leases import Leases
from service.db.session import make_engine, session_factory
from tests import study_builders as build

FULL = Path("/dev/full")
HOUR_SECONDS = 3600.0
TTL_SECONDS = 10.0
STEPS = 40


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: trials are `rates` × 1; each takes `seconds`."""

    rates: int
    seconds: float


def run(lab: Lab, size: Size) -> list[Figure]:
    """One after the other, each on a site of its own."""
    return [*_checkpoints(lab, size), *_spool(lab), *_clock(lab)]


def _checkpoints(lab: Lab, size: Size) -> list[Figure]:
    """The first trial finds no room; the second loses its newest checkpoint to a bit, and its process to a kill."""
    environment = {"MUTRANSFER_CHECKPOINT_SECONDS": "0.3", "MUTRANSFER_RAY_CPUS": "1"}
    with lab.site("disk", **environment) as site:
        site.submit(stub_study(site, rates=size.rates, widths=(8,), steps=STEPS, seconds=size.seconds))
        site.spawn("dispatcher")
        first = _wait_step(site, spared=None)
        _fill(site, first)
        second = _wait_step(site, spared=first)
        kept = _spoil_newest(site)
        kill([second.pid])
        site.wait_ended(1)
        found, refused = outcome(site), site.said("free space in the storage")
        again = [s.step for s in read_steps(site.steps) if s.trial == second.trial and s.pid != second.pid]
    return [
        at_least("checkpoints refused for want of room, and said so", refused, 1),
        exactly("resumed from the checkpoint before the corrupt one, at step", min(again, default=0) - 1, kept),
        exactly("results", found["results"], size.rates),
        exactly("trials given up", found["given up"], 0),
        exactly("studies completed", found["completed"], 1),
    ]


def _wait_step(site: Site, *, spared: Step | None) -> Step:
    """The step that a trial is at which has just begun (another one than `spared`, further along)."""
    found: list[Step] = []

    def seen() -> bool:
        last = read_steps(site.steps)[-1:]
        found.extend(s for s in last if (spared is None or s.trial != spared.trial) and _is_ripe(site, s, spared))
        return bool(found)

    wait_until(seen, what="a trial's step", every=0.01)
    return found[0]


def _is_ripe(site: Site, step: Step, spared: Step | None) -> bool:
    """The first trial at once; the second when it has two checkpoints."""
    return spared is None or (step.step < STEPS - 5 and len(_saved(site)) >= 2)


def _saved(site: Site) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [p for p in (site.home / "storage").glob("*/*/step-*.pt") if p.with_suffix(".sha256").exists()]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def _fill(site: Site, step: Step) -> None:
    """No checkpoint of the process that took this step can be written, until its trial is over."""
    [(key,)] = site.query(f"SELECT trial_key FROM study_trials WHERE lr_octaves = {step.lr_octaves}")
    folder = site.home / "storage" / key / "1"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(STEPS + 1):
        name = folder / f".step-{number}.pt.{step.pid}"
        if not name.exists():
            name.symlink_to(FULL)


def _spoil_newest(site: Site) -> int:
    """Flip a bit in the newest checkpoint; returns the step of the one before."""
    before, newest = _saved(site)[-2:]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    return int(before.stem.removeprefix("step-"))


def _spool(lab: Lab) -> list[Figure]:
    """The database goes while a result waits, and the spool has no room for it: it waits in memory."""
    from workers.recorder import Recorder, Spool

    with lab.site("spool") as site:
        life = Life(site.sessions)
        claim = life.claim()
        assert claim is not None
        store, storage = life.store(claim), site.home / "storage"
        store.mark_running()
        store.begin_phase("search")
        store.plan_trials("search", life.planned)
        folder = storage / "spool" / life.study_id
        folder.mkdir(parents=True)
        for trial in life.planned:
            (folder / f"{trial.key}.{os.getpid()}").symlink_to(FULL)
        recorder = Recorder(store, spool=Spool(storage, life.study_id), checkpoints=storage, epoch=claim.epoch)
        recorder.start()
        _away(lab, site)
        for number, trial in enumerate(life.planned):
            recorder.result(trial.key, build.result(2.0 + number))
        wait_until(lambda: not list(folder.iterdir()), what="the try to spool", seconds=120)
        _back(lab, site)
        written = recorder.close(timeout_seconds=60.0)
        stored = len(results(site))
    return [
        exactly("results of a full spool written after the outage", stored, len(life.planned)),
        exactly("recorder closed with nothing left", written, 1),
    ]


def _away(lab: Lab, site: Site) -> None:
    if lab.server is not None:
        lab.server.stop()
        return
    site.sessions.kw["bind"].dispose()
    for path in site.home.glob("mutransfer.db*"):
        path.rename(path.with_name(f"away-{path.name}"))
    (site.home / "mutransfer.db").mkdir()  # cannot be opened


def _back(lab: Lab, site: Site) -> None:
    if lab.server is not None:
        lab.server.start()
        return
    (site.home / "mutransfer.db").rmdir()
    for path in site.home.glob("away-*"):
        path.rename(path.with_name(path.name.removeprefix("away-")))


def _clock(lab: Lab) -> list[Figure]:
    """A driver holds its lease when the database's clock goes back; then the driver dies."""
    with lab.site("clock") as site:
        shift = _Clock(lab, site)
        sessions = session_factory(shift.engine)
        leases, life = Leases(sessions), Life(sessions)
        claim = leases.claim_next("one", TTL_SECONDS)
        assert claim is not None
        store = life.store(claim)
        store.mark_running()
        shift.set(-HOUR_SECONDS)
        stolen = leases.claim_next("two", TTL_SECONDS) is not None
        died = time.monotonic()
        taken = []
        wait_until(
            lambda: taken.extend(filter(None, [leases.claim_next("two", TTL_SECONDS)])) or taken,
            what="the takeover after the clock went back", seconds=60.0, every=0.1,
        )  # fmt: skip
        took = time.monotonic() - died
        life.drive(life.store(taken[0]))
        end = life.end()
        shift.engine.dispose()
    return [
        exactly("leases taken from a living driver when the clock went back an hour", stolen, 0),
        at_most("takeover of a dead driver's lease after that (s)", took, TTL_SECONDS + 2.0),
        exactly("results after that", len([loss for _, loss in end.losses if loss is not None]), len(life.planned)),
        exactly("study completed after that", end.state == "completed", 1),
    ]


class _Clock:
    """An engine whose database tells another time: its clock function is put over the built-in one."""

    def __init__(self, lab: Lab, site: Site) -> None:
        self._seconds = 0.0
        self._lab = lab
        url = site.settings.database_url
        if lab.server is None:
            self.engine = make_engine(url)
            event.listen(self.engine, "connect", self._replace)
            return
        name = url.rpartition("/")[2]
        with site.sessions.begin() as session:
            session.execute(text("CREATE SCHEMA shifted"))
            session.execute(text("CREATE TABLE shifted.by AS SELECT interval '0' AS seconds"))
            session.execute(
                text(
                    "CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
                    "'SELECT pg_catalog.clock_timestamp() + seconds FROM shifted.by'"
                )
            )
            session.execute(text(f'ALTER DATABASE "{name}" SET search_path = public, shifted, pg_catalog'))
        self.engine = make_engine(url)

    def set(self, seconds: float) -> None:
        """Put the clock this far from the true time."""
        self._seconds = seconds
        if self._lab.server is not None:
            with self.engine.begin() as connection:
                connection.execute(text(f"UPDATE shifted.by SET seconds = interval '{seconds} seconds'"))

    def _replace(self, connection: Any, _record: Any) -> None:
        def now(_what: str) -> float:
            return float(plain.execute("SELECT julianday('now')").fetchone()[0]) + self._seconds / 86400.0

        plain = sqlite3.connect(":memory:", check_same_thread=False)
        connection.create_function("julianday", 1, now)


ROW = Row(
    number=15,
    fault="disk full for checkpoints and for the spool; a corrupt checkpoint; the clock moved back 1 h",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(rates=6, seconds=4.0),
    short=Size(rates=2, seconds=3.0),
)
