"""Small studies, trials and results for tests, all from one valid document."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from mutransfer.facts import StudyFacts
from mutransfer.plan import TrialRequest
from mutransfer.spec import StudySpec, parse_study
from mutransfer.trial import Environment, HistoryPoint, TrialResult, TrialStatus, trial_key, trial_spec
from service.db.driver_store import DriverStore, PlannedTrial

ENVIRONMENT = Environment(data_fingerprint="d" * 8, code_digest="c" * 8, torch_version="2.9", device_type="cpu")
FACTS = StudyFacts(vocab=98, train_tokens=1_000_000, heldout_tokens=65_536, environment=ENVIRONMENT)
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "name": "small",
    "project": "tests",
    "model": {"family": "nanogpt", "depth": 2, "head_dim": 8, "context": 16},
    "data": {"source": "stdlib", "tokenizer": "printable"},
    "train": {"batch": 4, "steps": 10},
    "widths": {"base": 8, "proxy": [16], "targets": [64]},
    "arms": [
        {"optimizer": "adamw", "parametrization": "sp"},
        {"optimizer": "adamw", "parametrization": "mup"},
    ],
    "search": {"lr_octaves": {"low": -8, "high": -3}, "seeds": {"min": 1, "max": 1}},
}


def document(**changes: Any) -> dict[str, Any]:
    """The small study with `changes` by dotted path (`data__source="text:/x"` sets data.source)."""
    made = deepcopy(DOCUMENT)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner: Any = made
        for parent in parents:
            inner = inner[int(parent)] if isinstance(inner, list) else inner.setdefault(parent, {})
        inner[int(last) if isinstance(inner, list) else last] = value
    return made


def spec(**changes: Any) -> StudySpec:
    """The small study, parsed."""
    return parse_study(document(**changes))


def planned(
    study: StudySpec, arm: str = "adamw-mup", *, width: int = 16, lr: float = -5.0, seed: int = 0
) -> PlannedTrial:
    """One trial of `study`."""
    chosen = next(a for a in study.arms if a.name == arm)
    trial = trial_spec(study, chosen, width, lr, seed)
    return PlannedTrial(
        key=trial_key(trial, ENVIRONMENT),
        request=TrialRequest(arm=arm, axis_value=width, lr_octaves=lr, seed=seed),
        spec=trial,
    )


def result(loss: float | None = 2.0, *, device_seconds: float = 1.5) -> TrialResult:
    """A finished trial, or a diverged one when `loss` is None."""
    return TrialResult(
        status=TrialStatus.FINISHED if loss is not None else TrialStatus.DIVERGED,
        loss_nats=loss,
        initial_loss_nats=4.585,
        train_loss_nats=loss,
        history=(HistoryPoint(step=5, train_loss_nats=3.0), HistoryPoint(step=10, train_loss_nats=loss)),
        diverged_at_step=None if loss is not None else 7,
        reason="" if loss is not None else "loss is not finite",
        steps=10,
        tokens=640,
        parameters=12_000,
        device_seconds=device_seconds,
        device="cpu",
    )


def run_phase(store: DriverStore, phase: str, trials: Iterable[tuple[PlannedTrial, TrialResult]]) -> None:
    """Begin a phase, plan its trials and record their results."""
    pairs = list(trials)
    store.begin_phase(phase)
    known = store.plan_trials(phase, [trial for trial, _ in pairs])
    for trial, outcome in pairs:
        if trial.key not in known:
            store.trial_started(trial.key, attempt=1)
            store.record_result(trial.key, outcome)
