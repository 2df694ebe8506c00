"""The controller: one ASGI application with API and dashboard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from sqlalchemy import text
import uvicorn

from mutransfer import __version__
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service import dashboard, problems
from service.auth.access import AccessChecks
from service.auth.headers import SecurityHeaders
from service.bodies import BodyLimit
from service.context import Context, ContextDep
from service.db.session import make_engine, reading, session_factory
from service.logging import AccessLog
from service.settings import Settings
from service.studies import openapi
from service.studies.routes import router as studies_router
from service.studies.schemas import API, Health
from service.studies.stream import Watch
from service.trials.routes import router as trials_router

DESCRIPTION = """Which learning rate do I set at full width, and how sure are you? Submit a transfer study, follow it,
and read its verdict with intervals. Errors are problem documents (RFC 9457) that name each wrong field."""
SHUTDOWN_SECONDS = 5

_schemas = APIRouter(prefix="/schema", tags=["schema"])
_health = APIRouter()


@_schemas.get("/study")
def study_schema() -> dict[str, Any]:
    """The JSON Schema of a study."""
    return StudySpec.model_json_schema()


@_schemas.get("/result")
def result_schema() -> dict[str, Any]:
    """The JSON Schema of a result."""
    return StudyResult.model_json_schema()


@_health.get("/healthz", responses={503: openapi.problem("The database does not answer.")})
def health(context: ContextDep) -> Health:
    """That the service answers and reaches its database (503 when it does not)."""
    with reading(context.sessions) as session:
        session.execute(text("SELECT 1 FROM studies LIMIT 1"))
    return Health(version=__version__)


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
    )
    app.state.context = Context(settings=settings, sessions=sessions)
    app.state.watch = Watch(sessions)
    app.include_router(studies_router, prefix=API, tags=["studies"])
    app.include_router(trials_router, prefix=API, tags=["trials"])
    app.include_router(_schemas, prefix=API)
    app.include_router(_health)
    app.include_router(dashboard.router(settings, sessions), include_in_schema=False)
    problems.install(app)
    openapi.install(app)
    # The last one added is the outermost: a refused request is logged and answered with all headers, its body unread.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(AccessChecks, settings=settings)
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


def serve(settings: Settings) -> None:
    """Run the controller on `settings.host` and `settings.port` until SIGTERM or SIGINT."""
    app = create_app(settings)
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
