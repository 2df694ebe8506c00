"""Synthetic curves for tests: a known loss against learning rate, asked through the real search."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from mutransfer.search import Proposal, next_points
from mutransfer.spec import SearchSpec
from mutransfer.trial import Observation

#: Loss in nats at (lr_octaves, seed); None where the run diverges.
Loss = Callable[[float, int], float | None]


def search_spec(**changes: Any) -> SearchSpec:
    """The default search, -8..-3 within [-20, 4] at 2 to 4 seeds, with `changes` to its fields."""
    return SearchSpec.model_validate(changes)


def parabola(optimum: float, *, curvature: float = 0.06, floor: float = 2.0, edge: float = 99.0) -> Loss:
    """A noise-free parabola in octaves that diverges `edge` octaves above its optimum."""
    return lambda lr, _: None if lr > optimum + edge else floor + curvature * (lr - optimum) ** 2


def measured(loss: Loss, lrs: Iterable[float], *, seeds: int = 2) -> tuple[Observation, ...]:
    """Observations of a curve at given learning rates."""
    return tuple(Observation(lr_octaves=lr, seed=seed, loss_nats=loss(lr, seed)) for lr in lrs for seed in range(seeds))


def lattice(low: float, high: float, step: float = 0.5) -> list[float]:
    """Learning rates from low to high inclusive."""
    return [low + step * index for index in range(int((high - low) / step + 1.5))]


def searched(
    search: SearchSpec, loss: Loss, *, start: Sequence[float], failing: Collection[tuple[float, int]] = (),
    rounds: int = 400,
) -> tuple[tuple[Observation, ...], Proposal, list[Proposal]]:  # fmt: skip
    """Ask until the search is done. `failing` trials never give a result. Fails the test when it does not end."""
    found: list[Observation] = []
    unavailable: set[tuple[float, int]] = set()
    asked: list[Proposal] = []
    for _ in range(rounds):
        proposal = next_points(search, found, start=start, unavailable=unavailable)
        if not proposal.points:
            return tuple(found), proposal, asked
        asked.append(proposal)
        for lr, seed in proposal.points:
            if (lr, seed) in failing:
                unavailable.add((lr, seed))
            else:
                found.append(Observation(lr_octaves=lr, seed=seed, loss_nats=loss(lr, seed)))
    raise AssertionError(f"the search did not end in {rounds} rounds")
