"""Optuna's samplers, in memory: each batch of proposals is a pure function of the finished ones and a seed.

Nothing of Optuna is stored. The history is replayed into a fresh study for every batch, so a driver that starts again
proposes what its predecessor would have.
"""

from collections.abc import Mapping, Sequence
import hashlib
from math import ceil, floor
from typing import Any
import warnings

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mutransfer.spec import SearchSpec
from mutransfer.tuning import Sample

LR = "lr_octaves"
#: Samples drawn at random before a model is trusted.
STARTUP = 10


def propose(search: SearchSpec, history: Sequence[Sample], *, arm: str, count: int) -> tuple[Sample, ...]:
    """The next `count` samples of an arm, numbered on from `history`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(search)
    past = [_frozen(sample, space) for sample in history if sample.loss_nats is not None]
    with warnings.catch_warnings():
        # GPSampler and warm-started CMA-ES are marked experimental; a change of theirs would show in our tests.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=_sampler(search, past, _seed(arm, len(history))))
        study.add_trials(past)
        asked = [study.ask(space).params for _ in range(count)]
    return tuple(_sample(search, params, len(history) + place) for place, params in enumerate(asked))


def distributions(search: SearchSpec) -> dict[str, BaseDistribution]:
    """Learning rates are uniform in octaves, the others log-uniform over their ranges."""
    space: dict[str, BaseDistribution] = {LR: FloatDistribution(search.lr_octaves.low, search.lr_octaves.high)}
    for name, span in search.parameters.items():
        space[name.value] = FloatDistribution(span.low, span.high, log=True)
    return space


def _sampler(search: SearchSpec, past: list[FrozenTrial], seed: int) -> BaseSampler:
    match search.algorithm:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=STARTUP)
        case "cmaes":
            # Optuna keeps CMA-ES's state in the trials it has asked for; ours come from rows, so each batch starts
            # from the Gaussian that the best of them make.
            enough = len(past) >= STARTUP
            return CmaEsSampler(seed=seed, n_startup_trials=0, source_trials=past if enough else None)
    raise ValueError(f"{search.algorithm} does not sample")


def _seed(arm: str, place: int) -> int:
    return int.from_bytes(hashlib.sha256(f"mutransfer sampler {arm} {place}".encode()).digest()[:4])


def _frozen(sample: Sample, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    params: dict[str, Any] = {LR: sample.lr_octaves, **{name.value: value for name, value in sample.values.items()}}
    return create_trial(params=params, distributions=dict(space), value=sample.loss_nats, state=TrialState.COMPLETE)


def _sample(search: SearchSpec, params: Mapping[str, float], index: int) -> Sample:
    """Rounded, and still inside: a trial's rate has four decimals, and a replayed value must lie in its range."""
    grid = search.lr_octaves
    lr = round(_clamped(params[LR], ceil(grid.low * 1e4) / 1e4, floor(grid.high * 1e4) / 1e4), 4)
    inside = {
        name: _clamped(float(f"{params[name.value]:.6g}"), span.low, span.high)
        for name, span in search.parameters.items()
    }
    return Sample(index=index, lr_octaves=lr, values=inside)


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
