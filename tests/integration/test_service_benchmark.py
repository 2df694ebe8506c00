"""The service's benchmark: a history that is sound, measured without a trace, and figures held to their bars."""

from pathlib import Path

import pytest

from benchmarks.service import seed, writes
from benchmarks.service.figures import Figure, Report
from service.db.integrity import problems
from service.db.session import make_engine, session_factory

TINY = seed.Scale(name="tiny", big=0, small=3)


@pytest.mark.postgres
def test_a_seeded_history_is_sound_and_measuring_leaves_it_as_it_was(postgres_url: str) -> None:
    assert seed.seed(postgres_url, TINY)
    assert not seed.seed(postgres_url, TINY)
    engine = make_engine(postgres_url)
    sessions = session_factory(engine)
    assert len(seed.study_ids(sessions, trials=50)) == 3
    assert seed.running(sessions)
    (sample,) = writes.claims([sessions], count=3)
    assert len(sample.seconds) == 3
    assert problems(postgres_url) == []
    assert not seed.seed(postgres_url, TINY)
    engine.dispose()


def figure(unit: str, bar: float, large: tuple[float, ...], small: tuple[float, ...]) -> Figure:
    return Figure(name="x", unit=unit, bar=bar, large_rounds=large, small_rounds=small)


def test_a_figure_holds_when_it_meets_its_bar_and_does_not_grow(tmp_path: Path) -> None:
    assert figure("ms", 30.0, (20.0, 90.0, 10.0), (11.0,)).holds  # the median of the rounds
    assert not figure("ms", 30.0, (31.0,), (31.0,)).holds
    assert not figure("ms", 30.0, (20.0,), (9.9,)).holds
    assert figure("per_second", 500.0, (600.0,), (1100.0,)).holds
    assert not figure("per_second", 500.0, (499.0,), (499.0,)).holds
    assert not figure("per_second", 500.0, (600.0,), (1300.0,)).holds
    missed = Report(
        when="2026-11-26 01:02", machine="m", server={"server_version": "15.1"}, mlflow_runs_per_second=None,
        figures=[figure("ms", 30.0, (31.0,), (31.0,))],
    )  # fmt: skip
    kept, page = missed.keep(tmp_path)
    assert kept.name == "2026-11-26-0102.json"
    assert "MISSED" in page.read_text()
    assert not missed.holds
