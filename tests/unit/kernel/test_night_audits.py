"""An audit that fails is news when a matrix that did not fail grows otherwise than it did."""

import pytest

from mutransfer.audit import Check
from mutransfer.night_audits import audit_figure
from mutransfer.nights import Method
from tests.audit_builders import audit_of

ARM = "adamw-mup"
RIGHT = audit_of({"a": 0.0, "b": 0.0})
LOOSE = audit_of({"a": -0.12, "b": -0.12}, spread=0.2)  # undecided, as at a night's few widths
WRONG = audit_of({"a": 1.0, "b": 0.0})


def test_the_audits_are_what_the_cases_need() -> None:
    assert [audit.check for audit in (RIGHT, LOOSE, WRONG)] == [Check.PASS, Check.UNDECIDED, Check.FAIL]


@pytest.mark.parametrize(("before", "then"), [(RIGHT, "0.00"), (LOOSE, "-0.12")])
def test_a_broken_rule_is_flagged_and_located_whether_the_baseline_passed_or_was_undecided(
    before: object, then: str
) -> None:
    figure = audit_figure({ARM: WRONG}, {ARM: before})  # type: ignore[dict-item]
    assert figure.flagged
    assert figure.method is Method.COUNTS
    assert figure.reason == (
        f"the audit fails for {ARM}: a (the change of weight goes as width^1.00 instead of width^{then})"
    )
    assert [interval.value for interval in (figure.night, figure.baseline, figure.change) if interval] == [1, 0, 1]


def test_an_undecided_exponent_that_fails_within_its_interval_is_no_news() -> None:
    nearly, just = audit_of({"a": -0.4}, spread=0.4), audit_of({"a": -0.5}, spread=0.4)
    assert (nearly.check, just.check) == (Check.UNDECIDED, Check.FAIL)
    figure = audit_figure({ARM: just}, {ARM: nearly})
    assert (figure.flagged, figure.reason) == (False, f"the audit fails for {ARM}")


def test_what_failed_already_is_no_news_but_another_matrix_is() -> None:
    assert not audit_figure({ARM: WRONG}, {ARM: WRONG}).flagged
    figure = audit_figure({ARM: audit_of({"a": 1.0, "b": -1.0})}, {ARM: WRONG})
    assert figure.flagged
    assert "b (the change of weight goes as width^-1.00 instead of width^0.00)" in figure.reason
    assert "a (" not in figure.reason
    assert figure.change is not None
    assert figure.change.value == 0.0  # one arm failed, and fails


def test_a_ladder_that_cannot_be_judged_any_more_is_news_where_it_passed() -> None:
    broken = WRONG.model_copy(update={"layers": (), "problems": ("layers differ",)})
    assert (
        audit_figure({ARM: broken}, {ARM: RIGHT}).reason == f"the audit fails for {ARM}, which passed in the baseline"
    )
    assert not audit_figure({ARM: broken}, {ARM: LOOSE}).flagged


def test_without_audits_to_compare_with_it_only_says_what_it_found() -> None:
    for then in (None, {}):
        figure = audit_figure({ARM: WRONG}, then)
        assert (figure.flagged, figure.method, figure.reason) == (False, Method.NONE, f"the audit fails for {ARM}")
    assert audit_figure({ARM: RIGHT}, None).reason == "no arm fails the audit"
    assert not audit_figure({"new": WRONG}, {ARM: RIGHT}).flagged
