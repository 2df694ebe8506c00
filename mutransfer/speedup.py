"""Speed-up to equal loss: how many times the tokens (or device-seconds) of a candidate a baseline needs.

The notion is that of Qiu et al. 2025 (arXiv 2512.05620), who report optimizers by their speed-up over a tuned AdamW:
the compute that AdamW needs to reach a loss, over the compute that the other needs for the same loss. What is computed
here, for one seed at one size, with `T_x(L)` the tokens after which arm x has training loss L:

    speed-up = T_baseline(L*) / T_candidate(L*),    L* = max(final loss of baseline, final loss of candidate)

so that both runs have reached L* and neither curve is extrapolated. Where the candidate ends below the baseline, as it
should, L* is the baseline's own final loss: the question is what the candidate needed to get as far. The whole
baseline may never reach the candidate's final loss, so that figure is not given.

Training loss stands in for held-out loss, which is measured once, at the end. Each logged value is the mean since the
one before and is placed at the middle of that span. Curves are smoothed by isotonic regression (the closest curve that
never rises: no window to choose), joined by straight lines between its blocks. Both arms train to one horizon with a
schedule that decays, so the arm that is read off in mid-run is read before its decay: speed-ups are understated, above
1 and below it alike. Device-seconds are taken to pass evenly over a run.

Seeds are shared by arms (same start, same data), so the speed-up of each seed is one paired measurement: the value is
their geometric mean, the interval Student's t on their logarithms with the variance pooled over the sizes; without a
second seed anywhere there is none.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log, sqrt

from mutransfer.base import Value
from mutransfer.quantiles import t975
from mutransfer.result import Interval
from mutransfer.trial import HistoryPoint

_MOST_LOG = 50.0  # of an upper bound: beyond it says no more, and stays a finite number


class RunCurve(Value):
    """One run's training loss (nats per token) against tokens, and what a token took. Tokens rise."""

    tokens: tuple[float, ...]
    losses_nats: tuple[float, ...]
    device_seconds_per_token: float
    device: str = ""

    def smoothed(self) -> "RunCurve":
        """The closest curve (least squares) that never rises, one point a block, at the middle of its tokens."""
        blocks: list[tuple[float, float, int]] = []  # sum of losses, sum of tokens, points
        for tokens, loss in zip(self.tokens, self.losses_nats, strict=True):
            blocks.append((loss, tokens, 1))
            while len(blocks) > 1 and blocks[-1][0] / blocks[-1][2] >= blocks[-2][0] / blocks[-2][2]:
                last, before = blocks.pop(), blocks.pop()
                blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
        return self.model_copy(
            update={
                "tokens": tuple(tokens / count for _, tokens, count in blocks),
                "losses_nats": tuple(loss / count for loss, _, count in blocks),
            }
        )

    def tokens_to(self, loss_nats: float) -> float | None:
        """Tokens at which a smoothed curve falls to `loss_nats`; None where that lies outside what was measured."""
        if not self.losses_nats or loss_nats > self.losses_nats[0] or loss_nats < self.losses_nats[-1]:
            return None
        for (left, above), (right, below) in pairwise(zip(self.tokens, self.losses_nats, strict=True)):
            if above >= loss_nats >= below:
                return left + (right - left) * (above - loss_nats) / (above - below)
        return self.tokens[-1]


def run_curve(
    history: Sequence[HistoryPoint], *, tokens_per_step: int, tokens: int, device_seconds: float, device: str = ""
) -> RunCurve | None:
    """The curve of a finished run; None when it diverged on the way or has fewer than two points."""
    if len(history) < 2 or not tokens:
        return None
    places, losses, before = [], [], 0
    for point in history:
        if point.train_loss_nats is None:
            return None
        places.append((before + point.step) / 2 * tokens_per_step)
        losses.append(point.train_loss_nats)
        before = point.step
    return RunCurve(
        tokens=tuple(places), losses_nats=tuple(losses), device_seconds_per_token=device_seconds / tokens, device=device
    )


class Speedup(Value):
    """What a candidate gains over a baseline at one size. A value of 1.4 means 1.4 times fewer tokens (or seconds).

    `loss_nats` is the mean of L* over the seeds. Where nothing can be said, both are None and `refusal` says why.
    """

    tokens: Interval | None
    device_seconds: Interval | None
    loss_nats: float | None
    seeds: int
    candidate_ends_lower: bool | None
    refusal: str = ""


def refused(reason: str) -> Speedup:
    """That nothing can be said, and why."""
    return Speedup(
        tokens=None, device_seconds=None, loss_nats=None, seeds=0, candidate_ends_lower=None, refusal=reason
    )  # fmt: skip


Runs = Mapping[int, RunCurve]


def speedups(sizes: Mapping[int, tuple[Runs, Runs]]) -> dict[int, Speedup]:
    """The speed-up at each size from the (baseline's, candidate's) runs by seed there.

    Only seeds that both arms finished count. The variance of the logarithms is pooled over the sizes, where a study has
    few seeds at each.
    """
    pairs = {size: _pairs(baseline, candidate) for size, (baseline, candidate) in sizes.items()}
    known = {size: found for size, found in pairs.items() if not isinstance(found, str)}
    tokens = _intervals({size: [pair.tokens for pair in found] for size, found in known.items()})
    timed = {size: [p.seconds for p in found if p.seconds is not None] for size, found in known.items()}
    seconds = _intervals({size: ratios for size, ratios in timed.items() if len(ratios) == len(known[size])})
    return {
        size: refused(found) if isinstance(found, str) else _speedup(found, tokens[size], seconds.get(size))
        for size, found in pairs.items()
    }


def speedup(baseline: Runs, candidate: Runs) -> Speedup:
    """The speed-up of `candidate` over `baseline` at one size, from their runs by seed."""
    return speedups({0: (baseline, candidate)})[0]


class _Pair(Value):
    tokens: float
    seconds: float | None
    loss: float
    difference: float  # candidate's final loss minus the baseline's


def _pairs(baseline: Runs, candidate: Runs) -> "list[_Pair] | str":
    """One pair a shared seed, or why there is none."""
    shared = sorted(set(baseline) & set(candidate))
    if not shared:
        return "no seed was trained to its end by both arms"
    pairs = [_pair(baseline[seed], candidate[seed]) for seed in shared]
    found = [pair for pair in pairs if pair is not None]
    if len(found) < len(pairs):
        return "one arm is below the other's final loss from its first logged point on: log more often"
    return found


def _speedup(found: Sequence[_Pair], tokens: Interval, seconds: Interval | None) -> Speedup:
    return Speedup(
        tokens=tokens,
        device_seconds=seconds,
        loss_nats=sum(pair.loss for pair in found) / len(found),
        seeds=len(found),
        candidate_ends_lower=sum(pair.difference for pair in found) < 0,
    )


def _pair(baseline: RunCurve, candidate: RunCurve) -> _Pair | None:
    """One seed's ratios; None where L* lies above the first point of either curve."""
    base, other = baseline.smoothed(), candidate.smoothed()
    loss = max(base.losses_nats[-1], other.losses_nats[-1])
    needed, took = base.tokens_to(loss), other.tokens_to(loss)
    if needed is None or took is None:
        return None
    ratio = needed / took
    rates = base.device_seconds_per_token, other.device_seconds_per_token
    seconds = ratio * rates[0] / rates[1] if min(rates) > 0.0 else None
    return _Pair(tokens=ratio, seconds=seconds, loss=loss, difference=other.losses_nats[-1] - base.losses_nats[-1])


def _intervals(ratios: Mapping[int, Sequence[float]]) -> dict[int, Interval]:
    """Geometric means with 95 % intervals from the pooled variance of the logarithms; none without a second seed."""
    logs = {size: [log(ratio) for ratio in found] for size, found in ratios.items()}
    means = {size: sum(values) / len(values) for size, values in logs.items()}
    degrees = sum(len(values) - 1 for values in logs.values())
    squares = sum((value - means[size]) ** 2 for size, values in logs.items() for value in values)
    half = {
        size: t975(degrees) * sqrt(squares / degrees / len(values)) if degrees else None
        for size, values in logs.items()
    }
    return {size: _around(mean, half[size]) for size, mean in means.items()}


def _around(mean: float, half: float | None) -> Interval:
    if half is None:
        return Interval(value=exp(mean), low=None, high=None)
    return Interval(value=exp(mean), low=exp(mean - half), high=exp(min(mean + half, _MOST_LOG)))
