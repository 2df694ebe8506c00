"""From points to an optimum: exact on exact data, honest about noise, divergence and what is not known."""

from math import inf, isclose

import numpy as np
import pytest

from mutransfer.fit import fit_curve, fit_landscape, fit_window, half_width
from mutransfer.points import landscape, shape
from mutransfer.polynomial import DRAWS, Means, minimum, posterior, t_noise
from mutransfer.result import Curve, CurveRole, CurveStatus, Interval
from mutransfer.trial import Observation
from tests.curves import Loss, lattice, measured, parabola


def _curve(observations: tuple[Observation, ...], *, rng_seed: int = 1, status: CurveStatus | None = None) -> Curve:
    return fit_curve(observations, width=64, depth=2, role=CurveRole.PROXY, rng_seed=rng_seed, status=status)


def _noisy(loss: Loss, *, sd: float, seeds: int, offset_sd: float = 0.0, rng_seed: int = 0) -> tuple[Observation, ...]:
    rng = np.random.default_rng(rng_seed)
    offsets = rng.normal(0, offset_sd, seeds) if offset_sd else np.zeros(seeds)

    def noisy(lr: float, seed: int) -> float | None:
        value = loss(lr, seed)
        return None if value is None else value + float(offsets[seed]) + float(rng.normal(0, sd))

    return measured(noisy, lattice(-8, -2), seeds=seeds)


def test_an_exact_parabola_is_found_exactly() -> None:
    curve = _curve(measured(parabola(-5.2, floor=2.04), lattice(-8, -3)))
    assert curve.status is CurveStatus.BRACKETED
    assert curve.optimum_octaves is not None
    assert curve.loss_nats is not None
    assert curve.optimum_octaves.value == pytest.approx(-5.2, abs=1e-4)
    assert curve.loss_nats.value == pytest.approx(2.04, abs=1e-6)
    assert half_width(curve.optimum_octaves) < 0.01
    assert curve.seed_stderr_nats == pytest.approx(0.0, abs=1e-9)


def test_the_polynomial_in_the_result_is_the_fit() -> None:
    curve = _curve(_noisy(parabola(-5.2), sd=0.01, seeds=3))
    assert curve.optimum_octaves is not None
    assert curve.loss_nats is not None
    assert curve.fit_center_octaves is not None
    assert curve.fit_window_octaves is not None
    x = curve.optimum_octaves.value - curve.fit_center_octaves
    value = sum(c * x**k for k, c in enumerate(curve.fit_coefficients))
    assert value == pytest.approx(curve.loss_nats.value, abs=1e-6)
    assert curve.fit_window_octaves == (curve.fit_center_octaves - 1.5, curve.fit_center_octaves + 1.5)


def test_a_cubic_is_followed_where_a_parabola_would_be_off() -> None:
    def cubic(lr: float, _: int) -> float:
        d = lr + 5.0
        return 2.0 + 0.06 * d**2 + 0.012 * d**3

    curve = _curve(measured(cubic, lattice(-7, -3)))
    assert curve.optimum_octaves is not None
    assert curve.optimum_octaves.value == pytest.approx(-5.0, abs=0.01)


def test_seed_offsets_are_removed_and_reported() -> None:
    """An offset that a seed adds to every rate widens nothing; it is reported apart from the noise."""
    quiet = _curve(_noisy(parabola(-5.0), sd=0.004, seeds=4))
    shifted = _curve(_noisy(parabola(-5.0), sd=0.004, seeds=4, offset_sd=0.1, rng_seed=2))
    assert quiet.optimum_octaves is not None
    assert shifted.optimum_octaves is not None
    assert shifted.seed_stderr_nats == pytest.approx(0.004, rel=0.5)
    assert shifted.seed_offset_nats is not None
    assert shifted.seed_offset_nats > 0.04
    assert half_width(shifted.optimum_octaves) < 2 * half_width(quiet.optimum_octaves)


def test_offsets_do_not_pull_points_with_fewer_seeds() -> None:
    """Seed 1 adds 0.5 nats everywhere but ran at some rates only: means are compared as if it had run at all."""
    rows = [
        Observation(lr_octaves=lr, seed=seed, loss_nats=2.0 + 0.05 * (lr + 5) ** 2 + 0.5 * seed)
        for lr in lattice(-7, -3)
        for seed in ((0, 1) if lr in (-5.0, -4.5) else (0,))
    ]
    curve = landscape(rows)
    assert curve.lrs[curve.best or 0] == -5.0
    losses = dict(zip(curve.lrs, curve.losses, strict=True))
    assert losses[-5.0] - losses[-7.0] == pytest.approx(-0.2)


def test_noise_widens_the_interval_and_seeds_narrow_it() -> None:
    def width(sd: float, seeds: int) -> float:
        curve = _curve(_noisy(parabola(-5.0), sd=sd, seeds=seeds))
        assert curve.optimum_octaves is not None
        return half_width(curve.optimum_octaves)

    assert width(0.002, 2) < width(0.01, 2) < width(0.03, 2)
    assert width(0.01, 8) < width(0.01, 2)


def test_two_seeds_pool_their_degrees_of_freedom_over_the_curve() -> None:
    rows = _noisy(parabola(-5.0), sd=0.01, seeds=2)
    noise = landscape(rows).noise
    assert noise is not None
    rates = len({o.lr_octaves for o in rows})
    assert noise.degrees == rates - 1  # (P - 1)(S - 1)
    assert noise.variance == pytest.approx(1e-4, rel=1.0)


def test_the_same_points_in_any_order_give_the_same_curve_bit_for_bit() -> None:
    rows = _noisy(parabola(-5.0), sd=0.01, seeds=3)
    shuffled = tuple(rows[i] for i in np.random.default_rng(0).permutation(len(rows)))
    assert _curve(rows) == _curve(shuffled)
    assert _curve(rows) != _curve(rows, rng_seed=2)


def test_diverged_trials_rank_last_and_never_enter_the_fit() -> None:
    """-3.5 diverges in one of two seeds, -3 in both: the window ends at -4, and one wild survivor changes nothing."""
    rows = [o for o in measured(parabola(-5.0), lattice(-8, -3)) if o.lr_octaves < -3.5]
    rows += [
        Observation(lr_octaves=-3.5, seed=0, loss_nats=0.1),
        Observation(lr_octaves=-3.5, seed=1, loss_nats=None),
        Observation(lr_octaves=-3.0, seed=0, loss_nats=None),
        Observation(lr_octaves=-3.0, seed=1, loss_nats=None),
    ]
    curve = landscape(rows)
    assert curve.best is not None
    assert curve.lrs[curve.best] == -5.0
    assert fit_window(curve)[-1] == -4.0
    result = _curve(tuple(rows))
    assert result.optimum_octaves is not None
    assert result.optimum_octaves.value == pytest.approx(-5.0, abs=1e-3)
    assert result.stability_edge_octaves == -4.0
    assert [p.diverged for p in result.points][-2:] == [1, 2]
    assert result.points[-1].loss_nats is None


def test_a_minority_of_diverged_seeds_leaves_the_point_in() -> None:
    rows = measured(parabola(-5.0), lattice(-7, -3), seeds=3)
    rows = tuple(o.model_copy(update={"loss_nats": None}) if (o.lr_octaves, o.seed) == (-4.0, 2) else o for o in rows)
    curve = landscape(rows)
    assert -4.0 in fit_window(curve)
    assert curve.finite_seeds[curve.lrs.index(-4.0)] == 2


def test_statuses_of_what_was_measured() -> None:
    def status(rows: tuple[Observation, ...]) -> CurveStatus:
        return shape(landscape(rows))[0]

    assert status(()) is CurveStatus.EMPTY
    assert status(measured(lambda lr, seed: None, lattice(-8, -3))) is CurveStatus.EMPTY
    assert status(measured(parabola(-8.0), lattice(-8, -3))) is CurveStatus.UNBRACKETED
    assert status(measured(parabola(-3.4), lattice(-8, -3))) is CurveStatus.UNBRACKETED
    assert status(measured(parabola(-5.0, edge=0.2), lattice(-8, -3))) is CurveStatus.EDGE_LIMITED
    assert status(measured(parabola(-5.0, edge=1.2), lattice(-8, -3))) is CurveStatus.BRACKETED
    flat = measured(lambda lr, seed: 2.0 + 0.01 * ((int(2 * lr) + seed) % 2), lattice(-8, -3))
    assert status(flat) is CurveStatus.UNBRACKETED  # nothing is clearly worse than anything


def test_a_curve_without_an_optimum_has_none() -> None:
    for rows in ((), measured(parabola(-8.0), lattice(-8, -3)), measured(lambda lr, seed: None, [-5.0, -4.0])):
        curve = _curve(rows)
        assert curve.optimum_octaves is None
        assert curve.loss_nats is None
        assert curve.fit_coefficients == ()
    unfinished = _curve(measured(parabola(-5.0), lattice(-8, -3)), status=CurveStatus.INCOMPLETE)
    assert unfinished.optimum_octaves is None
    assert len(unfinished.points) == 11


def test_an_edge_limited_optimum_is_the_best_point_up_to_the_diverged_rate() -> None:
    curve = _curve(_noisy(parabola(-5.0, edge=0.2), sd=0.002, seeds=2))
    assert curve.status is CurveStatus.EDGE_LIMITED
    assert curve.optimum_octaves == Interval(value=-5.0, low=-5.5, high=-4.5)
    assert curve.loss_nats is not None
    assert curve.loss_nats.low is not None
    assert curve.loss_nats.high is not None
    assert 0.001 < curve.loss_nats.high - curve.loss_nats.value < 0.006
    best = next(p for p in curve.points if p.lr_octaves == -5.0)
    assert curve.loss_nats.value == best.loss_nats


def test_a_bound_beyond_the_window_is_unbounded() -> None:
    """Noise as large as the curve itself: the minimum may lie anywhere, and the interval says so."""
    rows = _noisy(parabola(-5.0, curvature=0.001), sd=0.03, seeds=2, rng_seed=6)
    fit = fit_landscape(landscape(rows), rng_seed=0)
    assert fit is not None
    interval = fit.optimum_interval()
    assert interval.low is None or interval.high is None
    assert half_width(interval) == inf


def test_one_seed_takes_its_noise_from_the_residuals() -> None:
    rows = _noisy(parabola(-5.0), sd=0.01, seeds=1)
    curve = _curve(rows)
    assert curve.seed_stderr_nats is None
    assert curve.optimum_octaves is not None
    assert 0.02 < half_width(curve.optimum_octaves) < 0.6


@pytest.mark.parametrize("step", [1.0, 0.5])
def test_whole_octaves_still_give_an_optimum(step: float) -> None:
    curve = _curve(measured(parabola(-5.2), lattice(-9, -1, step)))
    assert curve.optimum_octaves is not None
    assert curve.optimum_octaves.value == pytest.approx(-5.2, abs=0.02)


def test_the_window_recentres_on_the_fitted_optimum() -> None:
    """Noise makes -6 the best point of a curve whose optimum is -5: the window moves back."""

    def loss(lr: float, seed: int) -> float:
        noise = 0.03 if (int(2 * lr) + seed) % 2 else -0.03
        return 2.0 + 0.06 * (lr + 5.0) ** 2 - (0.061 if lr == -6.0 else 0.0) + noise

    curve = landscape(measured(loss, lattice(-8, -2)))
    assert curve.best is not None
    assert curve.lrs[curve.best] == -6.0
    assert fit_window(curve)[0] > -7.5


# --- the polynomial --------------------------------------------------------------------------------------------------


def test_minimum_agrees_with_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    coefficients = rng.normal(0, 1, (200, 5))
    grid = np.linspace(-1, 1, 20_001)
    best = (coefficients @ np.vander(grid, 5, increasing=True).T).min(axis=1)
    at = minimum(coefficients, -1.0, 1.0)
    found = (coefficients * at[:, None] ** np.arange(5)).sum(axis=1)
    assert np.all(np.abs(at) <= 1.0)
    assert np.max(found - best) < 2e-3


def test_shrinkage_follows_the_data() -> None:
    """A parabola keeps the high coefficients small; a curve steep on one side frees them."""
    u = np.linspace(-1, 1, 7)

    def weight_of_large_tau(loss: np.ndarray) -> float:
        found = posterior(Means(u_P=u, loss_P=loss, trials_P=np.full(7, 2.0), variance=1e-6, degrees=6))
        assert isclose(float(found.weight_T.sum()), 1.0)
        return float(found.weight_T[-3:].sum())

    assert weight_of_large_tau(0.1 * u**2) < 0.1
    assert weight_of_large_tau(0.05 * (np.exp(2.5 * u) - 1 - 2.5 * u)) > 0.5


def test_t_noise_has_the_tails_of_student_s_t_and_is_shared() -> None:
    noise = t_noise(3, 2, 4)
    assert noise.shape == (DRAWS, 2)
    assert noise is t_noise(3, 2, 4)
    assert not noise.flags.writeable
    assert np.percentile(np.abs(noise[:, 0]), 95) == pytest.approx(2.776, rel=0.1)  # t, 4 degrees of freedom
