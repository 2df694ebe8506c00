"""What a study and its trials look like in MLflow: parameters, metrics and tags. Pure, and read back by `verify`.

Everything is a function of stored rows, fixed times included: exporting again writes the same values to the same
places. Floats are written with `repr`, so that they come back bit for bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
import json
from typing import Any

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from mutransfer.trial import TrialStatus
from service.db.states import StudyState
from service.export.records import StudyRecord, TrialRecord, Use

TAG_STUDY = "mutransfer.study"
TAG_TRIAL = "mutransfer.trial"
TAG_KIND = "mutransfer.kind"  # study | trial
TAG_STATUS = "mutransfer.status"  # of a study its state; of a trial finished | diverged | failed
TAG_USES = "mutransfer.uses"  # JSON list of the places that a trial has on the study's curves
TAG_URL = "mutransfer.url"  # the study's page
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
SPEC_ARTIFACT = "study.json"
RECORDED_PREFIX = "recorded_lr_octaves."
TUNED_PREFIX = "tuned."
RUN_STATUS = {
    StudyState.COMPLETED: "FINISHED",
    StudyState.FAILED: "FAILED",
    StudyState.CANCELLED: "KILLED",
}


@dataclass(frozen=True, kw_only=True)
class MetricPoint:
    """One number of a run. `at_ms`: milliseconds since the epoch."""

    key: str
    value: float
    step: int
    at_ms: int


def milliseconds(seconds: float) -> int:
    """A time of ours as one of MLflow's."""
    return int(seconds * 1000)


def study_params(spec: StudySpec, digest: str) -> dict[str, str]:
    """What a person filters studies by; the whole study is the artifact `study.json`."""
    train = spec.train
    horizon = {"steps": train.steps, "tokens": train.tokens, "tokens_per_parameter": train.tokens_per_parameter}
    values = {
        "family": spec.model.family, "data": spec.data.source, "axis": spec.axis_name,
        "proxies": list(spec.axis.proxy), "targets": list(spec.axis.targets), "arms": [arm.name for arm in spec.arms],
        "batch": train.batch, "schedule": train.schedule, "verify": spec.verify.value, "digest": digest,
        **{name: value for name, value in horizon.items() if value is not None},
    }  # fmt: skip
    return {name: _text(value) for name, value in values.items()}


def recorded_params(recorded: Mapping[str, float | None]) -> dict[str, str]:
    """The recorded LR of each arm; empty text where the search found none."""
    return {RECORDED_PREFIX + arm: "" if lr is None else repr(lr) for arm, lr in recorded.items()}


def tuned_params(tuned: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The hyperparameters that the tune phase settled for each arm, as JSON."""
    return {TUNED_PREFIX + arm: json.dumps(dict(values), sort_keys=True) for arm, values in tuned.items()}


def parse_tuned(params: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """The inverse of `tuned_params`, among other parameters."""
    found = {name.removeprefix(TUNED_PREFIX): text for name, text in params.items() if name.startswith(TUNED_PREFIX)}
    return {arm: json.loads(text) for arm, text in found.items()}


def result_metrics(result: StudyResult, at_ms: int) -> Iterator[MetricPoint]:
    """The few numbers of a verdict that are worth a column in MLflow's table."""
    values = {
        "device_seconds": result.cost.device_seconds,
        "tokens": float(result.cost.tokens),
        "trials": float(result.cost.trials),
    }
    for arm in result.arms:
        if arm.verdict.total_drift_octaves is not None:
            values[f"drift_octaves.{arm.name}"] = arm.verdict.total_drift_octaves.value
    for key, value in values.items():
        yield MetricPoint(key=key, value=value, step=0, at_ms=at_ms)


def end_tags(study: StudyRecord) -> dict[str, str]:
    """Tags of the parent run once the study has ended."""
    tags = {TAG_STATUS: study.state.value}
    if study.error:
        tags["mutransfer.error"] = study.error[-4000:]
    for arm in study.result.arms if study.result else ():
        tags[f"mutransfer.verdict.{arm.name}"] = arm.verdict.outcome.value
    return tags


def trial_name(trial: TrialRecord) -> str:
    """A name to read, such as `adamw-mup w64 2^-4.5 s1`."""
    spec = trial.spec
    return f"{trial.uses[0].arm} w{spec.width} d{spec.depth} 2^{spec.lr_octaves:g} s{spec.seed}"


def trial_status(trial: TrialRecord) -> TrialStatus:
    """How it ended."""
    return TrialStatus(trial.result.status) if trial.result else TrialStatus.FAILED


def trial_params(trial: TrialRecord) -> dict[str, str]:
    """What the run was."""
    spec = trial.spec
    values = {
        "optimizer": str(spec.arm.optimizer), "parametrization": spec.arm.parametrization.value,
        "width": spec.width, "depth": spec.depth, "lr_octaves": spec.lr_octaves, "base_lr": spec.base_lr,
        "seed": spec.seed, "batch": spec.train.batch, "reused": trial.reused,
    }  # fmt: skip
    if trial.result is not None:
        values |= {"steps": trial.result.steps, "parameters": trial.result.parameters, "device": trial.result.device}
    return {name: _text(value) for name, value in values.items()}


def trial_tags(study_id: str, trial: TrialRecord, url: str) -> dict[str, str]:
    """What finds the run again, and leads back to the study's page."""
    uses = json.dumps([asdict(use) for use in trial.uses], separators=(",", ":"))
    tags = {
        TAG_KIND: "trial", TAG_STUDY: study_id, TAG_TRIAL: trial.key, TAG_STATUS: trial_status(trial).value,
        TAG_USES: uses, TAG_URL: url, "mutransfer.arm": trial.uses[0].arm,
    }  # fmt: skip
    if trial.result is None and trial.traceback:
        tags["mutransfer.error"] = trial.traceback[-4000:]
    return tags


def trial_metrics(trial: TrialRecord) -> Iterator[MetricPoint]:
    """Training loss by step, then what was measured at the end. All at the time the trial finished."""
    if trial.result is None:
        return
    at_ms, last = milliseconds(trial.finished_at), trial.result.steps
    for point in trial.result.history:
        if point.train_loss_nats is not None:
            yield MetricPoint(key="train_loss_nats", value=point.train_loss_nats, step=point.step, at_ms=at_ms)
    values = {
        "loss_nats": trial.result.loss_nats,
        "lr_octaves": trial.spec.lr_octaves,
        "width": float(trial.spec.width),
        "tokens": float(trial.result.tokens),
        "device_seconds": trial.result.device_seconds,
    }
    for key, value in values.items():
        if value is not None:
            yield MetricPoint(key=key, value=value, step=last, at_ms=at_ms)


def parse_uses(text: str) -> tuple[Use, ...]:
    """The inverse of the tag `mutransfer.uses`."""
    return tuple(Use(**place) for place in json.loads(text))


def parse_recorded(params: Mapping[str, str]) -> dict[str, float | None]:
    """The inverse of `recorded_params`, among other parameters."""
    found = {
        name.removeprefix(RECORDED_PREFIX): text for name, text in params.items() if name.startswith(RECORDED_PREFIX)
    }
    return {arm: float(text) if text else None for arm, text in found.items()}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)
