"""A Llama-2-style decoder: RMSNorm, RoPE, SwiGLU, grouped queries, untied readout, no learned positions, no biases.

Legend of shape suffixes: B batch, T tokens of context, D width, H query heads, G key and value heads, K head size,
P pairs of a head (K / 2), V vocabulary.
Parameters, their names and roles are those of `mutransfer.architecture`; every multiplier of the forward pass comes
in as a `ForwardScaling`, so this file knows nothing about parametrizations.
Sources: Llama 2 (arXiv 2307.09288), RoPE (arXiv 2104.09864), SwiGLU (arXiv 2002.05202), GQA (arXiv 2305.13245).
"""

from typing import cast

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from models.block import Block
from models.norms import EPS, Norm
from mutransfer.architecture import swiglu_inner
from mutransfer.parametrize import ForwardScaling
from mutransfer.spec import ModelSpec


def rope_angles(context: int, head_dim: int, base: float) -> Tensor:
    """Angles in radians `(T, P)`: position t turns pair p by `t * base**(-p / P)`."""
    pairs = head_dim // 2
    frequencies_P = base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    return torch.outer(torch.arange(context, dtype=torch.float64), frequencies_P)


def rotate(x_BHTK: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
    """Turn each pair `(p, p + P)` of every head by its position's angle.

    The published form pairs neighbours; halves are the same model with the rows of query and key in another order.
    """
    a_BHTP, b_BHTP = x_BHTK.chunk(2, dim=-1)
    turned = torch.cat((a_BHTP * cos_TP - b_BHTP * sin_TP, b_BHTP * cos_TP + a_BHTP * sin_TP), dim=-1)
    return turned.type_as(x_BHTK)  # under autocast the angles are wider than the heads


class Attention(nn.Module):
    """Causal self-attention with rotary positions; `queries_per_kv` query heads read each key and value head."""

    def __init__(self, spec: ModelSpec, width: int, scaling: ForwardScaling) -> None:
        super().__init__()
        heads, self.head_dim = spec.heads_at(width)
        kv_width = heads // spec.queries_per_kv * self.head_dim
        self.grouped = spec.queries_per_kv > 1
        self.scale, self.qk_norm = scaling.attention_scale, spec.qk_norm
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, kv_width, bias=False)
        self.value = nn.Linear(width, kv_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def forward(self, x_BTD: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`."""
        q_BHTK, k_BGTK, v_BGTK = (self._split(side(x_BTD)) for side in (self.query, self.key, self.value))
        if self.qk_norm:
            q_BHTK, k_BGTK = (F.rms_norm(x, (self.head_dim,), None, EPS) for x in (q_BHTK, k_BGTK))
        q_BHTK, k_BGTK = rotate(q_BHTK, cos_TP, sin_TP), rotate(k_BGTK, cos_TP, sin_TP)
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BGTK, v_BGTK, is_causal=True, scale=self.scale, enable_gqa=self.grouped
        )
        return cast(Tensor, self.out(y_BHTK.transpose(1, 2).flatten(2)))


class SwiGLU(nn.Module):
    """Three matrices: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`."""
        return cast(Tensor, self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD)))


def _block(spec: ModelSpec, width: int, scaling: ForwardScaling) -> Block:
    attention, mlp = Attention(spec, width, scaling), SwiGLU(width, swiglu_inner(spec, width))
    return Block(spec, width, attention=attention, mlp=mlp, multiplier=scaling.residual_multiplier)


class Llama(nn.Module):
    """Token ids `(B, T)` to logits `(B, T, V)`, `T` at most `spec.context`."""

    cos_TP: Tensor
    sin_TP: Tensor

    def __init__(self, spec: ModelSpec, *, width: int, depth: int, vocab: int, scaling: ForwardScaling) -> None:
        super().__init__()
        self.readout_multiplier = scaling.readout_multiplier
        angles_TP = rope_angles(spec.context, spec.heads_at(width)[1], spec.rope_base)
        self.register_buffer("cos_TP", angles_TP.cos().float(), persistent=False)
        self.register_buffer("sin_TP", angles_TP.sin().float(), persistent=False)
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(_block(spec, width, scaling) for _ in range(depth))
        self.final_norm = Norm(width, kind=spec.norm, gain=spec.norm_gain)
        self.readout = nn.Linear(width, vocab, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        x_BTD = self.embedding(ids_BT)
        cos_TP, sin_TP = self.cos_TP[: ids_BT.shape[1]], self.sin_TP[: ids_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD, cos_TP, sin_TP)
        return cast(Tensor, self.readout(self.final_norm(x_BTD)) * self.readout_multiplier)
