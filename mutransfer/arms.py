"""The arms of a study: which optimizer, with which options, under which parametrization and rule."""

from collections.abc import Mapping
from enum import StrEnum
import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mutransfer.algorithms import (
    DERIVED_BY_DEFAULT,
    DISPUTED,
    NEEDS_NONZERO_READOUT,
    OPTIONS,
    Algorithm,
    ExternalOptions,
    OptimizerOptions,
)
from mutransfer.base import Value
from mutransfer.faults import fault
from mutransfer.model_spec import InitSpec, ReadoutInit

OWN_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
Exponent = Annotated[float, Field(ge=-4.0, le=4.0)]


class Parametrization(StrEnum):
    """SP: everything unscaled, the control. MUP: maximal update."""

    SP = "sp"
    MUP = "mup"


class Hyperparameter(StrEnum):
    """What may be searched or set for one arm besides its learning rate."""

    WEIGHT_DECAY = "weight_decay"  # of train
    EMBEDDING_STD = "embedding_std"  # of model.init
    EMBEDDING_LR_FACTOR = "embedding_lr_factor"  # of the optimizer's options
    READOUT_LR_FACTOR = "readout_lr_factor"


class Rule(StrEnum):
    """Which learning-rate rule an arm follows under μP."""

    PUBLISHED = "published"  # G26, Q25
    DERIVED = "derived"  # from the measured update law, where that disputes the published one


def _known_optimizer(value: Any) -> Any:
    """A built-in algorithm, or the path of a torch optimizer of one's own."""
    if value in list(Algorithm) and value != Algorithm.EXTERNAL:
        return Algorithm(value)
    if isinstance(value, str) and OWN_CLASS.fullmatch(value):
        return value
    raise ValueError(f"unknown optimizer {value!r}: use one of {', '.join(OPTIONS)}, or your own package.module:Class")


def _is_normalised(optimizer: str, options: Any) -> bool:
    """Whether a built-in optimizer's update is normalised under options that may be anything still."""
    default = OPTIONS[Algorithm(optimizer)].model_fields["spectral_norm"].default
    return bool(options.get("spectral_norm", default) if isinstance(options, Mapping) else default)


class ArmSpec(Value):
    """One contender: an optimizer with its options under one parametrization.

    `optimizer` is a built-in algorithm or `package.module:Class`, any torch.optim.Optimizer. `law` holds the exponents
    `(a, b)` of its update, `||U||_2 ~ d_out^a d_in^b` at LR 1, as `mutransfer derive` prints them; `rule: derived` then
    takes the multiplier from them. `rule` defaults to the one that was found to transfer. `overrides` are
    hyperparameters of this arm alone.
    """

    optimizer: Annotated[Algorithm | str, BeforeValidator(_known_optimizer)]
    parametrization: Parametrization = Parametrization.MUP
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = ""
    options: dict[str, Any] = {}
    rule: Rule = Rule.PUBLISHED
    law: tuple[Exponent, Exponent] | None = None
    overrides: dict[Hyperparameter, Annotated[float, Field(ge=0.0, le=1e6)]] = {}

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        optimizer = str(data.get("optimizer"))
        disputed = optimizer in DERIVED_BY_DEFAULT and not _is_normalised(optimizer, data.get("options"))
        filled = {"rule": Rule.DERIVED if disputed else Rule.PUBLISHED, **data}
        if not filled.get("name"):
            short = optimizer.rpartition(":")[2]
            filled["name"] = f"{short}-{filled.get('parametrization', Parametrization.MUP)}"
        return filled

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        try:
            self.resolved_options()
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(part) for part in ("options", *first["loc"]))
            known = ", ".join(self._options_type.model_fields)
            raise fault(path, f"{first['msg']} ({self.optimizer} takes {known})") from None
        return self

    @model_validator(mode="after")
    def _check_overrides(self) -> Self:
        for name, value in self.overrides.items():
            if name is Hyperparameter.WEIGHT_DECAY and value >= 1.0:
                raise fault("overrides.weight_decay", f"decay is a fraction a step: {value:g} is not below 1")
            if name is not Hyperparameter.WEIGHT_DECAY and value == 0.0:
                raise fault(f"overrides.{name}", "must be above 0")
        return self

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        if self.law is not None and self.rule is not Rule.DERIVED:
            raise fault("law", "a law counts only with rule: derived")
        if self.rule is Rule.DERIVED and not self.is_own and self.resolved_options().spectral_norm:
            raise fault("rule", f"no law acts on {self.optimizer} while its step is normalised: the derived rule needs "
                        "options.spectral_norm: false")  # fmt: skip
        if self.law is not None or (self.rule is Rule.DERIVED and self.optimizer in DISPUTED):
            return self
        if self.rule is Rule.DERIVED:
            known = ", ".join(sorted(DISPUTED))
            raise fault(
                "rule", f"{self.optimizer} has no derived rule of its own (only {known} have): give its law, the two "
                f"exponents that `mutransfer derive` measures"
            )  # fmt: skip
        if self.is_own and self.parametrization is Parametrization.MUP:
            raise fault("rule", f"nobody published a rule for {self.optimizer}: set rule: derived and its law, the two "
                         "exponents that `mutransfer derive` measures")  # fmt: skip
        return self

    @property
    def is_own(self) -> bool:
        """Whether the optimizer is a class of the user's own."""
        return not isinstance(self.optimizer, Algorithm)

    @property
    def _options_type(self) -> type[OptimizerOptions]:
        return OPTIONS[self.optimizer] if isinstance(self.optimizer, Algorithm) else ExternalOptions

    def resolved_options(self) -> OptimizerOptions:
        """The options with all defaults filled in."""
        return self._options_type.model_validate(self.options)

    def readout_init(self, init: InitSpec) -> ReadoutInit:
        """How this arm's readout starts: what the study says, or by what its optimizer can start from."""
        if init.readout is not ReadoutInit.AUTO:
            return init.readout
        return ReadoutInit.INVERSE_WIDTH if self.optimizer in NEEDS_NONZERO_READOUT else ReadoutInit.ZERO
