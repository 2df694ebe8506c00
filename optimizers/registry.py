"""From scaling numbers to a torch optimizer: parameters with equal numbers share a group, groups an algorithm.

The numbers live in the group dictionaries and in `ModelScaling`, never as attributes on parameters: those do not
survive saving, wrapping or sharding.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mutransfer.algorithms import Algorithm
from mutransfer.errors import ScalingError, SpecError
from mutransfer.parametrize import ModelScaling, ParameterScaling
from mutransfer.plugins import refusal
from mutransfer.trial import TrialSpec
from optimizers.adopt import ADOPT
from optimizers.composite import Composite
from optimizers.external import build_external
from optimizers.lamb import LAMB
from optimizers.muon import Muon
from optimizers.sgd import SGD
from optimizers.shampoo import Shampoo
from optimizers.soap import SOAP
from optimizers.sophia import Sophia
from optimizers.spectral import SpectrallyNormalised

Group = dict[str, Any]


def build_optimizer(
    named_parameters: Iterable[tuple[str, Tensor]],
    scaling: ModelScaling,
    trial: TrialSpec,
    *,
    packages: Sequence[str] = (),
) -> Optimizer:
    """One optimizer over all parameters, at the peak learning rates of `trial`.

    Each group carries `names`, `algorithm`, peak `lr`, `weight_decay` (per unit of LR, as torch multiplies them) and
    the algorithm's options. Raises ScalingError unless every parameter is in exactly one group, SpecError for an
    optimizer of the user's own that is neither in one of the allowed `packages` nor announced by an installed one.
    """
    if trial.arm.is_own and (why := refusal(str(trial.arm.optimizer), packages)):
        raise SpecError.at("arms.optimizer", why)
    children: dict[tuple[Algorithm, bool], list[Group]] = {}
    for group in param_groups(named_parameters, scaling, trial):
        children.setdefault((Algorithm(group["algorithm"]), "norm" in group), []).append(group)
    optimizers = [_build(algorithm, members, normalised) for (algorithm, normalised), members in children.items()]
    return optimizers[0] if len(optimizers) == 1 else Composite(optimizers)


def _build(algorithm: Algorithm, groups: list[Group], normalised: bool) -> Optimizer:
    optimizer = _BUILDERS[algorithm](groups)
    # An optimizer of the user's own is wrapped where it is built: our decay goes around the normalisation.
    return SpectrallyNormalised(optimizer) if normalised and algorithm is not Algorithm.EXTERNAL else optimizer


def param_groups(
    named_parameters: Iterable[tuple[str, Tensor]], scaling: ModelScaling, trial: TrialSpec
) -> list[Group]:
    """The groups of `build_optimizer`, in order of first appearance."""
    parameters = dict(named_parameters)
    scaled = {p.info.name: p for p in scaling.parameters}
    if parameters.keys() != scaled.keys():
        raise ScalingError(f"no group, or two, for {sorted(parameters.keys() ^ scaled.keys())}")
    groups: dict[tuple[Any, ...], Group] = {}
    for name, parameter in parameters.items():
        settings = _settings(scaled[name], trial)
        group = groups.setdefault(tuple(settings.items()), {"params": [], "names": [], **settings})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _settings(scaled: ParameterScaling, trial: TrialSpec) -> Group:
    """Everything of a group but its parameters; equal settings mean one group."""
    lr = scaled.lr(trial.base_lr)
    return {
        "algorithm": scaled.algorithm.value,
        "lr": lr,
        "weight_decay": scaled.weight_decay / lr,
        **scaled.options,
        **({"norm": scaled.norm} if scaled.norm else {}),
    }


def _adamw(groups: list[Group]) -> Optimizer:
    # Fused: one kernel a group. On a CPU it is four times faster than the loop and foreach does not help.
    return torch.optim.AdamW(groups, fused=True)


def _sgd(groups: list[Group]) -> Optimizer:
    return SGD(groups, fused=True)


_BUILDERS: dict[Algorithm, Callable[[list[Group]], Optimizer]] = {
    Algorithm.ADAMW: _adamw,
    Algorithm.SGD: _sgd,
    Algorithm.ADOPT: ADOPT,
    Algorithm.LAMB: LAMB,
    Algorithm.SOPHIA: Sophia,
    Algorithm.SHAMPOO: Shampoo,
    Algorithm.SOAP: SOAP,
    Algorithm.MUON: Muon,
    Algorithm.EXTERNAL: build_external,
}

_ALGORITHMS: dict[object, Algorithm] = {
    torch.optim.AdamW: Algorithm.ADAMW,
    SGD: Algorithm.SGD,
    **{builder: algorithm for algorithm, builder in _BUILDERS.items() if isinstance(builder, type)},
}


def algorithm_of(made: object) -> Algorithm | None:
    """Which built-in algorithm a class is; None for anybody else's."""
    return _ALGORITHMS.get(made)
