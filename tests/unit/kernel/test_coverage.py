"""The 95 % intervals hold the truth as often as they claim to: 500 studies each, through the search itself."""

import numpy as np
import pytest

from benchmarks.coverage import SHAPES, Case, coverage, joint_coverage, simulate, steep_right

STUDIES = 500
#: What 500 real ones must show: verdict.md's promise, on curves as noisy as the real ones (0.002 to 0.03 nats a trial).
LEAST, MOST = 0.88, 0.99
NOISE = (0.002, 0.03)


@pytest.mark.parametrize("seeds", [(2, 2), (4, 4), (2, 4)], ids=["2 seeds", "4 seeds", "2 to 4 seeds"])
@pytest.mark.parametrize("shape", ["symmetric", "steep right"])
def test_intervals_hold_the_true_optimum_and_loss(
    shape: str, seeds: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    result = coverage(Case(shape=shape, seeds=seeds, noise=NOISE), studies=STUDIES, seed=11)
    with capsys.disabled():
        print(  # noqa: T201 - the figures are the point
            f"\n  {shape}, {seeds[0]} to {seeds[1]} seeds: optimum held {result.optimum:.1%}, loss {result.loss:.1%}, "
            f"half-width {result.half_width:.2f} octaves, {result.judged} of {STUDIES} bracketed"
        )
    assert LEAST <= result.optimum <= MOST
    assert LEAST <= result.loss <= MOST
    assert result.judged >= 0.95 * STUDIES  # the interval is not bought by refusing to judge
    assert result.half_width <= 0.3
    assert abs(result.bias) <= 0.05


@pytest.mark.parametrize("moved", [0.0, -0.5])
def test_intervals_of_drift_and_regret_hold_too(moved: float) -> None:
    """Joint draws of proxy and target, on the steep curve, over 200 studies."""
    case = Case(shape="steep right", seeds=(2, 4), noise=NOISE)
    result = joint_coverage(case, moved=moved, studies=200, seed=3)
    assert result.studies >= 190
    assert LEAST <= result.drift <= MOST
    assert LEAST <= result.regret <= MOST


def test_the_steep_curve_is_one_that_a_plain_parabola_gets_wrong() -> None:
    """The bias verdict.md warns of: a quadratic over ±2 octaves, without any noise."""
    x = np.arange(-2.0, 2.01, 0.5)
    c2, c1, _ = np.polyfit(x, [steep_right(d) for d in x], 2)
    assert -c1 / (2 * c2) < -0.3


def test_simulated_curves_have_their_minimum_at_the_optimum() -> None:
    for shape in SHAPES.values():
        assert shape(0.0) == 0.0
        assert min(shape(-0.01), shape(0.01)) > 0.0


def test_a_study_is_reproducible_from_its_generator() -> None:
    case = Case(shape="symmetric", seeds=(2, 4), noise=NOISE)
    assert simulate(case, np.random.default_rng(5)) == simulate(case, np.random.default_rng(5))
