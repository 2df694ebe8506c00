"""What each process of the service consists of: settings in, objects wired together, and run until SIGTERM."""

import os
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from mutransfer.errors import SpecError
from service.logging import configure_logging
from service.settings import Settings

if TYPE_CHECKING:
    from mutransfer.result import StudyResult
    from mutransfer.spec import StudySpec
    from service.db.leases import Claim
    from service.dispatch.launchers import Launcher


def run_controller() -> None:
    """The API and the dashboard."""
    from service.app import serve

    settings = Settings().prepare_home()
    configure_logging(settings.log_format)
    serve(settings)


def run_dispatcher(*, max_studies: int = 1, driver: str = "") -> None:
    """The claim loop. `driver`: a module to run in place of workers.driver."""
    from service.db.driver_store import DriverStore
    from service.db.leases import Leases
    from service.db.session import make_engine, session_factory
    from service.db.states import StudyState
    from service.dispatch.dispatcher import Dispatcher
    from service.dispatch.ledger import Ledger
    from service.loops import stop_on_signals

    stop = stop_on_signals()
    settings = Settings().prepare_home()
    configure_logging(settings.log_format)
    sessions = session_factory(make_engine(settings.database_url))
    launcher = make_launcher(settings, driver)

    def finish(claim: "Claim", state: StudyState, error: str) -> None:
        store = DriverStore(sessions, claim.study_id, claim.epoch, ttl_seconds=settings.lease_ttl_seconds)
        if state is StudyState.PAUSED:
            store.leave()
        else:
            store.finish(state, result=None, error=error)

    Dispatcher(
        leases=Leases(sessions), ledger=Ledger(sessions), launcher=launcher, finish=finish,
        ttl_seconds=settings.lease_ttl_seconds, limit=max_studies,
    ).run(stop)  # fmt: skip


def run_scheduler() -> None:
    """Fires the slots of schedules, judges their nights and delivers notifications."""
    from concurrent.futures import ThreadPoolExecutor

    from service.db.channels import Deliveries
    from service.db.session import make_engine, session_factory
    from service.loops import stop_on_signals
    from service.notify.notifier import Notifier
    from service.notify.senders import send
    from service.schedules.scheduler import Scheduler

    stop = stop_on_signals()
    settings = Settings().prepare_home()
    configure_logging(settings.log_format)
    sessions = session_factory(make_engine(settings.database_url))
    notifier = Notifier(Deliveries(sessions), lambda delivery: send(delivery, settings))
    # A thread of its own: a channel that does not answer must hold up no slot.
    with ThreadPoolExecutor(1, thread_name_prefix="notifier") as pool:
        notifying = pool.submit(notifier.run, stop)
        notifying.add_done_callback(lambda _future: stop.set())  # nobody would be told of a night any more
        try:
            Scheduler(sessions).run(stop)
        finally:
            stop.set()
    notifying.result()  # raises what ended it: the process fails, and whoever keeps it running starts it anew


def make_launcher(settings: Settings, driver: str = "") -> "Launcher":
    """The launcher that the settings name. Raises SpecError where they do not say enough."""
    from service.dispatch.launchers import DRIVER_COMMAND, LocalLauncher

    if settings.launcher == "local":
        command = (sys.executable, "-m", driver) if driver else DRIVER_COMMAND
        return LocalLauncher(logs=settings.home / "logs", env=os.environ, command=command)
    if settings.launcher == "kuberay":
        how = "deploy/kubernetes/ray.yaml makes a RayCluster: use ray-jobs with its head's MUTRANSFER_RAY_JOBS_URL"
        raise SpecError.at("MUTRANSFER_LAUNCHER", f"kuberay is a manifest, not a launcher yet; {how}")
    if not settings.ray_jobs_url:
        raise SpecError.at("MUTRANSFER_RAY_JOBS_URL", "ray-jobs needs the head's address, such as http://head:8265")
    from service.dispatch.ray_jobs import ENTRYPOINT, RayJobsLauncher

    return RayJobsLauncher(
        settings.ray_jobs_url, env=os.environ, withhold=settings.ray_jobs_withhold,
        token=os.environ.get("RAY_AUTH_TOKEN", ""), entrypoint=f"python -m {driver}" if driver else ENTRYPOINT,
    )  # fmt: skip


def run_exporter() -> None:
    """The mirror to MLflow."""
    from service.db.outbox import Outbox
    from service.db.session import make_engine, session_factory
    from service.export.alone import alone
    from service.export.exporter import Exporter
    from service.export.records import Records
    from service.export.tracking import Tracking
    from service.loops import stop_on_signals

    stop = stop_on_signals()
    settings = Settings().prepare_home()
    configure_logging(settings.log_format)
    if not settings.mlflow_url:
        raise SpecError.at("MUTRANSFER_MLFLOW_URL", "the exporter needs the address of an MLflow tracking server")
    engine = make_engine(settings.database_url)
    sessions = session_factory(engine)
    with alone(engine, settings.home, stop) as taken:
        if taken:
            Exporter(
                outbox=Outbox(sessions), records=Records(sessions), tracking=Tracking(settings.mlflow_url),
                service_url=settings.url, write_artifacts=write_artifacts,
            ).run(stop)  # fmt: skip


def write_artifacts(result: "StudyResult", spec: "StudySpec", folder: Path) -> None:
    """The report of a finished study and its figures, into a folder of artifacts."""
    from service.reports import write_report

    write_report(result, spec, folder)
