"""What do I set at width W and depth L? From a study's result to the numbers of every parameter group.

The numbers come from the same `ModelScaling` that the trainer uses; the learning rate is the one the study recorded at
its largest proxy. A recipe always says first whether that rate was found to transfer.
"""

from collections.abc import Iterable
from typing import Any, Literal

from mutransfer.algorithms import Algorithm
from mutransfer.architecture import at_width
from mutransfer.base import Value
from mutransfer.drift import doublings, widened
from mutransfer.errors import NotFoundError, ScalingError, SpecError
from mutransfer.facts import StudyFacts
from mutransfer.parametrize import ModelScaling, ParameterScaling, model_scaling
from mutransfer.result import ArmResult, CurveStatus, Interval, Outcome, StudyRef, StudyResult
from mutransfer.roles import ParameterInfo
from mutransfer.spec import ArmSpec, Parametrization, StudySpec
from mutransfer.trial import TrialSpec, trial_spec

#: Where the numbers besides the learning rate come from (scaling-rules.md).
MUP_RULES = {
    "eps": "Q25: Adam-like eps/(r_out N); Muon eps sqrt(r_in/r_out)/N; Shampoo, SOAP: docs/guide/scaling.md",
    "weight_decay": "Q25, Wang & Aitchison: lambda r_width^-kappa a step, independent of the LR",
    "clip_weight": "each gradient counts with weight sqrt(r_out/r_in) N in the global norm",
    "init_std": "hidden 1/sqrt(d_in), embedding constant, readout by model.init.readout",
    "forward_multiplier": "readout as model.init.readout; residual branch N^-alpha; attention sqrt(d_head_base)/d_head",
}
SP_RULES = dict.fromkeys(MUP_RULES, "standard parametrization: unscaled")


class RecipeGroup(Value):
    """Parameters that share every number. `lr` is the peak: `base_lr x lr_factor x lr_multiplier`.

    `weight_decay` is the fraction taken off a step at the peak; `torch_weight_decay` is what torch's groups want, since
    torch multiplies it by the learning rate. `options` are the algorithm's others.
    """

    role: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    algorithm: Algorithm
    base_lr: float
    lr_factor: float
    lr_multiplier: float
    lr: float
    eps: float
    weight_decay: float
    torch_weight_decay: float
    clip_weight: float
    init_std: float
    forward_multiplier: float
    norm: str = ""
    options: dict[str, Any]
    source: str


class RecipeForward(Value):
    """Multipliers inside the forward pass."""

    attention_scale: float
    residual_multiplier: float
    readout_multiplier: float


class Conditions(Value):
    """What the rate was measured under. μP carries it over width, not over horizon, batch or data."""

    steps: int
    tokens: int
    horizon: str
    batch: int
    context: int
    schedule: str
    warmup: float
    clip: float | None
    data: str
    tokenizer: str
    vocab: int
    depth: int


class Recipe(Value):
    """Everything to set for one arm at one size, and how far to trust it."""

    version: Literal[1] = 1
    study: StudyRef
    arm: str
    optimizer: str
    parametrization: Parametrization
    outcome: Outcome
    reasons: tuple[str, ...]
    width: int
    depth: int
    parameters: int
    base_lr: float
    base_lr_octaves: Interval
    recorded_at: int
    verified_to: int
    extrapolated: bool
    extrapolation: tuple[str, ...]
    groups: tuple[RecipeGroup, ...]
    parameter_names: tuple[str, ...]
    forward: RecipeForward
    rules: dict[str, str]
    conditions: Conditions

    @property
    def transfers(self) -> bool:
        """Whether the study found that this rate transfers."""
        return self.outcome is Outcome.TRANSFERS


def recipe(
    spec: StudySpec, result: StudyResult, facts: StudyFacts, *, width: int, depth: int | None = None,
    arm: str | None = None,
) -> Recipe:  # fmt: skip
    """The recipe of one arm at `width` (and `depth`; the study's own where None).

    `arm` defaults to the transferring arm with the lowest loss at the largest target, else the first μP arm. Raises
    NotFoundError for an unknown arm or one without a recorded rate, SpecError for a size that cannot be built.
    """
    _check_size(spec, width, depth)
    chosen = _chosen(result, arm)
    recorded = chosen.verdict.recorded_lr_octaves
    if recorded is None:
        raise NotFoundError(f"arm {chosen.name} has no recorded learning rate: {'; '.join(chosen.verdict.reasons)}")
    depth = depth if depth is not None else spec.size_at(spec.axis.values[-1])[1]
    arm_spec = next(a for a in spec.arms if a.name == chosen.name)
    arm_spec = arm_spec.model_copy(update={"overrides": chosen.overrides})
    trial = _trial(spec, arm_spec, recorded, width, depth)
    scaled = _scaling(spec, facts, trial)
    verified, why = _extrapolation(spec, chosen, width, depth)
    return Recipe(
        study=result.study,
        arm=chosen.name,
        optimizer=chosen.optimizer,
        parametrization=chosen.parametrization,
        outcome=chosen.verdict.outcome,
        reasons=chosen.verdict.reasons,
        width=width,
        depth=depth,
        parameters=scaled.parameter_count,
        base_lr=trial.base_lr,
        base_lr_octaves=_interval(spec, chosen, recorded, verified, width, depth),
        recorded_at=chosen.verdict.proxy,
        verified_to=verified,
        extrapolated=bool(why),
        extrapolation=why,
        groups=tuple(_groups(scaled, trial)),
        parameter_names=tuple(p.info.name for p in scaled.parameters),
        forward=RecipeForward(
            attention_scale=scaled.forward.attention_scale,
            residual_multiplier=scaled.forward.residual_multiplier,
            readout_multiplier=scaled.forward.readout_multiplier,
        ),
        rules=MUP_RULES if chosen.parametrization is Parametrization.MUP else SP_RULES,
        conditions=_conditions(spec, facts, scaled, depth),
    )


def _check_size(spec: StudySpec, width: int, depth: int | None) -> None:
    if width < 1:
        raise SpecError.at("width", f"a width is at least 1, this is {width}")
    if depth is not None and depth < 1:
        raise SpecError.at("depth", f"a depth is at least 1, this is {depth}")
    for field, count in (("head_dim", spec.model.head_dim), ("heads", spec.model.heads)):
        if count and width % count:
            nearest = max(count, round(width / count) * count)
            raise SpecError.at("width", f"{width} is not divisible by model.{field} = {count}: try {nearest}")
    if spec.model.family == "llama":
        (heads, head_dim), shared = spec.model.heads_at(width), spec.model.queries_per_kv
        if heads % shared or head_dim % 2:
            raise SpecError.at(
                "width",
                f"{width} makes {heads} heads of size {head_dim}: the number must be a multiple of queries_per_kv = "
                f"{shared}, the size even",
            )


def _chosen(result: StudyResult, name: str | None) -> ArmResult:
    if name is not None:
        for arm in result.arms:
            if arm.name == name:
                return arm
        raise NotFoundError(f"no arm {name!r}: this study has {', '.join(a.name for a in result.arms)}")
    transferring = [a for a in result.arms if a.verdict.outcome is Outcome.TRANSFERS]
    if transferring:
        return min(transferring, key=_target_loss)
    return next((a for a in result.arms if a.parametrization is Parametrization.MUP), result.arms[0])


def _target_loss(arm: ArmResult) -> float:
    loss = arm.curves[-1].loss_nats
    return float("inf") if loss is None else loss.value


def _trial(spec: StudySpec, arm: ArmSpec, recorded: float, width: int, depth: int) -> TrialSpec:
    trial = trial_spec(spec, arm, spec.axis.proxy[-1], recorded, seed=0)
    model = trial.model.model_copy(update={"depth": depth})
    return trial.model_copy(update={"width": width, "depth": depth, "model": model})


def _scaling(spec: StudySpec, facts: StudyFacts, trial: TrialSpec) -> ModelScaling:
    if not spec.model.is_own:
        return model_scaling(trial, vocab=facts.vocab)
    infos = own_infos(facts, width=trial.width, depth=trial.depth)
    base_infos = own_infos(facts, width=trial.base_width, depth=trial.depth)
    return model_scaling(trial, vocab=facts.vocab, infos=infos, base_infos=base_infos)


def own_infos(facts: StudyFacts, *, width: int, depth: int) -> tuple[ParameterInfo, ...]:
    """Parameters of the user's own model at any width, from the sizes it was built at.

    Raises ScalingError when it was built at fewer than two widths of this depth.
    """
    records = {record.width: record for record in facts.own_models if record.depth == depth}
    if width in records:
        return records[width].infos()
    if len(records) < 2:
        raise ScalingError(f"the model was built at fewer than two widths of depth {depth}: its parameters are unknown")
    low, high = min(records), max(records)
    return at_width(records[low].infos(), records[high].infos(), (low, high), width)


# --- how far the rate was verified -----------------------------------------------------------------------------------


def _extrapolation(spec: StudySpec, arm: ArmResult, width: int, depth: int) -> tuple[int, tuple[str, ...]]:
    """The largest verified value of the axis, and a sentence for every way in which the size lies beyond the study."""
    judged = (CurveStatus.BRACKETED, CurveStatus.EDGE_LIMITED)
    sizes = [c.width if spec.axis_name == "width" else c.depth for c in arm.curves if c.status in judged]
    verified = max(sizes, default=arm.verdict.proxy)
    value, other, other_name = (width, depth, "depth") if spec.axis_name == "width" else (depth, width, "width")
    studied = spec.size_at(spec.axis.values[-1])[1 if spec.axis_name == "width" else 0]
    why = []
    if value > verified:
        why.append(f"{spec.axis_name} {value} is {value / verified:g} times the largest verified, {verified}")
    if other != studied:
        why.append(f"the study kept {other_name} {studied}: nothing was measured at {other_name} {other}")
    return verified, tuple(why)


def _interval(
    spec: StudySpec, arm: ArmResult, recorded: float, verified: int, width: int, depth: int
) -> Interval:  # fmt: skip
    """The recorded rate with the interval of the proxy's optimum, widened beyond the largest verified size."""
    value, other = (width, depth) if spec.axis_name == "width" else (depth, width)
    studied = spec.size_at(spec.axis.values[-1])[1 if spec.axis_name == "width" else 0]
    proxy = next(
        (c for c in arm.curves if (c.width if spec.axis_name == "width" else c.depth) == arm.verdict.proxy), None
    )
    optimum = None if proxy is None else proxy.optimum_octaves
    if optimum is None or other != studied:
        return Interval(value=recorded, low=None, high=None)
    interval = optimum.model_copy(update={"value": recorded})
    return widened(interval, arm.verdict.slope_octaves_per_doubling, doublings=doublings(verified, value))


# --- the table -------------------------------------------------------------------------------------------------------


def _groups(scaled: ModelScaling, trial: TrialSpec) -> Iterable[RecipeGroup]:
    rows: dict[tuple[Any, ...], list[str]] = {}
    first: dict[tuple[Any, ...], ParameterScaling] = {}
    for p in scaled.parameters:
        key = (
            p.info.role, p.info.shape, p.algorithm, p.lr_factor, p.lr_multiplier, tuple(p.options.items()), p.norm,
            p.weight_decay, p.clip_weight, p.init_std, p.forward_multiplier,
        )  # fmt: skip
        rows.setdefault(key, []).append(p.info.name)
        first.setdefault(key, p)
    return (_row(first[key], tuple(names), trial) for key, names in rows.items())


def _row(scaled: ParameterScaling, names: tuple[str, ...], trial: TrialSpec) -> RecipeGroup:
    lr = scaled.lr(trial.base_lr)
    return RecipeGroup(
        role=scaled.info.role.value,
        shape=scaled.info.shape,
        names=names,
        algorithm=scaled.algorithm,
        base_lr=trial.base_lr,
        lr_factor=scaled.lr_factor,
        lr_multiplier=scaled.lr_multiplier,
        lr=lr,
        eps=scaled.eps,
        weight_decay=scaled.weight_decay,
        torch_weight_decay=scaled.weight_decay / lr,
        clip_weight=scaled.clip_weight,
        init_std=scaled.init_std,
        forward_multiplier=scaled.forward_multiplier,
        norm=scaled.norm,
        options=_options(scaled),
        source=scaled.source,
    )


def _options(scaled: ParameterScaling) -> dict[str, Any]:
    """The algorithm's options besides lr, eps and decay; all that the user gave for an optimizer of their own."""
    if scaled.algorithm is Algorithm.EXTERNAL:
        return dict(scaled.options)
    return {name: value for name, value in scaled.options.items() if name != "eps"}


def _conditions(spec: StudySpec, facts: StudyFacts, scaled: ModelScaling, depth: int) -> Conditions:
    train = spec.train
    steps = train.horizon_steps(context=spec.model.context, parameters=scaled.parameter_count)
    if train.steps is not None:
        horizon = "constant steps"
    else:
        horizon = (
            "constant tokens" if train.tokens is not None else f"{train.tokens_per_parameter:g} tokens a parameter"
        )
    return Conditions(
        steps=steps,
        tokens=steps * train.batch * spec.model.context,
        horizon=horizon,
        batch=train.batch,
        context=spec.model.context,
        schedule=train.schedule,
        warmup=train.warmup,
        clip=train.clip,
        data=spec.data.source,
        tokenizer=spec.data.tokenizer,
        vocab=facts.vocab,
        depth=depth,
    )
