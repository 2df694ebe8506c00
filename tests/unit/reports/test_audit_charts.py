"""The audit's charts as data: what a cell says, what is drawn strong, what a broken ladder shows."""

import json
from math import log2

import pytest

from mutransfer.audit import AuditResult, Check, Exponent, LayerAudit, Quantity
from mutransfer.result import Interval
from mutransfer.roles import ParameterRole
from mutransfer.spec import ArmSpec
from service.reports.audit_charts import audit_charts, audit_table
from service.reports.palette import DARK, LIGHT

WIDTHS = (32, 64, 128)


def _exponent(quantity: Quantity, value: float, check: Check) -> Exponent:
    levels = tuple(3.0 * width**value for width in WIDTHS)
    measured = Interval(value=value, low=value - 0.1, high=value + 0.1)
    return Exponent(quantity=quantity, predicted=0.0, measured=measured, check=check, levels=levels)


def _layer(name: str, value: float, check: Check) -> LayerAudit:
    exponents = (
        _exponent(Quantity.WEIGHT, 0.0, Check.PASS),
        _exponent(Quantity.UPDATE, value, check),
        _exponent(Quantity.OUTPUT, 0.15, Check.UNDECIDED),
    )
    return LayerAudit(
        name=name,
        role=ParameterRole.HIDDEN,
        algorithm="adamw",
        first_step=1,
        steps=10,
        check=check,
        exponents=exponents,
    )


def _result(*layers: LayerAudit, check: Check = Check.FAIL, problems: tuple[str, ...] = ()) -> AuditResult:
    return AuditResult(
        arm=ArmSpec(optimizer="adamw"), model="mlp", lr_octaves=-6.0, widths=WIDTHS, base_width=32, seeds=2, steps=10,
        tolerance=0.2, check=check, problems=problems, layers=layers,
    )  # fmt: skip


FAILING = _result(_layer("layers.0.weight", 1.5, Check.FAIL), _layer("layers.1.weight", -0.05, Check.PASS))


def test_cells_say_exponent_and_check_and_colours_stop_at_one() -> None:
    heat = audit_charts(FAILING, LIGHT)[0].data[0]
    assert heat["y"] == ["layers.0", "layers.1"]
    assert heat["text"] == [["0.00", "+1.50 ✕", "+0.15 ?", ""], ["0.00", "−0.05", "+0.15 ?", ""]]
    assert heat["z"][0] == [0.0, 1.0, 0.15, None]
    assert "exponent +1.50 [+1.40, +1.60]" in heat["hovertext"][0][1]


def test_the_title_names_the_layer_at_fault() -> None:
    assert audit_charts(FAILING, LIGHT)[0].title == "adamw-mup: the scaling is wrong at layers.0"
    fine = _result(_layer("layers.1.weight", 0.0, Check.PASS), check=Check.PASS)
    assert (
        audit_charts(fine, LIGHT)[0].title == "adamw-mup: all 1 matrices follow their predictions from width 32 to 128"
    )


def test_lines_are_octaves_from_the_smallest_width_and_failures_are_strong() -> None:
    drawn = [line for line in audit_charts(FAILING, LIGHT)[1].data if line.get("name")]
    strong = [line for line in drawn if line["mode"] == "lines+markers"]
    assert [line["name"] for line in strong] == ["layers.0"]
    assert strong[0]["x"] == [log2(width) for width in WIDTHS]
    assert strong[0]["y"] == pytest.approx([0.0, 1.5, 3.0])
    assert strong[0]["yaxis"] == "y2"  # the second panel: change of weight
    ranges = [audit_charts(FAILING, LIGHT)[1].layout[f"yaxis{panel}"]["range"] for panel in ("", "2", "3", "4")]
    assert ranges[0] == ranges[3] == [-0.6, 0.6]  # noise must not fill a panel
    assert ranges[1] == pytest.approx([-0.6, 3.1])


def test_a_line_that_follows_its_prediction_is_flat() -> None:
    grown = _exponent(Quantity.UPDATE, 0.5, Check.FAIL).model_copy(update={"predicted": 0.5})
    layer = _layer("a.weight", 0.0, Check.FAIL).model_copy(update={"exponents": (grown,)})
    line = next(line for line in audit_charts(_result(layer), LIGHT)[1].data if line.get("name"))
    assert line["y"] == pytest.approx([0.0, 0.0, 0.0])


def test_a_ladder_that_is_none_says_so() -> None:
    for chart in audit_charts(_result(problems=("x does not grow with width",)), LIGHT):
        assert chart.empty == "No exponents: x does not grow with width."
        assert list(chart.data) == []


def test_what_could_not_be_measured_is_shown_as_such() -> None:
    broken = Exponent(
        quantity=Quantity.UPDATE, predicted=0.0, measured=None, check=Check.FAIL, levels=(1.0, None, None), reason="nan"
    )
    layer = _layer("a.weight", 0.0, Check.FAIL).model_copy(update={"exponents": (broken,)})
    heat, levels = audit_charts(_result(layer), LIGHT)
    assert heat.data[0]["text"][0][1] == "– ✕"
    assert not [line for line in levels.data if line.get("name")]
    assert audit_table(_result(layer)).rows[0][2:] == (None, None, None, 0.0, "fail", "nan")


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_charts_are_json_and_hold_no_markup_that_the_csp_bars(theme: object) -> None:
    for chart in audit_charts(FAILING, theme):  # type: ignore[arg-type]
        text = json.dumps(chart.document())
        assert "<span" not in text
        assert "<sup" not in text
