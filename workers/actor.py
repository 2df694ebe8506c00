"""The process that trains: one Ray actor, reused from trial to trial, that knows neither the database nor MLflow.

It trains in slices of about a second and a half, reports each through Tune, checkpoints now and then, and resumes from
the newest checkpoint that it finds.
"""

from pathlib import Path
import time
import traceback
from typing import Any, Literal

from ray.tune import Trainable
import structlog
import torch

from mutransfer.base import Value
from mutransfer.errors import SpecError, TransientError
from mutransfer.trial import TrialSpec
from service.logging import configure_logging
from workers.checkpoint import Checkpoints
from workers.data import TokenData, load, prepare
from workers.failures import fault_of
from workers.train import Trainer

#: Time between two reports; a report also ends with the trial.
REPORT_SECONDS = 1.5


class TrialJob(Value):
    """All that an actor is told, as JSON in Tune's config. `threads` is what torch may use on a CPU.

    `study` is for the logs only: a trial belongs to every study that asks for it.
    """

    key: str
    study: str = ""
    epoch: int
    trial: TrialSpec
    data_fingerprint: str
    checkpoints: Path
    cache: Path
    model_packages: tuple[str, ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    checkpoint_seconds: float = 30.0


#: Data sets mapped by this process: trials of a study share one.
_mapped: dict[str, TokenData] = {}


class TrialActor(Trainable):
    """Tune's class trainable over `Trainer`. `step` returns what `_report` makes."""

    _job: TrialJob
    _checkpoints: Checkpoints
    _trainer: Trainer | None
    _warning: str
    _saved_at: float

    def setup(self, config: dict[str, Any]) -> None:
        """See Trainable. Called once a process: what it logs from here on goes to the file that Ray keeps of it."""
        configure_logging()
        self._assign(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """See Trainable: take the next trial in the same process."""
        self._assign(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next report; the last one carries the TrialResult as JSON in `result`.

        A trial that raises ends with the traceback in `error`, and the process takes the next one. Not so on a GPU: a
        failed kernel leaves a device that fails everything after it, so there the process ends as well.
        """
        try:
            return self._train()
        except (
            Exception
        ) as error:  # a model or optimizer of the user's own may raise anything: it fails this trial alone
            if self._job.device == "cuda":
                raise
            self._trainer = None
            return _report(done=True, error=traceback.format_exc(), fault=fault_of(error).value)

    def _train(self) -> dict[str, Any]:
        trainer = self._ready()
        started = time.monotonic()
        losses = []
        while not trainer.done:
            losses.append(trainer.run(1).train_loss_nats)
            # Not at the next report only: a kill costs one interval at most, however that compares with reports.
            if not trainer.done and time.monotonic() - self._saved_at >= self._job.checkpoint_seconds:
                self.save_now()
            if time.monotonic() - started >= REPORT_SECONDS:
                break
        progress = {"step": trainer.step_index, "steps": trainer.steps, "train_loss_nats": _mean(losses)}
        if trainer.done:
            result = trainer.finish().model_dump_json()
            self._trainer = None
            return _report(**progress, done=True, result=result, warning=self._warning)
        return _report(**progress, warning=self._warning)

    def save_now(self) -> int:
        """Checkpoint the trial in hand; returns its step, 0 when there is nothing to save.

        A storage that takes no more is a warning: the run goes on, and would resume from the checkpoint before.
        """
        if self._trainer is None or self._trainer.step_index == 0:
            return 0
        self._saved_at = time.monotonic()
        try:
            self._checkpoints.save(self._trainer.step_index, self._trainer.state_dict())
        except TransientError as error:
            self._warning = str(error)
            return 0
        self._warning = ""
        return self._trainer.step_index

    def _assign(self, config: dict[str, Any]) -> None:
        self._job = TrialJob.model_validate_json(config["job"])
        structlog.contextvars.bind_contextvars(study=self._job.study, trial=self._job.key, epoch=self._job.epoch)
        self._checkpoints = Checkpoints(self._job.checkpoints, key=self._job.key, epoch=self._job.epoch)
        self._trainer = None
        self._warning = ""
        self._saved_at = time.monotonic()

    def _ready(self) -> Trainer:
        """The trainer of the trial in hand, built and resumed when it is not there yet."""
        if self._trainer is None:
            self._trainer = start_trainer(self._job, self._checkpoints)
            self._saved_at = time.monotonic()
        return self._trainer


def start_trainer(job: TrialJob, checkpoints: Checkpoints) -> Trainer:
    """Build the trainer of a job and load its newest checkpoint, if there is one."""
    torch.set_num_threads(job.threads)
    trainer = Trainer(job.trial, _data(job), device=job.device, model_packages=job.model_packages)
    state = checkpoints.load()
    if state is not None:
        trainer.load_state_dict(state)
    return trainer


def _data(job: TrialJob) -> TokenData:
    """The study's data: mapped before, found in the cache, or prepared here (a node with a disk of its own)."""
    known = _mapped.get(job.data_fingerprint)
    if known is None:
        known = load(job.cache, job.data_fingerprint) or prepare(job.trial.data, job.cache)
        if known.fingerprint != job.data_fingerprint:
            raise SpecError.at("data.source", f"{job.trial.data.source} is not what it was when the study began")
        _mapped.clear()
        _mapped[known.fingerprint] = known
    return known


def _report(**changes: Any) -> dict[str, Any]:
    """What goes through Tune: `result` is a TrialResult as JSON, `error` a traceback, `warning` a lost checkpoint.

    `fault` says whose fault the error is.
    """
    nothing: dict[str, Any] = {
        "step": 0, "steps": 0, "train_loss_nats": None, "done": False, "result": "", "error": "", "fault": "",
        "warning": "",
    }  # fmt: skip
    return nothing | changes


def _mean(losses: list[float | None]) -> float | None:
    finite = [loss for loss in losses if loss is not None]
    return sum(finite) / len(finite) if finite and len(finite) == len(losses) else None
