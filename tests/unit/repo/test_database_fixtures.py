"""The suite's own databases: real, fresh and separate."""

from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, text


def test_each_test_gets_an_empty_database(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE marker (x integer)"))
        connection.execute(text("INSERT INTO marker VALUES (7)"))
        assert connection.execute(text("SELECT x FROM marker")).scalar_one() == 7
    engine.dispose()


@pytest.mark.postgres
def test_databases_of_one_test_are_separate(postgres_database: Callable[[], str]) -> None:
    first, second = (create_engine(postgres_database()) for _ in range(2))
    with first.begin() as connection:
        connection.execute(text("CREATE TABLE marker (x integer)"))
    with second.connect() as connection:
        found = connection.execute(text("SELECT to_regclass('marker')")).scalar_one()
    first.dispose()
    second.dispose()
    assert found is None
