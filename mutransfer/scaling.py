r"""Maximal-update parametrization: the rules, as pure functions of how a matrix has grown.

The condition (Yang, Simon, Bernstein, arXiv 2310.17813): a matrix `W` of shape `(d_out, d_in)` learns features at every
width when `||W||_2` and `||dW||_2` are both Theta(sqrt(d_out / d_in)). A rule is what an optimizer needs on top of its
update law to satisfy the second half; `from_update_law` is that sentence as a formula, and the tests hold every rule to
it.

All ratios are against the base model, so every multiplier is exactly 1 there:
`r_in = d_in / d_in_base`, `r_out = d_out / d_out_base`, `n = depth / depth_base` for hidden matrices (1 elsewhere).
With residual branches multiplied by `n**-alpha`, alpha = 1 is the reference (Q25); other alphas move the rules below.

Sources: G26 = arXiv 2602.20937, Q25 = arXiv 2512.05620. The numbers are shared/spec/scaling-rules.md's.
"""

from dataclasses import dataclass
import math
from math import sqrt

from mutransfer.algorithms import Algorithm, MuonScale


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How one parameter has grown since the base model; `alpha` is the exponent of the residual branch multiplier."""

    r_in: float = 1.0
    r_out: float = 1.0
    n: float = 1.0
    alpha: float = 1.0


def from_update_law(a: float, b: float, growth: Growth) -> float:
    """The multiplier of an optimizer whose raw update at LR 1 has `||U||_2 = Theta(d_out^a * d_in^b)`."""
    return math.pow(growth.r_out, 0.5 - a) * math.pow(growth.r_in, -0.5 - b)


# --- learning rate ---------------------------------------------------------------------------------------------------


def adam_like_lr(growth: Growth) -> float:
    """AdamW, ADOPT, Sophia: `1 / r_in` (G26). Entries of order 1 and low rank: `||U||_2 = sqrt(d_out * d_in)`."""
    return math.pow(growth.n, growth.alpha - 1.0) / growth.r_in


def sgd_lr(growth: Growth) -> float:
    """SGD with or without momentum: `n * r_out / r_in` (Q25): gradients themselves shrink as `sqrt(d_in / d_out)`."""
    return math.pow(growth.n, 2.0 * growth.alpha - 1.0) * growth.r_out / growth.r_in


def muon_lr(growth: Growth, *, carried: float = 1.0) -> float:
    """Muon: `sqrt(r_out / r_in)` (Q25), less what the update's own shape factor has grown by (`carried`)."""
    return math.pow(growth.n, growth.alpha - 1.0) * sqrt(growth.r_out / growth.r_in) / carried


def muon_factor(scale: MuonScale, d_out: int, d_in: int) -> float:
    """The shape factor that a Muon update of shape `(d_out, d_in)` carries: its spectral norm at LR 1."""
    match scale:
        case MuonScale.NONE:
            return 1.0
        case MuonScale.SPECTRAL:
            return sqrt(d_out / d_in)
        case MuonScale.ORIGINAL:
            return sqrt(max(1.0, d_out / d_in))
        case MuonScale.RMS:
            return 0.2 * sqrt(max(d_out, d_in))


# --- epsilon, clipping, decay ----------------------------------------------------------------------------------------


def adam_like_eps(growth: Growth) -> float:
    """Adam-like epsilon: `1 / (r_out * n)` (Q25): it follows the entries of the gradient."""
    return 1.0 / (growth.r_out * math.pow(growth.n, growth.alpha))


def muon_eps(growth: Growth) -> float:
    """Muon's normalising epsilon: `sqrt(r_in / r_out) / n` (Q25): it follows the gradient's norm."""
    return sqrt(growth.r_in / growth.r_out) / math.pow(growth.n, growth.alpha)


def clip_weight(growth: Growth) -> float:
    """Weight of a matrix's gradient in the global norm: `sqrt(r_out / r_in) * n`.

    Unweighted, the share of the readout's gradient grows like sqrt(width) and clipping turns into a learning-rate cut
    that depends on width.
    """
    return sqrt(growth.r_out / growth.r_in) * math.pow(growth.n, growth.alpha)


def weight_decay_factor(r_width: float, kappa: float) -> float:
    """`r_width ** -kappa`, for decay independent of the LR: kappa 1 compute-optimal (Q25), 0 at constant tokens."""
    return math.pow(r_width, -kappa)


# --- forward multipliers ---------------------------------------------------------------------------------------------


def lr_under_multiplier(algorithm: Algorithm, multiplier: float) -> float:
    """Factor on the LR of a matrix that is multiplied by `multiplier` in the forward pass.

    Its effective update is `c * dW` and its gradient is scaled by `c`: `1/c` when the update does not see the scale
    of the gradient (Adam-like, Muon), `1/c**2` for SGD.
    """
    return math.pow(multiplier, -2.0) if algorithm is Algorithm.SGD else 1.0 / multiplier


def attention_scale(*, d_head: int, d_head_base: int) -> float:
    """Factor on attention logits: `sqrt(d_head_base) / d_head`, which is `1 / sqrt(d_head)` at a fixed head size."""
    return sqrt(d_head_base) / d_head


def residual_multiplier(n: float, alpha: float) -> float:
    """Factor on each residual branch: `n ** -alpha`."""
    return math.pow(n, -alpha)


# --- initialisation --------------------------------------------------------------------------------------------------


def hidden_std(d_in: int) -> float:
    """`1 / sqrt(d_in)`, so that `||W||_2 = Theta(sqrt(d_out / d_in))` when both sides grow together."""
    return 1.0 / sqrt(d_in)


def readout_std(d_in: int, d_in_base: int) -> float:
    """μP readout without a forward multiplier: `sqrt(d_in_base) / d_in`, `1 / sqrt(d_in_base)` at base width."""
    return sqrt(d_in_base) / d_in
