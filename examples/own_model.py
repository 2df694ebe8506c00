"""A model of your own in a transfer study: a gated recurrent network, in 60 lines.

    MUTRANSFER_MODEL_PACKAGES=examples mutransfer up &
    mutransfer run examples/own-model.yaml

What mutransfer needs is one function, `build(width, depth, …)`. It returns the module and one `ParameterInfo` a
parameter; `describe` makes them from regular expressions and refuses a parameter that none matches. The function may
also name `vocab`, `context`, `forward` (the μP multipliers) and any key of `model.options`. The module maps token ids
`(B, T)` to logits `(B, T, V)`; mutransfer initialises its parameters by their roles.

Legend of shape suffixes: B batch, T tokens, D width, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from mutransfer.parametrize import ForwardScaling
from mutransfer.roles import ParameterInfo, describe

ROLES = {
    r"embedding\.weight": "embedding",
    r"layers\.\d+\.(candidate|gate)\.weight": "hidden",
    r"layers\.\d+\.out\.weight": "residual_out",
    r"readout\.weight": "readout",
}


class MinimalGRU(nn.Module):
    """A recurrence with a gate that looks at the input only, so that time is one cumulative product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.candidate = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`h_t = (1 - z_t) h_{t-1} + z_t c_t`, by a loop over the (short) context; `(B, T, D)` to `(B, T, D)`."""
        x_BTD = F.rms_norm(x_BTD, (x_BTD.shape[-1],))
        gate_BTD, candidate_BTD = torch.sigmoid(self.gate(x_BTD)), self.candidate(x_BTD)
        state_BD = torch.zeros_like(x_BTD[:, 0])
        states = []
        for gate_BD, candidate_BD in zip(gate_BTD.unbind(1), candidate_BTD.unbind(1), strict=True):
            state_BD = torch.lerp(state_BD, candidate_BD, gate_BD)
            states.append(state_BD)
        out: Tensor = self.out(torch.stack(states, dim=1))
        return out


class RecurrentModel(nn.Module):
    """Embedding, residual recurrent layers, normalised readout."""

    def __init__(self, width: int, depth: int, vocab: int, forward: ForwardScaling) -> None:
        super().__init__()
        self.multipliers = forward
        self.embedding = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(MinimalGRU(width) for _ in range(depth))
        self.readout = nn.Linear(width, vocab, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits `(B, T, V)` of the next token."""
        x_BTD = self.embedding(ids_BT)
        for layer in self.layers:
            x_BTD = x_BTD + layer(x_BTD) * self.multipliers.residual_multiplier
        logits_BTV: Tensor = self.readout(F.rms_norm(x_BTD, (x_BTD.shape[-1],)))
        return logits_BTV * self.multipliers.readout_multiplier


def build(width: int, depth: int, *, vocab: int, forward: ForwardScaling) -> tuple[nn.Module, Sequence[ParameterInfo]]:
    """What the study file names as `family: examples.own_model:build`."""
    model = RecurrentModel(width, depth, vocab, forward)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return model, describe(shapes, ROLES)
