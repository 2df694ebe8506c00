"""Runs the engine's jobs on Ray Tune: one fresh Tuner an attempt, actors reused from trial to trial.

Tune places actors and passes reports; it decides nothing and what it writes to disk is never read again. `_Supply`
hands jobs out, `_Watch` takes what comes back.
"""

from dataclasses import dataclass, field
import logging
import os
from pathlib import Path
import time
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorUnavailableError, LocalRayletDiedError, NodeDiedError, OutOfDiskError, RayError
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, TuneError, Tuner
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
import structlog

from mutransfer.errors import MutransferError, RevisedError, SpecError, TransientError
from mutransfer.trial import TrialResult
from workers.actor import TrialActor, TrialJob
from workers.allowance import Allowance
from workers.control import Control, Stopped, StopReason
from workers.engine import Job, StudyEngine
from workers.failures import Fault, fault_of
from workers.scratch import scratch

#: What a checkpoint of all running trials may take when the driver is told to stop.
DRAIN_SECONDS = 7.0
#: How long a trial waits for the start of its own actor while another is idle; usual are 5 s.
START_SECONDS = 120.0
#: What Ray says of an actor whose machine is gone; it has no error class of its own for that.
NODE_LOST = "its node has died"
#: Failures of the machine. Of a process that dies alone Ray knows the death within a second; an actor that it cannot
#: reach and has no news of is on a node that vanished.
MACHINE_LOST = (NodeDiedError, LocalRayletDiedError, OutOfDiskError, ActorUnavailableError)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """How trials of a study run. Times in seconds; `gpus` and `cpus` are what one trial takes."""

    study: str
    epoch: int
    data_fingerprint: str
    checkpoints: Path
    cache: Path
    model_packages: tuple[str, ...]
    cpus: int
    gpus: int
    max_concurrent: int | None
    checkpoint_seconds: float
    trial_timeout_seconds: float
    trial_limit_seconds: float | None = None

    def job(self, job: Job) -> TrialJob:
        """What the actor is told."""
        return TrialJob(
            key=job.key,
            study=self.study,
            epoch=self.epoch,
            trial=job.trial,
            data_fingerprint=self.data_fingerprint,
            checkpoints=self.checkpoints,
            cache=self.cache,
            model_packages=self.model_packages,
            device="cuda" if self.gpus else "cpu",
            threads=self.cpus,
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def concurrency(self) -> int:
        """Trials at once on the connected cluster: as many as fit, or as the study says.

        Raises SpecError when not even one fits: Ray would wait for such a machine for ever.
        """
        total = ray.cluster_resources()
        cpus, gpus = int(total.get("CPU", 1)), int(total.get("GPU", 0))
        if self.cpus > cpus:
            raise SpecError.at("resources.cpus_per_trial", f"a trial asks for {self.cpus} CPUs, Ray has {cpus} in all")
        if self.gpus > gpus:
            raise SpecError.at("resources.devices_per_trial", f"a trial asks for {self.gpus} GPUs, Ray has {gpus}")
        fit = cpus // self.cpus if not self.gpus else min(cpus // self.cpus, gpus // self.gpus)
        return fit if self.max_concurrent is None else min(fit, self.max_concurrent)


def run_trials(engine: StudyEngine, plan: RunPlan, control: Control, allowance: Allowance) -> None:
    """Run the engine's jobs until it is finished, as many at once as `allowance` lets. Ray must be connected.

    Raises Stopped when `control` says so; running trials are then checkpointed (DRAIN, OUTDATED) and all actors killed.
    Raises TransientError when Ray itself fails.
    """
    watch = _Watch(engine, plan, control)
    limit = plan.concurrency()
    allowance.want(limit)
    control.patiently(allowance.refresh)
    # Actors start side by side, not one after the other.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(limit)
    # Tune warns that it finds none of the result files that we keep it from writing.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with scratch("tune") as folder:
        tuner = Tuner(
            tune.with_resources(TrialActor, {"cpu": plan.cpus, "gpu": plan.gpus}),
            tune_config=TuneConfig(
                search_alg=_Supply(engine, plan, limit, allowance),
                num_samples=-1,
                scheduler=_KeepActors(limit),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=RunConfig(
                name="study",
                storage_path=str(folder),
                verbose=0,
                callbacks=[watch],
                failure_config=FailureConfig(max_failures=0),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
            _log.info("trials ended", workers=len(watch.workers))
        except Stopped as stopped:
            watch.end(save=stopped.reason in (StopReason.DRAIN, StopReason.OUTDATED))
            raise
        except (RayError, TuneError) as error:
            raise breakdown(error) from error


def breakdown(error: Exception) -> Exception:
    """What an error of Ray or Tune is to the driver: the machine's fault, unless a callback of ours raised within.

    Tune wraps whatever is raised while it handles a report; a bug of ours must not be tried again for ever.
    """
    within = error.__cause__ or error.__context__
    while within is not None:
        if isinstance(within, MutransferError):
            return within
        if isinstance(error, TuneError) and not isinstance(within, RayError | TuneError):
            machine = fault_of(within) is Fault.MACHINE
            return TransientError(f"Ray Tune broke down: {within}") if machine else RuntimeError(str(error))
        within = within.__cause__ or within.__context__
    return TransientError(f"Ray broke down: {error}")


def _reason(trial: Any) -> str:
    """The traceback that Tune wrote into the trial's folder."""
    path = trial.error_file
    text = Path(path).read_text(errors="replace") if path and Path(path).exists() else ""
    return text.strip() or "the worker died without a word"


def _error(trial: Any) -> object:
    """The error that Tune wrote into its scratch folder; what it has for that looks elsewhere, and finds none yet."""
    path = trial.pickled_error_file
    return ray.cloudpickle.loads(Path(path).read_bytes()) if path and Path(path).exists() else None


def fault_of_loss(error: object) -> Fault:
    """Whose fault it is that a trial's process is gone, by what Ray says of it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):  # what the trial raised on a GPU
        return fault_of(cause)
    lost = isinstance(error, MACHINE_LOST) or NODE_LOST in str(error)
    return Fault.MACHINE if lost or getattr(error, "preempted", False) else Fault.TRIAL


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)


class _KeepActors(FIFOScheduler):
    """First in, first out; and idle actors live on, since starting one costs more than a short trial."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._told = False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """See TrialScheduler."""
        if not self._told:
            self._told = True
            # All of this is private to Tune, but there is no other way in. By itself it keeps one idle actor.
            controller = tune_controller._tune_controller
            controller._actor_cache.increase_max(trial.placement_group_factory, by=self._limit)
            # The class, since an attribute of the instance would go into the state that Tune saves.
            controller.__class__ = _LetActorsStart
        super().on_trial_add(tune_controller, trial)


class _LetActorsStart(TuneController):
    """Tune's loop, but a trial whose actor is starting waits for it (ADR 0032).

    Tune itself gives such a trial whatever actor comes free, and kills the one that starts. Where trials are shorter
    than the start of an actor, a lost one is then never replaced: each try is cut short, and its CPUs train nothing.
    An idle actor may so wait for another's start. A start that takes longer than START_SECONDS may be stuck with its
    node, and of that Ray need not tell: then Tune's own way holds.
    """

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        actor = self._trial_to_actor.get(trial)
        is_created = actor is not None and self._actor_manager.is_actor_started(actor)
        if is_created and actor not in self._started_actors:
            since = vars(actor).setdefault("waited_for_since", time.monotonic())
            if time.monotonic() - since < START_SECONDS:
                return False
        return bool(super()._maybe_reuse_cached_actor(trial))


class _Supply(Searcher):
    """Tune's searcher over the engine's queue."""

    def __init__(self, engine: StudyEngine, plan: RunPlan, limit: int, allowance: Allowance) -> None:
        super().__init__()
        self._engine = engine
        self._plan = plan
        self._limit = limit
        self._allowance = allowance

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # noqa: ARG002 - Tune's signature
        """See Searcher: a config, None for not now, FINISHED for never again."""
        try:
            return self._suggest()
        except RevisedError as error:  # as on a drain: trials that run are checkpointed
            _log.info("making room for a driver of what the study is now", reason=str(error))
            raise Stopped(StopReason.DRAIN) from error

    def _suggest(self) -> dict[str, Any] | str | None:
        if self._engine.running >= self._limit:
            return None
        if not self._allowance.take(self._engine.running):
            self._allowance.note_hunger(self._engine.settle())
            return str(Searcher.FINISHED) if self._engine.finished else None
        job = self._engine.next_job()
        if job is not None:
            return {"key": job.key, "job": self._plan.job(job).model_dump_json()}
        return str(Searcher.FINISHED) if self._engine.finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See Searcher: `_Watch` has it already."""

    def save(self, checkpoint_path: str) -> None:
        """See Searcher: there is nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """See Searcher: a Tuner is never restored."""

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        # Tune pickles its searcher with its own state; ours holds threads and a database, and is never read back.
        return Searcher, ()


@dataclass(kw_only=True)
class _Live:
    """A running trial: its actor, and when it was last heard of."""

    actor: Any
    heard_at: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.monotonic)
    overdue: str = ""  # why it is being killed


class _Watch(Callback):
    """Passes on what trials report, kills those that hang, and stops the loop when the driver must stop."""

    def __init__(self, engine: StudyEngine, plan: RunPlan, control: Control) -> None:
        self._engine = engine
        self._plan = plan
        self._control = control
        self._live: dict[str, _Live] = {}
        self.workers: set[int] = set()

    def on_step_begin(self, **_info: Any) -> None:
        """See Callback: about ten times a second, and after every event."""
        self._control.check()
        self._engine.check()
        for key, live in self._live.items():
            if not live.overdue and (why := self._overdue(live)):
                _log.warning("killing a trial's worker", trial=key, reason=why)
                live.overdue = why
                ray.kill(live.actor)

    def _overdue(self, live: _Live) -> str:
        now, silence, limit = time.monotonic(), self._plan.trial_timeout_seconds, self._plan.trial_limit_seconds
        if now - live.heard_at > silence:
            return f"reported nothing for {silence:g} s"
        if limit is not None and now - live.started_at > limit:
            return f"trained for longer than {limit:g} s (MUTRANSFER_TRIAL_LIMIT_SECONDS)"
        return ""

    def on_trial_start(self, *, trial: Any, **_info: Any) -> None:
        """See Callback: an actor has the trial."""
        key = trial.config["key"]
        self._live[key] = _Live(actor=trial.temporary_state.ray_actor)
        self._engine.started(key)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_info: Any) -> None:
        """See Callback: a report, the last one with the trial's result."""
        key = trial.config["key"]
        if result["warning"]:
            _log.warning("trial goes on without a checkpoint", trial=key, reason=result["warning"])
        if result["error"]:
            self._live.pop(key, None)
            self._engine.failed(key, result["error"], Fault(result["fault"]))
            return
        if result["result"]:
            self._live.pop(key, None)
            self.workers.add(result["pid"])
            self._engine.completed(key, TrialResult.model_validate_json(result["result"]))
            return
        self._live[key].heard_at = time.monotonic()
        self._engine.progress(
            key, step=result["step"], steps=result["steps"], train_loss_nats=result["train_loss_nats"]
        )

    def on_trial_error(self, *, trial: Any, **_info: Any) -> None:
        """See Callback: the trial's process died, or was killed."""
        key = trial.config["key"]
        live = self._live.pop(key, None)
        reason = _reason(trial)
        if live is not None and live.overdue:
            reason = f"{live.overdue} and was killed\n{reason}"
        overdue = live is not None and bool(live.overdue)
        fault = Fault.TRIAL if overdue else fault_of_loss(_error(trial))
        self._engine.failed(key, reason, fault)

    def __reduce__(self) -> tuple[type[Callback], tuple[()]]:
        # As of _Supply.
        return Callback, ()

    def end(self, *, save: bool) -> None:
        """Kill all running trials, after a checkpoint each when `save`."""
        actors = [live.actor for live in self._live.values()]
        if save and actors:
            saves = [actor.save_now.remote() for actor in actors]
            done, late = ray.wait(saves, num_returns=len(saves), timeout=DRAIN_SECONDS)
            _log.info("drained", saved=len(done), late=len(late))
        for actor in actors:
            ray.kill(actor)
