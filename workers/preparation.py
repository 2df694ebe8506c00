"""What a driver finds out before the first trial, so that a faulty study fails in seconds and says why."""

from collections.abc import Sequence
from pathlib import Path

import torch

from models import describe_model
from mutransfer.facts import ModelRecord, ParameterRecord, StudyFacts
from mutransfer.spec import StudySpec
from mutransfer.trial import trial_spec
from workers.data import TokenData, prepare
from workers.environment import device_type, environment
from workers.train import Trainer


def gather_facts(spec: StudySpec, *, cache: Path, nonce: str, packages: Sequence[str]) -> StudyFacts:
    """Prepare the data, describe the user's own model, and build one trainer an arm at the smallest size.

    Raises SpecError or ScalingError for what no trial could run with, TransientError when the disk is full.
    """
    data = prepare(spec.data, cache)
    data.check(context=spec.model.context)
    _rehearse(spec, data, packages)
    return StudyFacts(
        vocab=data.vocab,
        train_tokens=len(data.train),
        heldout_tokens=len(data.heldout),
        environment=environment(
            data_fingerprint=data.fingerprint, device=device_type(), nonce=nonce, own=own_code(spec)
        ),
        own_models=_own_models(spec, data.vocab, packages),
    )


def _rehearse(spec: StudySpec, data: TokenData, packages: Sequence[str]) -> None:
    value = min(spec.axis.values)
    for arm in spec.arms:
        Trainer(trial_spec(spec, arm, value, spec.search.lr_octaves.low, 0), data, model_packages=packages)


def _own_models(spec: StudySpec, vocab: int, packages: Sequence[str]) -> tuple[ModelRecord, ...]:
    """The parameters of a model of the user's own at every size of the study and at its base."""
    if not spec.model.is_own:
        return ()
    sizes = sorted({spec.base_size, *(spec.size_at(value) for value in spec.axis.values)})
    return tuple(_record(spec, width, depth, vocab, packages) for width, depth in sizes)


def _record(spec: StudySpec, width: int, depth: int, vocab: int, packages: Sequence[str]) -> ModelRecord:
    try:
        # Shapes only: the widest model need not fit into the driver's memory.
        with torch.device("meta"):
            infos = describe_model(spec.model, width=width, depth=depth, vocab=vocab, packages=packages)
    except RuntimeError:
        # The user's constructor computes with its weights: torch has no numbers on the meta device, and says so by this
        # class or one below it. A real fault comes again here.
        infos = describe_model(spec.model, width=width, depth=depth, vocab=vocab, packages=packages)
    return ModelRecord(width=width, depth=depth, parameters=tuple(ParameterRecord.of(info) for info in infos))


def own_code(spec: StudySpec) -> list[str]:
    """The models and optimizers of the user's own that a study names."""
    optimizers = [str(arm.optimizer) for arm in spec.arms if arm.is_own]
    return [*optimizers, spec.model.family] if spec.model.is_own else optimizers
