"""The pre-norm residual block that the decoders share."""

import torch
from torch import Tensor, nn

from models.norms import Norm
from mutransfer.spec import ModelSpec


class Block(nn.Module):
    """Attention and MLP, each behind a norm; both residual branches are scaled by `multiplier`."""

    def __init__(self, spec: ModelSpec, width: int, *, attention: nn.Module, mlp: nn.Module, multiplier: float) -> None:
        super().__init__()
        self.multiplier = multiplier
        self.attention_norm = Norm(width, kind=spec.norm, gain=spec.norm_gain)
        self.attention = attention
        self.mlp_norm = Norm(width, kind=spec.norm, gain=spec.norm_gain)
        self.mlp = mlp

    def forward(self, x_BTD: Tensor, *positions: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`; `positions` go to the attention as they are."""
        x_BTD = torch.add(x_BTD, self.attention(self.attention_norm(x_BTD), *positions), alpha=self.multiplier)
        return torch.add(x_BTD, self.mlp(self.mlp_norm(x_BTD)), alpha=self.multiplier)
