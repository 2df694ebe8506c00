"""The update law of each parameter: which algorithm trains it, at what multiple of the base rate, with which numbers.

One function an optimizer; each reads the arm's options and the rules of `mutransfer.scaling`. `Update.options` are the
keyword arguments of the torch group, epsilons and the like already scaled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from mutransfer import scaling
from mutransfer.algorithms import (
    AdamWOptions,
    ADOPTOptions,
    Algorithm,
    EpsMode,
    ExternalOptions,
    Graft,
    LAMBOptions,
    MuonOptions,
    MuonScale,
    OptimizerOptions,
    PreconditionedOptions,
    SGDOptions,
    ShampooOptions,
    SOAPOptions,
    SophiaOptions,
    SplitOptions,
)
from mutransfer.errors import ScalingError
from mutransfer.roles import ParameterInfo, ParameterRole
from mutransfer.scaling import Growth, Sides
from mutransfer.spec import ArmSpec, Parametrization, Rule


@dataclass(frozen=True, kw_only=True)
class Update:
    """How one parameter is updated. `norm` is what the update is rescaled to: nothing, `spectral` or `rms`."""

    algorithm: Algorithm
    lr_multiplier: float
    options: Mapping[str, Any] = field(default_factory=dict)
    lr_factor: float = 1.0
    norm: str = ""
    source: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """One parameter of one arm: itself, the same parameter of the base model, and how it has grown.

    `r_std` is the growth of its effective initial standard deviation (forward multiplier included); `multiplier` is
    the forward multiplier.
    """

    arm: ArmSpec
    info: ParameterInfo
    base: ParameterInfo
    growth: Growth
    r_std: float = 1.0
    multiplier: float = 1.0

    @property
    def is_scaled(self) -> bool:
        """Whether rules apply at all: under SP every growth is 1."""
        return self.arm.parametrization is Parametrization.MUP

    @property
    def is_derived(self) -> bool:
        """Whether the arm asks for the measured rule where the published one is disputed."""
        return self.arm.rule is Rule.DERIVED


def update(site: Site) -> Update:
    """The update of one parameter, before spectral normalisation and forward multipliers are accounted for.

    Raises ScalingError for an optimizer without a rule, or a side that is preconditioned on one of the two models only.
    """
    options = site.arm.resolved_options()
    if isinstance(options, SplitOptions) and not site.info.role.is_hidden:
        found = _adamw(site, betas=options.adamw_betas, eps=options.adamw_eps, lr_factor=options.adamw_lr_factor)
    else:
        found = _normalised(site, _lawful(site, _RULES[type(options)](site, options)), options)
    return _with_factor(found, site, options)


def _with_factor(found: Update, site: Site, options: OptimizerOptions) -> Update:
    factor = found.lr_factor
    if site.info.role.is_lookup:
        factor *= options.embedding_lr_factor
    elif site.info.role is ParameterRole.READOUT:
        factor *= options.readout_lr_factor
    # A normalised update does not see the scale of the gradient, whatever its algorithm would make of it.
    under = 1.0 / site.multiplier if found.norm else scaling.lr_under_multiplier(found.algorithm, site.multiplier)
    multiplier = found.lr_multiplier * under
    source = found.source if site.is_scaled else "SP: unscaled"
    return replace(found, lr_multiplier=multiplier, lr_factor=factor, source=source)


def _lawful(site: Site, found: Update) -> Update:
    """The same update at the multiplier of the arm's own law, where it has one."""
    if site.arm.law is None or not site.is_scaled:
        return found
    return replace(found, lr_multiplier=_by_law(site, site.arm.law), source=_law_source(site))


def _normalised(site: Site, found: Update, options: OptimizerOptions) -> Update:
    """The same update with its norm made `sqrt(d_out / d_in)`: it then needs no multiplier."""
    if not options.spectral_norm or site.info.role is ParameterRole.VECTOR:
        return found
    return replace(
        found,
        lr_multiplier=scaling.normalised_lr(site.growth),
        norm="rms" if site.info.role.is_lookup else "spectral",
        source="Q25: 1, update normalised to sqrt(d_out / d_in)",
    )


def _eps(site: Site, eps: float, factor: float) -> float:
    """A base epsilon at this size: it follows the gradient, which a forward multiplier scales too."""
    return eps * (factor if site.arm.resolved_options().scale_eps else 1.0) * site.multiplier


# --- one optimizer each ----------------------------------------------------------------------------------------------


def _adamw(site: Site, *, betas: tuple[float, float], eps: float, lr_factor: float = 1.0) -> Update:
    return Update(
        algorithm=Algorithm.ADAMW, lr_multiplier=scaling.adam_like_lr(site.growth), lr_factor=lr_factor,
        options={"betas": betas, "eps": _eps(site, eps, scaling.adam_like_eps(site.growth))}, source="G26: 1 / r_in",
    )  # fmt: skip


def _adamw_rule(site: Site, options: AdamWOptions) -> Update:
    return _adamw(site, betas=options.betas, eps=options.eps)


def _sgd(site: Site, options: SGDOptions) -> Update:
    return Update(
        algorithm=Algorithm.SGD, lr_multiplier=scaling.sgd_lr(site.growth),
        options={"momentum": options.momentum, "nesterov": options.nesterov}, source="Q25: N * r_out / r_in",
    )  # fmt: skip


def _adopt(site: Site, options: ADOPTOptions) -> Update:
    eps = _eps(site, options.eps, scaling.adam_like_eps(site.growth))
    return Update(
        algorithm=Algorithm.ADOPT, lr_multiplier=scaling.adam_like_lr(site.growth),
        options={"betas": options.betas, "eps": eps}, source="G26: 1 / r_in",
    )  # fmt: skip


def _lamb(site: Site, options: LAMBOptions) -> Update:
    derived = site.is_derived
    multiplier = scaling.lamb_derived_lr(site.growth, r_std=site.r_std) if derived else scaling.lamb_lr(site.growth)
    return Update(
        algorithm=Algorithm.LAMB,
        lr_multiplier=multiplier,
        options={
            "betas": options.betas,
            "eps": _eps(site, options.eps, scaling.adam_like_eps(site.growth)),
            "bias_correction": options.bias_correction,
            "max_ratio": options.max_ratio,
        },
        source="derived: 1 / (std growth * r_in)" if derived else "G26: 1",
    )


def _sophia(site: Site, options: SophiaOptions) -> Update:
    # rho * h must go on meeting the momentum (gradients shrink by 1/(r_out N), curvature by its square); a forward
    # multiplier c scales them by c and c**2.
    rho = options.rho * scaling.sophia_rho(site.growth) / site.multiplier
    return Update(
        algorithm=Algorithm.SOPHIA,
        lr_multiplier=scaling.adam_like_lr(site.growth),
        options={
            "betas": options.betas,
            "rho": rho,
            # The floor stands beside rho * h, which scales as the gradient does (docs/adr/0016).
            "eps": _eps(site, options.eps, scaling.adam_like_eps(site.growth)),
            "estimator": options.estimator.value,
            "every": options.every,
        },
        source="G26: 1 / r_in",
    )


def _muon(site: Site, options: MuonOptions) -> Update:
    carried = 1.0
    if site.is_scaled:
        grown = scaling.muon_factor(options.scale, site.info.d_out, site.info.d_in)
        carried = grown / scaling.muon_factor(options.scale, site.base.d_out, site.base.d_in)
    source = "Q25: sqrt(r_out / r_in)"
    if options.scale is not MuonScale.NONE:
        source += f", less the growth of the {options.scale.value} shape factor"
    return Update(
        algorithm=Algorithm.MUON,
        lr_multiplier=scaling.muon_lr(site.growth, carried=carried),
        options={
            "momentum": options.momentum,
            "nesterov": options.nesterov,
            "scale": options.scale.value,
            "coefficients": options.coefficients.value,
            "newton_schulz_steps": options.newton_schulz_steps,
            "eps": _eps(site, options.eps, scaling.muon_eps(site.growth)),
        },
        source=source,
    )


def _shampoo(site: Site, options: ShampooOptions) -> Update:
    growth, sides = _blocked(site, options), _sides(site, options)
    active = {Sides.BOTH: 2, Sides.NEITHER: 0}.get(sides, 1)
    match options.graft:
        case Graft.ADAM:
            multiplier, source = scaling.adam_like_lr(growth), "Q25: 1 / r_in (Adam's norm)"
        case Graft.SGD:
            multiplier, source = scaling.sgd_lr(growth), "Q25: N * r_out / r_in (SGD's norm)"
        case Graft.NONE:
            multiplier = scaling.shampoo_lr(growth, active * options.exponent)
            source = f"Q25: N^(1-2E) (r_out/r_in)^(1-E) (b_in b_out)^-E, E = {active * options.exponent:g}"
    relative = options.eps_mode is EpsMode.RELATIVE
    eps_factor = 1.0 if relative or not options.scale_eps else scaling.shampoo_eps(growth)
    graft_eps = _eps(site, options.graft_eps, scaling.adam_like_eps(growth))
    return Update(
        algorithm=Algorithm.SHAMPOO,
        lr_multiplier=multiplier,
        options={
            **_preconditioned(options),
            "momentum": options.momentum,
            "beta2": options.beta2,
            "statistics": options.statistics.value,
            "exponent": options.exponent,
            "eps": options.eps * eps_factor,
            "eps_mode": options.eps_mode.value,
            "graft": options.graft.value,
            "graft_betas": options.graft_betas,
            "graft_eps": graft_eps,
        },
        source=source,
    )


def _soap(site: Site, options: SOAPOptions) -> Update:
    growth, sides = _blocked(site, options), _sides(site, options)
    derived = site.is_derived and sides is not Sides.NEITHER
    return Update(
        algorithm=Algorithm.SOAP,
        lr_multiplier=scaling.soap_derived_lr(growth) if derived else scaling.soap_lr(growth, sides),
        options={
            **_preconditioned(options),
            "betas": options.betas,
            "shampoo_beta": options.shampoo_beta,
            "eps": _eps(site, options.eps, scaling.soap_eps(growth, sides)),
        },
        source="derived: r_out^(1/6) r_in^(-5/6)" if derived else f"Q25: SOAP, {sides.value} sides preconditioned",
    )


def _preconditioned(options: PreconditionedOptions) -> dict[str, Any]:
    names = ("max_preconditioner_dim", "block_size", "every", "stagger")
    return {name: getattr(options, name) for name in names}


def _blocked(site: Site, options: PreconditionedOptions) -> Growth:
    """The growth with its relative numbers of blocks; under SP it stays all ones."""
    if not site.is_scaled:
        return site.growth
    b_in, b_out = (
        _blocks(grown, options.block_size) / _blocks(base, options.block_size)
        for grown, base in ((site.info.d_in, site.base.d_in), (site.info.d_out, site.base.d_out))
    )
    # A side that is not preconditioned is not cut either (optimizers/blocks.py).
    sides = _sides(site, options)
    g = site.growth
    return Growth(
        r_in=g.r_in, r_out=g.r_out, n=g.n, alpha=g.alpha,
        b_in=b_in if sides in (Sides.BOTH, Sides.INPUT) else 1.0,
        b_out=b_out if sides in (Sides.BOTH, Sides.OUTPUT) else 1.0,
    )  # fmt: skip


def _blocks(side: int, block_size: int | None) -> int:
    return 1 if block_size is None else ceil(side / block_size)


def _sides(site: Site, options: PreconditionedOptions) -> Sides:
    sides = _active(site.info, options)
    if sides is not _active(site.base, options):
        raise ScalingError(
            f"{site.info.name}: max_preconditioner_dim = {options.max_preconditioner_dim} preconditions other sides of "
            f"{site.info.shape} than of the base model's {site.base.shape}: that is another algorithm, and no rule "
            "leads from one to the other; set it above the largest side or below the smallest"
        )
    return sides


def _active(info: ParameterInfo, options: PreconditionedOptions) -> Sides:
    match info.d_in <= options.max_preconditioner_dim, info.d_out <= options.max_preconditioner_dim:
        case True, True:
            return Sides.BOTH
        case True, False:
            return Sides.INPUT
        case False, True:
            return Sides.OUTPUT
        case _:
            return Sides.NEITHER


def _external(site: Site, options: ExternalOptions) -> Update:
    return Update(
        algorithm=Algorithm.EXTERNAL, lr_multiplier=1.0,
        options={**(options.model_extra or {}), "class": str(site.arm.optimizer)}, source="unscaled",
    )  # fmt: skip


def _by_law(site: Site, law: tuple[float, float]) -> float:
    """The multiplier of a measured update law; a vector is a matrix with `d_in = 1`."""
    return scaling.normalised_lr(site.growth) * scaling.from_update_law(*law, site.growth)


def _law_source(site: Site) -> str:
    a, b = site.arm.law or (0.0, 0.0)
    return f"derived: r_out^(1/2 - a) r_in^(-1/2 - b), a = {a:g}, b = {b:g}"


_RULES: dict[type[OptimizerOptions], Callable[[Site, Any], Update]] = {
    SGDOptions: _sgd,
    AdamWOptions: _adamw_rule,
    ADOPTOptions: _adopt,
    LAMBOptions: _lamb,
    SophiaOptions: _sophia,
    MuonOptions: _muon,
    ShampooOptions: _shampoo,
    SOAPOptions: _soap,
    ExternalOptions: _external,
}
