"""The short form of `make bench-nights`: the same code over fewer nights."""

import pytest

from benchmarks.nights import __main__ as bench
from benchmarks.nights.run import FAULTS, Planted, document, is_right, planted, unchanged, wilson_upper
from benchmarks.nights.world import ARMS, World
from mutransfer.nights import Sensitivity
from mutransfer.regression import judge_night


def test_unchanged_nights_are_not_flagged() -> None:
    found = unchanged(40, nights_a_schedule=4)
    assert found.nights == 40
    assert found.flagged <= 1, found.examples


@pytest.mark.parametrize("case", [case for case in FAULTS if case.bar], ids=lambda case: case.name)
def test_a_planted_fault_is_flagged_the_first_night_with_the_right_reason(case: Planted) -> None:
    found = planted(case, 4)
    assert (found.nights, found.flagged, found.right) == (4, 4, 4)


def test_blaming_another_arm_is_not_right() -> None:
    from benchmarks.coverage import SHAPES
    from benchmarks.nights.run import Truth
    from benchmarks.nights.world import Fault

    world = World(Truth(shape=next(iter(SHAPES)), rerun_sd=1e-6, seed=3))
    baseline = world.night()
    both = judge_night(
        world.night(Fault(shift=dict.fromkeys(ARMS, 0.5))), baseline, sensitivity=Sensitivity(), past={}
    )  # fmt: skip
    assert both.flagged
    assert not is_right(FAULTS[0], both)


def test_wilsons_bound_is_the_textbooks() -> None:
    assert wilson_upper(0, 2000) == pytest.approx(0.00191706, rel=1e-4)
    assert wilson_upper(10, 100) == pytest.approx(0.17437, rel=1e-3)


def test_a_run_that_misses_a_bar_does_not_pass() -> None:
    found = [planted(FAULTS[0], 2)]
    good = document(unchanged(4, nights_a_schedule=2), found)
    assert bench.passes(good)
    assert "| 4 | 0 | 0.00%" in "\n".join(bench.lines(good))
    found[0].right = 1
    assert not bench.passes(document(unchanged(4, nights_a_schedule=2), found))
