"""What a recipe says, and that its snippet builds the trainer's own groups."""

import json
from typing import Any

import pytest
import torch
import yaml

from models import build
from mutransfer.errors import NotFoundError, ScalingError, SpecError
from mutransfer.facts import ModelRecord, ParameterRecord, StudyFacts
from mutransfer.parametrize import model_scaling
from mutransfer.recipe import Recipe, recipe
from mutransfer.result import Interval, Outcome, StudyResult
from mutransfer.roles import ParameterInfo, ParameterRole, parameter_info
from mutransfer.snippet import optimizer_groups, recipe_markdown, recipe_yaml, snippet
from mutransfer.spec import StudySpec
from mutransfer.trial import Environment, TrialSpec, trial_spec
from optimizers import build_optimizer
from tests.studies import SyntheticStudy, drifting_sp, three_arm_study
from tests.trials import merged

VOCAB = 11
FACTS = StudyFacts(
    vocab=VOCAB, train_tokens=1000, heldout_tokens=100,
    environment=Environment(data_fingerprint="d", code_digest="c", torch_version="2", device_type="cpu"),
)  # fmt: skip


@pytest.fixture(scope="module")
def result() -> StudyResult:
    """SP drifts, AdamW-μP and Muon-μP transfer; Muon's loss is lower."""
    return SyntheticStudy(three_arm_study(), drifting_sp()).run()


def _recipe(result: StudyResult, width: int = 256, **options: Any) -> Recipe:
    spec = options.pop("spec", three_arm_study())
    return recipe(spec, result, options.pop("facts", FACTS), width=width, **options)


def _row(found: Recipe, name: str) -> Any:
    return next(row for row in found.groups if name in row.names)


def test_the_default_arm_is_the_transferring_one_with_the_lowest_target_loss(result: StudyResult) -> None:
    assert _recipe(result).arm == "muon-mup"
    worse = merged(json.loads(result.model_dump_json()), {})
    for arm in worse["arms"]:
        arm["verdict"]["outcome"] = "inconclusive"
    found = _recipe(StudyResult.model_validate(worse))
    assert (found.arm, found.transfers) == ("adamw-mup", False)  # the first μP arm
    assert _recipe(result, arm="adamw-sp").outcome is Outcome.DRIFTS


def test_numbers_at_sixteen_times_the_base_by_hand(result: StudyResult) -> None:
    """Base width 16, width 256."""
    found = _recipe(result, arm="adamw-mup", spec=three_arm_study(train={"weight_decay": 0.01}))
    x = next(a for a in result.arms if a.name == "adamw-mup").verdict.recorded_lr_octaves
    assert x is not None
    assert found.base_lr == 2.0**x
    hidden = _row(found, "blocks.0.mlp.up.weight")
    assert (hidden.role, hidden.shape, hidden.lr_multiplier, hidden.lr) == ("hidden", (1024, 256), 1 / 16, 2.0**x / 16)
    assert hidden.eps == 1e-8 / 16
    assert hidden.weight_decay == 0.01
    assert hidden.torch_weight_decay == pytest.approx(0.01 / hidden.lr)
    assert hidden.options == {"betas": (0.9, 0.95)}
    embedding, readout = _row(found, "embedding.weight"), _row(found, "readout.weight")
    assert (embedding.lr_multiplier, embedding.clip_weight) == (1.0, 4.0)
    assert (readout.lr_multiplier, readout.clip_weight, readout.init_std) == (1 / 16, 1 / 4, 0.0)
    assert {name for row in found.groups for name in row.names} == set(found.parameter_names)
    assert sum(len(row.names) for row in found.groups) == len(found.parameter_names)
    assert found.parameters == 2 * VOCAB * 256 + 16 * 256 + 2 * 12 * 256**2


def test_inside_the_study_the_interval_is_the_proxy_s(result: StudyResult) -> None:
    found = _recipe(result, 128, arm="adamw-mup")
    arm = next(a for a in result.arms if a.name == "adamw-mup")
    optimum = next(c for c in arm.curves if c.width == 32).optimum_octaves
    assert optimum is not None
    assert not found.extrapolated
    assert (found.base_lr_octaves.low, found.base_lr_octaves.high) == (optimum.low, optimum.high)
    assert (found.recorded_at, found.verified_to) == (32, 128)


def test_beyond_the_study_the_interval_widens_by_the_slope_s(result: StudyResult) -> None:
    """Four times the largest verified width: twice the slope's interval."""
    arm = next(a for a in result.arms if a.name == "adamw-mup")
    slope = arm.verdict.slope_octaves_per_doubling
    assert slope is not None
    assert slope.low is not None
    assert slope.high is not None
    near, far = _recipe(result, 128, arm="adamw-mup"), _recipe(result, 512, arm="adamw-mup")
    assert far.extrapolated
    assert "512 is 4 times" in far.extrapolation[0]
    assert near.base_lr_octaves.low is not None
    assert near.base_lr_octaves.high is not None
    assert far.base_lr_octaves.low == pytest.approx(near.base_lr_octaves.low + 2 * min(0.0, slope.low))
    assert far.base_lr_octaves.high == pytest.approx(near.base_lr_octaves.high + 2 * max(0.0, slope.high))


def test_another_depth_was_never_measured(result: StudyResult) -> None:
    found = _recipe(result, 128, arm="adamw-mup", depth=8)
    assert found.extrapolated
    assert "nothing was measured at depth 8" in found.extrapolation[0]
    assert found.base_lr_octaves == Interval(value=found.base_lr_octaves.value, low=None, high=None)
    assert len(found.parameter_names) == 3 + 8 * 6


def test_conditions_are_the_study_s(result: StudyResult) -> None:
    conditions = _recipe(result).conditions
    assert (conditions.steps, conditions.batch, conditions.context, conditions.tokens) == (12, 4, 16, 768)
    assert (conditions.horizon, conditions.data, conditions.vocab, conditions.depth) == (
        "constant steps",
        "stdlib",
        11,
        2,
    )
    optimal = three_arm_study(train={"steps": None, "tokens_per_parameter": 20})
    assert _recipe(result, spec=optimal).conditions.horizon == "20 tokens a parameter"
    tokens = three_arm_study(train={"steps": None, "tokens": 6400})
    assert _recipe(result, spec=tokens).conditions.steps == 100


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"arm": "lion"}, NotFoundError, "no arm 'lion': this study has adamw-sp, adamw-mup, muon-mup"),
        ({"width": 100}, SpecError, "width: 100 is not divisible by model.head_dim = 8: try 96"),
        ({"width": 0}, SpecError, "width: a width is at least 1"),
        ({"depth": 0}, SpecError, "depth: a depth is at least 1"),
    ],
)
def test_impossible_recipes_say_why(
    result: StudyResult, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _recipe(result, **{"width": 256, **options})


def test_an_arm_without_a_recorded_rate_has_no_recipe() -> None:
    lost = SyntheticStudy(three_arm_study(), lambda r: None).run()
    with pytest.raises(NotFoundError, match="no recorded learning rate"):
        _recipe(lost)


# --- text ------------------------------------------------------------------------------------------------------------


def test_yaml_is_the_json_document(result: StudyResult) -> None:
    for arm in ("adamw-sp", "muon-mup"):
        found = _recipe(result, 512, arm=arm)
        assert yaml.safe_load(recipe_yaml(found)) == json.loads(found.model_dump_json())
        assert Recipe.model_validate_json(found.model_dump_json()).base_lr == found.base_lr


def test_markdown_says_the_verdict_first_and_has_a_row_a_group(result: StudyResult) -> None:
    found = _recipe(result, 512, arm="adamw-sp")
    text = recipe_markdown(found)
    assert text.index("Verdict: drifts") < text.index("Base LR") < text.index("| role |")
    assert "EXTRAPOLATED" in text
    assert text.count("\n| ") == 2 + len(found.groups)  # header, rule, rows
    assert "not over horizon or batch" in text


# --- the snippet -----------------------------------------------------------------------------------------------------


def _trial(spec: StudySpec, found: Recipe) -> TrialSpec:
    arm = next(a for a in spec.arms if a.name == found.arm)
    trial = trial_spec(spec, arm, 32, found.base_lr_octaves.value, seed=0)
    model = trial.model.model_copy(update={"depth": found.depth})
    return trial.model_copy(update={"width": found.width, "depth": found.depth, "model": model})


def _without_params(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


ARMS = [
    {"optimizer": "adamw", "parametrization": "sp"},
    {"optimizer": "adamw", "parametrization": "mup", "options": {"betas": [0.8, 0.99]}},
    {"optimizer": "muon", "parametrization": "mup"},
    {"optimizer": "sgd", "parametrization": "mup", "options": {"momentum": 0.8}},
]
SCALES: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay, gains, multiplier": {
        "train": {"weight_decay": 0.02}, "model": {"norm_gain": True, "init": {"readout": "multiplier"}},
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", list(SCALES.values()), ids=list(SCALES))
@pytest.mark.parametrize("arm", ["adamw-sp", "adamw-mup", "muon-mup", "sgd-mup"])
def test_the_snippet_builds_the_trainer_s_own_groups(arm: str, settings: dict[str, Any]) -> None:
    spec = three_arm_study(arms=ARMS, **settings)
    answer = drifting_sp()
    done = SyntheticStudy(spec, lambda r: answer(type(r)("adamw-mup", r.axis_value, r.lr_octaves, r.seed))).run()
    found = recipe(spec, done, FACTS, width=64, arm=arm)
    trial = _trial(spec, found)
    model = build(trial, vocab=VOCAB).module
    space: dict[str, Any] = {}
    exec(compile(snippet(found), "recipe.py", "exec"), space)
    built = space["build_optimizer"](model)
    own = build_optimizer(model.named_parameters(), model_scaling(trial, vocab=VOCAB), trial)
    assert _without_params(built) == _without_params(own)
    assert [[id(p) for p in g["params"]] for g in built.param_groups] == [
        [id(p) for p in g["params"]] for g in own.param_groups
    ]
    _step(model, built)
    scaled = {p.info.name: p for p in model_scaling(trial, vocab=VOCAB).parameters}
    assert space["INIT_STD"] == {name: p.init_std for name, p in scaled.items()}
    assert space["CLIP_WEIGHT"] == {name: p.clip_weight for name, p in scaled.items()}


OTHERS = [
    *({"optimizer": name} for name in ("adopt", "lamb", "sophia", "shampoo", "soap")),
    {"name": "blocks", "optimizer": "shampoo", "options": {"block_size": 16, "graft": "adam"}},
    {"name": "polar", "optimizer": "muon", "options": {"coefficients": "polar_express", "spectral_norm": True}},
    {"name": "plain", "optimizer": "soap", "rule": "derived", "options": {"spectral_norm": False}},
    {"name": "own", "optimizer": "torch.optim:RAdam", "rule": "derived", "law": [0.5, 0.5], "options": {"eps": 1e-7}},
    {"name": "own-normalised", "optimizer": "torch.optim:NAdam", "rule": "derived", "law": [0.5, 0.5],
     "options": {"betas": [0.9, 0.95], "spectral_norm": True}},
]  # fmt: skip


@pytest.fixture(scope="module")
def many() -> tuple[StudySpec, StudyResult]:
    """A study of every other kind of arm."""
    spec = three_arm_study(arms=OTHERS, train={"weight_decay": 0.02})
    answer = drifting_sp()
    return spec, SyntheticStudy(spec, lambda r: answer(type(r)("adamw-mup", r.axis_value, r.lr_octaves, r.seed))).run()


@pytest.mark.parametrize("index", range(len(OTHERS)), ids=lambda i: str(OTHERS[i].get("name", OTHERS[i]["optimizer"])))
def test_snippets_of_all_other_kinds_build_the_trainer_s_groups(
    many: tuple[StudySpec, StudyResult], index: int
) -> None:
    spec, done = many
    found = recipe(spec, done, FACTS, width=64, arm=spec.arms[index].name)
    trial = _trial(spec, found)
    model = build(trial, vocab=VOCAB).module
    space: dict[str, Any] = {}
    exec(compile(snippet(found), "recipe.py", "exec"), space)
    built = space["build_optimizer"](model)
    own = build_optimizer(model.named_parameters(), model_scaling(trial, vocab=VOCAB), trial)
    assert _without_params(built) == _without_params(own)
    assert type(built) is type(own)
    again = Recipe.model_validate_json(found.model_dump_json())
    assert snippet(again) == snippet(found)


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.zeros(1, 16, dtype=torch.int64)).logsumexp(-1).sum().backward()
    optimizer.step()
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_snippet_refuses_another_model(result: StudyResult) -> None:
    space: dict[str, Any] = {}
    exec(snippet(_recipe(result, 64, arm="adamw-mup")), space)
    with pytest.raises(ValueError, match="differ in parameters"):
        space["build_optimizer"](torch.nn.Linear(2, 2))


def test_a_recipe_that_came_as_json_gives_the_same_snippet(result: StudyResult) -> None:
    found = _recipe(result, 64)
    again = Recipe.model_validate_json(found.model_dump_json())
    assert snippet(again) == snippet(found)
    assert optimizer_groups(again) == optimizer_groups(found)


def test_text_of_the_user_cannot_leave_the_docstring(result: StudyResult) -> None:
    path = 'text:/tmp/a"""\nimport os\nos.abort()\n"""\\'
    found = _recipe(result, 64, spec=three_arm_study(data={"source": path}))
    space: dict[str, Any] = {}
    exec(snippet(found), space)
    assert "os.abort" in space["__doc__"]


# --- a model of the user's own ---------------------------------------------------------------------------------------


def _own(width: int) -> tuple[ParameterInfo, ...]:
    return (
        parameter_info("table", ParameterRole.EMBEDDING, (VOCAB, width)),
        parameter_info("body", ParameterRole.HIDDEN, (3 * width + 8, width)),
        parameter_info("head", ParameterRole.READOUT, (VOCAB, width)),
    )


def _records(*widths: int) -> StudyFacts:
    models = tuple(
        ModelRecord(width=w, depth=2, parameters=tuple(ParameterRecord.of(i) for i in _own(w))) for w in widths
    )
    return FACTS.model_copy(update={"own_models": models})


def test_a_model_of_the_user_s_own_is_known_from_the_widths_it_was_built_at(result: StudyResult) -> None:
    spec = three_arm_study(model={"family": "mine:build", "head_dim": None})
    found = _recipe(result, 256, spec=spec, facts=_records(16, 32), arm="adamw-mup")
    assert found.parameter_names == ("table", "body", "head")
    assert _row(found, "body").shape == (776, 256)
    assert _row(found, "body").lr_multiplier == 1 / 16
    with pytest.raises(ScalingError, match="fewer than two widths"):
        _recipe(result, 256, spec=spec, facts=_records(16), arm="adamw-mup")
