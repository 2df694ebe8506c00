"""Normalisation without bias; without gain unless asked: trainable gains hurt transfer (Lingle, arXiv 2404.05728)."""

import torch
from torch import Tensor, nn
import torch.nn.functional as F

EPS = 1e-5


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension, times an optional trainable gain of shape `(width,)`."""

    gain: nn.Parameter | None

    def __init__(self, width: int, *, kind: str, gain: bool) -> None:
        super().__init__()
        self.width, self.kind = width, kind
        self.gain = nn.Parameter(torch.ones(width)) if gain else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalise `(..., width)` to unit RMS (rmsnorm) or to zero mean and unit variance (layernorm)."""
        if self.kind == "layernorm":
            return F.layer_norm(x_BTD, (self.width,), self.gain, None, EPS)
        return F.rms_norm(x_BTD, (self.width,), self.gain, EPS)
