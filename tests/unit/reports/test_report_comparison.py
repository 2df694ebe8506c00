"""Arms side by side: labels, baselines, warnings, and charts that say what the tables hold."""

from functools import cache

import pytest

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.reports import words
from service.reports.comparison import (
    Contender,
    Run,
    best_rate,
    compare,
    evidence,
    headline,
    speedup_table,
)
from service.reports.comparison_charts import comparison_charts
from service.reports.palette import LIGHT
from tests.e2e.samples import Simulation, simulate, study_spec, trial_result


@cache
def played() -> tuple[Simulation, StudyResult]:
    simulation = simulate(study_spec())
    return simulation, simulation.result("st_1", "completed")


def contender(name: str, index: int = 0, *, spec: StudySpec | None = None, key: str = "") -> Contender:
    simulation, result = played()
    arm = next(arm for arm in result.arms if arm.name == name)
    best = {words.size_of(curve, "width"): best_rate(curve) for curve in arm.curves}
    runs = {
        (r.axis_value, r.seed): Run(
            size=r.axis_value, lr_octaves=r.lr_octaves, seed=r.seed,
            result=trial_result(loss, width=r.axis_value, seed=r.seed),
        )
        for _, r, loss in simulation.trials
        if r.arm == name and best[r.axis_value] == r.lr_octaves
    }  # fmt: skip
    return Contender(
        index=index, key=key or f"st_1:{name}", label=name, study_id="st_1", study_name="quickstart",
        state="completed", spec=spec or simulation.spec, facts=None, arm=arm, runs=tuple(runs.values()),
    )  # fmt: skip


def test_the_natural_baseline_is_adamw_under_mup() -> None:
    arms = [contender("muon-mup"), contender("adamw-sp", 1), contender("adamw-mup", 2)]
    assert compare(arms, baseline=None, size=None).baseline.label == "adamw-mup"
    assert compare(arms[:2], baseline=None, size=None).baseline.label == "adamw-sp"
    assert compare(arms, baseline="st_1:muon-mup", size=None).baseline.label == "muon-mup"
    assert compare(arms, baseline="st_1:unknown", size=999).size == 256


def test_gains_at_every_size_in_words_and_table() -> None:
    found = compare([contender("muon-mup"), contender("adamw-mup", 1)], baseline=None, size=None)
    assert [gain.size for gain in found.gains] == [32, 64, 128, 256]
    assert found.warnings == ()
    values = [gain.speedup.tokens.value for gain in found.gains if gain.speedup.tokens]
    assert all(value > 1.05 for value in values)  # Muon's bowls lie lower at every width
    rows = speedup_table(found.gains, found.baseline).rows
    assert [row[3] for row in rows] == values
    assert "st_1" not in headline(found)
    assert headline(found).startswith("muon-mup ")
    assert "in device-seconds" in evidence(found)


def test_exchanged_arms_say_more_tokens_or_not_settled() -> None:
    found = compare([contender("adamw-sp"), contender("muon-mup", 1)], baseline="st_1:muon-mup", size=None)
    assert "more tokens than muon-mup" in headline(found) or "not settled" in headline(found)
    assert "ends at a higher loss" in speedup_table(found.gains, found.baseline).markdown()


@pytest.mark.parametrize(
    ("changes", "warning", "refuses"),
    [
        ({"data": {"source": "stdlib", "tokenizer": "bytes"}}, "The tokenizer differs (muon-mup: printable; ", True),
        ({"train": {"batch": 32, "steps": 600}}, "The horizon differs (", False),
        ({"eval": {"tokens": 1024}}, "The held-out set differs (", False),
    ],
)
def test_conditions_that_differ_are_told(changes: dict[str, object], warning: str, refuses: bool) -> None:
    other = contender("adamw-mup", 1, spec=study_spec("other", **changes), key="st_2:adamw-mup")
    found = compare([contender("muon-mup"), other], baseline=None, size=None)
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(warning)
    assert all((gain.speedup.tokens is None) is refuses for gain in found.gains)
    if refuses:
        assert {gain.speedup.refusal for gain in found.gains} == {"tokenizer differ"}
        assert headline(found) == "Side by side"


def test_every_chart_has_a_finding_a_table_and_both_layouts() -> None:
    found = compare(
        [contender("muon-mup"), contender("adamw-mup", 1), contender("adamw-sp", 2)], baseline=None, size=64
    )
    charts = {chart.key: chart for chart in comparison_charts(found, LIGHT)}
    assert list(charts) == ["compare-speedup", "compare-training", "compare-optimum", "compare-loss"]
    for chart in charts.values():
        assert chart.data
        assert chart.table.rows
        assert chart.layout["height"] > 300
        assert chart.narrow["showlegend"] is True
    assert charts["compare-training"].title.startswith("At width 64 muon-mup is at adamw-mup's final training loss")
    assert "muon-mup reaches the lowest loss at width 256: 1.9" in charts["compare-loss"].title
    assert charts["compare-optimum"].title.startswith("adamw-mup's optimum moves least")
    names = [trace["name"] for trace in charts["compare-speedup"].data]
    assert names == ["muon-mup, tokens", "muon-mup, device-seconds", "adamw-sp, tokens", "adamw-sp, device-seconds"]


def test_one_arm_alone_has_nothing_to_gain() -> None:
    found = compare([contender("muon-mup")], baseline=None, size=None)
    speedup = comparison_charts(found, LIGHT)[0]
    assert speedup.data == ()
    assert "two arms" in speedup.empty
