"""From measured norms to a law and its rule: by hand, with noise, and where no power law fits."""

import numpy as np
import pytest

from mutransfer.errors import ScalingError
from mutransfer.update_law import ShapeNorm, UpdateLaw, fit_law

SIDES = (32, 64, 128, 256)


def _norms(a: float, b: float, *, noise: float = 0.02, seeds: int = 4, bend: float = 0.0) -> list[ShapeNorm]:
    rng = np.random.default_rng(5)
    return [
        ShapeNorm(
            d_out=d_out, d_in=d_in, seed=seed,
            norm=0.3 * d_out**a * d_in**b * 2.0 ** (noise * rng.standard_normal() + bend * np.log2(d_out / 90) ** 2),
        )
        for seed in range(seeds) for d_out in SIDES for d_in in SIDES
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "rule"),
    [
        (0.5, 0.5, "1 / r_in"),
        (0.0, 0.0, "sqrt(r_out / r_in)"),
        (-0.5, 0.5, "r_out / r_in"),
        (0.5, -0.5, "1"),
        (0.5, 0.0, "1 / sqrt(r_in)"),
        (0.25, 0.25, "r_out^(1/4) / r_in^(3/4)"),
        (1 / 3, 1 / 3, "r_out^(1/6) / r_in^(5/6)"),
        (0.75, 0.5, "1 / (r_out^(1/4) * r_in)"),
    ],
)
def test_known_laws_come_back_with_their_rules(a: float, b: float, rule: str) -> None:
    law = fit_law(_norms(a, b))
    assert law.rule == rule
    for exponent, truth in ((law.out_exponent, a), (law.in_exponent, b)):
        assert exponent.low <= truth <= exponent.high
        assert exponent.number == pytest.approx(truth)
        assert exponent.high - exponent.low < 0.05
    assert law.misfit_octaves < 0.03


def test_an_exponent_between_fractions_stays_as_measured() -> None:
    law = fit_law(_norms(0.415, 0.5))
    assert law.out_exponent.snapped is None
    assert law.out_exponent.number == pytest.approx(0.415, abs=0.02)


def test_noise_and_bends_widen_the_interval() -> None:
    def width(law: UpdateLaw) -> float:
        return law.out_exponent.high - law.out_exponent.low

    quiet, noisy, bent = (
        fit_law(n) for n in (_norms(0.5, 0.5), _norms(0.5, 0.5, noise=0.5), _norms(0.5, 0.5, bend=0.3))
    )
    assert width(noisy) > 5 * width(quiet)
    assert width(bent) > 5 * width(quiet)
    assert noisy.out_exponent.low <= 0.5 <= noisy.out_exponent.high
    assert bent.misfit_octaves > 0.2


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ScalingError, match="at least two seeds, there is 1"):
        fit_law(_norms(0.5, 0.5, seeds=1))
    with pytest.raises(ScalingError, match="vary independently"):
        fit_law([n for n in _norms(0.5, 0.5) if n.d_out == 32])
    broken = _norms(0.5, 0.5)
    with pytest.raises(ScalingError, match="missing"):
        fit_law(broken[1:])
    with pytest.raises(ScalingError, match="vanished"):
        fit_law([broken[0].model_copy(update={"norm": 0.0}), *broken[1:]])
