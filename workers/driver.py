"""Drives one study from its claim to its end: `python -m workers.driver --study ID --epoch N`.

Exit status: 0 the study has ended, or was given back after SIGTERM · 75 the lease is lost or the machine at fault, try
again · 1 a bug, recorded with the study.
"""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import signal
import sys
import traceback
from types import FrameType
from typing import TYPE_CHECKING

import structlog

from mutransfer.errors import (
    ConflictError,
    LeaseLostError,
    NotFoundError,
    OutdatedError,
    RevisedError,
    ScalingError,
    SpecError,
    TransientError,
)
from mutransfer.facts import StudyFacts
from mutransfer.judge import CurveData, judge_study
from mutransfer.plan import Phase
from mutransfer.result import StudyRef, StudyResult
from service.db.driver_store import DriverStore, DriverStudy
from service.db.session import make_engine, session_factory
from service.db.states import PhaseState, StudyState
from service.logging import configure_logging
from service.settings import Settings
from workers.allowance import Allowance
from workers.control import Control, Stopped, StopReason
from workers.failures import Fault, fault_of
from workers.heartbeat import Heartbeat
from workers.ray_environment import prepare_environment

if TYPE_CHECKING:
    from workers.recorder import Recorder

# torch and ray are imported where they are needed first: on a busy machine that takes longer than a lease lasts, and
# the heartbeat must beat by then.

EX_TEMPFAIL = 75
#: How long a driver that is told to stop tries to write its last results; they are in the spool anyway.
LAST_WRITES_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Driver:
    """One study under one lease."""

    def __init__(self, settings: Settings, study_id: str, epoch: int) -> None:
        self._settings = settings
        self._study_id = study_id
        self._epoch = epoch
        self._control = Control()
        self._ray_folder: Path | None = None
        sessions = session_factory(make_engine(settings.database_url))
        self._store = DriverStore(sessions, study_id, epoch, ttl_seconds=settings.lease_ttl_seconds)
        self._allowance = Allowance(self._store.grant)
        self._heartbeat = Heartbeat(
            self._store, self._control, self._allowance, ttl_seconds=settings.lease_ttl_seconds,
            overdue=self._end_now, limit_hours=settings.study_limit_hours,
        )  # fmt: skip

    def run(self) -> int:
        """Run the study; returns the exit status."""
        self._catch_signals()
        _log.info("driver started")
        try:
            self._store.check_schema()
            self._store.renew()
            self._heartbeat.start()
            self._drive()
        except Stopped as stopped:
            return self._stopped(stopped.reason)
        except LeaseLostError as error:
            _log.error("the lease is lost", reason=str(error))
            return EX_TEMPFAIL
        except OutdatedError as error:
            _log.error("refused", reason=str(error))
            return EX_TEMPFAIL
        except RevisedError as error:
            _log.info("making room for a driver of what the study is now", reason=str(error))
            return self._give_back(status=0)
        except (SpecError, ScalingError, ConflictError) as error:
            return self._fail(str(error), status=0)
        except Exception as error:  # noqa: BLE001 - the process's edge: a bug is recorded with its study
            if fault_of(error) is Fault.MACHINE:  # the database away, a full disk
                _log.error("the machine is at fault", reason=str(error))
                return self._give_back()
            _log.error("internal error", traceback=traceback.format_exc())
            return self._fail(f"internal error, please report it: {error!r}", status=1)
        finally:
            self._heartbeat.close()
        return 0

    def _drive(self) -> None:
        study = self._control.patiently(self._store.study)
        self._store.work_on(study.revision)
        if study.state.is_final:
            _log.info("the study has ended already", state=study.state)
            return
        if study.state is StudyState.CANCELLING:
            raise Stopped(StopReason.CANCELLED)
        if self._control.patiently(self._store.mark_running) is not StudyState.RUNNING:
            raise Stopped(StopReason.DRAIN)  # paused or ended since it was claimed
        facts = self._facts(study)
        if study.spec.audit is not None:
            self._audit(study, facts)
        if not self._has_ended_training():
            self._train(study, facts)
        self._judge(study)

    def _facts(self, study: DriverStudy) -> StudyFacts:
        """Facts of data and code. Raises ConflictError when they are not what the study began with."""
        from workers.preparation import gather_facts

        facts = self._control.patiently(
            lambda: gather_facts(
                study.spec, cache=self._cache, nonce=study.nonce, packages=self._settings.model_packages
            )
        )
        self._control.patiently(lambda: self._store.record_facts(facts))
        _log.info("data prepared", train_tokens=facts.train_tokens, heldout_tokens=facts.heldout_tokens)
        return facts

    def _audit(self, study: DriverStudy, facts: StudyFacts) -> None:
        """The audit phase, once, in this process. Raises SpecError when it is a gate and a μP arm fails."""
        from mutransfer.audit import AuditResult
        from workers.audit import audit_study, gate
        from workers.data import prepare

        record = self._control.patiently(lambda: self._store.phase(Phase.AUDIT))
        if record is None or record.state is not PhaseState.FINISHED:
            self._control.patiently(lambda: self._store.begin_phase(Phase.AUDIT))
            results = audit_study(
                study.spec, prepare(study.spec.data, self._cache), device=facts.environment.device_type,
                model_packages=self._settings.model_packages, on_run=lambda _run: self._control.check(),
            )  # fmt: skip
            payload = {"audits": [result.model_dump(mode="json") for result in results]}
            said = {"checks": {result.arm.name: result.check.value for result in results}}
            self._control.patiently(lambda: self._store.finish_phase(Phase.AUDIT, payload, said=said))
            _log.info("audited", **said)
        else:
            results = [AuditResult.model_validate(found) for found in record.payload["audits"]]
        if study.spec.audit is not None and study.spec.audit.gate:
            gate(results)

    @property
    def _cache(self) -> Path:
        return self._settings.storage / "data"

    @property
    def _checkpoints(self) -> Path:
        return self._settings.storage

    def _has_ended_training(self) -> bool:
        record = self._control.patiently(lambda: self._store.phase(Phase.VERDICT))
        return record is not None

    def _train(self, study: DriverStudy, facts: StudyFacts) -> None:
        from workers.recorder import Recorder, Spool

        spool = Spool(self._settings.storage, self._study_id)
        recorder = Recorder(self._store, spool=spool, checkpoints=self._checkpoints, epoch=self._epoch)
        recorder.start()
        try:
            self._run_trials(study, facts, recorder)
            while not recorder.settled():
                self._control.check()
                recorder.check()
        finally:
            if not recorder.close(timeout_seconds=LAST_WRITES_SECONDS):
                _log.warning("results are left in the spool")

    def _run_trials(self, study: DriverStudy, facts: StudyFacts, recorder: "Recorder") -> None:
        from workers.engine import StudyEngine
        from workers.ray_session import ray_session
        from workers.tune_runner import RunPlan, run_trials

        while not recorder.settled():
            self._control.check()
            recorder.check()
        self._control.patiently(self._drop_checkpoints)
        engine = self._control.patiently(
            lambda: StudyEngine(spec=study.spec, environment=facts.environment, store=self._store, recorder=recorder)
        )
        resources, settings = study.spec.resources, self._settings
        plan = RunPlan(
            study=self._study_id,
            epoch=self._epoch,
            data_fingerprint=facts.environment.data_fingerprint,
            checkpoints=self._checkpoints,
            cache=self._cache,
            model_packages=settings.model_packages,
            cpus=resources.cpus_per_trial,
            gpus=resources.devices_per_trial if facts.environment.device_type == "cuda" else 0,
            max_concurrent=None if resources.max_concurrent == "auto" else resources.max_concurrent,
            checkpoint_seconds=settings.checkpoint_seconds,
            trial_timeout_seconds=settings.trial_timeout_seconds,
            trial_limit_seconds=settings.trial_limit_seconds,
        )
        with ray_session(address=settings.ray_address, cpus=settings.ray_cpus) as self._ray_folder:
            # ray.init puts a handler of its own in place.
            self._catch_signals()
            _log.info("ray started")
            try:
                run_trials(engine, plan, self._control, self._allowance)
            except Stopped as stopped:
                if stopped.reason not in (StopReason.DRAIN, StopReason.OUTDATED):
                    self._end_now(stopped.reason)
                raise

    def _drop_checkpoints(self) -> None:
        """Remove checkpoints of trials that ended just before their driver did."""
        from workers.checkpoint import Checkpoints

        found = [path.name for path in self._checkpoints.glob("?" * 32) if path.is_dir()]
        for key in self._store.with_result(found):
            Checkpoints(self._checkpoints, key=key, epoch=self._epoch).discard()

    def _judge(self, study: DriverStudy) -> None:
        self._control.patiently(lambda: self._store.begin_phase(Phase.VERDICT))
        result = self._control.patiently(lambda: self._result(study))
        self._control.patiently(lambda: self._store.finish_phase(Phase.VERDICT))
        self._control.patiently(lambda: self._store.finish(StudyState.COMPLETED, result=result))
        _log.info("study completed", outcomes={arm.name: arm.verdict.outcome.value for arm in result.arms})

    def _result(self, study: DriverStudy) -> StudyResult:
        observations, unavailable = self._store.observations(), self._store.unavailable()
        curves = [
            CurveData(
                arm=arm,
                axis_value=value,
                observations=observations.get((arm, value), ()),
                unavailable=frozenset(unavailable.get((arm, value), ())),
            )
            for arm, value in sorted(observations.keys() | unavailable.keys())
        ]
        return judge_study(
            study.spec,
            curves,
            recorded=self._store.recorded(),
            study=StudyRef(id=study.id, name=study.name, state=StudyState.COMPLETED.value),
            cost=self._store.cost(),
            tuned=self._store.tuned(),
        )

    def _stopped(self, reason: StopReason) -> int:
        _log.info("driver stopped", reason=reason.value)
        match reason:
            case StopReason.LEASE_LOST | StopReason.OUTDATED:
                return EX_TEMPFAIL
            case StopReason.DRAIN:
                return self._give_back(status=0)
            case StopReason.CANCELLED:
                return self._end(StudyState.CANCELLED, "", status=0)
            case StopReason.TIMEOUT:
                limit = self._settings.study_limit_hours
                return self._fail(f"it ran for longer than {limit:g} h (MUTRANSFER_STUDY_LIMIT_HOURS)", status=0)

    def _fail(self, error: str, *, status: int) -> int:
        _log.error("study failed", error=error)
        return self._end(StudyState.FAILED, error, status=status)

    def _end(self, state: StudyState, error: str, *, status: int) -> int:
        try:
            self._store.finish(state, result=None, error=error)
        except (TransientError, LeaseLostError) as failure:
            _log.error("the study's end could not be written: the next driver will", reason=str(failure))
            return EX_TEMPFAIL
        except RevisedError as failure:
            _log.info("the study was changed: the next driver tries again", reason=str(failure))
            return self._give_back(status=status)
        except (ConflictError, NotFoundError) as failure:
            _log.info("the study has ended otherwise", reason=str(failure))
        return status

    def _give_back(self, status: int = EX_TEMPFAIL) -> int:
        try:
            self._store.leave()
        except (TransientError, LeaseLostError) as failure:
            _log.warning("the lease could not be released: it will run out", reason=str(failure))
        return status

    def _end_now(self, reason: StopReason) -> None:
        """End this process and its Ray without ceremony: when nothing is worth saving, or the main thread hangs."""
        from workers.ray_session import abandon

        status = self._stopped(reason)
        sys.stderr.flush()
        abandon(self._ray_folder)
        os._exit(status)

    def _catch_signals(self) -> None:
        def handle(_number: int, _frame: FrameType | None) -> None:
            self._control.stop(StopReason.DRAIN)

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.driver", description="Drive one claimed study.")
    parser.add_argument("--study", required=True, help="the study's id")
    parser.add_argument("--epoch", required=True, type=int, help="the epoch of the lease that was claimed for it")
    options = parser.parse_args(arguments)
    settings = Settings()
    configure_logging(settings.log_format)
    structlog.contextvars.bind_contextvars(study=options.study, epoch=options.epoch)
    prepare_environment(settings.ray_address)
    return Driver(settings.prepare_home(), options.study, options.epoch).run()


if __name__ == "__main__":
    sys.exit(main())
