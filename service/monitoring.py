"""What machines ask of the service: is it alive, is it ready, and how busy is it (Prometheus)."""

from collections.abc import Iterator

from alembic.script import ScriptDirectory
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy.exc import DBAPIError

from mutransfer import __version__
from mutransfer.errors import TransientError
from service.auth.scopes import OPEN, READ_ALL
from service.context import Context, ContextDep
from service.db import figures
from service.db.figures import ServiceFigures
from service.db.migrate import config
from service.db.session import reading
from service.studies import openapi
from service.studies.schemas import Health

router = APIRouter()


class NotReadyError(TransientError):
    """The service cannot do its work yet; the message says why."""


@router.get("/healthz", dependencies=[OPEN])
def health() -> Health:
    """That the process answers. It says nothing of the database: restarting this process would not mend that."""
    return Health(version=__version__)


@router.get("/readyz", dependencies=[OPEN], responses={503: openapi.problem("Not ready, and why.")})
def ready(context: ContextDep, request: Request) -> Health:
    """That the service can do its work: its database answers and has the tables of this version."""
    found = _revision(context)
    wanted: str = request.app.state.revision
    if found != wanted:
        raise NotReadyError(
            f"the database is at revision {found}, this version needs {wanted}: run `mutransfer db upgrade`"
        )
    return Health(version=__version__)


@router.get(
    "/metrics", dependencies=[READ_ALL], response_class=Response,
    responses=openapi.COMMON | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)  # fmt: skip
def metrics(context: ContextDep) -> Response:
    """Figures of the service in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(context))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def newest_revision() -> str:
    """The migration that this version of the code needs."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head is not None  # noqa: S101 - there are migrations
    return head


def _revision(context: Context) -> str | None:
    try:
        with reading(context.sessions) as session:
            return figures.revision(session)
    except DBAPIError:  # it answers, but has no such table
        return None


class _Collector:
    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("mutransfer_database_up", "Whether the database answers.")
        try:
            with reading(self._context.sessions) as session:
                found = figures.read(session, lease_ttl_seconds=self._context.settings.lease_ttl_seconds)
        except TransientError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _families(found)


def _families(found: ServiceFigures) -> Iterator[Metric]:
    studies = GaugeMetricFamily("mutransfer_studies", "Studies by state.", labels=["state"])
    for state, count in sorted(found.studies.items()):
        studies.add_metric([state], count)
    yield studies
    gauges: tuple[tuple[str, str, float], ...] = (
        ("queue_depth", "Studies that wait for a dispatcher.", found.studies.get("queued", 0)),
        ("queue_oldest_seconds", "How long the first of them has waited.", found.oldest_queued_seconds),
        ("leases_held", "Studies that a driver holds.", found.leases_held),
        ("leases_expired", "Studies under way that nobody holds.", found.leases_expired),
        ("lease_age_seconds", "Since the renewal of a lease that is longest ago.", found.lease_age_seconds),
        ("outbox_pending", "Messages to MLflow and others that wait.", found.outbox_pending),
        ("outbox_lag_seconds", "How long the first of them has waited.", found.outbox_lag_seconds),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(f"mutransfer_{name}", text, value=value)
    counters: tuple[tuple[str, str, float], ...] = (
        ("trials_done", "Trials with a result; its rate is the throughput.", found.trials_done),
        ("trials_failed", "Trials given up after their last attempt.", found.trials_failed),
        ("device_seconds", "Seconds that devices spent on trials.", found.device_seconds),
    )
    for name, text, value in counters:
        yield CounterMetricFamily(f"mutransfer_{name}", text, value=value)
