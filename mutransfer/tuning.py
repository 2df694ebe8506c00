"""Several hyperparameters at once: what may be searched besides the learning rate, and which sample was best.

A sampler proposes samples (a learning rate with values for the other hyperparameters) at the largest proxy. Each is an
arm of its own, `ARM#INDEX`, and its trial an ordinary trial. The best sample's other values are then the arm's: frozen,
for every width, while the learning rate is searched again on its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mutransfer.spec import ArmSpec, Hyperparameter, StudySpec
from mutransfer.trial import Observation, TrialSpec

#: What a diverged sample counts as: worse than any finite loss, and still a number that a sampler can rank.
DIVERGED_NATS = 20.0
SAMPLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One proposal for one arm. `loss_nats` is None while it has no result or when it failed for good."""

    index: int
    lr_octaves: float
    values: Mapping[Hyperparameter, float]
    loss_nats: float | None = None


def label(arm: str, index: int) -> str:
    """The name of a sample's arm."""
    return f"{arm}#{index}"


def parse_label(name: str) -> tuple[str, int] | None:
    """(arm, index) of a sample's arm, None for an arm of the study."""
    arm, separator, index = name.partition("#")
    return (arm, int(index)) if separator else None


def with_values(arm: ArmSpec, values: Mapping[Hyperparameter, float]) -> ArmSpec:
    """`arm` with `values` laid over its overrides."""
    return arm.model_copy(update={"overrides": {**arm.overrides, **values}})


def values_of(spec: StudySpec, trial: TrialSpec) -> dict[Hyperparameter, float]:
    """The searched hyperparameters that a trial was planned with."""
    options = trial.arm.resolved_options()
    found = {
        Hyperparameter.WEIGHT_DECAY: trial.train.weight_decay,
        Hyperparameter.EMBEDDING_STD: trial.model.init.embedding_std,
        Hyperparameter.EMBEDDING_LR_FACTOR: options.embedding_lr_factor,
        Hyperparameter.READOUT_LR_FACTOR: options.readout_lr_factor,
    }
    return {name: found[name] for name in spec.search.parameters}


def answered(sample: Sample, observations: Sequence[Observation]) -> Sample:
    """`sample` with the loss of its trial, if it has ended."""
    if not observations:
        return sample
    loss = observations[0].loss_nats
    return Sample(
        index=sample.index, lr_octaves=sample.lr_octaves, values=sample.values,
        loss_nats=DIVERGED_NATS if loss is None else loss,
    )  # fmt: skip


def best(samples: Sequence[Sample]) -> Sample | None:
    """The sample with the lowest loss; None when all diverged or failed."""
    finite = [s for s in samples if s.loss_nats is not None and s.loss_nats < DIVERGED_NATS]
    return min(finite, key=lambda s: (s.loss_nats, s.index), default=None)


def tuned_arm(arm: ArmSpec, tuned: Mapping[str, Mapping[str, float]]) -> ArmSpec:
    """`arm` with what the tune phase settled for it."""
    return with_values(arm, {Hyperparameter(name): value for name, value in tuned.get(arm.name, {}).items()})
