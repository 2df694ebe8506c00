"""The bracket search: what it asks on curves with a known answer, and that it always ends, whatever it is told."""

from math import isfinite

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mutransfer.fit import fit_landscape, half_width
from mutransfer.points import landscape
from mutransfer.result import CurveStatus
from mutransfer.search import WANTED_HALF_WIDTH, next_points, proxy_start, target_start
from mutransfer.spec import SearchSpec
from mutransfer.trial import Observation
from tests.curves import Loss, parabola, search_spec, searched


def _rates(observations: tuple[Observation, ...]) -> list[float]:
    return sorted({o.lr_octaves for o in observations})


def test_a_proxy_starts_from_the_coarse_grid_at_the_least_seeds() -> None:
    search = search_spec()
    first = next_points(search, (), start=proxy_start(search))
    assert first.status is CurveStatus.INCOMPLETE
    assert first.points == tuple((lr, seed) for lr in (-8.0, -7.0, -6.0, -5.0, -4.0, -3.0) for seed in (0, 1))


def test_a_target_starts_from_the_recorded_rate_on_its_own_lattice() -> None:
    search = search_spec()
    start = target_start(search, -4.63)
    assert start == (-4.63, -5.63, -3.63, -6.63, -2.63)
    found, end, _ = searched(search, parabola(-4.4), start=start)
    assert end.status is CurveStatus.BRACKETED
    assert all(abs((lr + 4.63) * 2 - round((lr + 4.63) * 2)) < 1e-9 for lr in _rates(found))


def test_half_octaves_are_filled_around_the_best_only() -> None:
    search = search_spec()
    found, end, _ = searched(search, parabola(-5.1), start=proxy_start(search))
    assert end.status is CurveStatus.BRACKETED
    assert _rates(found) == [-8.0, -7.0, -6.5, -6.0, -5.5, -5.0, -4.5, -4.0, -3.5, -3.0]
    assert {o.seed for o in found} == {0, 1}  # no noise: two seeds are enough


@pytest.mark.parametrize("optimum", [-13.2, -8.1, -3.0, 1.3])
def test_the_bracket_widens_to_an_optimum_outside_the_grid(optimum: float) -> None:
    search = search_spec()
    found, end, _ = searched(search, parabola(optimum), start=proxy_start(search))
    assert end.status is CurveStatus.BRACKETED
    fit = fit_landscape(landscape(found), rng_seed=0)
    assert fit is not None
    assert fit.optimum == pytest.approx(optimum, abs=0.02)


@pytest.mark.parametrize("slope", [0.05, -0.05])
def test_a_monotone_curve_is_unbracketed_at_the_limit(slope: float) -> None:
    search = search_spec(lr_octaves={"limit": [-12, 0]})
    found, end, _ = searched(search, lambda lr, _: 3.0 + slope * lr, start=proxy_start(search))
    assert end.status is CurveStatus.UNBRACKETED
    limit = -12 if slope > 0 else 0
    assert f"2^{limit}" in end.reason
    assert limit in _rates(found)


def test_a_limit_off_the_coarse_grid_is_approached_by_half_octaves() -> None:
    search = search_spec(lr_octaves={"limit": [-9.5, 0.2]})
    found, end, _ = searched(search, lambda lr, _: 3.0 - 0.1 * lr, start=proxy_start(search))
    assert end.status is CurveStatus.UNBRACKETED
    assert max(_rates(found)) == 0.0


def test_everything_diverging_sends_the_search_down_and_ends_empty() -> None:
    search = search_spec(lr_octaves={"limit": [-12, 0]})
    found, end, _ = searched(search, lambda lr, seed: None, start=proxy_start(search))
    assert (end.status, min(_rates(found))) == (CurveStatus.EMPTY, -12.0)
    assert "diverged at every learning rate" in end.reason
    found, end, _ = searched(search, parabola(-10.2, edge=2.0), start=proxy_start(search))
    assert end.status is CurveStatus.BRACKETED


def test_divergence_right_above_the_best_is_bisected_then_edge_limited() -> None:
    search = search_spec()
    found, end, _ = searched(search, parabola(-4.0, edge=0.4), start=proxy_start(search))
    assert end.status is CurveStatus.EDGE_LIMITED
    assert -3.5 in _rates(found)  # bisected
    assert -2.5 not in _rates(found)  # nothing is to be learned between rates that diverge
    assert "2^-3.5" in end.reason


def test_two_finite_points_before_divergence_are_enough() -> None:
    search = search_spec()
    _, end, _ = searched(search, parabola(-4.0, edge=1.2), start=proxy_start(search))
    assert end.status is CurveStatus.BRACKETED


def test_an_outermost_point_not_clearly_worse_widens_the_bracket() -> None:
    """Flat to the left: 0.008 nats worse at -8 is nothing where two seeds differ by 0.02."""

    def loss(lr: float, seed: int) -> float:
        left = 0.002 * (lr + 6) ** 2
        noise = 0.01 if (int(lr // 1) + seed) % 2 else -0.01
        return 2.0 + (left if lr < -6 else 0.1 * (lr + 6) ** 2) + noise

    search = search_spec(seeds={"min": 2, "max": 2})
    found, end, asked = searched(search, loss, start=proxy_start(search))
    assert end.status is CurveStatus.BRACKETED
    assert asked[1].points == ((-9.0, 0), (-9.0, 1))
    assert min(_rates(found)) <= -10.0


def test_seeds_are_added_around_the_optimum_until_it_is_known_well_enough() -> None:
    rng = np.random.default_rng(0)
    noise = {(lr / 2, seed): float(rng.normal(0, 0.03)) for lr in range(-60, 20) for seed in range(8)}

    def loss(lr: float, seed: int) -> float:
        return 2.0 + 0.04 * (lr + 5.2) ** 2 + noise[lr, seed]

    search = search_spec(seeds={"min": 2, "max": 8})
    found, _, asked = searched(search, loss, start=proxy_start(search))
    fit = fit_landscape(landscape(found), rng_seed=0)
    assert fit is not None
    assert half_width(fit.optimum_interval()) <= WANTED_HALF_WIDTH
    assert any(proposal.reason.startswith("seed 3") for proposal in asked)
    seeds_at = {lr: {o.seed for o in found if o.lr_octaves == lr} for lr in _rates(found)}
    assert seeds_at[-8.0] == {0, 1}  # far from the optimum more seeds tell nothing
    assert len(seeds_at[-5.0]) > 2


def test_seeds_stop_at_their_maximum() -> None:
    rng = np.random.default_rng(1)
    search = search_spec(seeds={"min": 2, "max": 3})
    found, end, _ = searched(
        search, lambda lr, _: 2.0 + 0.01 * (lr + 5) ** 2 + float(rng.normal(0, 0.02)), start=proxy_start(search)
    )
    assert max(o.seed for o in found) == 2
    assert end.status in (CurveStatus.BRACKETED, CurveStatus.UNBRACKETED)


def test_trials_that_failed_for_good_are_never_asked_again() -> None:
    search = search_spec()
    failing = {(-5.0, 0), (-5.0, 1), (-4.5, 1), (-9.0, 0)}
    found, end, asked = searched(search, parabola(-5.1), start=proxy_start(search), failing=failing)
    assert end.status is CurveStatus.BRACKETED
    assert -5.0 not in _rates(found)
    points = [point for proposal in asked for point in proposal.points]
    assert len(points) == len(set(points))


def test_a_curve_that_can_never_run_is_empty() -> None:
    search = search_spec()
    everything = {(lr / 2, seed) for lr in range(-50, 20) for seed in range(5)}
    found, end, _ = searched(search, parabola(-5.0), start=proxy_start(search), failing=everything)
    assert (found, end.status) == ((), CurveStatus.EMPTY)


def test_grid_runs_exactly_its_points_and_says_when_they_do_not_bracket() -> None:
    search = search_spec(algorithm="grid", lr_octaves={"low": -7, "high": -3, "step": 0.5})
    found, end, _ = searched(search, parabola(-5.0), start=proxy_start(search))
    assert _rates(found) == [-7.0, -6.5, -6.0, -5.5, -5.0, -4.5, -4.0, -3.5, -3.0]
    assert end.status is CurveStatus.BRACKETED
    _, end, _ = searched(search, parabola(-3.2), start=proxy_start(search))
    assert end.status is CurveStatus.UNBRACKETED
    assert target_start(search, -5.12)[:2] == (-5.12, -7.0)


# --- whatever the curve ----------------------------------------------------------------------------------------------

SEARCHES = st.builds(
    lambda low, count, step, below, above, seeds, extra, algorithm: search_spec(
        algorithm=algorithm,
        lr_octaves={
            "low": low,
            "high": low + count * step,
            "step": step,
            "limit": [low - below, low + count * step + above],
        },
        seeds={"min": seeds, "max": seeds + extra},
    ),
    low=st.integers(-12, -4).map(float),
    count=st.integers(1, 6),
    step=st.sampled_from([0.5, 0.75, 1.0, 2.0]),
    below=st.floats(0, 5).map(lambda x: round(x, 2)),
    above=st.floats(0, 5).map(lambda x: round(x, 2)),
    seeds=st.integers(1, 3),
    extra=st.integers(0, 2),
    algorithm=st.sampled_from(["bracket", "grid"]),
)


@st.composite
def curves(draw: st.DrawFn) -> Loss:
    """Any curve at all: noisy, flat, monotone, wild, diverging above an edge or at random."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    optimum = draw(st.floats(-14, 2))
    kind = draw(st.sampled_from(["parabola", "flat", "rising", "falling", "wild"]))
    noise = draw(st.sampled_from([0.0, 0.002, 0.03, 1.0]))
    edge = draw(st.floats(-16, 6))
    odds = draw(st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]))
    shapes = {
        "parabola": lambda d: 0.06 * d * d,
        "flat": lambda d: 0.0,
        "rising": lambda d: 0.1 * d,
        "falling": lambda d: -0.1 * d,
        "wild": lambda d: float(rng.normal(0, 1)),
    }

    def loss(lr: float, seed: int) -> float | None:
        if lr > edge or rng.random() < odds:
            return None
        return 2.0 + shapes[kind](lr - optimum) + noise * float(rng.normal())

    return loss


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(search=SEARCHES, loss=curves(), target=st.booleans(), data=st.data())
def test_the_search_ends_asks_nothing_twice_and_stays_inside(
    search: SearchSpec, loss: Loss, target: bool, data: st.DataObject
) -> None:
    grid = search.lr_octaves
    x = round(data.draw(st.floats(grid.low, grid.high)), 2)
    start = target_start(search, x) if target else proxy_start(search)
    failing = {(lr, seed) for lr in start for seed in range(2) if data.draw(st.integers(0, 9)) == 0}
    found, end, asked = searched(search, loss, start=start, failing=failing)
    points = [point for proposal in asked for point in proposal.points]
    assert len(points) == len(set(points))
    assert all(grid.limit[0] <= lr <= grid.limit[1] for lr, _ in points)
    assert all(0 <= seed < search.seeds.max for _, seed in points)
    _check_end(end.status, found)


def _check_end(status: CurveStatus, found: tuple[Observation, ...]) -> None:
    if status is CurveStatus.EMPTY:
        curve = landscape(found)
        assert curve.best is None
    if status is CurveStatus.BRACKETED:
        curve = landscape(found)
        fit = fit_landscape(curve, rng_seed=0)
        assert fit is not None
        assert isfinite(fit.optimum)
        assert curve.lrs[0] < fit.optimum < curve.lrs[-1] or fit.optimum in fit.window


@settings(max_examples=30, deadline=None)
@given(search=SEARCHES, loss=curves(), seed=st.integers(0, 99))
def test_the_next_step_does_not_depend_on_the_order_of_results(search: SearchSpec, loss: Loss, seed: int) -> None:
    found, _, _ = searched(search, loss, start=proxy_start(search))
    for length in range(0, len(found), 7):
        part = list(found[:length])
        shuffled = [part[i] for i in np.random.default_rng(seed).permutation(length)]
        start = proxy_start(search)
        assert next_points(search, part, start=start) == next_points(search, shuffled, start=start)
