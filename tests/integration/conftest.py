"""The API's application on a fresh SQLite database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.migrate import upgrade
from service.settings import Settings
from tests.integration.api_fixtures import Api, settings_in


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


@pytest.fixture
def api(api_settings: Settings) -> Iterator[Api]:
    """The application, in process."""
    with Api(api_settings) as client:
        yield client
