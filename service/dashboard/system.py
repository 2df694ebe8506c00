"""The system page: what waits and why, who drives what, which trials run on which devices, what is not delivered."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import Request, Response
from sqlalchemy.orm import Session

from mutransfer import __version__
from service.dashboard.frame import Frame, Route
from service.db import channels, waiting
from service.db.states import StudyState
from service.db.tables_schedules import ChannelRow, DeliveryRow
from service.db.workload import Job, Workload, workload
from service.reports import numbers
from service.reports.cards import sentence
from service.settings import Settings

DELIVERIES = 20  # notifications shown


@dataclass(frozen=True, kw_only=True)
class Line:
    """One unfinished study as the page tells of it."""

    job: Job
    why: str


@dataclass(frozen=True, kw_only=True)
class SystemView:
    """Everything that the template reads."""

    load: Workload
    lines: tuple[Line, ...]
    devices: tuple[tuple[str, int, int], ...]  # (device, trials that run, studies)
    headline: str
    deliveries: tuple[tuple[DeliveryRow, ChannelRow], ...]  # the newest notifications
    facts: tuple[tuple[str, str], ...]


def system_view(session: Session, settings: Settings) -> SystemView:
    """Read everything in one snapshot."""
    load = workload(session)
    return SystemView(
        load=load, lines=tuple(_line(session, job) for job in load.jobs), devices=_devices(load),
        headline=_headline(load), facts=_facts(session, settings), deliveries=_deliveries(session),
    )  # fmt: skip


def _line(session: Session, job: Job) -> Line:
    """An unfinished study with why it waits, or who drives it."""
    found = waiting.why(session, job.row)
    if found is not None:
        return Line(job=job, why=sentence(found.message))
    left = numbers.duration(max(job.expires_in, 0.0))
    return Line(job=job, why=f"Driven by {job.owner}; lease {job.epoch} is good for {left}.")


def _studies(count: int) -> str:
    return "study" if count == 1 else "studies"


def _devices(load: Workload) -> tuple[tuple[str, int, int], ...]:
    trials: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    for job in load.jobs:
        if job.trials:
            trials[job.device or "not known yet"] += len(job.trials)
            owners[job.device or "not known yet"] += 1
    return tuple((device, count, owners[device]) for device, count in sorted(trials.items()))


def _headline(load: Workload) -> str:
    if not load.unfinished:
        return "Nothing runs and nothing waits"
    running = sum(len(job.trials) for job in load.jobs)
    queued = sum(job.row.state == StudyState.QUEUED for job in load.jobs)
    said = [f"{numbers.count(load.unfinished)} unfinished {_studies(load.unfinished)}"]
    if running:
        said.append(f"{running} {'trial' if running == 1 else 'trials'} running")
    if queued:
        said.append(f"{queued} queued")
    return ", ".join(said)


def _deliveries(session: Session) -> tuple[tuple[DeliveryRow, ChannelRow], ...]:
    found = channels.deliveries(session, channel_id=None, project=None, state=None, before=None, limit=DELIVERIES)
    return tuple((delivery, channel) for delivery, channel in found)


def _facts(session: Session, settings: Settings) -> tuple[tuple[str, str], ...]:
    kind = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
    return (
        ("Version", __version__),
        ("Database", kind.get(session.get_bind().dialect.name, session.get_bind().dialect.name)),
        ("Launcher", settings.launcher),
        ("Ray", settings.ray_address or "private, on this machine"),
        ("MLflow", settings.mlflow_url or "none"),
        ("Lease", f"{numbers.duration(settings.lease_ttl_seconds)}, renewed at a third"),
    )


class System:
    """The handlers."""

    def __init__(self, frame: Frame, settings: Settings) -> None:
        self._frame = frame
        self._settings = settings

    def page(self, request: Request) -> Response:
        """The page; it keeps itself fresh."""
        return self._frame.read(
            request,
            lambda session: self._frame.html(
                request, "system.html", here="system", view=system_view(session, self._settings)
            ),
        )


def routes(frame: Frame, settings: Settings) -> Iterable[Route]:
    """The page."""
    return [("/system", System(frame, settings).page)]
