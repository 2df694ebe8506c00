"""The model of a study: its architecture and how it starts, all but its width."""

from enum import StrEnum
import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mutransfer.base import Value
from mutransfer.faults import fault

BUILTIN_FAMILIES = ("nanogpt", "llama", "mlp")
DECODERS = ("nanogpt", "llama")  # built-in families with attention and residual branches
OWN_FAMILY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ReadoutInit(StrEnum):
    """How the readout starts (scaling-rules.md, Initialisation)."""

    AUTO = "auto"  # ZERO, but INVERSE_WIDTH for optimizers that cannot start behind a zero matrix
    ZERO = "zero"  # (a) W = 0
    INVERSE_WIDTH = "inverse_width"  # (b) std sqrt(d_in_base) / d_in under μP, 1/sqrt(d_in) under SP
    MULTIPLIER = "multiplier"  # (c) constant std 1/sqrt(d_in_base), forward multiplier 1/r_in; SP as in (b)


class InitSpec(Value):
    """Initial standard deviations; they hold for SP and μP alike."""

    embedding_std: Annotated[float, Field(gt=0.0)] = 1.0
    residual_out: Literal["fan_in", "zero"] = "fan_in"
    readout: ReadoutInit = ReadoutInit.AUTO


class ModelSpec(Value):
    """The architecture, all but its width. `depth` counts blocks; exactly one of `head_dim` and `heads` is fixed.

    Llama only: `queries_per_kv` query heads share one key and value head (1: each has its own), so that keys and
    values are `width / queries_per_kv` wide at every width; `rope_base` is the base of RoPE's frequencies.
    """

    family: str = "nanogpt"
    depth: Annotated[int, Field(ge=1, le=1000)] = 2
    head_dim: Annotated[int, Field(ge=1)] | None = None
    heads: Annotated[int, Field(ge=1)] | None = None
    queries_per_kv: Annotated[int, Field(ge=1, le=1024)] = 1
    rope_base: Annotated[float, Field(gt=1.0, le=1e12)] = 10_000.0
    mlp_ratio: Annotated[int, Field(ge=1, le=64)] = 4
    context: Annotated[int, Field(ge=1, le=1_048_576)] = 32
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_gain: bool = False
    qk_norm: bool = False
    tied: bool = False
    residual_alpha: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    init: InitSpec = InitSpec()
    options: dict[str, str | int | float | bool] = {}

    @property
    def is_own(self) -> bool:
        """Whether the family is the user's own `package.module:build`."""
        return self.family not in BUILTIN_FAMILIES

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.is_own and not OWN_FAMILY.fullmatch(self.family):
            known = ", ".join(BUILTIN_FAMILIES)
            raise fault("family", f"unknown model family {self.family!r}: use {known} or your own package.module:build")
        if self.family in DECODERS and (self.head_dim is None) == (self.heads is None):
            raise fault("head_dim", "fix exactly one of head_dim (head size) and heads (head count)")
        if self.family == "mlp" and (self.head_dim, self.heads) != (None, None):
            raise fault("head_dim", "an mlp has no attention: leave out head_dim and heads")
        if self.options and not self.is_own:
            raise fault("options", "only a model of your own (package.module:build) takes options")
        self._check_llama()
        return self

    def _check_llama(self) -> None:
        for field in ("queries_per_kv", "rope_base") if self.family != "llama" else ():
            if getattr(self, field) != type(self).model_fields[field].default:
                raise fault(field, f"only the llama family has it: leave it out, or use llama, not {self.family}")

    def heads_at(self, width: int) -> tuple[int, int]:
        """(number of query heads, size of a head) of a decoder at `width`, which its fixed side must divide."""
        heads = self.heads or width // (self.head_dim or width)
        return heads, width // heads
