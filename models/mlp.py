"""A language model without attention: the last `context` tokens, each through its own lookup, then plain layers.

Legend of shape suffixes: B batch, T positions, C context, D width, V vocabulary.
The smallest thing that has all three kinds of matrix (lookup, hidden, readout), for fast checks of the rules.
"""

from typing import cast

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from models.norms import EPS
from mutransfer.parametrize import ForwardScaling
from mutransfer.spec import ModelSpec


class MLPModel(nn.Module):
    """Token ids `(B, T)` to logits `(B, T, V)`; position t sees tokens t-C+1 … t (0 before the first)."""

    offsets_C: Tensor

    def __init__(self, spec: ModelSpec, *, width: int, depth: int, vocab: int, scaling: ForwardScaling) -> None:
        super().__init__()
        self.readout_multiplier = scaling.readout_multiplier
        self.context = spec.context
        self.embedding = nn.EmbeddingBag(spec.context * vocab, width, mode="sum")
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.readout = nn.Linear(width, vocab, bias=False)
        self.register_buffer("offsets_C", torch.arange(spec.context) * vocab, persistent=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        windows_BTC = F.pad(ids_BT, (self.context - 1, 0)).unfold(1, self.context, 1)
        rows_NC = (windows_BTC + self.offsets_C).flatten(0, 1)
        x_BTD = self.embedding(rows_NC).view(*ids_BT.shape, -1)
        for layer in self.layers:
            x_BTD = F.relu(layer(_unit_rms(x_BTD)))
        return cast(Tensor, self.readout(_unit_rms(x_BTD)) * self.readout_multiplier)


def _unit_rms(x_BTD: Tensor) -> Tensor:
    return F.rms_norm(x_BTD, (x_BTD.shape[-1],), None, EPS)
