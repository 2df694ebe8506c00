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
from enum import StrEnum
import math
from math import sqrt

from mutransfer.algorithms import Algorithm, MuonScale


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How one parameter has grown since the base model; `alpha` is the exponent of the residual branch multiplier.

    `b_in` and `b_out` are the numbers of preconditioner blocks along each side, relative to the base model's.
    """

    r_in: float = 1.0
    r_out: float = 1.0
    n: float = 1.0
    alpha: float = 1.0
    b_in: float = 1.0
    b_out: float = 1.0


class Sides(StrEnum):
    """Which sides of a matrix Shampoo or SOAP precondition."""

    BOTH = "both"
    INPUT = "input"
    OUTPUT = "output"
    NEITHER = "neither"


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


def shampoo_lr(growth: Growth, total_exponent: float) -> float:
    """Shampoo without grafting: `N^(1-2E) (r_out/r_in)^(1-E) (b_in b_out)^-E` (Q25).

    `total_exponent` is E, the exponent `e` summed over the active sides: the update is about `G^(1-2E)`, and E = 1/2
    makes it orthogonal, as Muon's.
    """
    e, a = total_exponent, growth.alpha
    depth = math.pow(growth.n, a - 1.0 + a * (1.0 - 2.0 * e))
    return depth * math.pow(growth.r_out / growth.r_in, 1.0 - e) * math.pow(growth.b_in * growth.b_out, -e)


def soap_lr(growth: Growth, sides: Sides) -> float:
    """SOAP as published (Q25): the update is taken to be orthogonal over the preconditioned sides."""
    depth = math.pow(growth.n, growth.alpha - 1.0)
    match sides:
        case Sides.BOTH:
            return depth * sqrt(growth.r_out / growth.r_in) / sqrt(growth.b_in * growth.b_out)
        case Sides.INPUT:
            return depth / sqrt(growth.r_in * growth.b_in)
        case Sides.OUTPUT:
            return depth * sqrt(growth.r_out / growth.b_out) / growth.r_in
        case Sides.NEITHER:
            return adam_like_lr(growth)


def soap_derived_lr(growth: Growth) -> float:
    """SOAP as measured here (docs/findings.md): `||U||_2` grows as `(d_out d_in)^(1/3)`, not as a constant.

    In the eigenbasis many entries are noise that Adam normalises to order 1 each. Random signs alone would give
    `(d_out d_in)^(1/4)`, signs that agree `(d_out d_in)^(1/2)`; what is measured lies between.
    """
    return math.pow(growth.n, growth.alpha - 1.0) * from_update_law(1 / 3, 1 / 3, growth)


def lamb_lr(growth: Growth) -> float:
    """LAMB as published: 1 (G26). The trust ratio is taken to carry the shape."""
    return math.pow(growth.n, growth.alpha - 1.0)


def lamb_derived_lr(growth: Growth, *, r_std: float) -> float:
    """LAMB from its update law: `1 / (r_std r_in)`, with `r_std` the growth of the initial standard deviation.

    The trust ratio gives `||dW||_F = lr ||W||_F = lr std sqrt(d_in d_out)`, and for an update of low rank the
    Frobenius norm is the spectral norm: hidden `r_in^(-1/2)`, embedding and readout (std as 1/d_in) 1.
    """
    return math.pow(growth.n, growth.alpha - 1.0) / (r_std * growth.r_in)


def normalised_lr(growth: Growth) -> float:
    """Any optimizer whose update is rescaled to spectral norm `sqrt(d_out / d_in)`: 1 (Q25)."""
    return math.pow(growth.n, growth.alpha - 1.0)


# --- epsilon, clipping, decay ----------------------------------------------------------------------------------------


def adam_like_eps(growth: Growth) -> float:
    """Adam-like epsilon: `1 / (r_out * n)` (Q25): it follows the entries of the gradient."""
    return 1.0 / (growth.r_out * math.pow(growth.n, growth.alpha))


def muon_eps(growth: Growth) -> float:
    """Muon's normalising epsilon: `sqrt(r_in / r_out) / n` (Q25): it follows the gradient's norm."""
    return sqrt(growth.r_in / growth.r_out) / math.pow(growth.n, growth.alpha)


def shampoo_eps(growth: Growth) -> float:
    """Shampoo's absolute epsilon: `(r_in/r_out) / (N^2 b_in b_out)` (Q25): it follows the eigenvalues of `G G^T`."""
    grown = math.pow(growth.n, 2.0 * growth.alpha) * growth.b_in * growth.b_out
    return growth.r_in / growth.r_out / grown


def soap_eps(growth: Growth, sides: Sides) -> float:
    """SOAP's epsilon in the rotated basis (Q25): it follows the entries of `Q_L^T G Q_R`."""
    depth = math.pow(growth.n, growth.alpha)
    match sides:
        case Sides.BOTH:
            return sqrt(growth.r_in / (growth.r_out * growth.b_in * growth.b_out)) / depth
        case Sides.INPUT:
            return sqrt(growth.r_in / growth.b_in) / growth.r_out / depth
        case Sides.OUTPUT:
            return 1.0 / sqrt(growth.r_out * growth.b_out) / depth
        case Sides.NEITHER:
            return adam_like_eps(growth)


def sophia_rho(growth: Growth) -> float:
    """Sophia's rho: `r_out * N`, so that the same share of entries is clipped at every width."""
    return growth.r_out * math.pow(growth.n, growth.alpha)


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
    of the gradient (Adam-like, Muon), `1/c**2` for SGD. LAMB's update follows the norm of the weights, which such a
    matrix has `1/c` times larger: 1.
    """
    match algorithm:
        case Algorithm.SGD:
            return math.pow(multiplier, -2.0)
        case Algorithm.LAMB:
            return 1.0
        case _:
            return 1.0 / multiplier


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
