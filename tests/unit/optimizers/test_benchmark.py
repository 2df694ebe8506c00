"""The optimizer benchmark: every contestant steps, and the goals are what the table says."""

import pytest

from benchmarks.contests import Contest, Contestant, contests, gpt_matrices
from benchmarks.optimizers import Row, goals, measure
from tests.unit.optimizers.support import DEVICE

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers warn


@pytest.mark.parametrize("contest", contests(), ids=lambda contest: f"{contest.name}-{contest.widths}")
def test_every_contestant_steps(contest: Contest) -> None:
    """On tiny matrices; heavyball is an extra, and bf16 products are slow."""
    installed = [c for c in contest.contestants if c.name not in ("heavyball", "torch (bf16)")]
    small = Contest(name=contest.name, contestants=installed, share=contest.share)
    rows = measure(small, 16, 1, steps=2, cap_s=60.0, device=DEVICE)
    assert [len(row.steps_ms) for row in rows] == [2] * len(installed)
    assert all(row.first_ms > 0.0 for row in rows)


def test_the_matrices_are_those_of_a_gpt() -> None:
    for width, layers in ((256, 4), (512, 1)):
        assert sum(rows * columns for rows, columns in gpt_matrices(width, layers)) == 3_145_728


def test_a_contestant_stops_at_its_cap_and_one_that_is_missing_is_left_out() -> None:
    def missing(parameters: object) -> None:
        raise ImportError("no such package")

    slow = Contestant(name="slow", build=lambda parameters: lambda: sum(range(200_000)) and None)
    gone = Contestant(name="gone", build=missing)  # type: ignore[arg-type]
    (row,) = measure(Contest(name="any", contestants=[slow, gone], share=1.0), 8, 1, steps=50, cap_s=0.0)
    assert (row.over_cap, row.steps_ms) == (True, [])
    assert "over cap" in str(row)


def _row(name: str, *steps_ms: float, ours: bool = False, over_cap: bool = False, judged: bool = True) -> Row:
    return Row(
        contest="any", width=8, name=name, ours=ours, steps_ms=list(steps_ms), over_cap=over_cap, judged=judged
    )  # fmt: skip


def test_goals_by_hand() -> None:
    contest = Contest(name="any", contestants=[], share=0.9, worst_over_median=3.0)
    ours = _row("ours", 1.0, 1.0, 7.0, ours=True)
    rows = [
        ours, _row("slow", 9.0), _row("best", 4.0),
        _row("shown only", 1.0, judged=False), _row("stopped", 1.0, over_cap=True),
    ]  # fmt: skip
    mean, worst = goals(contest, rows)
    assert (mean.what, mean.ratio, mean.met) == ("any: mean of ours / best", 0.75, True)
    assert (worst.ratio, worst.met) == (7.0, False)
    assert "MISSED" in str(worst)


def test_ours_without_a_step_misses_its_goal() -> None:
    contest = Contest(name="any", contestants=[], share=0.9)
    (goal,) = goals(contest, [_row("ours", ours=True, over_cap=True), _row("best", 4.0)])
    assert not goal.met
