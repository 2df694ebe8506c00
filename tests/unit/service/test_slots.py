"""Slots in time zones: around changes of the clock, after outages, and expressions that nobody may store."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mutransfer.errors import SpecError
from service.schedules.slots import MAX_MISSED, Slots, local_time

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"]


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


def slots(cron: str, zone: str, start: float, count: int) -> list[str]:
    found = islice(Slots(cron=cron, time_zone=zone).iterate(start), count)
    return [local_time(slot, zone) for slot in found]


def test_a_time_that_the_clock_skips_fires_once_as_much_later() -> None:
    assert slots("30 2 * * *", "Europe/Berlin", at(2026, 3, 28, 0), 3) == [
        "2026-03-28 02:30:00+01:00", "2026-03-29 03:30:00+02:00", "2026-03-30 02:30:00+02:00",
    ]  # fmt: skip


def test_a_time_that_comes_twice_fires_at_the_first() -> None:
    assert slots("30 2 * * *", "Europe/Berlin", at(2026, 10, 24, 12), 2) == [
        "2026-10-25 02:30:00+02:00", "2026-10-26 02:30:00+01:00",
    ]  # fmt: skip


def test_a_clock_that_changes_by_half_an_hour() -> None:
    assert slots("15 2 * * *", "Australia/Lord_Howe", at(2026, 10, 3, 0), 2) == [
        "2026-10-04 02:45:00+11:00", "2026-10-05 02:15:00+11:00",
    ]  # fmt: skip


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 28, 23), 23), ((2026, 10, 24, 22), 25), ((2026, 6, 9, 22), 24)])
def test_every_half_hour_means_elapsed_time(day: tuple[int, ...], hours: int) -> None:
    start = at(*day)  # local midnight
    found = list(islice(Slots(cron="*/30 * * * *", time_zone="Europe/Berlin").iterate(start - 1), 2 * hours + 1))
    assert [b - a for a, b in pairwise(found)] == [1800.0] * (2 * hours)
    assert local_time(found[-1], "Europe/Berlin")[11:16] == "00:00"


@settings(max_examples=60, deadline=None)
@given(
    hour=st.integers(0, 23), minute=st.integers(0, 59), offset=st.integers(0, 365 * 24 * 60),
    zone=st.sampled_from(ZONES),
)  # fmt: skip
def test_a_daily_schedule_comes_once_each_local_day(hour: int, minute: int, offset: int, zone: str) -> None:
    start = at(2026, 1, 1) + 60.0 * offset
    found = list(islice(Slots(cron=f"{minute} {hour} * * *", time_zone=zone).iterate(start), 8))
    assert found == sorted(set(found))
    days = [datetime.fromisoformat(local_time(slot, zone)).date() for slot in found]
    # A time just before midnight that the clock skips may come on the next day's first minutes.
    assert all(timedelta(0) <= b - a <= timedelta(days=2) for a, b in pairwise(days))
    assert 6 <= (days[-1] - days[0]).days <= 8
    assert all(22.5 * 3600 <= b - a <= 25.5 * 3600 for a, b in pairwise(found))


@settings(max_examples=30, deadline=None)
@given(away=st.integers(0, 200), extra=st.integers(0, 86_399))
def test_the_newest_missed_slot_is_due_and_the_others_are_counted(away: int, extra: int) -> None:
    found = Slots(cron="30 2 * * *", time_zone="UTC")
    first = found.after(at(2026, 2, 1))
    assert found.due(first, first + away * 86_400.0 + extra) == (first + away * 86_400.0, away)


def test_a_very_long_outage_is_bounded() -> None:
    found = Slots(cron="* * * * *", time_zone="UTC")
    first = at(2026, 1, 1)
    newest, missed = found.due(first, first + 365 * 86_400.0 + 30.0)
    assert (newest, missed) == (first + 365 * 86_400.0, MAX_MISSED)


@pytest.mark.parametrize(
    ("cron", "zone", "field"),
    [
        ("61 * * * *", "UTC", "cron"), ("* * * *", "UTC", "cron"), ("@daily", "UTC", "cron"), ("", "UTC", "cron"),
        ("0 0 31 2 *", "UTC", "cron"), ("* * * * * *", "UTC", "cron"), ("0 0 * * *", "Berlin", "time_zone"),
        ("0 0 * * *", "../etc/passwd", "time_zone"), ("0 0 * * *", "", "time_zone"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_by_name(cron: str, zone: str, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        Slots(cron=cron, time_zone=zone)
    assert [problem.field for problem in refused.value.problems] == [field]


def test_a_zone_that_this_machine_does_not_know_is_read_in_utc() -> None:
    assert local_time(0.0, "Europe/Berlin") == "1970-01-01 01:00:00+01:00"
    assert local_time(0.0, "Mars/Olympus_Mons") == "1970-01-01 00:00:00+00:00"
