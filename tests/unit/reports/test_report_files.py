"""The report's files and the cards, from a study played through the real search."""

from pathlib import Path
import re

import pytest

from mutransfer.result import Interval, Outcome, StudyResult
from mutransfer.spec import StudySpec
from service.reports import write_report
from service.reports.cards import arm_cards, gauge, sentence, spark
from service.reports.markdown import report_markdown
from service.reports.tables import transfer_table
from service.reports.words import answer
from tests.e2e.samples import simulate, study_spec


@pytest.fixture(scope="module")
def study() -> tuple[StudySpec, StudyResult]:
    simulation = simulate(study_spec())
    return simulation.spec, simulation.result("st_x", "completed")


def test_the_report_is_the_same_for_the_same_result(study: tuple[StudySpec, StudyResult], tmp_path: Path) -> None:
    spec, result = study
    first = [path.read_bytes() for path in write_report(result, spec, tmp_path / "one")]
    assert first == [path.read_bytes() for path in write_report(result, spec, tmp_path / "two")]


def test_the_html_report_asks_for_nothing(study: tuple[StudySpec, StudyResult], tmp_path: Path) -> None:
    spec, result = study
    html = (write_report(result, spec, tmp_path)[1]).read_text("utf-8")
    assert not re.search(
        r"""(?:src|href)=(?!["']?(?:#|data:))""", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    )
    assert len(html) < 3_000_000
    assert html.count("</script>") == 4


def test_the_markdown_report_says_verdict_transfer_and_conditions(study: tuple[StudySpec, StudyResult]) -> None:
    spec, result = study
    text = report_markdown(result, spec)
    assert text.startswith("# quickstart: Set 2⁻⁴·")
    for arm in result.arms:
        assert f"| {arm.name} | {arm.verdict.outcome.value} |" in text
    assert "| Tolerances | drift ±1 octave, regret 0.01 nats |" in text
    assert "| Horizon | 300 steps, batch 32 sequences |" in text
    assert "\n\n\n" not in text


def test_cards_show_rate_drift_and_regret(study: tuple[StudySpec, StudyResult]) -> None:
    _, result = study
    control, adamw, _ = arm_cards(result)
    assert (control.scheme, control.outcome, adamw.scheme, adamw.outcome) == ("SP", "drifts", "μP", "transfers")
    assert [g.label for g in adamw.gauges] == ["Drift 64 → 256", adamw.gauges[1].label]
    assert adamw.gauges[0].band == (30.0, 70.0)  # ±1 on a scale of ±2.5
    assert control.gauges[1].value is None  # far off the scale
    assert control.gauges[1].above


def test_cards_of_a_running_study_do_not_call_it_inconclusive() -> None:
    result = simulate(study_spec(), stop_after=100).result("st_x", "running")
    assert all(arm.verdict.outcome is Outcome.INCONCLUSIVE for arm in result.arms)
    for card in arm_cards(result):
        assert card.outcome == "searching"
        assert card.reasons == ()
        assert card.recorded is None


def test_a_gauge_places_an_interval_on_its_scale() -> None:
    found = gauge("x", "y", Interval(value=0.0, low=-5.0, high=1.0), band=(-1.0, 1.0), scale=(-2.0, 2.0))
    assert (found.low, found.value, found.high) == (0.0, 50.0, 75.0)
    assert found.band == (25.0, 75.0)
    assert found.below
    assert not found.above
    assert [text for _, text in found.ticks] == ["−1.00", "0", "+1.00"]
    unbounded = gauge("x", "y", Interval(value=0.0, low=None, high=None), band=(0.0, 1.0), scale=(0.0, 2.0))
    assert unbounded.below
    assert unbounded.above


def test_reasons_become_sentences() -> None:
    assert sentence("the optimum moved by -2.12 [-2.30, -1.92] octaves") == (
        "The optimum moved by −2.12 [−2.30, −1.92] octaves."
    )
    assert sentence("adamw-sp at 2-3 widths.") == "Adamw-sp at 2-3 widths."


def test_sparks_need_two_optima(study: tuple[StudySpec, StudyResult]) -> None:
    _, result = study
    drawn = spark(result)
    assert drawn is not None
    assert [(index, dashed) for index, _, dashed in drawn.paths] == [(0, True), (1, False), (2, False)]
    assert spark(simulate(study_spec(), stop_after=0).result("st_x", "queued")) is None


def test_transfer_lists_only_arms_with_a_recorded_rate(study: tuple[StudySpec, StudyResult]) -> None:
    assert len(transfer_table(study[1]).rows) == 6
    searching = simulate(study_spec(), stop_after=100).result("st_x", "running")
    assert transfer_table(searching).rows == ()
    assert "No target has been trained" in report_markdown(searching, study[0])


def test_a_queued_study_says_that_it_waits() -> None:
    found = answer(simulate(study_spec(), stop_after=0).result("st_x", "queued"))
    assert found.headline == "No answer yet"
    assert found.evidence.startswith("The study waits for a free driver")
