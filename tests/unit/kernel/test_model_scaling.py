"""Every number of every parameter of a model: by hand at four times the base, and equal to SP at the base."""

from itertools import product
from typing import Any

import pytest

from mutransfer.algorithms import OPTIONS
from mutransfer.arms import ArmSpec, Rule
from mutransfer.errors import ScalingError
from mutransfer.parametrize import ModelScaling, ParameterScaling, model_scaling
from mutransfer.trial import TrialSpec
from tests.trials import small_trial

VOCAB = 97
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("sgd", {}),
    *(("muon", {"scale": scale}) for scale in ("none", "spectral", "original", "rms")),
    ("adopt", {}),
    ("lamb", {}),
    ("sophia", {}),
    *(("shampoo", {"graft": graft, "eps_mode": "absolute"}) for graft in ("none", "adam", "sgd")),
    ("shampoo", {"block_size": 24, "exponent": 0.5, "max_preconditioner_dim": 64}),
    ("soap", {}),
    ("soap", {"block_size": 24, "max_preconditioner_dim": 64}),
    ("adamw", {"spectral_norm": True, "embedding_lr_factor": 3.0}),
]
READOUTS = ("zero", "inverse_width", "multiplier")


def _trial(parametrization: str = "mup", *, width: int = 256, depth: int = 2, **changes: Any) -> TrialSpec:
    """Base width 64, base depth 2, head size 16."""
    model = {"head_dim": 16, "depth": 2, **changes.pop("model", {})}
    widths = {"base": 64, "proxy": [64], "targets": [256]}
    trial = small_trial(parametrization=parametrization, width=width, widths=widths, model=model, **changes)
    return trial.model_copy(update={"depth": depth, "model": trial.model.model_copy(update={"depth": depth})})


def _by_name(trial: TrialSpec) -> dict[str, ParameterScaling]:
    return {p.info.name: p for p in model_scaling(trial, vocab=VOCAB).parameters}


def _numbers(scaled: ModelScaling) -> list[tuple[float, ...]]:
    return [
        (p.lr(0.125), p.lr_factor, p.lr_multiplier, p.eps, p.weight_decay, p.clip_weight, p.init_std,
         p.forward_multiplier)
        for p in scaled.parameters
    ]  # fmt: skip


def test_adamw_at_four_times_the_base_by_hand() -> None:
    of = _by_name(_trial(train={"weight_decay": 0.01}))
    multipliers = {name: p.lr_multiplier for name, p in of.items()}
    assert multipliers["embedding.weight"] == 1.0
    assert multipliers["positions.weight"] == 1.0
    assert multipliers["readout.weight"] == 1 / 4
    for hidden in ("attention.query", "attention.out", "mlp.up", "mlp.down"):
        assert multipliers[f"blocks.0.{hidden}.weight"] == 1 / 4
    assert of["embedding.weight"].eps == 1e-8 / 4
    assert of["readout.weight"].eps == 1e-8
    assert of["blocks.1.mlp.down.weight"].eps == 1e-8 / 4
    assert of["blocks.1.mlp.down.weight"].init_std == 1 / 32  # 1 / sqrt(4 * 256)
    assert of["embedding.weight"].init_std == 1.0
    assert of["readout.weight"].clip_weight == 1 / 2
    assert of["readout.weight"].weight_decay == 0.01  # constant steps: kappa 0


def test_sgd_and_muon_at_four_times_the_base_by_hand() -> None:
    sgd = _by_name(_trial(optimizer="sgd"))
    assert sgd["embedding.weight"].lr_multiplier == 4.0
    assert sgd["readout.weight"].lr_multiplier == 1 / 4
    assert sgd["blocks.0.mlp.up.weight"].lr_multiplier == 1.0
    muon = _by_name(_trial(optimizer="muon", options={"scale": "none"}))
    assert muon["blocks.0.mlp.up.weight"].lr_multiplier == 1.0
    assert muon["blocks.0.attention.key.weight"].lr_multiplier == 1.0
    assert (muon["embedding.weight"].algorithm.value, muon["embedding.weight"].lr_multiplier) == ("adamw", 1.0)
    assert (muon["readout.weight"].algorithm.value, muon["readout.weight"].lr_multiplier) == ("adamw", 1 / 4)
    assert muon["readout.weight"].lr(1.0) == 0.1 / 4  # adamw_lr_factor 0.1
    rms = _by_name(_trial(optimizer="muon", options={"scale": "rms"}))
    assert rms["blocks.0.mlp.up.weight"].lr_multiplier == 1 / 2  # the factor 0.2 sqrt(max side) doubled


def test_adam_like_optimizers_at_four_times_the_base_by_hand() -> None:
    adopt, sophia = _by_name(_trial(optimizer="adopt")), _by_name(_trial(optimizer="sophia"))
    for of in (adopt, sophia):
        assert of["blocks.0.mlp.up.weight"].lr_multiplier == of["readout.weight"].lr_multiplier == 1 / 4
        assert of["embedding.weight"].lr_multiplier == 1.0
    assert adopt["blocks.0.mlp.up.weight"].eps == 1e-6 / 4
    assert adopt["readout.weight"].init_std == 1 / 32  # not zero: ADOPT's v starts from the first gradient
    assert sophia["blocks.0.mlp.up.weight"].options["rho"] == 0.05 * 4
    assert sophia["readout.weight"].options["rho"] == 0.05
    assert sophia["blocks.0.mlp.up.weight"].eps == 1e-15 / 4
    multiplied = _by_name(_trial(optimizer="sophia", model={"init": {"readout": "multiplier"}}))["readout.weight"]
    assert multiplied.options["rho"] == 0.05 * 4  # divided by the forward multiplier 1/4


@pytest.mark.parametrize("readout", ["inverse_width", "multiplier"])
def test_lamb_published_and_derived_by_hand(readout: str) -> None:
    model = {"init": {"readout": readout}}
    published = _by_name(_trial(optimizer="lamb", rule="published", model=model))
    assert {p.lr_multiplier for p in published.values()} == {1.0}
    derived = _by_name(_trial(optimizer="lamb", rule="derived", model=model))
    assert derived["blocks.0.attention.query.weight"].lr_multiplier == 1 / 2  # r_in^(-1/2)
    assert derived["blocks.0.mlp.down.weight"].lr_multiplier == 1 / 2
    assert derived["embedding.weight"].lr_multiplier == derived["readout.weight"].lr_multiplier == 1.0


def test_shampoo_and_soap_at_four_times_the_base_by_hand() -> None:
    def hidden(optimizer: str, **options: Any) -> ParameterScaling:
        return _by_name(_trial(optimizer=optimizer, options=options))["blocks.0.attention.query.weight"]

    assert hidden("shampoo").lr_multiplier == 1.0
    assert hidden("shampoo", block_size=64).lr_multiplier == 1 / 4  # 4 x 4 blocks: 16^(-1/2)
    assert hidden("shampoo", exponent=0.5).lr_multiplier == 1.0
    assert hidden("shampoo", graft="adam").lr_multiplier == 1 / 4
    assert hidden("shampoo", graft="sgd").lr_multiplier == 1.0
    assert hidden("shampoo", eps_mode="absolute", block_size=64).eps == 1e-6 / 16
    assert hidden("shampoo").eps == 1e-6  # relative to the largest eigenvalue
    plain = {"spectral_norm": False}
    assert hidden("soap", **plain).lr_multiplier == 1.0
    assert hidden("soap", **plain, block_size=64).lr_multiplier == 1 / 4
    assert hidden("soap", **plain, block_size=64).eps == 1e-8 / 4
    assert hidden("soap", **plain, scale_eps=False, block_size=64).eps == 1e-8
    derived = _by_name(_trial(optimizer="soap", rule="derived", options=plain))
    assert derived["blocks.0.attention.query.weight"].lr_multiplier == pytest.approx(4 ** (-2 / 3))
    assert (derived["readout.weight"].algorithm.value, derived["readout.weight"].lr_multiplier) == ("adamw", 1 / 4)
    with pytest.raises(ScalingError, match="max_preconditioner_dim = 64 preconditions other sides"):
        hidden("soap", max_preconditioner_dim=64)


def test_blocks_count_on_preconditioned_sides_only() -> None:
    wide = _trial(optimizer="shampoo", options={"max_preconditioner_dim": 128, "block_size": 32}, width=128)
    up = _by_name(wide)["blocks.0.mlp.up.weight"]
    assert up.lr_multiplier == pytest.approx(2 ** (-1 / 4))  # input side only: b_in doubles, E = 1/4


def test_a_normalised_readout_behind_a_multiplier_is_divided_by_it() -> None:
    model = {"init": {"readout": "multiplier"}}
    for optimizer in ("adamw", "sgd", "lamb"):
        of = _by_name(_trial(optimizer=optimizer, options={"spectral_norm": True}, model=model))
        assert of["readout.weight"].lr_multiplier == 4.0


def test_spectral_normalisation_needs_no_multiplier() -> None:
    of = _by_name(_trial(optimizer="adamw", options={"spectral_norm": True}))
    assert {p.lr_multiplier for p in of.values()} == {1.0}
    assert (of["embedding.weight"].norm, of["readout.weight"].norm) == ("rms", "spectral")
    soap = _by_name(_trial(optimizer="soap"))  # normalised unless told otherwise
    assert soap["blocks.0.mlp.up.weight"].norm == "spectral"
    assert soap["blocks.0.mlp.up.weight"].lr_multiplier == 1.0
    assert (soap["readout.weight"].norm, soap["readout.weight"].lr_multiplier) == ("", 1 / 4)  # AdamW's part
    assert soap["readout.weight"].lr(1.0) == pytest.approx(0.3 / 4)
    plain = _by_name(_trial(optimizer="soap", options={"spectral_norm": False}))
    assert plain["readout.weight"].lr(1.0) == 1 / 4
    own = _by_name(_trial(optimizer="soap", options={"spectral_norm": False, "adamw_lr_factor": 0.5}))
    assert own["readout.weight"].lr(1.0) == 0.5 / 4


@pytest.mark.parametrize("options", [{"spectral_norm": False}, {}])
def test_the_rule_of_an_arm_that_names_none(options: dict[str, Any]) -> None:
    """Plain SOAP follows the rule that transfers; a normalised one has no rule of its own. Neither forgets it."""
    arm = ArmSpec.model_validate({"optimizer": "soap", "options": options})
    assert arm.rule is (Rule.DERIVED if options else Rule.PUBLISHED)
    assert ArmSpec.model_validate(arm.model_dump(mode="json")) == arm


def test_factors_of_embedding_and_readout() -> None:
    of = _by_name(_trial(optimizer="muon", options={"embedding_lr_factor": 2.0, "readout_lr_factor": 3.0}))
    assert of["embedding.weight"].lr(1.0) == of["positions.weight"].lr(1.0) == pytest.approx(0.2)
    assert of["readout.weight"].lr(1.0) == pytest.approx(0.3 / 4)
    assert of["blocks.0.mlp.up.weight"].lr_factor == 1.0


def test_depth_by_hand() -> None:
    trial = _trial(width=64, depth=4)
    scaled = model_scaling(trial, vocab=VOCAB)
    assert scaled.forward.residual_multiplier == 1 / 2
    of = {p.info.name: p for p in scaled.parameters}
    assert of["blocks.3.mlp.up.weight"].lr_multiplier == 1.0  # alpha = 1
    assert of["blocks.3.mlp.up.weight"].eps == 1e-8 / 2
    assert of["blocks.3.mlp.up.weight"].clip_weight == 2.0
    assert of["embedding.weight"].eps == 1e-8  # N counts for hidden matrices only
    half = _by_name(_trial(width=64, depth=8, model={"residual_alpha": 0.5}))
    assert half["blocks.0.mlp.up.weight"].lr_multiplier == 1 / 2  # 4^(1/2 - 1)
    shampoo = _by_name(_trial(width=64, depth=4, optimizer="shampoo", options={"exponent": 0.5}))
    assert shampoo["blocks.0.mlp.up.weight"].lr_multiplier == 1 / 2  # N^(1 - 2E), E = 1
    sgd = _by_name(_trial(width=64, depth=4, optimizer="sgd"))
    assert sgd["blocks.0.mlp.up.weight"].lr_multiplier == 2.0
    assert sgd["readout.weight"].lr_multiplier == 1.0


@pytest.mark.parametrize(
    ("optimizer", "readout", "residual_out"), list(product(OPTIMIZERS, READOUTS, ("fan_in", "zero")))
)
def test_at_base_width_every_multiplier_is_one_and_every_number_is_sp_s(
    optimizer: tuple[str, dict[str, Any]], readout: str, residual_out: str
) -> None:
    if optimizer[0] == "lamb" and (readout == "zero" or residual_out == "zero"):
        return  # refused: LAMB cannot start from zero
    for geometry in ({"head_dim": 16}, {"head_dim": None, "heads": 4}, {"norm_gain": True, "qk_norm": True}):
        model = {**geometry, "init": {"readout": readout, "residual_out": residual_out}}
        settings: dict[str, Any] = {
            "optimizer": optimizer[0], "options": optimizer[1], "width": 64, "train": {"weight_decay": 0.1},
        }  # fmt: skip
        mup = model_scaling(_trial("mup", model=model, **settings), vocab=VOCAB)
        sp = model_scaling(_trial("sp", model=model, **settings), vocab=VOCAB)
        assert all(p.lr_multiplier == p.clip_weight == p.forward_multiplier == 1.0 for p in mup.parameters)
        assert _numbers(mup) == _numbers(sp)
        assert [(p.options, p.norm) for p in mup.parameters] == [(p.options, p.norm) for p in sp.parameters]
        assert mup.forward == sp.forward


@pytest.mark.parametrize("optimizer", list(OPTIONS))
def test_sp_is_unscaled_at_every_width(optimizer: str) -> None:
    scaled = model_scaling(_trial("sp", optimizer=optimizer, width=256, depth=8), vocab=VOCAB)
    assert all(p.lr_multiplier == p.clip_weight == p.forward_multiplier == 1.0 for p in scaled.parameters)
    base = model_scaling(_trial("sp", optimizer=optimizer, width=64), vocab=VOCAB)
    assert {p.eps for p in scaled.parameters} == {p.eps for p in base.parameters}
    assert (scaled.forward.residual_multiplier, scaled.forward.readout_multiplier) == (1.0, 1.0)


@pytest.mark.parametrize("optimizer", list(OPTIONS))
def test_readout_with_a_multiplier_is_the_same_function_and_the_same_update(optimizer: str) -> None:
    b = _by_name(_trial(optimizer=optimizer, model={"init": {"readout": "inverse_width"}}))["readout.weight"]
    c = _by_name(_trial(optimizer=optimizer, model={"init": {"readout": "multiplier"}}))["readout.weight"]
    m = c.forward_multiplier
    assert (m, b.forward_multiplier) == (1 / 4, 1.0)
    assert m * c.init_std == b.init_std == 1 / 32
    # The gradient of the matrix behind the multiplier is m times the other's.
    # LAMB's update follows the norm of the weights, 1/m times the other's.
    gradient_scale = {"sgd": m, "lamb": 1 / m}.get(optimizer, 1.0)
    assert m * c.lr(1.0) * gradient_scale == b.lr(1.0)
    assert c.eps == b.eps * m
    assert c.clip_weight * m == b.clip_weight


def test_readout_under_sp_ignores_the_multiplier() -> None:
    for readout, std in (("zero", 0.0), ("inverse_width", 1 / 16), ("multiplier", 1 / 16)):
        scaled = _by_name(_trial("sp", model={"init": {"readout": readout}}))["readout.weight"]
        assert (scaled.init_std, scaled.forward_multiplier) == (std, 1.0)


def test_attention_scale_with_a_fixed_head_count() -> None:
    fixed_count = {"head_dim": None, "heads": 4}
    assert model_scaling(_trial(model=fixed_count), vocab=VOCAB).forward.attention_scale == 4 / 64  # sqrt(16) / 64
    assert model_scaling(_trial("sp", model=fixed_count), vocab=VOCAB).forward.attention_scale == 1 / 8
    assert model_scaling(_trial(), vocab=VOCAB).forward.attention_scale == 1 / 4


def test_weight_decay_follows_the_horizon() -> None:
    optimal = {"weight_decay": 0.4, "steps": None, "tokens_per_parameter": 20}
    assert _by_name(_trial(train=optimal))["blocks.0.mlp.up.weight"].weight_decay == 0.1  # kappa 1
    constant = {"weight_decay": 0.4, "steps": None, "tokens": 100_000}
    assert _by_name(_trial(train=constant))["blocks.0.mlp.up.weight"].weight_decay == 0.4
    half = {"weight_decay": 0.4, "weight_decay_kappa": 0.5}
    assert _by_name(_trial(train=half))["blocks.0.mlp.up.weight"].weight_decay == 0.2
    assert _by_name(_trial("sp", train=optimal))["blocks.0.mlp.up.weight"].weight_decay == 0.4
    assert _by_name(_trial(model={"norm_gain": True}, train=constant))["final_norm.gain"].weight_decay == 0.0
