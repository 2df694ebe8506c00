"""The controller: one ASGI application with API and dashboard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import gc
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
import uvicorn

from mutransfer import __version__
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service import dashboard, monitoring, problems
from service.auth import login, scopes
from service.auth.access import AccessChecks, Limits
from service.auth.doorkeeper import Doorkeeper
from service.auth.headers import SecurityHeaders
from service.auth.routes import router as access_router
from service.auth.scopes import READ
from service.bodies import BodyLimit
from service.context import Context
from service.db.session import make_engine, session_factory
from service.logging import AccessLog
from service.notify.routes import router as notify_router
from service.reports.routes import router as reports_router
from service.request_text import storable
from service.schedules.routes import router as schedules_router
from service.settings import Settings
from service.studies import openapi
from service.studies.action_routes import router as actions_router
from service.studies.routes import router as studies_router
from service.studies.schemas import API
from service.studies.stream import Watch
from service.trials.logs import router as trial_logs_router
from service.trials.routes import router as trials_router

DESCRIPTION = """Which learning rate do I set at full width, and how sure are you? Submit a transfer study, follow it,
and read its verdict with intervals. Errors are problem documents (RFC 9457) that name each wrong field."""
SHUTDOWN_SECONDS = 5

_schemas = APIRouter(prefix="/schema", tags=["schema"])


@_schemas.get("/study", dependencies=[READ])
def study_schema() -> dict[str, Any]:
    """The JSON Schema of a study."""
    return StudySpec.model_json_schema()


@_schemas.get("/result", dependencies=[READ])
def result_schema() -> dict[str, Any]:
    """The JSON Schema of a result."""
    return StudyResult.model_json_schema()


def create_app(settings: Settings) -> FastAPI:
    """The application over the database in `settings`, which `db.migrate` has brought up to date."""
    engine = make_engine(settings.database_url)
    sessions = session_factory(engine)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()

    app = FastAPI(
        title="mutransfer",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(scopes.undeclared), Depends(storable)],
    )
    doorkeeper, limits = Doorkeeper(settings, sessions), Limits(settings.rate_limit)
    app.state.context = Context(settings=settings, sessions=sessions)
    app.state.watch = Watch(sessions)
    app.state.doorkeeper = doorkeeper
    app.state.revision = monitoring.newest_revision()
    app.include_router(studies_router, prefix=API, tags=["studies"])
    app.include_router(actions_router, prefix=API, tags=["actions"])
    app.include_router(trials_router, prefix=API, tags=["trials"])
    app.include_router(trial_logs_router, prefix=API, tags=["trials"])
    app.include_router(reports_router, prefix=API, tags=["reports"])
    app.include_router(schedules_router, prefix=API, tags=["schedules"])
    app.include_router(notify_router, prefix=API, tags=["notifications"])
    app.include_router(_schemas, prefix=API)
    app.include_router(access_router, prefix=API, tags=["access"])
    app.include_router(monitoring.router, tags=["monitoring"])
    app.include_router(login.router(doorkeeper, limits))
    app.include_router(dashboard.router(settings, sessions), include_in_schema=False)
    scopes.guard_undeclared(app)
    problems.install(app)
    openapi.install(app)
    # The last one added is the outermost: a refused request is logged and answered with all headers, its body unread.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(AccessChecks, settings=settings, doorkeeper=doorkeeper, limits=limits)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(AccessLog)
    return app


class _Server(uvicorn.Server):
    """Tells open event streams to end as soon as a signal asks the server to."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM or SIGINT."""
        self._context.stopping.set()
        super().handle_exit(sig, frame)


def _spare_the_collector() -> None:
    """Take what lives as long as the process out of garbage collection: walking it paused requests by 150 ms."""
    gc.collect()
    gc.freeze()


def serve(settings: Settings) -> None:
    """Run the controller on `settings.host` and `settings.port` until SIGTERM or SIGINT."""
    app = create_app(settings)
    _spare_the_collector()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    _Server(config, app.state.context).run()
