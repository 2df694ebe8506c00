"""The optimizers a study may name, and their options: data only; the algorithms themselves are in optimizers/.

The controller validates options without torch, so their schemas live in the kernel. Adding an optimizer means one
entry here, its rule in scaling.py and updates.py, and one file in optimizers/.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
#: Never 0: behind a zero-initialised readout the first gradients are exactly 0, and 0 / (0 + eps) must be 0.
Epsilon = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Every = Annotated[int, Field(ge=1, le=100_000)]
Side = Annotated[int, Field(ge=1, le=1_048_576)]


class Algorithm(StrEnum):
    """An update law. An arm names one for its hidden matrices; embeddings and readout may run another."""

    SGD = "sgd"
    ADAMW = "adamw"
    ADOPT = "adopt"
    LAMB = "lamb"
    SOPHIA = "sophia"
    SHAMPOO = "shampoo"
    SOAP = "soap"
    MUON = "muon"
    EXTERNAL = "external"  # a torch optimizer of the user's own, named by its class


class OptimizerOptions(BaseModel):
    """Base of all options: frozen, closed, finite.

    `embedding_lr_factor` and `readout_lr_factor` multiply the learning rate of those matrices at every width.
    `spectral_norm` rescales the update of every matrix that the optimizer trains itself (not those of AdamW beside it)
    to spectral norm `sqrt(d_out / d_in)` (Q25). `scale_eps` off leaves epsilons at the base model's under μP, to see
    what scaling them does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    embedding_lr_factor: Positive = 1.0
    readout_lr_factor: Positive = 1.0
    spectral_norm: bool = False
    scale_eps: bool = True


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


class ADOPTOptions(OptimizerOptions):
    """ADOPT: Adam whose second moment does not know the current gradient (arXiv 2411.02853)."""

    betas: tuple[Beta, Beta] = (0.9, 0.9999)
    eps: Epsilon = 1e-6


class LAMBOptions(OptimizerOptions):
    """LAMB: Adam's direction at the norm of the weights (arXiv 1904.00962); `max_ratio` clamps the trust ratio."""

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Epsilon = 1e-6
    bias_correction: bool = True
    max_ratio: Positive | None = None


class Estimator(StrEnum):
    """Where Sophia's diagonal curvature comes from."""

    GNB = "gnb"  # Gauss-Newton-Bartlett: squared gradients on labels sampled from the model
    HUTCHINSON = "hutchinson"  # z * Hz with random signs z


class SophiaOptions(OptimizerOptions):
    """Sophia: momentum over curvature, each entry clipped to ±1 (arXiv 2305.14342); curvature every `every` steps."""

    betas: tuple[Beta, Beta] = (0.965, 0.99)
    rho: Positive = 0.05
    eps: Epsilon = 1e-15
    estimator: Estimator = Estimator.GNB
    every: Every = 10


class SplitOptions(OptimizerOptions):
    """Base of the matrix optimizers: embeddings, readout and vectors run AdamW at `base LR x adamw_lr_factor`."""

    adamw_lr_factor: Positive = 1.0
    adamw_betas: tuple[Beta, Beta] = (0.9, 0.95)
    adamw_eps: Epsilon = 1e-8


class MuonScale(StrEnum):
    """The shape factor a Muon update carries after orthogonalisation."""

    NONE = "none"  # 1: the bare orthogonal factor
    SPECTRAL = "spectral"  # sqrt(d_out / d_in): the spectral condition itself
    ORIGINAL = "original"  # sqrt(max(1, d_out / d_in)), as first published and in torch.optim.Muon
    RMS = "rms"  # 0.2 * sqrt(max(d_out, d_in)): matches AdamW's RMS, grows with width, undone by the rule


class Coefficients(StrEnum):
    """The polynomials that drive singular values to 1."""

    QUINTIC = "quintic"  # Jordan's Newton-Schulz quintic, the same at every step
    POLAR_EXPRESS = "polar_express"  # five quintics, each optimal for what the one before left


class MuonOptions(SplitOptions):
    """Muon on hidden matrices, AdamW on the rest."""

    momentum: Beta = 0.95
    nesterov: bool = True
    scale: MuonScale = MuonScale.SPECTRAL
    coefficients: Coefficients = Coefficients.QUINTIC
    newton_schulz_steps: Annotated[int, Field(ge=1, le=20)] = 5
    eps: Epsilon = 1e-7
    adamw_lr_factor: Positive = 0.1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.coefficients is Coefficients.POLAR_EXPRESS and self.newton_schulz_steps > 5:
            raise ValueError("polar_express has five polynomials: newton_schulz_steps is at most 5")
        return self


class PreconditionedOptions(SplitOptions):
    """What Shampoo and SOAP share: which sides are preconditioned, in what blocks, and how often they are refreshed.

    A side is active while its dimension is at most `max_preconditioner_dim`. `block_size` cuts matrices into blocks
    with preconditioners of their own; `stagger` spreads refreshes over the steps between them.
    """

    max_preconditioner_dim: Side = 8192
    block_size: Side | None = None
    every: Every = 10
    stagger: bool = True


class Statistics(StrEnum):
    """How Shampoo gathers its second moments."""

    EMA = "ema"  # exponential moving average, bias-corrected
    SUM = "sum"  # sum over all steps, as first published


class EpsMode(StrEnum):
    """What Shampoo's epsilon is added to the statistics as."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"  # times the largest eigenvalue: needs no scaling


class Graft(StrEnum):
    """Whose update norm Shampoo's direction is given."""

    NONE = "none"
    ADAM = "adam"
    SGD = "sgd"


class ShampooOptions(PreconditionedOptions):
    """Shampoo (arXiv 1802.09568): `L^-e G R^-e`, `e` a side; grafting takes the norm from another optimizer."""

    momentum: Beta = 0.9
    beta2: Beta = 0.99
    statistics: Statistics = Statistics.EMA
    exponent: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    eps: Epsilon = 1e-6
    eps_mode: EpsMode = EpsMode.RELATIVE
    graft: Graft = Graft.NONE
    graft_betas: tuple[Beta, Beta] = (0.9, 0.99)
    graft_eps: Epsilon = 1e-8
    adamw_lr_factor: Positive = 0.1


def _soap_adamw_lr_factor(options: dict[str, Any]) -> float:
    """Of 0.1, 0.3 and 1 the largest at which the rate transfers (docs/findings.md); published is 1."""
    return 0.3 if options.get("spectral_norm", True) else 1.0


class SOAPOptions(PreconditionedOptions):
    """SOAP (arXiv 2409.11321): Adam in the eigenbasis of Shampoo's statistics.

    Its update grows as no one power of width (docs/findings.md), so it is normalised unless `spectral_norm` is off.
    `adamw_lr_factor` is 1 beside a plain update and 0.3 beside a normalised one, unless it is given.
    """

    betas: tuple[Beta, Beta] = (0.95, 0.95)
    shampoo_beta: Beta = 0.95
    eps: Epsilon = 1e-8
    spectral_norm: bool = True
    adamw_lr_factor: Positive = Field(default_factory=_soap_adamw_lr_factor)


#: Keys of torch's groups that the service sets itself.
RESERVED = ("class", "algorithm", "params", "names", "norm", "lr", "weight_decay")


class ExternalOptions(OptimizerOptions):
    """Options of a torch optimizer of the user's own: passed to its constructor as they are, lists as tuples."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _freeze(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if found := [name for name in RESERVED if name in data]:
            raise ValueError(f"{', '.join(found)}: set by the service, not by options")
        if found := [str(name) for name, value in data.items() if isinstance(value, Mapping)]:
            raise ValueError(f"{', '.join(found)}: an option is a number, a word, true, false or a list of them")
        return {name: _frozen(value) for name, value in data.items()}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


OPTIONS: dict[Algorithm, type[OptimizerOptions]] = {
    Algorithm.SGD: SGDOptions,
    Algorithm.ADAMW: AdamWOptions,
    Algorithm.ADOPT: ADOPTOptions,
    Algorithm.LAMB: LAMBOptions,
    Algorithm.SOPHIA: SophiaOptions,
    Algorithm.SHAMPOO: ShampooOptions,
    Algorithm.SOAP: SOAPOptions,
    Algorithm.MUON: MuonOptions,
}

#: What starts from the first gradient (ADOPT's v, Sophia's curvature, SOAP's basis) or from the weights' norm (LAMB)
#: must not meet zeros: behind a zero readout every other gradient of the first step is exactly 0.
NEEDS_NONZERO_READOUT = frozenset({Algorithm.ADOPT, Algorithm.LAMB, Algorithm.SOPHIA, Algorithm.SOAP})
#: Algorithms whose published rule a measurement disputes; they have a `derived` variant besides.
DISPUTED = frozenset({Algorithm.LAMB, Algorithm.SOAP})
#: Those of them where a study found that the derived rule transfers and the published one does not (docs/findings.md).
DERIVED_BY_DEFAULT = frozenset({Algorithm.LAMB, Algorithm.SOAP})
