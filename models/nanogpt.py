"""A NanoGPT-style decoder: learned positions, pre-norm blocks, GELU, untied readout, no biases.

Legend of shape suffixes: B batch, T tokens of context, D width, H heads, K head size, V vocabulary.
Parameters, their names and roles are those of `mutransfer.architecture`; every multiplier of the forward pass comes
in as a `ForwardScaling`, so this file knows nothing about parametrizations.
"""

from typing import cast

from torch import Tensor, nn
import torch.nn.functional as F

from models.block import Block
from models.norms import EPS, Norm
from mutransfer.parametrize import ForwardScaling
from mutransfer.spec import ModelSpec


class Attention(nn.Module):
    """Causal self-attention with separate query, key and value matrices."""

    def __init__(self, spec: ModelSpec, width: int, scaling: ForwardScaling) -> None:
        super().__init__()
        self.heads = spec.heads or width // (spec.head_dim or width)
        self.scale, self.qk_norm = scaling.attention_scale, spec.qk_norm
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:-1], self.heads, -1).transpose(1, 2)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`."""
        q_BHTK, k_BHTK, v_BHTK = (self._split(side(x_BTD)) for side in (self.query, self.key, self.value))
        if self.qk_norm:
            head_dim = (q_BHTK.shape[-1],)
            q_BHTK, k_BHTK = F.rms_norm(q_BHTK, head_dim, None, EPS), F.rms_norm(k_BHTK, head_dim, None, EPS)
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True, scale=self.scale)
        return cast(Tensor, self.out(y_BHTK.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """Two matrices around a GELU; the inner size is `mlp_ratio * width`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`."""
        return cast(Tensor, self.down(F.gelu(self.up(x_BTD))))


def _block(spec: ModelSpec, width: int, scaling: ForwardScaling) -> Block:
    attention, mlp = Attention(spec, width, scaling), MLP(width, spec.mlp_ratio * width)
    return Block(spec, width, attention=attention, mlp=mlp, multiplier=scaling.residual_multiplier)


class NanoGPT(nn.Module):
    """Token ids `(B, T)` to logits `(B, T, V)`, `T` at most `spec.context`."""

    def __init__(self, spec: ModelSpec, *, width: int, depth: int, vocab: int, scaling: ForwardScaling) -> None:
        super().__init__()
        self.readout_multiplier = scaling.readout_multiplier
        self.embedding = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(spec.context, width)
        self.blocks = nn.ModuleList(_block(spec, width, scaling) for _ in range(depth))
        self.final_norm = Norm(width, kind=spec.norm, gain=spec.norm_gain)
        self.readout = nn.Linear(width, vocab, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        x_BTD = self.embedding(ids_BT) + self.positions.weight[: ids_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return cast(Tensor, self.readout(self.final_norm(x_BTD)) * self.readout_multiplier)
