"""What to run next on one curve, from what has finished: a pure function (verdict.md, The search).

Rates lie on one half-octave lattice anchored at the first of `start`. The rules, in order: the starting rates · two
points on either side of the best · the outermost point of each side clearly worse · the half octaves around the best ·
more seeds until the optimum is known well enough. Each answer asks only for what was never asked before and only inside
`limit`, so the search ends.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor

from mutransfer.fit import WINDOW_OCTAVES, fit_landscape, half_width, locate
from mutransfer.points import POINTS_A_SIDE, Landscape, Side, landscape, lr_key, shape
from mutransfer.result import CurveStatus
from mutransfer.spec import SearchSpec
from mutransfer.trial import Observation

#: Spacing of the lattice around the best, in octaves.
FINE_OCTAVES = 0.5
#: Seeds are added until the optimum's 95 % half-width is at most this, in octaves.
WANTED_HALF_WIDTH = 0.3
#: The search's own bootstrap stream, so that the same observations always lead to the same next step.
SEARCH_RNG_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The next trials of a curve as (lr_octaves, seed). None left means that the curve is finished with `status`."""

    points: tuple[tuple[float, int], ...]
    status: CurveStatus
    reason: str


def proxy_start(search: SearchSpec) -> tuple[float, ...]:
    """The rates a proxy's search starts from: the coarse grid."""
    return tuple(lr_key(lr) for lr in search.lr_octaves.coarse())


def target_start(search: SearchSpec, recorded: float) -> tuple[float, ...]:
    """The rates a target's search starts from: the recorded rate x first, then x±1, x±2 (or the grid itself)."""
    x = lr_key(recorded)
    if search.algorithm == "grid":
        return tuple(dict.fromkeys((x, *proxy_start(search))))
    return tuple(lr_key(x + shift) for shift in (0.0, -1.0, 1.0, -2.0, 2.0))


@dataclass(frozen=True, kw_only=True)
class _Lattice:
    """The rates a curve may use, and what was asked of them so far (observed, or failed for good)."""

    anchor: float
    step: float
    low: float
    high: float
    asked: dict[float, frozenset[int]]

    def allows(self, lr: float) -> bool:
        return self.low <= lr <= self.high

    def around(self, center: float, reach: float) -> Iterator[float]:
        """Lattice points within `reach` of `center`, rising, inside the limit."""
        first = ceil((center - reach - self.anchor) / FINE_OCTAVES - 1e-6)
        last = floor((center + reach - self.anchor) / FINE_OCTAVES + 1e-6)
        for place in range(first, last + 1):
            lr = lr_key(self.anchor + place * FINE_OCTAVES)
            if self.allows(lr):
                yield lr

    def outward(self, edge: float, direction: int) -> float | None:
        """The next rate beyond `edge`: a coarse step, or the last lattice point before the limit, or None."""
        coarse = lr_key(edge + direction * self.step)
        if self.allows(coarse):
            return coarse
        beyond = [lr for lr in self.around(edge, self.step) if (lr - edge) * direction > 1e-6]
        return (max(beyond) if direction > 0 else min(beyond)) if beyond else None

    def edge(self, direction: int) -> float:
        """The outermost rate asked so far."""
        return max(self.asked) if direction > 0 else min(self.asked)

    def missing(self, lr: float, seeds: int) -> list[tuple[float, int]]:
        """Seeds 0..seeds-1 of a rate that were never asked."""
        return [(lr, seed) for seed in range(seeds) if seed not in self.asked.get(lr, frozenset())]

    def level(self, lrs: Iterable[float]) -> int:
        """How many seeds any of these rates has been asked for."""
        return max((max(self.asked[lr]) + 1 for lr in lrs if self.asked.get(lr)), default=0)


def next_points(
    search: SearchSpec,
    observations: Sequence[Observation],
    *,
    start: Sequence[float],
    unavailable: Collection[tuple[float, int]] = (),
) -> Proposal:
    """The next trials of one curve. Call it only when nothing of that curve is pending.

    `start` are the rates to begin with, the first anchoring the lattice; `unavailable` are trials that failed for good.
    """
    lattice = _lattice(search, observations, start, unavailable)
    begin = [p for lr in start if lattice.allows(lr_key(lr)) for p in lattice.missing(lr_key(lr), search.seeds.min)]
    if begin:
        return _ask(begin, "the starting rates")
    curve = landscape(observations)
    if not curve.lrs:
        return Proposal(points=(), status=CurveStatus.EMPTY, reason="no trial of this curve could be run")
    if search.algorithm == "grid":
        return _finish(search, lattice, curve)
    return _bracket(search, lattice, curve) or _finish(search, lattice, curve)


def _lattice(
    search: SearchSpec,
    observations: Sequence[Observation],
    start: Sequence[float],
    unavailable: Collection[tuple[float, int]],
) -> _Lattice:
    asked: dict[float, set[int]] = {}
    for lr, seed in [*((o.lr_octaves, o.seed) for o in observations), *unavailable]:
        asked.setdefault(lr_key(lr), set()).add(seed)
    low, high = search.lr_octaves.limit
    return _Lattice(
        anchor=lr_key(start[0]),
        step=search.lr_octaves.step,
        low=low,
        high=high,
        asked={lr: frozenset(seeds) for lr, seeds in asked.items()},
    )


def _ask(points: Iterable[tuple[float, int]], reason: str) -> Proposal:
    return Proposal(points=tuple(dict.fromkeys(points)), status=CurveStatus.INCOMPLETE, reason=reason)


def _bracket(search: SearchSpec, lattice: _Lattice, curve: Landscape) -> Proposal | None:
    """Widen the bracket, then fill the half octaves; None when both are done."""
    if curve.best is None:
        return _below_divergence(search, lattice, curve)
    found: list[tuple[float, int]] = []
    for side in (curve.side(-1), curve.side(+1)):
        wanted = _outward_count(curve, side)
        rates = _outward(lattice, side.direction, wanted)
        more = [point for lr in rates for point in lattice.missing(lr, search.seeds.min)]
        if len(rates) < wanted:
            more += _up_to_limit(search, lattice, curve, side)
        if wanted and not more:
            return _at_limit(lattice, curve, side)
        found += more
    if found:
        return _ask(found, "widening the bracket")
    fill = _fill(search, lattice, curve)
    return _ask(fill, "half octaves around the best") if fill else None


def _below_divergence(search: SearchSpec, lattice: _Lattice, curve: Landscape) -> Proposal:
    """Everything diverged: rates must fall."""
    lr = lattice.outward(lattice.edge(-1), -1)
    if lr is None:
        return Proposal(points=(), status=CurveStatus.EMPTY, reason=shape(curve)[1])
    return _ask(lattice.missing(lr, search.seeds.min), "every rate so far diverged")


def _outward_count(curve: Landscape, side: Side) -> int:
    """How many more points a side needs beyond its outermost."""
    if side.count < POINTS_A_SIDE:
        return POINTS_A_SIDE - side.count
    if side.diverged_at is None and not curve.is_clearly_worse(side.finite[-1]):
        return 1
    return 0


def _outward(lattice: _Lattice, direction: int, count: int) -> list[float]:
    rates: list[float] = []
    edge = lattice.edge(direction)
    while len(rates) < count and (lr := lattice.outward(edge, direction)) is not None:
        rates.append(lr)
        edge = lr
    return rates


def _up_to_limit(search: SearchSpec, lattice: _Lattice, curve: Landscape, side: Side) -> list[tuple[float, int]]:
    """At the limit, the half octaves between it and the best are all that can still bracket the optimum."""
    if curve.best is None or side.count >= POINTS_A_SIDE:
        return []
    best = curve.lrs[curve.best]
    rates = [lr for lr in lattice.around(best, POINTS_A_SIDE * lattice.step) if (lr - best) * side.direction > 1e-6]
    return [point for lr in rates for point in lattice.missing(lr, search.seeds.min)]


def _at_limit(lattice: _Lattice, curve: Landscape, side: Side) -> Proposal:
    limit = lattice.high if side.direction > 0 else lattice.low
    reason = f"{shape(curve)[1]}, and the search ends at 2^{limit:g}"
    return Proposal(points=(), status=CurveStatus.UNBRACKETED, reason=reason)


def _fill(search: SearchSpec, lattice: _Lattice, curve: Landscape) -> list[tuple[float, int]]:
    """Half octaves within 1.5 of the best, then of the fit's centre, at the window's number of seeds."""
    best = curve.best
    if best is None:
        return []
    return _fill_around(search, lattice, curve, curve.lrs[best]) or _fill_around(
        search, lattice, curve, locate(curve)[0]
    )


def _fill_around(search: SearchSpec, lattice: _Lattice, curve: Landscape, center: float) -> list[tuple[float, int]]:
    """What is missing within 1.5 octaves of `center`, up to the nearest diverged rates."""
    low, high = curve.side(-1).diverged_at, curve.side(+1).diverged_at
    measured = {lr for lr in curve.lrs if abs(lr - center) <= WINDOW_OCTAVES + 1e-6}
    near = measured | set(lattice.around(center, WINDOW_OCTAVES))
    inside = sorted(lr for lr in near if (low is None or lr > low) and (high is None or lr < high))
    level = max(search.seeds.min, lattice.level(inside))
    return [point for lr in inside for point in lattice.missing(lr, level)]


def _finish(search: SearchSpec, lattice: _Lattice, curve: Landscape) -> Proposal:
    """The bracket stands (or the grid is run): fit it, and add seeds while the optimum is too uncertain."""
    status, reason = shape(curve)
    if status is not CurveStatus.BRACKETED:
        return Proposal(points=(), status=status, reason=reason)
    fit = fit_landscape(curve, rng_seed=SEARCH_RNG_SEED)
    if fit is None:
        return Proposal(points=(), status=CurveStatus.INCOMPLETE, reason="too few rates near the best could be trained")
    window = locate(curve)[1]
    level = lattice.level(window)
    width = half_width(fit.optimum_interval())
    if width <= WANTED_HALF_WIDTH or level >= search.seeds.max:
        return Proposal(points=(), status=status, reason=f"{reason}, optimum known to ±{width:.2f} octaves")
    more = [point for lr in window for point in lattice.missing(lr, level + 1)]
    if not more:
        return Proposal(points=(), status=status, reason=f"{reason}, no further seed could be run")
    return _ask(more, f"seed {level + 1}: the optimum is known to ±{width:.2f} octaves only")
