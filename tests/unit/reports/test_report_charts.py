"""Charts as data, from studies played through the real search."""

from functools import cache
from itertools import pairwise
import json
from math import log2
import re
from typing import Any

import pytest

from mutransfer.result import CurveStatus, StudyResult
from mutransfer.spec import StudySpec
from service.reports import numbers, words
from service.reports.chart import octave_ticks, spread
from service.reports.figures import charts
from service.reports.loss_layout import bowl_range
from service.reports.palette import DARK, LIGHT
from tests.e2e.samples import simulate, study_spec


@cache
def study(stop_after: int = 100_000) -> tuple[StudySpec, StudyResult]:
    simulation = simulate(study_spec(), stop_after=stop_after)
    return simulation.spec, simulation.result("st_x", "completed" if stop_after > 10_000 else "running")


def figures(stop_after: int = 100_000) -> dict[str, Any]:
    spec, result = study(stop_after)
    return {chart.key: chart for chart in charts(result, spec)}


def test_a_chart_without_data_says_when_it_will_appear() -> None:
    spec, result = study(0)
    for chart in charts(result, spec):
        assert chart.empty.startswith("Appears when")
        assert list(chart.data) == []
        assert chart.table.rows == ()


def test_ticks_are_powers_of_two() -> None:
    ticks = octave_ticks(-8.3, 0.4)
    assert ticks["tickvals"] == [-8, -7, -6, -5, -4, -3, -2, -1, 0]
    assert ticks["ticktext"][:2] == ["2⁻⁸", "2⁻⁷"]
    assert octave_ticks(-20.0, 4.0)["tickvals"] == [-20, -18, -16, -14, -12, -10, -8, -6, -4, -2, 0, 2, 4]
    assert octave_ticks(-5.2, -4.1)["tickvals"] == [-5.0, -4.5]


def test_all_widths_of_the_study_are_on_the_axis_from_the_first_trial_on() -> None:
    for stop_after in (120, 100_000):
        axis = figures(stop_after)["optimal-lr"].layout["xaxis"]
        assert axis["tickvals"] == [log2(width) for width in (32, 64, 128, 256)]
        assert axis["ticktext"] == ["32", "64", "128", "256"]


def test_sp_is_dashed_and_mup_solid() -> None:
    lines = {t["name"]: t["line"]["dash"] for t in figures()["optimal-lr"].data if t.get("mode") == "lines+markers"}
    assert lines == {"adamw-sp": "dash", "adamw-mup": "solid", "muon-mup": "solid"}


def test_a_minimum_keeps_its_interval() -> None:
    _, result = study()
    traces = [t for t in figures()["optimal-lr"].data if t.get("mode") == "lines+markers"]
    for arm, trace in zip(result.arms, traces, strict=True):
        for index, curve in enumerate(arm.curves):
            best = curve.optimum_octaves
            assert best is not None
            assert best.low is not None
            assert best.high is not None
            assert trace["y"][index] == best.value
            assert trace["error_y"]["array"][index] == pytest.approx(best.high - best.value)
            assert trace["error_y"]["arrayminus"][index] == pytest.approx(best.value - best.low)


def test_the_band_is_the_tolerance_around_the_recorded_rate() -> None:
    _, result = study()
    bands = [t for t in figures()["optimal-lr"].data if t.get("fill") == "toself"]
    mup = [arm for arm in result.arms if arm.parametrization.value == "mup"]
    assert len(bands) == len(mup)  # μP predicts, the control does not
    for band, arm in zip(bands, mup, strict=True):
        recorded = arm.verdict.recorded_lr_octaves
        assert recorded is not None
        assert min(band["y"]) == pytest.approx(recorded - 1.0)
        assert max(band["y"]) == pytest.approx(recorded + 1.0)
        assert min(band["x"]) == 6.0  # from the largest proxy, 64


def test_the_fit_is_drawn_through_the_minimum() -> None:
    _, result = study()
    curve = result.arms[1].curves[1]
    assert curve.fit_window_octaves is not None
    assert curve.loss_nats is not None
    fit = next(
        t for t in figures()["loss-lr"].data
        if t.get("mode") == "lines" and len(t["x"]) > 10 and t["legendgroup"] == "64" and t["xaxis"] == "x2"
    )  # fmt: skip
    assert (fit["x"][0], fit["x"][-1]) == pytest.approx(curve.fit_window_octaves, abs=1e-4)
    assert min(fit["y"]) == pytest.approx(curve.loss_nats.value, abs=2e-4)


def test_diverged_points_sit_on_the_top_edge_whatever_the_zoom() -> None:
    chart = figures()["loss-lr"]
    marks = [t for t in chart.data if t.get("marker", {}).get("symbol") == "x-thin"]
    assert marks
    for mark in marks:
        overlay = chart.layout["yaxis" + mark["yaxis"][1:]]
        assert overlay["range"] == [0, 1]
        assert overlay["overlaying"] == mark["xaxis"].replace("x", "y")
        assert all(0.8 < y <= 1 for y in mark["y"])
    assert {max(t["y"]) for t in marks if t["xaxis"] == "x"} >= {1.0}


def test_the_bowl_holds_every_minimum_and_its_neighbours() -> None:
    _, result = study()
    (x_low, x_high), (y_low, y_high) = bowl_range(result)
    for arm in result.arms:
        for curve in arm.curves:
            assert curve.optimum_octaves is not None
            assert curve.loss_nats is not None
            assert x_low < curve.optimum_octaves.value < x_high
            assert y_low < curve.loss_nats.value < y_high


def test_every_trace_of_a_panel_lies_on_that_panels_axes() -> None:
    chart = figures()["loss-lr"]
    for trace in chart.data:
        if "xaxis" in trace:
            assert "xaxis" + trace["xaxis"][1:] in chart.layout
            assert "yaxis" + trace["yaxis"][1:] in chart.narrow
    views = chart.views
    assert [view.label for view in views] == ["Zoom to minima", "Show all"]
    assert set(views[0].relayout) == {f"{a}axis{n}.range" for a in "xy" for n in ("", "2", "3")}


def test_texts_hold_no_markup_but_line_breaks() -> None:
    """Plotly turns tags into style attributes, which the Content-Security-Policy bars."""
    for theme in (LIGHT, DARK):
        spec, result = study()
        for chart in charts(result, spec, theme):
            text = json.dumps(chart.document(), ensure_ascii=False)
            assert set(re.findall(r"<[^>]+>", text)) <= {"<br>", "<extra>", "</extra>"}


def test_unbracketed_curves_have_a_word_and_no_minimum() -> None:
    spec, result = study()
    curve = result.arms[0].curves[3]
    lost = curve.model_copy(
        update={"status": CurveStatus.UNBRACKETED, "optimum_octaves": None, "loss_nats": None, "fit_coefficients": ()}
    )
    arm = result.arms[0].model_copy(update={"curves": (*result.arms[0].curves[:3], lost)})
    found = {c.key: c for c in charts(result.model_copy(update={"arms": (arm, *result.arms[1:])}), spec)}
    words_said = [t for t in found["loss-lr"].data if t.get("mode") == "text"]
    assert [t["text"] for t in words_said] == [["unbracketed"]]
    notes = [a["text"] for a in found["optimal-lr"].layout["annotations"] if "unbracketed" in a["text"]]
    assert notes == ["adamw-sp: unbracketed"]
    points = next(t for t in found["loss-lr"].data if t.get("legendgroup") == "256" and "error_y" in t)
    assert points["marker"]["color"] == LIGHT.ghost


def test_titles_are_findings() -> None:
    _, result = study()
    title = words.optimum_title(result)
    assert title.startswith("adamw-mup and muon-mup keep their optimum from width 64 to 256; adamw-sp's moves −")
    assert words.loss_title(result).startswith("The best loss of muon-mup falls from 2.")
    assert words.answer(result).headline.startswith("Set 2⁻⁴·")
    assert words.answer(study(120)[1]).headline == "No answer yet"


def test_labels_are_spread_as_little_as_needed() -> None:
    assert spread({"a": 0.0, "b": 5.0}, gap=1.0) == {"a": 0.0, "b": 5.0}
    assert spread({"a": 0.0, "b": 0.0, "c": 0.0}, gap=1.0) == {"a": -1.0, "b": 0.0, "c": 1.0}
    placed = spread({"a": 0.0, "b": 0.5, "c": 9.0, "d": 0.6}, gap=1.0)
    ordered = [placed[name] for name in ("a", "b", "d", "c")]
    assert all(high - low >= 1.0 - 1e-9 for low, high in pairwise(ordered))
    assert placed["c"] == 9.0


def test_tables_hold_what_the_result_says() -> None:
    spec, result = study()
    table = charts(result, spec)[1].table
    assert len(table.rows) == sum(len(curve.points) for arm in result.arms for curve in arm.curves)
    first = result.arms[0].curves[0].points[0]
    assert table.shown()[0][2] == numbers.power_of_two(first.lr_octaves)
    assert table.csv().splitlines()[0] == "arm,width,lr_octaves,lr,loss_nats,stderr_nats,seeds,diverged"
    assert table.markdown().splitlines()[1].startswith("|---|---:|---:|")
