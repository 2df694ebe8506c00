"""The API's application on a fresh SQLite database, and one with a history on both databases."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.db.migrate import upgrade
from service.settings import Settings
from tests import study_builders as build
from tests.integration.api_fixtures import Api, finish_study, settings_in
from tests.postgres_server import PostgresServer, database_factory, drop_databases


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no rows, to copy."""
    path = tmp_path_factory.mktemp("api") / "migrated.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def api_settings(tmp_path: Path, migrated_database: Path) -> Settings:
    """Settings of an embedded service under `tmp_path`."""
    return settings_in(tmp_path, migrated_database)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Api]:
    """One application for a module's tests of requests that must change nothing: its database stays empty."""
    with Api(settings_in(tmp_path_factory.mktemp("refusing"), migrated_database)) as client:
        yield client
        assert client.rows() == 0


@pytest.fixture
def make_api(tmp_path: Path, migrated_database: Path) -> Iterator[Callable[..., Api]]:
    """Start applications with other settings, each on a database of its own."""
    with ExitStack() as stack:
        count = 0

        def make(*, raise_bugs: bool = True, **changes: object) -> Api:
            nonlocal count
            count += 1
            folder = tmp_path / str(count)
            folder.mkdir()
            return stack.enter_context(Api(settings_in(folder, migrated_database, **changes), raise_bugs=raise_bugs))

        yield make


@pytest.fixture
def api(api_settings: Settings) -> Iterator[Api]:
    """The application, in process."""
    with Api(api_settings) as client:
        yield client


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def lived_in(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service with a completed study and a schedule that has a night; faults are answered, not raised."""
    created: list[str] = []
    home, url = tmp_path_factory.mktemp("lived-in"), ""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = database_factory(server, created)()
    settings = Settings(home=home, working_dir=home, database_url=url, rate_limit=1e6).prepare_home()
    upgrade(settings.database_url)
    with Api(settings, raise_bugs=False) as api:
        api.submit()
        finish_study(api.drive())
        schedule = {"name": "nightly", "cron": "30 2 * * *", "time_zone": "UTC", "study": build.document()}
        assert api.post("/api/v1/schedules", json=schedule).status_code == 201
        assert api.post("/api/v1/schedules/nightly/run").is_success
        yield api
    if created:
        drop_databases(request.getfixturevalue("postgres_server"), created)
