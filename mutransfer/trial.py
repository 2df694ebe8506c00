"""One training run: what defines it, what identifies it, what came out of it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from mutransfer.base import Value, digest
from mutransfer.spec import (
    ArmSpec,
    DataSpec,
    EvalSpec,
    Hyperparameter,
    ModelSpec,
    Parametrization,
    ReadoutInit,
    Rule,
    StudySpec,
    TrainSpec,
)


class TrialSpec(Value):
    """Everything that determines a run but the machine it runs on: never the study or the phase it serves.

    `lr_octaves` is log2 of the base learning rate; `base_width`, `base_depth` name the model where all multipliers
    are 1. Seeds are shared by all arms and rates: seed s means the same data order and the same draws everywhere.
    """

    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    eval: EvalSpec
    arm: ArmSpec
    width: int
    depth: int
    base_width: int
    base_depth: int
    lr_octaves: float
    seed: Annotated[int, Field(ge=0)]

    @property
    def base_lr(self) -> float:
        """The base learning rate, dimensionless."""
        return float(2.0**self.lr_octaves)

    @property
    def readout_init(self) -> ReadoutInit:
        """How the readout of this trial starts; never AUTO."""
        return self.arm.readout_init(self.model.init)


class Environment(Value):
    """What else a result depends on. `nonce` makes runs unique on purpose (nightly fire time, `--fresh`)."""

    data_fingerprint: str
    code_digest: str
    torch_version: str
    device_type: str
    nonce: str = ""


def trial_key(trial: TrialSpec, environment: Environment) -> str:
    """The content key: equal keys mean that the finished result of one run answers for the other.

    Left out is what cannot matter: the arm's display name, defaults that are spelled out, and the base size wherever
    the run does not depend on it. Under SP it never does, and at base size μP *is* the SP run, bit for bit (a test of
    the trainer holds this), so both arms of a study share the trials of their base width.
    """
    document = trial.model_dump(mode="json")
    is_base = (trial.width, trial.depth) == (trial.base_width, trial.base_depth)
    is_sp = is_base or trial.arm.parametrization is Parametrization.SP
    document["arm"] = {
        "optimizer": str(trial.arm.optimizer),
        "parametrization": Parametrization.SP.value if is_sp else Parametrization.MUP.value,
        "rule": Rule.PUBLISHED.value if is_sp else trial.arm.rule.value,
        "law": None if is_sp else trial.arm.law,
        "options": trial.arm.resolved_options().model_dump(mode="json"),
    }
    document["model"]["init"]["readout"] = trial.readout_init.value
    if is_sp:
        del document["base_width"], document["base_depth"]
    document["lr_octaves"] = f"{trial.lr_octaves:.4f}"
    return digest({"trial": document, "environment": environment.model_dump(mode="json")})


def trial_spec(study: StudySpec, arm: ArmSpec, axis_value: int, lr_octaves: float, seed: int) -> TrialSpec:
    """The trial of `study` for one arm at one value of the axis, one rate and one seed.

    The arm's overrides are moved to where they act, so that a trial does not depend on how it was asked for.
    """
    width, depth = study.size_at(axis_value)
    base_width, base_depth = study.base_size
    model, train, arm = _overridden(study.model, study.train, arm)
    return TrialSpec(
        model=model.model_copy(update={"depth": depth}), data=study.data, train=train, eval=study.eval, arm=arm,
        width=width, depth=depth, base_width=base_width, base_depth=base_depth,
        lr_octaves=round(lr_octaves, 4), seed=seed,
    )  # fmt: skip


def _overridden(model: ModelSpec, train: TrainSpec, arm: ArmSpec) -> tuple[ModelSpec, TrainSpec, ArmSpec]:
    values = arm.overrides
    if Hyperparameter.WEIGHT_DECAY in values:
        train = train.model_copy(update={"weight_decay": values[Hyperparameter.WEIGHT_DECAY]})
    if Hyperparameter.EMBEDDING_STD in values:
        init = model.init.model_copy(update={"embedding_std": values[Hyperparameter.EMBEDDING_STD]})
        model = model.model_copy(update={"init": init})
    factors = (Hyperparameter.EMBEDDING_LR_FACTOR, Hyperparameter.READOUT_LR_FACTOR)
    options = {**arm.options, **{name.value: values[name] for name in factors if name in values}}
    return model, train, arm.model_copy(update={"options": options, "overrides": {}})


class TrialStatus(StrEnum):
    """How a trial ended. DIVERGED is a result; FAILED is not, and never enters a curve."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"


class HistoryPoint(Value):
    """Training loss (nats per token, mean since the previous point) after `step` steps."""

    step: int
    train_loss_nats: float | None


class TrialResult(Value):
    """What one run measured. `loss_nats` is the held-out loss at the last step, None when the run diverged."""

    status: Literal[TrialStatus.FINISHED, TrialStatus.DIVERGED]
    loss_nats: float | None
    initial_loss_nats: float | None  # None when the very first loss was not finite
    train_loss_nats: float | None
    history: tuple[HistoryPoint, ...] = ()
    diverged_at_step: int | None = None
    reason: str = ""
    steps: int
    tokens: int
    parameters: int
    device_seconds: float
    device: str
    resumed_from_step: int = 0
    calibration_gflops: float | None = None  # speed of a fixed matrix product in the same process meanwhile


class Observation(Value):
    """One finished trial as the search and the fit see it: a point of a curve."""

    lr_octaves: float
    seed: int
    loss_nats: float | None

    @property
    def diverged(self) -> bool:
        """Whether the run diverged: worse than any finite loss, never part of a fit."""
        return self.loss_nats is None
