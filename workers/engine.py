"""Decides what a study runs next: phases in order, each recorded once, every trial exactly once.

The kernel's `plan.requests` says what a phase wants, the database what is known; between them this engine keeps the
queue. It never blocks on a running trial and holds nothing that a successor could not read back from the database.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import random
import time

import structlog

from mutransfer.errors import TransientError
from mutransfer.judge import CurveData, curve_of, recorded_lr
from mutransfer.plan import Phase, Progress, TrialRequest, requests
from mutransfer.spec import StudySpec
from mutransfer.trial import Environment, Observation, TrialResult, TrialSpec, trial_key, trial_spec
from mutransfer.tuning import tuned_arm
from service.db.driver_store import DriverStore, PhaseRecord, PlannedTrial
from service.db.states import PhaseState
from workers.failures import MAX_ATTEMPTS, MAX_MACHINE_FAULTS, Fault, delay_seconds
from workers.recorder import Recorder
from workers.tuning import Tuning

RECORDED = "recorded"
TUNED = "tuned"
#: How long planning leaves a database alone that did not answer.
PLANNING_PAUSE_SECONDS = 2.0
TRAINING_PHASES = (Phase.TUNE, Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run to start: the trial, its content key, and which attempt this is (from 1)."""

    key: str
    trial: TrialSpec
    attempt: int


class StudyEngine:
    """The trials of one study from where the database left it. Used by one thread."""

    def __init__(self, *, spec: StudySpec, environment: Environment, store: DriverStore, recorder: Recorder) -> None:
        """Reads the study's progress from `store`. Raises TransientError when the database does not answer."""
        self._spec = spec
        self._environment = environment
        self._store = store
        self._recorder = recorder
        tuned = store.tuned()
        self._arms = {arm.name: tuned_arm(arm, tuned) for arm in spec.arms}
        self._tuning = Tuning(spec, store.planned_specs(Phase.TUNE))
        self._observations = {key: list(found) for key, found in store.observations().items()}
        self._unavailable = {key: set(found) for key, found in store.unavailable().items()}
        self._recorded = dict(store.recorded())
        self._attempts = dict(store.attempts())
        wanted = [phase for phase in TRAINING_PHASES if phase is not Phase.TUNE or spec.search.samples_first]
        self._phases = deque(phase for phase in wanted if not _is_finished(store.phase(phase)))
        self._queue: deque[str] = deque()
        self._trials: dict[str, TrialSpec] = {}
        self._places: dict[str, set[TrialRequest]] = {}
        self._running: set[str] = set()
        self._machine_faults: dict[str, int] = {}  # in a row
        self._due: dict[str, float] = {}  # time.monotonic() from which a failed trial may start again
        self._stale = True
        self._not_before = 0.0
        self._enqueue(store.unfinished())

    @property
    def finished(self) -> bool:
        """Whether every training phase is recorded."""
        return not self._phases

    @property
    def running(self) -> int:
        """Jobs handed out and not yet answered."""
        return len(self._running)

    def settle(self) -> bool:
        """Plan ahead without starting anything; returns whether a run is waiting to be started."""
        if not self._queue and not self.finished:
            self._advance()
        return self._next() is not None

    def check(self) -> None:
        """Raises what keeps outcomes from being written: LeaseLostError, or a bug."""
        self._recorder.check()

    def next_job(self) -> Job | None:
        """The next run to start; None when all work waits for running trials, for the database, or is finished."""
        key = self._next() if self.settle() else None
        if key is None:
            return None
        self._queue.remove(key)
        self._running.add(key)
        return Job(key=key, trial=self._trials[key], attempt=self._attempts.get(key, 0) + 1)

    def _next(self) -> str | None:
        """The first in the queue that is not waiting after a failure."""
        now = time.monotonic()
        return next((key for key in self._queue if self._due.get(key, now) <= now), None)

    def started(self, key: str) -> None:
        """An actor has begun a job."""
        self._recorder.started(key, attempt=self._attempts.get(key, 0) + 1)

    def progress(self, key: str, *, step: int, steps: int, train_loss_nats: float | None) -> None:
        """A job is under way."""
        self._recorder.progress(key, step=step, steps=steps, train_loss_nats=train_loss_nats)

    def completed(self, key: str, result: TrialResult) -> None:
        """A job has ended with a result."""
        self._recorder.result(key, result)
        self._observe(key, result)

    def failed(self, key: str, traceback: str, fault: Fault = Fault.TRIAL) -> None:
        """A job has ended without a result: again after a pause, or given up. See workers.failures."""
        faults = self._machine_faults[key] = self._machine_faults.get(key, 0) + 1 if fault is Fault.MACHINE else 0
        if faults >= MAX_MACHINE_FAULTS:
            fault, self._machine_faults[key] = Fault.TRIAL, 0
        attempt = self._attempts[key] = self._attempts.get(key, 0) + (fault is not Fault.MACHINE)
        final = fault is Fault.SPEC or attempt >= MAX_ATTEMPTS
        self._recorder.failure(key, attempt=attempt, traceback=traceback, final=final, fault=fault)
        _log.warning("trial failed", trial=key, attempt=attempt, fault=fault, given_up=final, reason=traceback[-2000:])
        self._running.discard(key)
        if not final:
            self._due[key] = time.monotonic() + delay_seconds(max(attempt, faults, 1), draw=random())
            self._queue.append(key)
            return
        for place in self._places.pop(key):
            point = (place.lr_octaves, place.seed)
            self._unavailable.setdefault((place.arm, place.axis_value), set()).add(point)
        self._stale = True

    def _advance(self) -> None:
        """Plan until something can run, something runs, or all phases are recorded."""
        # Planning reads what trials wrote: it waits until the recorder has nothing left to write.
        if not self._stale or time.monotonic() < self._not_before or not self._recorder.settled():
            return
        try:
            while not self.finished and not self._queue:
                self._plan(self._phases[0])
                if self._places:
                    break
                self._finish(self._phases[0])
            self._stale = False
        except TransientError as error:
            self._not_before = time.monotonic() + PLANNING_PAUSE_SECONDS
            _log.warning("planning waits for the database", error=str(error))

    def _plan(self, phase: Phase) -> None:
        """Queue what a phase wants, over and over while known results answer all of it."""
        self._store.begin_phase(phase)
        while wanted := self._wanted(phase):
            planned = [self._planned(request) for request in wanted]
            known = self._store.plan_trials(phase, planned)
            self._tuning.planned()
            self._enqueue(planned)
            # What runs already will answer for itself.
            for key in known.keys() - self._running:
                self._queue.remove(key)
                self._observe(key, known[key])
            if not known:
                return

    def _wanted(self, phase: Phase) -> tuple[TrialRequest, ...]:
        if phase is Phase.TUNE:
            return self._tuning.requests(self._observations, self._unavailable)
        return requests(self._spec, phase, self._progress())

    def _finish(self, phase: Phase) -> None:
        if phase is Phase.TUNE:
            tuned = self._tuning.best_values(self._observations)
            self._arms = {name: tuned_arm(arm, tuned) for name, arm in self._arms.items()}
            self._store.finish_phase(phase, {TUNED: tuned})
        elif phase is Phase.SEARCH:
            # A rate recorded before the study was extended stays: its targets were chosen by it (verdict.md).
            self._recorded = {arm: self._kept(arm) for arm in self._arms}
            self._store.finish_phase(phase, {RECORDED: self._recorded})
        else:
            self._store.finish_phase(phase)
        self._phases.popleft()

    def _kept(self, arm: str) -> float | None:
        rate = self._recorded.get(arm)
        return self._record(arm) if rate is None else rate

    def _record(self, arm: str) -> float | None:
        """The rate to transfer from the largest proxy."""
        proxy = self._spec.axis.proxy[-1]
        data = CurveData(
            arm=arm,
            axis_value=proxy,
            observations=tuple(self._observations.get((arm, proxy), ())),
            unavailable=frozenset(self._unavailable.get((arm, proxy), ())),
        )
        return recorded_lr(curve_of(self._spec, data, recorded=None))

    def _planned(self, request: TrialRequest) -> PlannedTrial:
        arm = self._arms.get(request.arm) or self._tuning.arm(request.arm)
        trial = trial_spec(self._spec, arm, request.axis_value, request.lr_octaves, request.seed)
        return PlannedTrial(key=trial_key(trial, self._environment), request=request, spec=trial)

    def _enqueue(self, planned: Sequence[PlannedTrial]) -> None:
        """Queue each key once, however many places ask for it."""
        for item in planned:
            if item.key not in self._places:
                self._queue.append(item.key)
            self._trials[item.key] = item.spec
            self._places.setdefault(item.key, set()).add(item.request)

    def _observe(self, key: str, result: TrialResult) -> None:
        self._running.discard(key)
        del self._trials[key]
        for place in self._places.pop(key):
            observation = Observation(lr_octaves=place.lr_octaves, seed=place.seed, loss_nats=result.loss_nats)
            self._observations.setdefault((place.arm, place.axis_value), []).append(observation)
        self._stale = True

    def _progress(self) -> Progress:
        return Progress(
            observations=self._observations,
            unavailable=self._unavailable,
            recorded=self._recorded,
            pending=frozenset(place for places in self._places.values() for place in places),
        )


def _is_finished(record: PhaseRecord | None) -> bool:
    return record is not None and record.state is PhaseState.FINISHED
