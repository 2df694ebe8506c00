from typing import Any

import pytest

from mutransfer.errors import SpecError
from mutransfer.plan import Phase
from mutransfer.revision import extension, merge_patch, merged
from mutransfer.spec import StudySpec
from tests import study_builders as build

BASE = build.spec(widths__targets=[64], search__lr_octaves={"low": -8, "high": -3, "limit": [-12, 0]})


# The examples of RFC 7396, appendix A, that studies can hold.
@pytest.mark.parametrize(
    ("document", "changes", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, {"b": {"c": {"d": None}}}, {"a": "foo", "b": {"c": {}}}),
    ],
)
def test_changes_merge_as_the_standard_says(document: Any, changes: Any, expected: Any) -> None:
    before = repr(document)
    assert merge_patch(document, changes) == expected
    assert repr(document) == before


def test_a_clone_may_change_anything_that_makes_a_valid_study() -> None:
    made = merged(BASE, {"name": "other", "train": {"steps": 20}, "search": None})
    assert (made.name, made.train.steps, made.train.batch) == ("other", 20, 4)
    assert made.search == StudySpec.model_validate(build.document(search={})).search
    with pytest.raises(SpecError, match="unknown field"):
        merged(BASE, {"colour": "red"})


@pytest.mark.parametrize(
    ("changes", "phases", "rerecords"),
    [
        ({"widths": {"targets": [64, 128]}}, {Phase.TRANSFER, Phase.VERIFY}, False),
        ({"search": {"seeds": {"max": 3}}}, {Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY}, False),
        ({"search": {"lr_octaves": {"low": -10}}}, {Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY}, False),
        ({"widths": {"proxy": [8, 16]}}, {Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY}, False),
        ({"widths": {"proxy": [16, 32]}}, {Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY}, True),
    ],
)
def test_an_extension_opens_the_phases_that_may_ask_for_more(
    changes: dict[str, Any], phases: set[Phase], rerecords: bool
) -> None:
    made = extension(BASE, changes)
    assert set(made.reopened) == phases
    assert made.rerecords is rerecords
    assert made.spec == merged(BASE, changes)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({}, "", "nothing changes"),
        ({"name": "other"}, "name", "clone the study"),
        ({"train": {"steps": 20}}, "train.steps", "clone the study"),
        ({"widths": {"targets": [128]}}, "widths.targets", r"\[64\] cannot be taken away"),
        ({"widths": {"proxy": [32]}}, "widths.proxy", r"\[16\] cannot be taken away"),
        ({"search": {"lr_octaves": {"low": -7}}}, "search.lr_octaves.low", "can only grow"),
        ({"search": {"lr_octaves": {"low": -8.5}}}, "search.lr_octaves.low", "shifts the grid"),
        ({"search": {"lr_octaves": {"high": -4}}}, "search.lr_octaves.high", "can only grow"),
        ({"search": {"lr_octaves": {"limit": [-11, 0]}}}, "search.lr_octaves.limit", "only widen"),
        ({"verify": "point"}, "verify", "checks less"),
    ],
)
def test_anything_else_is_refused_at_its_field(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        extension(BASE, changes)
    assert [problem.field for problem in caught.value.problems] == [field]
