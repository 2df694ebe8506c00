"""The rules against scaling-rules.md's worked values, by hand, and against the condition they follow from."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from mutransfer import scaling
from mutransfer.algorithms import Algorithm, MuonScale
from mutransfer.scaling import Growth, Sides

# Base width 64, width 256: a hidden square matrix and both MLP matrices grow four times on either side.
SQUARE = Growth(r_in=4, r_out=4)
EMBEDDING = Growth(r_out=4)
READOUT = Growth(r_in=4)

RATIOS = st.floats(min_value=1 / 64, max_value=64)


@pytest.mark.parametrize(
    ("growth", "adamw", "muon", "sgd"),
    [
        pytest.param(SQUARE, 1 / 4, 1.0, 1.0, id="hidden square, MLP up, MLP down"),
        pytest.param(EMBEDDING, 1.0, 2.0, 4.0, id="embedding"),
        pytest.param(READOUT, 1 / 4, 1 / 2, 1 / 4, id="readout"),
        pytest.param(Growth(r_in=4, r_out=16), 1 / 4, 2.0, 4.0, id="one side grows more"),
        pytest.param(Growth(), 1.0, 1.0, 1.0, id="base"),
    ],
)
def test_learning_rate_multipliers_by_hand(growth: Growth, adamw: float, muon: float, sgd: float) -> None:
    assert scaling.adam_like_lr(growth) == adamw
    assert scaling.muon_lr(growth) == muon
    assert scaling.sgd_lr(growth) == sgd


@pytest.mark.parametrize(
    ("alpha", "adamw", "muon", "sgd"),
    [(1.0, 1.0, 1.0, 4.0), (0.5, 0.5, 0.5, 1.0), (0.0, 0.25, 0.25, 0.25)],
)
def test_depth_four_times_the_base_by_hand(alpha: float, adamw: float, muon: float, sgd: float) -> None:
    deep = Growth(n=4, alpha=alpha)
    assert scaling.adam_like_lr(deep) == adamw  # N^(alpha - 1)
    assert scaling.muon_lr(deep) == muon
    assert scaling.sgd_lr(deep) == sgd  # N^(2 alpha - 1)
    assert scaling.residual_multiplier(4, alpha) == 4.0**-alpha


@given(r_in=RATIOS, r_out=RATIOS)
def test_rules_follow_from_the_update_law(r_in: float, r_out: float) -> None:
    growth = Growth(r_in=r_in, r_out=r_out)
    laws = {scaling.adam_like_lr: (0.5, 0.5), scaling.muon_lr: (0.0, 0.0), scaling.sgd_lr: (-0.5, 0.5)}
    for rule, (a, b) in laws.items():
        assert rule(growth) == pytest.approx(scaling.from_update_law(a, b, growth), rel=1e-12)


@given(r_in=RATIOS, r_out=RATIOS, n=RATIOS, alpha=st.sampled_from([0.0, 0.5, 1.0, 1.5]))
def test_rules_compose_over_two_growths(r_in: float, r_out: float, n: float, alpha: float) -> None:
    once = Growth(r_in=r_in, r_out=r_out, n=n, alpha=alpha)
    twice = Growth(r_in=r_in**2, r_out=r_out**2, n=n**2, alpha=alpha)
    for rule in (scaling.adam_like_lr, scaling.muon_lr, scaling.sgd_lr, scaling.adam_like_eps, scaling.muon_eps,
                 scaling.clip_weight):  # fmt: skip
        assert rule(twice) == pytest.approx(rule(once) ** 2, rel=1e-9)


def test_shampoo_and_soap_worked_values() -> None:
    square, blocks = SQUARE, Growth(r_in=4, r_out=4, b_in=4, b_out=4)
    assert scaling.shampoo_lr(square, 0.5) == 1.0
    assert scaling.shampoo_lr(blocks, 0.5) == 1 / 4
    assert scaling.shampoo_lr(square, 1.0) == 1.0
    assert scaling.shampoo_lr(Growth(r_in=4, r_out=4, n=2), 1.0) == 1 / 2
    assert scaling.shampoo_lr(Growth(n=4, alpha=0.5), 0.5) == 1 / 2  # N^(alpha - 1 + alpha (1 - 2E))
    assert scaling.shampoo_lr(READOUT, 0.5) == 1 / 2
    assert scaling.soap_lr(square, Sides.BOTH) == 1.0
    assert scaling.soap_lr(blocks, Sides.BOTH) == 1 / 4
    assert scaling.soap_lr(square, Sides.INPUT) == 1 / 2
    assert scaling.soap_lr(square, Sides.OUTPUT) == 1 / 2
    assert scaling.soap_lr(blocks, Sides.INPUT) == 1 / 4
    assert scaling.soap_lr(blocks, Sides.OUTPUT) == 1 / 4
    assert scaling.soap_lr(square, Sides.NEITHER) == 1 / 4
    assert scaling.soap_derived_lr(Growth(r_in=8, r_out=8)) == pytest.approx(1 / 4)  # 8^(1/6) 8^(-5/6)
    assert scaling.shampoo_eps(blocks) == 1 / 16
    assert scaling.shampoo_eps(Growth(n=2)) == 1 / 4
    assert scaling.soap_eps(blocks, Sides.BOTH) == 1 / 4
    assert scaling.soap_eps(blocks, Sides.INPUT) == 1 / 4
    assert scaling.soap_eps(blocks, Sides.OUTPUT) == 1 / 4
    assert scaling.sophia_rho(Growth(r_out=4, n=2)) == 8.0


def test_lamb_by_hand() -> None:
    assert scaling.lamb_lr(SQUARE) == 1.0
    assert scaling.lamb_derived_lr(SQUARE, r_std=1 / 2) == 1 / 2
    assert scaling.lamb_derived_lr(EMBEDDING, r_std=1.0) == 1.0
    assert scaling.lamb_derived_lr(READOUT, r_std=1 / 4) == 1.0


@given(r_in=RATIOS, r_out=RATIOS, e=st.floats(min_value=0.1, max_value=1.0))
def test_matrix_rules_follow_from_the_update_law(r_in: float, r_out: float, e: float) -> None:
    growth = Growth(r_in=r_in, r_out=r_out)

    def law(a: float, b: float) -> float:
        return scaling.from_update_law(a, b, growth)

    # A gradient has norm sqrt(d_in / d_out), and Shampoo's update is about its power 1 - 2E.
    assert scaling.shampoo_lr(growth, e) == pytest.approx(law(-(1 - 2 * e) / 2, (1 - 2 * e) / 2), rel=1e-9)
    assert scaling.soap_lr(growth, Sides.BOTH) == pytest.approx(law(0.0, 0.0), rel=1e-9)
    assert scaling.soap_lr(growth, Sides.INPUT) == pytest.approx(law(0.5, 0.0), rel=1e-9)
    assert scaling.soap_lr(growth, Sides.OUTPUT) == pytest.approx(law(0.0, 0.5), rel=1e-9)
    assert scaling.lamb_derived_lr(growth, r_std=r_in**-0.5) == pytest.approx(law(0.5, 0.0), rel=1e-9)


def test_muon_shape_factors_by_hand() -> None:
    assert scaling.muon_factor(MuonScale.NONE, 1024, 256) == 1.0
    assert scaling.muon_factor(MuonScale.SPECTRAL, 1024, 256) == 2.0
    assert scaling.muon_factor(MuonScale.ORIGINAL, 1024, 256) == 2.0
    assert scaling.muon_factor(MuonScale.ORIGINAL, 256, 1024) == 1.0
    assert scaling.muon_factor(MuonScale.RMS, 1024, 256) == pytest.approx(6.4)  # 0.2 * 32
    # What the update itself carries is taken off the multiplier: RMS grows with sqrt(width).
    assert scaling.muon_lr(SQUARE, carried=2.0) == 0.5


def test_epsilon_clipping_and_decay_by_hand() -> None:
    deep = Growth(r_in=4, r_out=4, n=2)
    assert scaling.adam_like_eps(SQUARE) == 1 / 4
    assert scaling.adam_like_eps(EMBEDDING) == 1 / 4
    assert scaling.adam_like_eps(READOUT) == 1.0
    assert scaling.adam_like_eps(deep) == 1 / 8
    assert scaling.muon_eps(SQUARE) == 1.0
    assert scaling.muon_eps(READOUT) == 2.0
    assert scaling.muon_eps(deep) == 1 / 2
    assert scaling.clip_weight(SQUARE) == 1.0
    assert scaling.clip_weight(READOUT) == 1 / 2
    assert scaling.clip_weight(EMBEDDING) == 2.0
    assert scaling.clip_weight(deep) == 2.0
    assert scaling.clip_weight(Growth(n=4, alpha=0.5)) == 2.0  # N -> N^alpha in every epsilon and clip rule
    assert scaling.adam_like_eps(Growth(n=4, alpha=0.5)) == 1 / 2
    assert scaling.muon_eps(Growth(n=4, alpha=0.5)) == 1 / 2
    assert scaling.weight_decay_factor(4, 1.0) == 1 / 4
    assert scaling.weight_decay_factor(4, 0.0) == 1.0


def test_forward_multipliers_and_initialisation_by_hand() -> None:
    assert scaling.attention_scale(d_head=16, d_head_base=16) == 1 / 4
    assert scaling.attention_scale(d_head=64, d_head_base=16) == 1 / 16  # sqrt(16) / 64
    assert scaling.hidden_std(256) == 1 / 16
    assert scaling.readout_std(256, 64) == 1 / 32  # sqrt(64) / 256
    assert scaling.readout_std(64, 64) == 1 / 8
    assert scaling.lr_under_multiplier(Algorithm.ADAMW, 1 / 4) == 4.0
    assert scaling.lr_under_multiplier(Algorithm.MUON, 1 / 4) == 4.0
    assert scaling.lr_under_multiplier(Algorithm.SGD, 1 / 4) == 16.0
    assert scaling.lr_under_multiplier(Algorithm.LAMB, 1 / 4) == 1.0
