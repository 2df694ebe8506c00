"""From a trial to the numbers of each of its parameters: the one place where rules, roles and options meet.

The trainer, the recipe and the audit all read the same `ModelScaling`, so they cannot disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from mutransfer import scaling
from mutransfer.algorithms import Algorithm
from mutransfer.architecture import architecture, parameter_count
from mutransfer.errors import ScalingError
from mutransfer.roles import ParameterInfo, ParameterRole
from mutransfer.scaling import Growth
from mutransfer.spec import Parametrization, ReadoutInit
from mutransfer.trial import TrialSpec
from mutransfer.updates import Site, update


@dataclass(frozen=True, kw_only=True)
class ForwardScaling:
    """Multipliers inside the forward pass: on attention logits, on each residual branch, on the readout."""

    attention_scale: float
    residual_multiplier: float
    readout_multiplier: float


@dataclass(frozen=True, kw_only=True)
class ParameterScaling:
    """Every number that one parameter trains with. `lr_multiplier` is 1 at base; `lr_factor` is the arm's option.

    The peak learning rate is `base LR * lr_factor * lr_multiplier`; `weight_decay` is the fraction taken off a step
    at the peak of the schedule, whatever the learning rate; `options` are the torch group's others, scaled (`eps` is
    absolute); `norm` is what the update is rescaled to (nothing, `spectral` or `rms`).
    """

    info: ParameterInfo
    algorithm: Algorithm
    lr_factor: float
    lr_multiplier: float
    options: Mapping[str, Any]
    norm: str
    weight_decay: float
    clip_weight: float
    init_std: float
    forward_multiplier: float
    source: str

    @property
    def eps(self) -> float:
        """The algorithm's epsilon, 0 where it has none."""
        return float(self.options.get("eps", 0.0))

    def lr(self, base_lr: float) -> float:
        """Peak learning rate at the base learning rate `base_lr`."""
        return base_lr * self.lr_factor * self.lr_multiplier


@dataclass(frozen=True, kw_only=True)
class ModelScaling:
    """All parameters of one model, in module order, and its forward multipliers."""

    parameters: tuple[ParameterScaling, ...]
    forward: ForwardScaling

    @property
    def parameter_count(self) -> int:
        """Number of scalars in the model."""
        return parameter_count(tuple(p.info for p in self.parameters))


def forward_scaling(trial: TrialSpec) -> ForwardScaling:
    """The forward multipliers of a trial's model: SP keeps `1/sqrt(d_head)` and ones."""
    mup = trial.arm.parametrization is Parametrization.MUP
    r_width = trial.width / trial.base_width
    multiplied = mup and trial.readout_init is ReadoutInit.MULTIPLIER
    return ForwardScaling(
        attention_scale=_attention_scale(trial, mup),
        residual_multiplier=scaling.residual_multiplier(_n(trial), trial.model.residual_alpha) if mup else 1.0,
        readout_multiplier=1.0 / r_width if multiplied else 1.0,
    )


def _n(trial: TrialSpec) -> float:
    return trial.depth / trial.base_depth


def _attention_scale(trial: TrialSpec, mup: bool) -> float:
    heads, head_dim = trial.model.heads, trial.model.head_dim
    d_head = trial.width // heads if heads else head_dim or 1
    d_head_base = trial.base_width // heads if heads and mup else d_head
    return scaling.attention_scale(d_head=d_head, d_head_base=d_head_base)


def model_scaling(
    trial: TrialSpec,
    *,
    vocab: int,
    infos: Sequence[ParameterInfo] | None = None,
    base_infos: Sequence[ParameterInfo] | None = None,
) -> ModelScaling:
    """Scale every parameter of a trial's model.

    Built-in families need only `vocab`. A family of the user's own passes what it built: `infos` at the trial's size,
    `base_infos` at base width and the trial's depth. Raises ScalingError when the two do not match by name.
    """
    if infos is None or base_infos is None:
        infos = architecture(trial.model, width=trial.width, depth=trial.depth, vocab=vocab)
        base_infos = architecture(trial.model, width=trial.base_width, depth=trial.depth, vocab=vocab)
    if [i.name for i in infos] != [i.name for i in base_infos]:
        raise ScalingError("the model and its base model do not have the same parameters")
    forward = forward_scaling(trial)
    pairs = zip(infos, base_infos, strict=True)
    return ModelScaling(parameters=tuple(_scale(trial, i, b, forward) for i, b in pairs), forward=forward)


def _growth(trial: TrialSpec, info: ParameterInfo, base: ParameterInfo) -> Growth:
    if trial.arm.parametrization is Parametrization.SP:
        return Growth()
    return Growth(
        r_in=info.d_in / base.d_in,
        r_out=info.d_out / base.d_out,
        n=_n(trial) if info.role.is_hidden else 1.0,
        alpha=trial.model.residual_alpha if info.role.is_hidden else 1.0,
    )


def _scale(trial: TrialSpec, info: ParameterInfo, base: ParameterInfo, forward: ForwardScaling) -> ParameterScaling:
    growth = _growth(trial, info, base)
    multiplier = forward.readout_multiplier if info.role is ParameterRole.READOUT else 1.0
    std, base_std = _init_std(trial, info, base), _init_std(trial, base, base)
    site = Site(
        arm=trial.arm, info=info, base=base, growth=growth, multiplier=multiplier,
        r_std=multiplier * std / base_std if base_std and trial.arm.parametrization is Parametrization.MUP else 1.0,
    )  # fmt: skip
    found = update(site)
    return ParameterScaling(
        info=info,
        algorithm=found.algorithm,
        lr_factor=found.lr_factor,
        lr_multiplier=found.lr_multiplier,
        options=found.options,
        norm=found.norm,
        weight_decay=_weight_decay(trial, info),
        clip_weight=scaling.clip_weight(growth) / multiplier,
        init_std=std,
        forward_multiplier=multiplier,
        source=found.source,
    )


def _weight_decay(trial: TrialSpec, info: ParameterInfo) -> float:
    """Decay shrinks matrices; a vector (norm gain, bias) is a scale or an offset and keeps its size."""
    if info.role is ParameterRole.VECTOR:
        return 0.0
    if trial.arm.parametrization is Parametrization.SP:
        return trial.train.weight_decay
    r_width = trial.width / trial.base_width
    return trial.train.weight_decay * scaling.weight_decay_factor(r_width, trial.train.kappa)


def _init_std(trial: TrialSpec, info: ParameterInfo, base: ParameterInfo) -> float:
    init = trial.model.init
    match info.role:
        case ParameterRole.EMBEDDING | ParameterRole.POSITION:
            return init.embedding_std
        case ParameterRole.RESIDUAL_OUT if init.residual_out == "zero":
            return 0.0
        case ParameterRole.HIDDEN | ParameterRole.RESIDUAL_OUT:
            return scaling.hidden_std(info.d_in)
        case ParameterRole.READOUT:
            return _readout_std(trial, info, base)
        case ParameterRole.VECTOR:
            return 0.0  # gains start at 1, biases at 0: no noise on either


def _readout_std(trial: TrialSpec, info: ParameterInfo, base: ParameterInfo) -> float:
    if trial.readout_init is ReadoutInit.ZERO:
        return 0.0
    if trial.arm.parametrization is Parametrization.SP:
        return 1.0 / sqrt(info.d_in)
    if trial.readout_init is ReadoutInit.MULTIPLIER:
        return 1.0 / sqrt(base.d_in)
    return scaling.readout_std(info.d_in, base.d_in)
