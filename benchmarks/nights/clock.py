"""Row 10 of the fault tests: two schedulers, a year's fire times with its changes of the clock, kills and outages.

Two real scheduler processes work on one database; their clock is a file that this one moves from slot to slot. Now and
then one or both are killed, and some stretches of days pass with nobody there. What must hold is counted from the rows,
against slots worked out here, day by day, without the service's own arithmetic.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from itertools import pairwise
import os
from pathlib import Path
from random import Random
import subprocess
import sys
import time
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from service.db import schedules
from service.db.session import Sessions, make_engine, reading, session_factory, transact
from service.db.states_schedules import Concurrency
from service.db.tables import StudyRow
from service.db.tables_schedules import NightRow, ScheduleRow
from service.schedules.slots import Slots
from tests import study_builders as build

TOP = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 300.0
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Daily:
    """A schedule for one local time a day, in a zone whose clock changes around that time (or never)."""

    zone: str
    at: clock_time

    @property
    def name(self) -> str:
        """Of the schedule."""
        return f"{self.zone.replace('/', '-')} {self.at:%H.%M}"

    @property
    def cron(self) -> str:
        """As the service is told."""
        return f"{self.at.minute} {self.at.hour} * * *"

    def slot(self, day: date) -> float:
        """Its instant: the first of two, and a time that the clock skips as much later as it skips."""
        zone = ZoneInfo(self.zone)
        local = datetime.combine(day, self.at, zone)
        exists = local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None)
        if exists:
            return local.timestamp()
        before = local.utcoffset()  # fold 0 of a skipped time: the offset before the change
        assert before is not None
        return (local.replace(tzinfo=UTC) - before).timestamp()


DAILY = (
    Daily(zone="Europe/Berlin", at=clock_time(2, 30)),  # skipped in March, twice in October
    Daily(zone="America/New_York", at=clock_time(1, 30)),  # twice in November
    Daily(zone="Australia/Lord_Howe", at=clock_time(2, 15)),  # changes by half an hour
    Daily(zone="Asia/Kolkata", at=clock_time(2, 30)),  # never changes
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: stretches of days (first, how many), schedules, kills a hundred slots, outages of some days."""

    stretches: tuple[tuple[str, int], ...]
    schedules: int
    kills_percent: float
    outages: int

    @property
    def days(self) -> list[tuple[date, int]]:
        """The stretches with dates."""
        return [(date.fromisoformat(first), days) for first, days in self.stretches]


LONG = Size(stretches=(("2026-03-01", 275),), schedules=4, kills_percent=3.0, outages=6)
SHORT = Size(
    stretches=(("2026-03-27", 4), ("2026-10-23", 5)), schedules=2, kills_percent=20.0, outages=1
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was counted. The last four must be zero."""

    slots: int
    nights: int
    passed_while_away: int
    clock_changes: int
    kills: int
    outages: int
    catch_ups: int  # nights that ran for more than their own slot
    unknown: int  # nights at no slot
    doubled: int  # slots with two nights or two studies
    lost: int  # slots that neither ran nor are counted as missed
    beyond_one: int  # catch-ups more than one an outage and schedule


class _Schedulers:
    """Two processes, killed and started again."""

    def __init__(self, url: str, clock: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "benchmarks.nights.clock_process", url, str(clock)]
        self._log = log.open("ab")
        self._running: list[subprocess.Popen[bytes]] = []
        self.kills = 0
        self.fill()

    def fill(self) -> None:
        """Start what is missing."""
        env = {**os.environ, "PYTHONPATH": str(TOP)}
        while len(self._running) < 2:
            self._running.append(
                subprocess.Popen(self._command, env=env, cwd=TOP, stdout=self._log, stderr=self._log)
            )  # fmt: skip

    def kill(self, number: int) -> None:
        """kill -9."""
        for child in self._running[:number]:
            child.kill()
            child.wait()
            self.kills += 1
        del self._running[:number]

    def close(self) -> None:
        """Leave none."""
        for child in self._running:
            child.kill()
            child.wait()
        self._log.close()


def run(url: str, folder: Path, size: Size, rng: Random, *, say: Callable[[str], None] = lambda _line: None) -> Outcome:
    """Live through all stretches on the migrated database at `url`, and count. Raises TimeoutError."""
    sessions = session_factory(make_engine(url))
    chosen = DAILY[: size.schedules]
    slots = {daily.name: _slots(daily, size.days) for daily in chosen}
    moments = sorted({slot for found in slots.values() for slot in found})
    clock = folder / "clock"
    _set(clock, moments[0] - 60.0)
    for daily in chosen:
        _make(sessions, daily, moments[0] - 60.0)
    outages = _outages(size, moments, rng)
    schedulers = _Schedulers(url, clock, folder / "schedulers.log")
    try:
        _live(sessions, schedulers, clock, moments, outages, size, rng, say)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{(folder / 'schedulers.log').read_text(errors='replace')[-3000:]}") from error
    finally:
        schedulers.close()
    try:
        return _count(sessions, chosen, size, moments[-1], kills=schedulers.kills, outages=len(outages))
    finally:
        sessions.kw["bind"].dispose()


def _slots(daily: Daily, stretches: Sequence[tuple[date, int]]) -> list[float]:
    return [daily.slot(first + number * _DAY) for first, days in stretches for number in range(days)]


def _make(sessions: Sessions, daily: Daily, now: float) -> None:
    spec = build.spec()
    values = {
        "name": daily.name, "project": spec.project, "cron": daily.cron, "time_zone": daily.zone,
        "spec": spec.model_dump(mode="json"), "sensitivity": {}, "concurrency": Concurrency.REPLACE,
        "next_at": Slots(cron=daily.cron, time_zone=daily.zone).after(now),
    }  # fmt: skip
    transact(sessions, lambda session: schedules.create(session, values))


def _outages(size: Size, moments: Sequence[float], rng: Random) -> Mapping[int, int]:
    """Where nobody is there: index of the first moment → how many pass, some days' worth."""
    starts = rng.sample(range(len(moments) // 8, len(moments) * 7 // 8), size.outages)
    return {start: rng.randint(2, 3) * size.schedules for start in starts}


def _live(
    sessions: Sessions, schedulers: _Schedulers, clock: Path, moments: Sequence[float], outages: Mapping[int, int],
    size: Size, rng: Random, say: Callable[[str], None],
) -> None:  # fmt: skip
    index = 0
    while index < len(moments):
        if index in outages:
            schedulers.kill(2)
            index = min(index + outages[index], len(moments) - 1)
        _set(clock, moments[index] + rng.uniform(0.0, 50.0))
        if rng.uniform(0.0, 100.0) < size.kills_percent:
            time.sleep(rng.uniform(0.0, 0.05))  # somewhere in the middle of it
            schedulers.kill(rng.choice((1, 1, 2)))
        schedulers.fill()
        _wait(sessions, moments[index])
        index += 1
        if index % 100 == 0:
            say(f"{index} of {len(moments)} moments, {schedulers.kills} kills")


def _set(clock: Path, now: float) -> None:
    partial = clock.with_suffix(".part")
    partial.write_text(repr(now))
    partial.replace(clock)


def _wait(sessions: Sessions, moment: float) -> None:
    """Until no slot up to `moment` is left to be looked at. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with reading(sessions) as session:
            if (session.scalar(select(func.min(ScheduleRow.next_at))) or 0.0) > moment:
                return
        time.sleep(0.01)
    raise TimeoutError(f"a slot at {datetime.fromtimestamp(moment, UTC)} was not fired")


def _count(
    sessions: Sessions, chosen: Sequence[Daily], size: Size, end: float, *, kills: int, outages: int
) -> Outcome:  # fmt: skip
    with reading(sessions) as session:
        rows = {row.name: row for row in session.scalars(select(ScheduleRow))}
        nights = {
            name: sorted(session.scalars(select(NightRow).where(NightRow.schedule_id == row.id)), key=_fire_at)
            for name, row in rows.items()
        }
        studies = session.scalar(select(func.count()).select_from(StudyRow)) or 0
    unknown = doubled = lost = catch_ups = total = 0
    for daily in chosen:
        every = _every(daily, size, end)
        fired = [night.fire_at for night in nights[daily.name]]
        places = [bisect_right(every, at) - 1 for at in fired]
        unknown += sum(every[place] != at for place, at in zip(places, fired, strict=True))
        doubled += len(fired) - len(set(fired))
        gaps = [after - before - 1 for before, after in pairwise([-1, *places])]
        missed = [night.missed for night in nights[daily.name]]
        lost += sum(abs(gap - said) for gap, said in zip(gaps, missed, strict=True)) + len(every) - 1 - places[-1]
        catch_ups += sum(said > 0 for said in missed)
        total += len(every)
    fired_total = sum(map(len, nights.values()))
    jumps = outages + len(size.stretches) - 1
    return Outcome(
        slots=total, nights=fired_total, passed_while_away=total - fired_total,
        clock_changes=sum(_changes(daily, size) for daily in chosen), kills=kills, outages=jumps, catch_ups=catch_ups,
        unknown=unknown, doubled=doubled + abs(studies - fired_total), lost=lost,
        beyond_one=max(0, catch_ups - jumps * len(chosen)),
    )  # fmt: skip


def _fire_at(night: NightRow) -> float:
    return night.fire_at


def _every(daily: Daily, size: Size, end: float) -> list[float]:
    """All slots from the first stretch's beginning to the end, those between stretches too."""
    first = size.days[0][0]
    last = size.days[-1][0] + size.days[-1][1] * _DAY
    return [slot for number in range((last - first).days + 1) if (slot := daily.slot(first + number * _DAY)) <= end]


def _changes(daily: Daily, size: Size) -> int:
    """How often a schedule's clock is changed within the stretches."""
    zone, found = ZoneInfo(daily.zone), 0
    for first, days in size.days:
        offsets = [datetime.combine(first + n * _DAY, clock_time(12), zone).utcoffset() for n in range(days)]
        found += sum(a != b for a, b in pairwise(offsets))
    return found
