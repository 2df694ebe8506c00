from math import exp, log, sqrt

import pytest

from mutransfer.quantiles import t975
from mutransfer.result import Interval
from mutransfer.speedup import RunCurve, run_curve, speedup, speedups
from mutransfer.trial import HistoryPoint


def curve(*losses: float, step: float = 100.0, rate: float = 0.01) -> RunCurve:
    """A run with a loss every `step` tokens."""
    places = tuple(step * (place + 1) for place in range(len(losses)))
    return RunCurve(tokens=places, losses_nats=losses, device_seconds_per_token=rate)


def test_a_candidate_that_ends_lower_is_read_at_the_baselines_final_loss() -> None:
    # The baseline ends at 2.0 after 400 tokens; the candidate is at 2.4 after 200 and at 1.9 after 300, so at 2.0
    # after 200 + 100 x 0.4 / 0.5 = 280. Speed-up 400 / 280.
    found = speedup({0: curve(4.0, 3.0, 2.5, 2.0)}, {0: curve(3.5, 2.4, 1.9, 1.7)})
    assert found.tokens is not None
    assert found.tokens.value == pytest.approx(400 / 280)
    assert found.loss_nats == 2.0
    assert found.candidate_ends_lower is True
    assert (found.tokens.low, found.tokens.high, found.seeds) == (None, None, 1)


def test_a_candidate_that_ends_higher_is_slower() -> None:
    # The candidate ends at 2.5 after 400; the baseline was there after 300.
    found = speedup({0: curve(4.0, 3.0, 2.5, 2.0)}, {0: curve(4.5, 3.5, 3.0, 2.5)})
    assert found.tokens is not None
    assert found.tokens.value == pytest.approx(300 / 400)
    assert found.candidate_ends_lower is False


def test_exchanging_the_arms_inverts_the_speed_up() -> None:
    one, other = {0: curve(4.0, 3.0, 2.5, 2.0)}, {0: curve(3.5, 2.4, 1.9, 1.7)}
    there, back = speedup(one, other).tokens, speedup(other, one).tokens
    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(1 / back.value)
    assert speedup(one, one).tokens == Interval(value=1.0, low=None, high=None)


def test_device_seconds_weigh_what_a_token_takes() -> None:
    # 400 / 280 in tokens, and each of the candidate's tokens takes three times as long.
    found = speedup({0: curve(4.0, 3.0, 2.5, 2.0, rate=0.01)}, {0: curve(3.5, 2.4, 1.9, 1.7, rate=0.03)})
    assert found.device_seconds is not None
    assert found.device_seconds.value == pytest.approx(400 / 280 / 3)
    unknown = speedup({0: curve(4.0, 2.0, rate=0.0)}, {0: curve(4.0, 2.0)})
    assert unknown.device_seconds is None
    assert unknown.tokens is not None


def test_noise_that_rises_is_pooled() -> None:
    # 2.4, 2.6 violate "never rises": one block of 2.5 at the middle of 200 and 300.
    smooth = curve(3.0, 2.4, 2.6, 2.0).smoothed()
    assert smooth.losses_nats == (3.0, 2.5, 2.0)
    assert smooth.tokens == (100.0, 250.0, 400.0)
    # A block may swallow those before it: 2.0 and 3.9 pool to 2.95, which lies above 2.9: (2.9 + 2.0 + 3.9) / 3.
    assert curve(3.0, 2.9, 2.0, 3.9).smoothed().losses_nats == pytest.approx((3.0, 8.8 / 3))


def test_nothing_is_extrapolated() -> None:
    smooth = curve(3.0, 2.5, 2.0)
    assert smooth.tokens_to(3.1) is None
    assert smooth.tokens_to(1.9) is None
    assert smooth.tokens_to(2.0) == 300.0
    assert smooth.tokens_to(3.0) == 100.0
    ahead = speedup({0: curve(4.0, 3.0, 2.5)}, {0: curve(2.4, 2.2, 2.0)})
    assert ahead.tokens is None
    assert "first logged point" in ahead.refusal
    assert "no seed" in speedup({0: curve(3.0, 2.0)}, {1: curve(3.0, 2.0)}).refusal


def test_the_interval_is_students_t_over_shared_seeds() -> None:
    # Seed 0: 400 / 280. Seed 1: the baseline ends at 2.0 after 400, the candidate is there after 300. Seed 2 is alone.
    base = {0: curve(4.0, 3.0, 2.5, 2.0), 1: curve(4.0, 3.0, 2.5, 2.0), 2: curve(4.0, 3.0)}
    found = speedup(base, {0: curve(3.5, 2.4, 1.9, 1.7), 1: curve(3.5, 2.4, 2.0, 1.7)})
    one, two = log(400 / 280), log(400 / 300)
    mean, half = (one + two) / 2, 12.706 * abs(one - two) / sqrt(2) / sqrt(2)
    assert found.seeds == 2
    assert found.tokens is not None
    assert found.tokens.value == pytest.approx(exp(mean))
    assert found.tokens.low == pytest.approx(exp(mean - half))
    assert found.tokens.high == pytest.approx(exp(mean + half))
    assert t975(1) == 12.706


def test_a_history_is_placed_at_the_middle_of_its_spans() -> None:
    history = [HistoryPoint(step=10, train_loss_nats=3.0), HistoryPoint(step=30, train_loss_nats=2.0)]
    made = run_curve(history, tokens_per_step=100, tokens=3000, device_seconds=6.0)
    assert made is not None
    assert made.tokens == (500.0, 2000.0)  # the means over steps 0-10 and 10-30
    assert made.device_seconds_per_token == 0.002
    broken = [*history, HistoryPoint(step=40, train_loss_nats=None)]
    assert run_curve(broken, tokens_per_step=100, tokens=4000, device_seconds=6.0) is None
    assert run_curve(history[:1], tokens_per_step=100, tokens=1000, device_seconds=6.0) is None


def test_noise_is_pooled_over_sizes() -> None:
    base = curve(4.0, 3.0, 2.5, 2.0)
    fast, slow = curve(3.5, 2.4, 1.9, 1.7), curve(3.5, 2.4, 2.0, 1.7)  # 400 / 280 and 400 / 300
    found = speedups({64: ({0: base, 1: base}, {0: fast, 1: slow}), 128: ({0: base, 1: base}, {0: fast, 1: fast})})
    # Squares about the means: 2 x (d / 2)^2 at 64, 0 at 128, on 1 + 1 degrees.
    difference = log(400 / 280) - log(400 / 300)
    half = 4.303 * sqrt(difference**2 / 2 / 2 / 2)
    assert found[128].tokens is not None
    assert found[128].tokens.low == pytest.approx(400 / 280 * exp(-half))
    alone = speedups({64: ({0: base, 1: base}, {0: fast, 1: slow}), 128: ({0: base}, {0: fast})})[128].tokens
    assert alone is not None
    assert alone.high == pytest.approx(400 / 280 * exp(12.706 * abs(difference) / sqrt(2)))
