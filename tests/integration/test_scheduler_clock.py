"""The short form of row 10: two schedulers, two changes of the clock, kills, and stretches with nobody there."""

from pathlib import Path
from random import Random

from benchmarks.nights.clock import SHORT, run
from service.db.migrate import upgrade


def test_one_study_a_slot_and_one_catch_up_whatever_happens(database_url: str, tmp_path: Path) -> None:
    upgrade(database_url)
    found = run(database_url, tmp_path, SHORT, Random(4))
    assert found.nights >= 10
    assert found.clock_changes >= 2
    assert found.kills >= 2
    assert found.passed_while_away > 100
    assert 1 <= found.catch_ups <= found.outages * SHORT.schedules
    assert (found.unknown, found.doubled, found.lost, found.beyond_one) == (0, 0, 0, 0)
