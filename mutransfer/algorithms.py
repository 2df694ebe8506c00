"""The optimizers a study may name, and their options: data only; the algorithms themselves are in optimizers/.

The controller validates options without torch, so their schemas live in the kernel. Adding an optimizer means one
entry here, one rule in scaling.py and one file in optimizers/.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
#: Never 0: behind a zero-initialised readout the first gradients are exactly 0, and 0 / (0 + eps) must be 0.
Epsilon = Annotated[float, Field(gt=0.0, le=1.0)]


class Algorithm(StrEnum):
    """An update law. An arm names one for its hidden matrices; embeddings and readout may run another."""

    SGD = "sgd"
    ADAMW = "adamw"
    MUON = "muon"


class OptimizerOptions(BaseModel):
    """Base of all options: frozen, closed, finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SGDOptions(OptimizerOptions):
    """SGD with heavy-ball momentum, as torch.optim.SGD."""

    momentum: Beta = 0.9
    nesterov: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamWOptions(OptimizerOptions):
    """AdamW. `eps` is the base model's; under μP it is scaled (scaling.adam_like_eps)."""

    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: Epsilon = 1e-8


class MuonScale(StrEnum):
    """The shape factor a Muon update carries after orthogonalisation."""

    NONE = "none"  # 1: the bare orthogonal factor
    SPECTRAL = "spectral"  # sqrt(d_out / d_in): the spectral condition itself
    ORIGINAL = "original"  # sqrt(max(1, d_out / d_in)), as first published and in torch.optim.Muon
    RMS = "rms"  # 0.2 * sqrt(max(d_out, d_in)): matches AdamW's RMS, grows with width, undone by the rule


class MuonOptions(OptimizerOptions):
    """Muon on hidden matrices, AdamW at `base LR x adamw_lr_factor` on embeddings, readout and vectors."""

    momentum: Beta = 0.95
    nesterov: bool = True
    scale: MuonScale = MuonScale.SPECTRAL
    newton_schulz_steps: Annotated[int, Field(ge=1, le=20)] = 5
    eps: Epsilon = 1e-7
    adamw_lr_factor: Annotated[float, Field(gt=0.0)] = 0.1
    adamw_betas: tuple[Beta, Beta] = (0.9, 0.95)
    adamw_eps: Epsilon = 1e-8


OPTIONS: dict[Algorithm, type[OptimizerOptions]] = {
    Algorithm.SGD: SGDOptions,
    Algorithm.ADAMW: AdamWOptions,
    Algorithm.MUON: MuonOptions,
}
