"""A driver without torch and Ray: plays a study through the real plan and verdict, on bowls with a known optimum.

Run like the real one: `python -m tests.integration.ops.stub_driver --study ID --epoch N`. How it behaves is the first
word of the study's name:

ok        plays to the end                    crash     exit status 1
temp      75 until the third epoch            killed    kill -9 of itself after five trials of its first epoch
late      fails its study after two           hang      starts a child in its own process group, then waits; stops on
          lifetimes of an unrenewed lease               SIGTERM, pause and cancellation
frozen    SIGSTOP of itself in its first      stubborn  the same, but deaf to both
          epoch, then plays to the end
"""

import argparse
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

from mutransfer.base import digest
from mutransfer.errors import LeaseLostError, TransientError
from mutransfer.judge import CurveData, judge_study
from mutransfer.plan import Phase, TrialRequest
from mutransfer.result import StudyRef
from mutransfer.spec import StudySpec
from mutransfer.trial import trial_spec
from service.db.driver_store import DriverStore, DriverStudy, PlannedTrial
from service.db.session import make_engine, session_factory
from service.db.states import StudyState
from service.settings import Settings
from tests.e2e.samples import Bowl, simulate, trial_result


def bowls(spec: StudySpec) -> dict[str, dict[int, Bowl]]:
    """Arms under μP keep their optimum at 2^-5, others drift by an octave a doubling."""
    drift = {"mup": 0.05, "sp": -1.0}
    return {
        arm.name: {
            value: Bowl(
                optimum=-5.0 + drift[arm.parametrization.value] * place,
                floor=2.3 - 0.05 * place,
                curvature=0.034,
                edge=-1.0,
            )
            for place, value in enumerate(spec.axis.values)
        }
        for arm in spec.arms
    }


def planned(spec: StudySpec, request: TrialRequest, nonce: str) -> PlannedTrial:
    """A trial of the study with a key that says what it is."""
    arm = next(arm for arm in spec.arms if arm.name == request.arm)
    trial = trial_spec(spec, arm, request.axis_value, request.lr_octaves, request.seed)
    document = {"trial": trial.model_dump(mode="json"), "nonce": nonce}
    return PlannedTrial(key=digest(document), request=request, spec=trial)


def play(store: DriverStore, study: DriverStudy, *, seconds: float, stop_after: int | None = None) -> None:
    """Run every trial of every phase that has no result yet, then judge and finish."""
    spec = study.spec
    done = 0
    played = simulate(spec, arms=bowls(spec))
    for phase in (Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY):
        store.begin_phase(phase)
        trials = [(planned(spec, request, study.nonce), loss) for at, request, loss in played.trials if at is phase]
        known = store.plan_trials(phase, [trial for trial, _ in trials])
        for trial, loss in trials:
            if trial.key in known:
                continue
            if store.cancel_requested():
                store.finish("cancelled", result=None)
                return
            store.trial_started(trial.key, attempt=1)
            time.sleep(seconds)
            store.record_result(trial.key, trial_result(loss, width=trial.request.axis_value, seed=trial.request.seed))
            done += 1
            if stop_after is not None and done >= stop_after:
                os.kill(os.getpid(), signal.SIGKILL)
        store.finish_phase(phase, {"recorded": played.recorded} if phase is Phase.SEARCH else {})
    curves = [CurveData(arm=a, axis_value=v, observations=o) for (a, v), o in store.observations().items()]
    result = judge_study(
        spec, curves, recorded=store.recorded(), cost=store.cost(),
        study=StudyRef(id=study.id, name=study.name, state="completed"),
    )  # fmt: skip
    store.finish("completed", result=result)


def pulse(store: DriverStore, ttl_seconds: float) -> None:
    """Renew the lease in the background; end the process once it is another's."""

    def beat() -> None:
        while True:
            try:
                store.renew()
            except LeaseLostError:
                os._exit(75)
            time.sleep(ttl_seconds / 4)

    threading.Thread(target=beat, daemon=True).start()


def hang(store: DriverStore, study: DriverStudy, *, deaf: bool) -> None:
    """Keep the lease and do nothing; a child of another process group shares the session, as Ray's workers do."""
    child = subprocess.Popen(["sleep", "600"], process_group=0)
    folder = Path(os.environ["MUTRANSFER_HOME"])
    (folder / f"{study.id}.pids").write_text(f"{os.getpid()} {child.pid}")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: stopped.set())
    while not stopped.wait(0.3):
        if not deaf and store.cancel_requested():
            store.finish("cancelled", result=None)
            return
        if not deaf and store.standing().state is StudyState.PAUSING:
            break
    store.leave()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--study", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    arguments = parser.parse_args()
    settings = Settings()
    sessions = session_factory(make_engine(settings.database_url))
    store = DriverStore(sessions, arguments.study, arguments.epoch, ttl_seconds=settings.lease_ttl_seconds)
    study = store.study()
    kind = study.name.split()[0]
    if kind == "late":
        time.sleep(2 * settings.lease_ttl_seconds)
        store.mark_running()
        store.finish("failed", result=None, error=f"late at epoch {arguments.epoch}")
        return 0
    if kind == "frozen" and arguments.epoch == 1:
        store.renew()
        os.kill(os.getpid(), signal.SIGSTOP)
    pulse(store, settings.lease_ttl_seconds)
    print(f"driving {study.name} at epoch {arguments.epoch}", flush=True)  # noqa: T201 - the driver's log
    if kind == "crash":
        print("ValueError: the stub was told to crash", flush=True)  # noqa: T201
        return 1
    if kind == "temp" and arguments.epoch < 3:
        return 75
    if study.state is not StudyState.CANCELLING:
        store.mark_running()
    if kind in ("hang", "stubborn"):
        hang(store, study, deaf=kind == "stubborn")
        return 0
    seconds = float(os.environ.get("STUB_TRIAL_SECONDS", "0"))
    play(store, study, seconds=seconds, stop_after=5 if kind == "killed" and arguments.epoch == 1 else None)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LeaseLostError, TransientError) as error:
        print(error, flush=True)  # noqa: T201
        sys.exit(75)
