"""The fault tests of docs/reliability.md in their short forms: the code of `make chaos` with smaller numbers."""

from pathlib import Path
import tempfile

import pytest

from benchmarks.chaos.harness import Lab
from benchmarks.chaos.rows import ROWS
from tests.postgres_server import PostgresServer

#: Rows with a whole Ray of their own alternate between the databases; the long forms run each on both.
CASES = [
    (2, "sqlite"), (2, "postgresql"), (3, "sqlite"), (9, "sqlite"),
    (12, "sqlite"), (12, "postgresql"),
]  # fmt: skip


@pytest.mark.ray
@pytest.mark.postgres
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "database"), CASES, ids=lambda value: str(value))
def test_row(number: int, database: str, postgres_server: PostgresServer) -> None:
    row = ROWS[number]
    with tempfile.TemporaryDirectory(prefix="mt-chaos-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = postgres_server if database == "postgresql" else None
        figures = row.run(Lab(folder=Path(folder), database=database, server=server), row.short)
    assert [figure.line() for figure in figures if not figure.passed] == []
    assert figures


def test_every_row_has_a_short_form_here() -> None:
    assert {number for number, _ in CASES} == set(ROWS)
