"""Options and sources that would fail only once a worker had them are refused with the study."""

import pytest

from mutransfer.errors import SpecError
from mutransfer.judge import judge_csv
from mutransfer.spec import DataSpec, parse_study
from tests.trials import SMALL, merged


@pytest.mark.parametrize(
    ("arm", "says"),
    [
        ({"optimizer": "sgd", "options": {"momentum": 0.0, "nesterov": True}}, "nesterov needs a momentum above 0"),
        ({"optimizer": "adamw", "options": {"eps": 0.0}}, "greater than 0"),
        ({"optimizer": "muon", "options": {"eps": 0}}, "greater than 0"),
        ({"optimizer": "adamw", "rule": "derived"}, "no derived rule of its own"),
    ],
)
def test_options_that_cannot_work_name_their_field(arm: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=rf"arms\.0\.(options|rule).*{says}"):
        parse_study(merged(SMALL, {"arms": [arm]}))


def test_only_columns_are_cut_off_a_path() -> None:
    assert DataSpec(source="text:/notes#1.txt").path == "/notes#1.txt"
    assert DataSpec(source="bin:/a#b.bin").path == "/a#b.bin"
    table = DataSpec(source="parquet:/d/a.parquet#body")
    assert (table.path, table.column) == ("/d/a.parquet", "body")
    assert DataSpec(source="jsonl:/d/a.jsonl").column == "text"


def test_sweeps_are_labelled_by_their_names() -> None:
    rows = [f"{arm},{w},{2.0**lr},{s},{2 + (lr + 5) ** 2 / 10 + s / 100}" for arm in ("adamw", "adamw-mup")
            for w in (32, 128) for lr in range(-8, -1) for s in (0, 1)]  # fmt: skip
    result = judge_csv("\n".join(["arm,width,lr,seed,loss", *rows]))
    assert [arm.parametrization.value for arm in result.arms] == ["sp", "mup"]
