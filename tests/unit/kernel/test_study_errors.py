"""Every bad input is refused with the name of its field and what to change."""

from typing import Any

import pytest

from mutransfer.algorithms import Algorithm
from mutransfer.errors import SpecError
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec, parse_study
from tests.trials import SMALL, merged


def _problems(document: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_study(document)
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        (
            {"arms": [{"optimizer": "lion"}]},
            "arms.0.optimizer",
            "unknown optimizer 'lion': use one of sgd, adamw, adopt, lamb, sophia, shampoo, soap, muon",
        ),
        ({"arms": []}, "arms", "at least 1"),
        ({"arms": [{"optimizer": "adamw", "rule": "derived"}]}, "arms.0.rule", "only lamb, soap have"),
        ({"arms": [{"optimizer": "soap", "rule": "derived"}]}, "arms.0.rule", "needs options.spectral_norm: false"),
        ({"arms": [{"optimizer": "lamb"}], "model": {"init": {"readout": "zero"}}}, "model.init.readout", "auto or"),
        (
            {"arms": [{"optimizer": "lamb"}], "model": {"init": {"residual_out": "zero"}}},
            "model.init.residual_out",
            "set fan_in",
        ),
        (
            {"arms": [{"optimizer": "muon", "options": {"coefficients": "polar_express", "newton_schulz_steps": 6}}]},
            "arms.0.options",
            "five polynomials",
        ),
        ({"arms": [{"optimizer": "adamw"}, {"optimizer": "adamw"}]}, "arms.1.name", "two arms are called 'adamw-mup'"),
        ({"arms": [{"optimizer": "adamw", "options": {"beta": 1}}]}, "arms.0.options.beta", "adamw takes "),
        ({"arms": [{"optimizer": "adamw", "options": {"eps": float("nan")}}]}, "arms.0.options.eps", "finite"),
        ({"arms": [{"optimizer": "adamw", "parametrization": "ntk"}]}, "arms.0.parametrization", "'sp' or 'mup'"),
        ({"widths": {"targets": [60]}}, "widths", "width 60 is not divisible by model.head_dim = 8"),
        ({"model": {"head_dim": None, "heads": 3}}, "widths", "is not divisible by model.heads = 3"),
        ({"model": {"heads": 2}}, "model.head_dim", "exactly one of head_dim"),
        ({"model": {"queries_per_kv": 2}}, "model.queries_per_kv", "only the llama family has it"),
        ({"model": {"rope_base": 5e5}}, "model.rope_base", "use llama, not nanogpt"),
        ({"model": {"family": "llama", "heads": 2}}, "model.head_dim", "exactly one of head_dim"),
        ({"model": {"family": "llama", "queries_per_kv": 0}}, "model.queries_per_kv", "greater than or equal to 1"),
        ({"model": {"family": "llama", "queries_per_kv": 4}}, "model.queries_per_kv", "2 query heads (width 16)"),
        (
            {"model": {"family": "llama", "head_dim": None, "heads": 4, "queries_per_kv": 3}},
            "model.queries_per_kv",
            "cannot share key and value heads in groups of 3",
        ),
        ({"model": {"family": "llama", "head_dim": 1}}, "model.head_dim", "RoPE turns pairs: heads of odd size 1"),
        (
            {"model": {"family": "llama", "head_dim": None, "heads": 16}},
            "model.heads",
            "RoPE turns pairs: heads of odd size 1 (width 16)",
        ),
        ({"model": {"family": "resnet"}}, "model.family", "unknown model family 'resnet'"),
        ({"widths": {"proxy": [64], "targets": [32]}}, "widths.targets", "larger than the largest proxy 64"),
        ({"widths": {"proxy": [32, 16], "targets": [64]}}, "widths.proxy", "must rise without repeats"),
        ({"widths": {"proxy": [0]}}, "widths.proxy.0", "greater than or equal to 1"),
        ({"search": {"lr_octaves": {"low": -3, "high": -8}}}, "search.lr_octaves.low", "the LR range is empty"),
        ({"search": {"lr_octaves": {"low": -3, "high": -3}}}, "search.lr_octaves.low", "the LR range is empty"),
        ({"search": {"lr_octaves": {"low": float("nan")}}}, "search.lr_octaves.low", "finite number"),
        ({"search": {"lr_octaves": {"high": float("inf")}}}, "search.lr_octaves.high", "finite number"),
        ({"search": {"lr_octaves": {"limit": [-6, 4]}}}, "search.lr_octaves.limit", "must enclose low -8"),
        ({"search": {"lr_octaves": {"step": 0}}}, "search.lr_octaves.step", "greater than or equal to"),
        ({"search": {"seeds": {"min": 5, "max": 2}}}, "search.seeds.min", "5 seeds at least, but 2 at most"),
        ({"search": {"algorithm": "asha"}}, "search.algorithm", "'bracket', 'grid', 'tpe'"),
        ({"train": {"steps": None}}, "train.steps", "exactly one of steps, tokens"),
        ({"train": {"steps": 10, "tokens": 10}}, "train.steps", "exactly one of steps, tokens"),
        ({"train": {"steps": 0}}, "train.steps", "greater than or equal to 1"),
        ({"train": {"warmup": 1.0}}, "train.warmup", "less than 1"),
        ({"train": {"clip": float("nan")}}, "train.clip", "finite number"),
        ({"data": {"source": "text:"}}, "data.source", "'text' needs a path"),
        ({"data": {"source": "stdlib:/x"}}, "data.source", "takes no path"),
        ({"data": {"source": "http://x"}}, "data.source", "unknown data source"),
        ({"data": {"tokenizer": "gpt2"}}, "data.tokenizer", "unknown tokenizer 'gpt2'"),
        ({"verdict": {"drift_tolerance_octaves": 0}}, "verdict.drift_tolerance_octaves", "greater than 0"),
        ({"eval": {"tokens": 0}}, "eval.tokens", "greater than or equal to 1"),
        ({"model": {"tied": True}}, "arms.0.parametrization", "tied embeddings cannot train under mup"),
        ({"depth": {"base": 2, "proxy": [2], "targets": [8]}}, "widths", "a study over depth keeps one width"),
        ({"name": ""}, "name", "match pattern"),
        ({"version": 2}, "version", "Input should be 1"),
        ({"colour": "red"}, "colour", "unknown field"),
        ({"model": {"dropout": 0.1}}, "model.dropout", "unknown field"),
    ],
)
def test_a_bad_field_is_named_with_what_to_change(changes: dict[str, Any], field: str, message: str) -> None:
    problems = _problems(merged(SMALL, changes))
    assert field in problems
    assert message in problems[field]


@pytest.mark.parametrize("field", ["name", "model", "train", "widths", "arms"])
def test_a_missing_field_is_named(field: str) -> None:
    document = {k: v for k, v in SMALL.items() if k != field}
    assert _problems(document) == {field: "Field required"}


@pytest.mark.parametrize("document", [None, [], "name: x", 3])
def test_what_is_no_mapping_is_refused(document: Any) -> None:
    assert "a study is a mapping of fields" in _problems(document)[""]


def test_every_fault_is_found_in_one_go() -> None:
    document = merged(SMALL, {"arms": [{"optimizer": "lion"}], "train": {"steps": -1}, "colour": 1})
    assert set(_problems(document)) == {"arms.0.optimizer", "train.steps", "colour"}


# --- the exported schemas --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [StudySpec, StudyResult])
def test_schemas_describe_every_object(model: type[StudySpec] | type[StudyResult]) -> None:
    schema = model.model_json_schema()
    assert schema["description"]
    definitions = schema["$defs"]
    bare = [name for name, definition in definitions.items() if not definition.get("description")]
    assert bare == []
    assert schema["additionalProperties"] is False


def test_the_study_schema_names_what_the_example_uses() -> None:
    schema = StudySpec.model_json_schema()
    assert {"version", "name", "project", "model", "data", "train", "widths", "depth", "eval", "audit", "verify",
            "arms", "search", "verdict", "resources"} == set(schema["properties"])  # fmt: skip
    assert set(schema["required"]) == {"name", "model", "train", "widths", "arms"}
    assert schema["$defs"]["Algorithm"]["enum"] == [a.value for a in Algorithm]
