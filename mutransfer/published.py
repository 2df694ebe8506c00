"""The published rule of a built-in optimizer as a formula, to hold a measured law against."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any

from mutransfer.algorithms import Algorithm
from mutransfer.arms import ArmSpec, Parametrization, Rule
from mutransfer.roles import ParameterRole, parameter_info
from mutransfer.scaling import Growth
from mutransfer.update_law import formula
from mutransfer.updates import Site, update

_SIDE = 64  # of the base matrix: the rules see ratios alone


@dataclass(frozen=True, kw_only=True)
class PublishedRule:
    """The multiplier of a hidden matrix in r_out and r_in, and who published it."""

    formula: str
    source: str


def published_rule(optimizer: Algorithm, options: Mapping[str, Any]) -> PublishedRule:
    """What is published for a bare optimizer, not normalised, under these options.

    Raises pydantic's ValidationError for options that an arm of this optimizer does not take.
    """
    arm = ArmSpec.model_validate(
        {
            "optimizer": optimizer, "parametrization": Parametrization.MUP, "rule": Rule.PUBLISHED,
            "options": {**options, "spectral_norm": False},
        }
    )  # fmt: skip
    out, into = (update(_grown(arm, r_out=r_out, r_in=r_in)) for r_out, r_in in ((2, 1), (1, 2)))
    # A power law in each ratio, so that doubling a side tells its power.
    return PublishedRule(formula=formula(log2(out.lr_multiplier), log2(into.lr_multiplier)), source=out.source)


def _grown(arm: ArmSpec, *, r_out: int, r_in: int) -> Site:
    """A hidden matrix whose sides have grown so much."""
    base = parameter_info("hidden", ParameterRole.HIDDEN, (_SIDE, _SIDE))
    info = parameter_info("hidden", ParameterRole.HIDDEN, (r_out * _SIDE, r_in * _SIDE))
    return Site(arm=arm, info=info, base=base, growth=Growth(r_out=r_out, r_in=r_in))
