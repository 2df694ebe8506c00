"""From a trial to an initialised module: built-in families by name, the user's own by `package.module:build`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import importlib
import inspect
from typing import Any

from torch import nn

from models.init import initialise
from models.llama import Llama
from models.mlp import MLPModel
from models.nanogpt import NanoGPT
from mutransfer.architecture import architecture
from mutransfer.errors import ScalingError, SpecError
from mutransfer.parametrize import ForwardScaling, ModelScaling, forward_scaling, model_scaling
from mutransfer.roles import ParameterInfo
from mutransfer.spec import ModelSpec, ReadoutInit
from mutransfer.trial import TrialSpec

Build = Callable[..., tuple[nn.Module, Sequence[ParameterInfo]]]

FAMILIES: dict[str, Callable[..., nn.Module]] = {"nanogpt": NanoGPT, "llama": Llama, "mlp": MLPModel}


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """An initialised module on the CPU and the numbers of its parameters."""

    module: nn.Module
    scaling: ModelScaling


def build(trial: TrialSpec, *, vocab: int, packages: Sequence[str] = ()) -> BuiltModel:
    """Build and initialise the model of a trial.

    `packages` are the top-level packages that the operator allows for models of the user's own. Raises SpecError when
    such a model cannot be imported or built, ScalingError when its parameters do not fit their description.
    """
    forward = forward_scaling(trial)
    if trial.model.is_own:
        module, infos = build_own(trial.model, trial.width, trial.depth, vocab, packages, forward)
        _, base_infos = build_own(trial.model, trial.base_width, trial.depth, vocab, packages, forward)
        scaling = model_scaling(trial, vocab=vocab, infos=infos, base_infos=base_infos)
    else:
        family = FAMILIES[trial.model.family]
        module = family(trial.model, width=trial.width, depth=trial.depth, vocab=vocab, scaling=forward)
        scaling = model_scaling(trial, vocab=vocab)
    initialise(module, scaling, seed=trial.seed)
    return BuiltModel(module=module, scaling=scaling)


def describe_model(
    model: ModelSpec, *, width: int, depth: int, vocab: int, packages: Sequence[str]
) -> tuple[ParameterInfo, ...]:
    """Parameters of any family at one size; a family of the user's own is built to find out."""
    if not model.is_own:
        return architecture(model, width=width, depth=depth, vocab=vocab)
    neutral = ForwardScaling(attention_scale=1.0, residual_multiplier=1.0, readout_multiplier=1.0)
    return build_own(model, width, depth, vocab, packages, neutral)[1]


def build_own(
    model: ModelSpec, width: int, depth: int, vocab: int, packages: Sequence[str], forward: ForwardScaling
) -> tuple[nn.Module, tuple[ParameterInfo, ...]]:
    """Call the user's `build(width, depth, …)` with those of vocab, context, forward and options that it names."""
    function = _import(model.family, packages)
    offered: dict[str, Any] = {"vocab": vocab, "context": model.context, "forward": forward, **model.options}
    accepted = inspect.signature(function).parameters
    if "forward" not in accepted and model.init.readout is ReadoutInit.MULTIPLIER:
        raise SpecError.at(
            "model.init.readout", f"{model.family} takes no `forward` multipliers: use zero or inverse_width"
        )
    if unknown := sorted(set(model.options) - set(accepted)):
        raise SpecError.at("model.options", f"{model.family} does not take {', '.join(unknown)}")
    module, infos = function(width, depth, **{name: value for name, value in offered.items() if name in accepted})
    return module, _checked(module, tuple(infos), model.family)


def _import(family: str, packages: Sequence[str]) -> Build:
    module_name, _, function = family.partition(":")
    if module_name.partition(".")[0] not in packages:
        allowed = ", ".join(packages) or "none"
        raise SpecError.at("model.family", f"{module_name!r} is not in an allowed package (allowed: {allowed}; the "
                           "operator sets MUTRANSFER_MODEL_PACKAGES)")  # fmt: skip
    try:
        found: Build = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise SpecError.at("model.family", f"cannot import {family}: {error}") from error
    return found


def _checked(module: nn.Module, infos: tuple[ParameterInfo, ...], family: str) -> tuple[ParameterInfo, ...]:
    """Hold a user's description to the module itself: every parameter once, in its real shape, none shared."""
    seen = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    shared = set(seen) - {name for name, _ in module.named_parameters()}
    if shared:
        raise ScalingError(f"{family}: shared (tied) parameters {sorted(shared)} cannot sit in two groups; untie them")
    actual = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    described = {info.name: info.shape for info in infos}
    if actual != described or len(described) != len(infos):
        odd = sorted(set(actual.items()) ^ set(described.items()))
        raise ScalingError(f"{family}: its ParameterInfo list does not describe its parameters: {odd}")
    order = {name: index for index, name in enumerate(actual)}
    return tuple(sorted(infos, key=lambda info: order[info.name]))
