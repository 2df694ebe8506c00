"""The Llama-style decoder against independent statements of its parts: RoPE, grouped queries, SwiGLU, roles, depth."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models import build
from models.llama import Llama, SwiGLU, rope_angles, rotate
from mutransfer.architecture import architecture, swiglu_inner
from mutransfer.parametrize import model_scaling
from mutransfer.roles import ParameterRole
from mutransfer.spec import ModelSpec
from mutransfer.trial import TrialSpec
from tests.trials import small_trial
from tests.unit.optimizers.support import normal

VOCAB = 11


def _trial(parametrization: str = "mup", *, width: int = 16, depth: int = 2, **model: Any) -> TrialSpec:
    settings = {"family": "llama", "init": {"readout": "inverse_width"}, **model}
    trial = small_trial(parametrization=parametrization, width=width, model=settings)
    return trial.model_copy(update={"depth": depth, "model": trial.model.model_copy(update={"depth": depth})})


def _llama(trial: TrialSpec) -> Llama:
    module = build(trial, vocab=VOCAB).module
    assert isinstance(module, Llama)
    return module


def test_rope_is_multiplication_by_unit_complex_numbers() -> None:
    x_BHTK = normal(2, 3, 7, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles_TP = rope_angles(7, 10, 10_000.0)
    ours = rotate(x_BHTK, angles_TP.cos(), angles_TP.sin())
    turned = torch.complex(x_BHTK[..., :5], x_BHTK[..., 5:]).clone()
    for t in range(7):
        for pair in range(5):
            angle = torch.tensor(t * 10_000.0 ** (-2 * pair / 10), dtype=torch.float64)
            turned[..., t, pair] *= torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(ours, torch.cat((turned.real, turned.imag), dim=-1))


def test_logits_of_attention_depend_on_the_distance_alone() -> None:
    q_K, k_K = normal(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles_TP = rope_angles(40, 8, 100.0)
    q_TK, k_TK = (rotate(x.expand(40, 8), angles_TP.cos(), angles_TP.sin()) for x in (q_K, k_K))
    logits_TT = q_TK @ k_TK.T
    torch.testing.assert_close(logits_TT[5, 2], logits_TT[35, 32])
    assert (logits_TT[5, 2] - logits_TT[5, 3]).abs() > 1e-3


def test_positions_matter_without_a_table_of_them() -> None:
    # With one key everything else is the same; swapping two earlier tokens is seen through RoPE only.
    module = _llama(_trial(depth=1)).double()
    ids_BT = torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]])
    with torch.no_grad():
        logits_BTV = module(ids_BT)
        module.sin_TP.zero_()
        module.cos_TP.fill_(1.0)
        blind_BTV = module(ids_BT)
    assert (logits_BTV[0, -1] - logits_BTV[1, -1]).abs().max() > 1e-4
    torch.testing.assert_close(blind_BTV[0, -1], blind_BTV[1, -1])


@pytest.mark.parametrize("geometry", [{"head_dim": 4}, {"head_dim": None, "heads": 4}], ids=str)
def test_grouped_queries_are_plain_attention_with_repeated_heads(geometry: dict[str, Any]) -> None:
    grouped = _llama(_trial(**geometry, queries_per_kv=2)).double()
    plain = _llama(_trial(**geometry)).double()
    weights = grouped.state_dict()
    for name in list(weights):
        if "attention.key" in name or "attention.value" in name:
            heads_GKD = weights[name].unflatten(0, (2, 4))
            weights[name] = heads_GKD.repeat_interleave(2, dim=0).flatten(0, 1)
    plain.load_state_dict(weights)
    ids_BT = torch.arange(32).remainder(VOCAB).view(2, 16)
    torch.testing.assert_close(grouped(ids_BT), plain(ids_BT))


def test_swiglu_by_hand() -> None:
    mlp, x_ND = SwiGLU(3, 5).double(), torch.randn(4, 3, dtype=torch.float64)
    gate, up, down = mlp.gate.weight, mlp.up.weight, mlp.down.weight
    z_NI = x_ND @ gate.T
    torch.testing.assert_close(mlp(x_ND), (z_NI * torch.sigmoid(z_NI) * (x_ND @ up.T)) @ down.T)


@pytest.mark.parametrize(
    ("mlp_ratio", "width", "inner"), [(4, 4096, 11008), (4, 32, 86), (4, 256, 688), (3, 64, 128), (6, 16, 64)]
)
def test_inner_size_is_proportional_to_width(mlp_ratio: int, width: int, inner: int) -> None:
    model = ModelSpec(family="llama", head_dim=8, mlp_ratio=mlp_ratio)
    assert swiglu_inner(model, width) == inner
    assert swiglu_inner(model, 4 * width) == 4 * inner


@pytest.mark.parametrize("geometry", [{"head_dim": 4}, {"head_dim": None, "heads": 4}], ids=str)
def test_both_sides_of_every_hidden_matrix_grow_with_width(geometry: dict[str, Any]) -> None:
    model = ModelSpec(family="llama", depth=1, queries_per_kv=2, **geometry)
    small, large = ({i.name: i for i in architecture(model, width=w, depth=1, vocab=VOCAB)} for w in (16, 64))
    for name, info in small.items():
        if info.role.is_hidden:
            assert (large[name].d_in, large[name].d_out) == (4 * info.d_in, 4 * info.d_out), name
    roles = {name.split(".")[-2]: info.role for name, info in small.items()}
    ends = {side for side, role in roles.items() if role is ParameterRole.RESIDUAL_OUT}
    assert ends == {"out", "down"}
    assert large["blocks.0.attention.key.weight"].shape == (32, 64)


def test_forward_multipliers_reach_attention_and_branches() -> None:
    fixed_count = _llama(_trial(width=64, head_dim=None, heads=2))
    assert fixed_count.blocks[0].get_submodule("attention").scale == 8**0.5 / 32  # sqrt(d_head_base) / d_head
    fixed_size = _llama(_trial(width=64))
    assert fixed_size.blocks[0].get_submodule("attention").scale == 8**-0.5
    deep = _llama(_trial(depth=8, residual_alpha=0.5))
    assert [block.multiplier for block in deep.blocks] == [0.5] * 8
    assert _llama(_trial("sp", depth=8)).blocks[0].multiplier == 1.0


def test_depth_multipliers_of_hidden_matrices_are_nanogpts() -> None:
    numbers = []
    for family in ("llama", "nanogpt"):
        trial = _trial(depth=8, family=family, residual_alpha=0.5)
        of = {p.info.name: p for p in model_scaling(trial, vocab=VOCAB).parameters}
        scaled = of["blocks.3.mlp.up.weight"]
        numbers.append((scaled.lr_multiplier, scaled.eps, scaled.clip_weight))
    assert numbers[0] == numbers[1] == (0.5, 1e-8 / 2, 2.0)


def test_branch_multiplier_scales_what_a_branch_adds() -> None:
    module = _llama(_trial(depth=1)).double()
    ids_BT = torch.arange(8)[None]
    block = module.blocks[0]
    x_BTD = module.embedding(ids_BT)
    angles = module.cos_TP[:8].double(), module.sin_TP[:8].double()
    y_BTD = x_BTD + 0.25 * block.get_submodule("attention")(F.rms_norm(x_BTD, (16,), None, 1e-5), *angles)
    z_BTD = y_BTD + 0.25 * block.get_submodule("mlp")(F.rms_norm(y_BTD, (16,), None, 1e-5))
    block.multiplier = 0.25
    torch.testing.assert_close(block(x_BTD, *angles), z_BTD)


def test_autocast_keeps_one_dtype_inside_attention() -> None:
    module = _llama(_trial(queries_per_kv=2))
    ids_BT = torch.arange(16).remainder(VOCAB)[None]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = module(ids_BT)
    torch.testing.assert_close(narrow.float(), module(ids_BT), atol=0.05, rtol=0.05)
