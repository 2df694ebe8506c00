"""Trials and fits as files that other programs read, and reports on paper."""

import csv
from io import BytesIO, StringIO
import re

import pyarrow.parquet as pq
import pytest

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.reports.data import FIT_COLUMNS, DataForm, fits_table, parquet, written
from service.reports.drawing.letters import fitted, measure
from service.reports.paper import WIDE, wrapped
from service.reports.pdf import report_pdf
from service.reports.table import Table
from tests.unit.reports.test_report_comparison import played


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return played()[1]


@pytest.fixture(scope="module")
def spec() -> StudySpec:
    return played()[0].spec


def test_fits_hold_the_result_in_full_precision(result: StudyResult) -> None:
    rows = list(csv.DictReader(StringIO(written(fits_table(result), DataForm.CSV).decode())))
    assert len(rows) == 12
    assert tuple(rows[0]) == FIT_COLUMNS
    arm = result.arms[2]
    row = next(row for row in rows if row["arm"] == "muon-mup" and row["width"] == "256")
    curve = next(curve for curve in arm.curves if curve.width == 256)
    assert curve.optimum_octaves is not None
    assert float(row["optimum_octaves"]) == curve.optimum_octaves.value
    assert float(row["optimum_lr"]) == pytest.approx(2.0**curve.optimum_octaves.value)
    assert float(row["regret_nats_high"]) == next(r.high for r in arm.verdict.regret_nats if r.width == 256)
    assert {row["regret_nats"] for row in rows if row["role"] == "proxy"} == {""}
    assert row["verdict"] == "transfers"


def test_parquet_holds_the_same_with_types_that_do_not_depend_on_the_rows(result: StudyResult) -> None:
    table = fits_table(result)
    whole = pq.ParquetFile(BytesIO(parquet(table))).read(use_threads=False)
    assert [tuple(row.values()) for row in whole.to_pylist()] == list(table.rows)
    none = pq.ParquetFile(BytesIO(parquet(Table(caption="", columns=table.columns, rows=())))).read(use_threads=False)
    assert none.num_rows == 0
    assert none.schema.equals(whole.schema)
    assert str(whole.schema.field("width").type) == "int64"
    assert str(whole.schema.field("optimum_octaves").type) == "double"


def test_the_report_on_paper_is_the_same_for_the_same_result(result: StudyResult, spec: StudySpec) -> None:
    body = report_pdf(result, spec)
    assert body.startswith(b"%PDF-1.4")
    assert body == report_pdf(result, spec)
    assert int(re.findall(rb"/Count (\d+)", body)[0]) == 3  # pages
    assert b"/MediaBox [ 0 0 595.5 842.25 ]" in body  # A4 in points
    running = result.model_copy(update={"arms": (result.arms[0].model_copy(update={"curves": ()}),)})
    assert report_pdf(running, spec).startswith(b"%PDF-1.4")


def test_lines_fit_their_column() -> None:
    lines = wrapped("a word and " + "w" * 200 + " another", 12, 200)
    assert lines[0] == "a word and"
    assert lines[1].endswith("…")
    assert lines[2] == "another"
    assert wrapped("", 12, WIDE) == [""]
    assert measure("mmmm", 100) == pytest.approx(4 * 97.4, abs=0.1)
    assert fitted("mmmm", 10, 50) == ("mmmm", 10)
    assert fitted("mmmm", 10, 35)[1] == pytest.approx(10 * 35 / 38.96, abs=0.01)
    text, size = fitted("m" * 40, 10, 50)
    assert (text[-1], size) == ("…", 7.5)
    assert measure(text, size) <= 50
