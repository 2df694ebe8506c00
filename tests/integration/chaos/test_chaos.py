"""The fault tests of docs/reliability.md in their short forms: the code of `make chaos` with smaller numbers."""

from pathlib import Path
import tempfile

import pytest

from benchmarks.chaos.harness import Lab
from benchmarks.chaos.rows import ROWS
from tests.postgres_server import PostgresServer

#: Rows with a whole Ray of their own run on one of the databases here; the long forms run on both. Row 10 has its short
#: form in test_scheduler_clock.py, row 14 in test_api_schemathesis.py.
CASES = [
    (1, "sqlite"), (2, "sqlite"), (2, "postgresql"), (3, "sqlite"), (4, "postgresql"), (5, "postgresql"),
    (6, "sqlite"), (7, "sqlite"), (8, "postgresql"), (9, "sqlite"), (11, "postgresql"), (12, "sqlite"),
    (12, "postgresql"), (13, "postgresql"), (15, "sqlite"),
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
