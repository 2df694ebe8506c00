"""The whole API fuzzed from its own description on both databases: no 5xx, no hang, no undocumented answer."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.app import create_app
from service.db.migrate import upgrade
from service.runtime import ensure_token
from service.settings import Settings
from tests.api_fuzz import fuzz
from tests.integration.api_fixtures import Api, finish_study, served

EXAMPLES = 2  # valid and as many invalid ones, an operation
SEED = 20261126
SECONDS = 600.0  # at most: on a machine that nobody else uses it takes some fifteen


@pytest.mark.timeout(900)
def test_nothing_breaks_the_service(database_url: str, tmp_path: Path) -> None:
    upgrade(database_url)
    settings = Settings(home=tmp_path / "home", database_url=database_url, rate_limit=100_000.0).prepare_home()
    token = ensure_token(settings.home)
    with capture_logs() as logs, Api(settings) as api:
        study = api.submit()
        finish_study(api.drive())
        with served(create_app(settings)) as url:
            figures = fuzz(
                url, examples=EXAMPLES, token=token, study_id=study, number=SEED, rows=api.rows, seconds=SECONDS
            )
    assert [entry for entry in logs if entry["event"] == "unhandled error"] == []
    assert figures.faults == {}
    assert len(figures.operations) >= 25
    assert figures.requests > 400
    assert {200, 201, 400, 404, 413, 422} <= set(figures.statuses)
    assert 401 not in figures.statuses
