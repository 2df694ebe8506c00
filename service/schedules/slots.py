"""The slots of a cron expression in a time zone, as instants.

A schedule for given hours (`30 2 * * *`) means local times: one that the clock skips fires once, as much later as the
clock skipped; one that comes twice fires at the first. A schedule for every hour (`*/10 * * * *`) means elapsed time
and takes no notice of changes of the clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from mutransfer.errors import SpecError

#: No clock is changed by more than this at once.
_LARGEST_CHANGE = timedelta(hours=3)
#: Missed slots are counted up to here.
MAX_MISSED = 10_000
_HOUR = 1


def local_time(instant: float, time_zone: str) -> str:
    """An instant as people of a time zone write it, to the second, with the offset.

    In UTC where this machine knows no such zone: what was stored with another database of zones stays readable.
    """
    zone = ZoneInfo(time_zone) if time_zone in _zones() else UTC
    return datetime.fromtimestamp(instant, zone).isoformat(sep=" ", timespec="seconds")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The slots of one schedule. Instants are seconds since the epoch. Raises SpecError naming the field at fault."""

    cron: str
    time_zone: str

    def __post_init__(self) -> None:
        if self.time_zone not in _zones():
            message = f"unknown time zone {self.time_zone!r}: use an IANA name such as Europe/Berlin or UTC"
            raise SpecError.at("time_zone", message)
        if len(self.cron.split()) != 5:
            message = f"{self.cron!r} must have five fields: minute, hour, day of month, month, day of week"
            raise SpecError.at("cron", message)
        try:
            next(CronSim(self.cron, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise SpecError.at("cron", f"{self.cron!r}: {error}") from None
        except StopIteration:
            raise SpecError.at("cron", f"{self.cron!r} never comes: no such day in fifty years") from None

    def after(self, instant: float) -> float:
        """The first slot after `instant`."""
        return next(self.iterate(instant))

    def due(self, first: float, now: float) -> tuple[float, int]:
        """(newest slot up to `now`, how many come before it), given that `first` is a slot and not after `now`."""
        newest, missed = first, 0
        for slot in islice(self.iterate(first), MAX_MISSED):
            if slot > now:
                return newest, missed
            newest, missed = slot, missed + 1
        return self._newest(now), missed

    def iterate(self, instant: float) -> Iterator[float]:
        """Slots after `instant`, rising."""
        zone = ZoneInfo(self.time_zone)
        local = datetime.fromtimestamp(instant, zone)
        if self.cron.split()[_HOUR].startswith("*"):
            yield from (slot.timestamp() for slot in CronSim(self.cron, local) if slot.timestamp() > instant)
        else:
            yield from _local_slots(self.cron, local.replace(tzinfo=None), zone, instant)

    def _newest(self, now: float) -> float:
        """The newest slot up to `now`, looking back further and further."""
        back = 3600.0
        while True:
            before = list(_until(self.iterate(now - back), now))
            if before:
                return before[-1]
            back *= 4.0


def _until(slots: Iterator[float], now: float) -> Iterator[float]:
    for slot in slots:
        if slot > now:
            return
        yield slot


def _local_slots(cron: str, local: datetime, zone: ZoneInfo, instant: float) -> Iterator[float]:
    """Local times in their order, as instants in theirs: around a change of the clock the two orders differ."""
    pending: set[float] = set()
    done = instant
    for naive in CronSim(cron, local - _LARGEST_CHANGE):
        # `fold=0`: the first of two, and for a time that does not exist the offset before the change.
        settled = (naive - _LARGEST_CHANGE).replace(tzinfo=zone, fold=0).timestamp()
        for slot in sorted(pending):
            if slot < settled:
                pending.remove(slot)
                done = slot
                yield slot
        found = naive.replace(tzinfo=zone, fold=0).timestamp()
        if found > done:
            pending.add(found)
