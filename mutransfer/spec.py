"""The study format, version 1: what a person asks. YAML and JSON alike; see docs/guide/study-format.md.

Learning rates are in octaves (log2 of the base learning rate), horizons in steps or tokens, decay independent of the
learning rate. Each class is frozen and refuses fields it does not know. `parse_study` is the way in: it turns every
fault into a `Problem` that names the field.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mutransfer.algorithms import Algorithm
from mutransfer.arms import ArmSpec, Hyperparameter, Parametrization, Rule
from mutransfer.base import Value, digest
from mutransfer.errors import Problem, SpecError
from mutransfer.faults import fault
from mutransfer.model_spec import BUILTIN_FAMILIES, DECODERS, OWN_FAMILY, InitSpec, ModelSpec, ReadoutInit

__all__ = [
    "BUILTIN_FAMILIES", "DECODERS", "OWN_FAMILY", "ArmSpec", "AuditSpec", "AxisSpec", "DataSpec", "EvalSpec",
    "Hyperparameter", "InitSpec", "LrGrid", "ModelSpec", "Parametrization", "ReadoutInit", "ResourceSpec", "Rule",
    "SearchSpec", "SeedRange", "Span", "StudySpec", "TrainSpec", "VerdictSpec", "Verification", "parse_study",
]  # fmt: skip

Width = Annotated[int, Field(ge=1, le=1_048_576)]
Octaves = Annotated[float, Field(ge=-64.0, le=64.0)]


class DataSpec(Value):
    """Where text comes from and how it becomes tokens."""

    source: Annotated[str, Field(min_length=1, max_length=4096)] = "stdlib"
    tokenizer: Annotated[str, Field(min_length=1, max_length=4096)] = "printable"

    @property
    def kind(self) -> str:
        """`stdlib`, `text`, `bin`, `parquet` or `jsonl`."""
        return self.source.partition(":")[0]

    @property
    def path(self) -> str | None:
        """The local path in `source`, without the `#COLUMN` of parquet and jsonl; None for `stdlib`."""
        _, _, rest = self.source.partition(":")
        if self.kind in ("parquet", "jsonl"):
            rest = rest.rpartition("#")[0] or rest
        return rest or None

    @property
    def column(self) -> str:
        """The text column of a parquet or jsonl source (`text` when not given)."""
        before, _, after = self.source.partition(":")[2].rpartition("#")
        return after if before else "text"

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = ("stdlib", "text", "bin", "parquet", "jsonl")
        if self.kind not in kinds:
            raise fault(
                "source",
                f"unknown data source {self.source!r}: use stdlib, or one of text:PATH, bin:PATH, "
                "parquet:PATH#COLUMN, jsonl:PATH#COLUMN",
            )
        if (self.path is None) != (self.kind == "stdlib"):
            raise fault("source", f"{self.kind!r} {'takes no path' if self.kind == 'stdlib' else 'needs a path'}")
        if self.tokenizer not in ("bytes", "printable") and not self.tokenizer.endswith(".json"):
            raise fault(
                "tokenizer",
                f"unknown tokenizer {self.tokenizer!r}: use bytes, printable or a path to a tokenizers .json file",
            )
        return self


class TrainSpec(Value):
    """How each trial trains. Exactly one of `steps`, `tokens`, `tokens_per_parameter` sets the horizon."""

    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    tokens_per_parameter: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    clip: Annotated[float, Field(gt=0.0)] | None = 1.0
    weight_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    weight_decay_kappa: Literal["auto"] | Annotated[float, Field(ge=0.0, le=2.0)] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(given is not None for given in (self.steps, self.tokens, self.tokens_per_parameter)) != 1:
            raise fault("steps", "give exactly one of steps, tokens and tokens_per_parameter")
        return self

    @property
    def kappa(self) -> float:
        """The exponent of weight decay in width: 1 for compute-optimal runs (Q25), 0 at constant steps or tokens."""
        if self.weight_decay_kappa != "auto":
            return self.weight_decay_kappa
        return 1.0 if self.tokens_per_parameter is not None else 0.0

    def horizon_steps(self, *, context: int, parameters: int) -> int:
        """Steps of a trial with `parameters` scalars and sequences of `context` tokens (at least 1)."""
        if self.steps is not None:
            return self.steps
        tokens = self.tokens if self.tokens is not None else (self.tokens_per_parameter or 0.0) * parameters
        return max(1, round(tokens / (self.batch * context)))


class AxisSpec(Value):
    """Values of the axis: the base where all multipliers are 1, where LRs are searched, where they are transferred."""

    base: Width
    proxy: Annotated[tuple[Width, ...], Field(min_length=1, max_length=32)]
    targets: Annotated[tuple[Width, ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field, values in (("proxy", self.proxy), ("targets", self.targets)):
            if list(values) != sorted(set(values)):
                raise fault(field, f"{list(values)} must rise without repeats")
        if self.targets and self.targets[0] <= self.proxy[-1]:
            raise fault(
                "targets",
                f"every target must be larger than the largest proxy {self.proxy[-1]}, but {self.targets[0]} is not",
            )
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """Proxies and targets, rising."""
        return self.proxy + self.targets


class LrGrid(Value):
    """The lattice of learning rates in octaves: where the search starts, its coarse step, how far it may go."""

    low: Octaves = -8.0
    high: Octaves = -3.0
    step: Annotated[float, Field(ge=0.0625, le=8.0)] = 1.0
    limit: tuple[Octaves, Octaves] = (-20.0, 4.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise fault("low", f"the LR range is empty: low {self.low:g} must be below high {self.high:g}")
        if self.high - self.low < self.step:
            raise fault("step", f"a step of {self.step:g} leaves one point between {self.low:g} and {self.high:g}")
        if not self.limit[0] <= self.low < self.high <= self.limit[1]:
            raise fault("limit", f"{list(self.limit)} must enclose low {self.low:g} and high {self.high:g}")
        return self

    def coarse(self) -> tuple[float, ...]:
        """The grid a curve starts from, rising."""
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(round(self.low + index * self.step, 6) for index in range(count))


class SeedRange(Value):
    """Seeds a learning rate: `min` at first, up to `max` while the optimum's interval is too wide."""

    min: Annotated[int, Field(ge=1, le=64)] = 2
    max: Annotated[int, Field(ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min > self.max:
            raise fault("min", f"{self.min} seeds at least, but {self.max} at most")
        return self


class Span(Value):
    """A range to sample log-uniformly."""

    low: Annotated[float, Field(gt=0.0, le=1e6)]
    high: Annotated[float, Field(gt=0.0, le=1e6)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise fault("low", f"the range is empty: low {self.low:g} must be below high {self.high:g}")
        return self


class SearchSpec(Value):
    """How the optimum is looked for at each width (verdict.md, The search).

    `tpe`, `gp` and `cmaes` first draw `samples` of the learning rate and the other `parameters` together at the largest
    proxy, in batches of `batch`, then freeze the best sample's other values and go on as `bracket` does.
    """

    algorithm: Literal["bracket", "grid", "tpe", "gp", "cmaes"] = "bracket"
    parameters: dict[Hyperparameter, Span] = {}
    samples: Annotated[int, Field(ge=1, le=10_000)] = 40
    batch: Annotated[int, Field(ge=1, le=256)] = 4
    lr_octaves: LrGrid = LrGrid()
    seeds: SeedRange = SeedRange()
    early_stopping: Literal["none"] = "none"

    @property
    def samples_first(self) -> bool:
        """Whether several hyperparameters are searched before the learning rate."""
        return self.algorithm in ("tpe", "gp", "cmaes")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.parameters and not self.samples_first:
            raise fault("parameters", f"{self.algorithm} searches the learning rate only: use tpe, gp or cmaes")
        if self.samples_first and not self.parameters:
            raise fault("parameters", f"{self.algorithm} needs at least one: {', '.join(Hyperparameter)}; for the "
                        "learning rate alone use bracket")  # fmt: skip
        if Hyperparameter.WEIGHT_DECAY in self.parameters and self.parameters[Hyperparameter.WEIGHT_DECAY].high >= 1.0:
            raise fault("parameters.weight_decay.high", "decay is a fraction a step: it must be below 1")
        return self


class VerdictSpec(Value):
    """The study's own tolerances, printed with every verdict."""

    drift_tolerance_octaves: Annotated[float, Field(gt=0.0)] = 1.0
    regret_tolerance_nats: Annotated[float, Field(gt=0.0)] = 0.01


class EvalSpec(Value):
    """Size of the one held-out token set that every trial's loss is a mean over."""

    tokens: Annotated[int, Field(ge=1, le=10**12)] = 65_536


class ResourceSpec(Value):
    """What one trial takes, and how many run at once (`auto`: as many as fit)."""

    devices_per_trial: Annotated[int, Field(ge=1, le=1)] = 1
    cpus_per_trial: Annotated[int, Field(ge=1, le=256)] = 1
    max_concurrent: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class AuditSpec(Value):
    """The audit before the search: the rules checked on the study's own models (docs/guide/audit.md).

    `widths` are the study's own when they are three or more, else the base and its first three doublings. With `gate`
    a μP arm that fails ends the study before anything is searched.
    """

    widths: Annotated[tuple[Width, ...], Field(min_length=3, max_length=16)] | None = None
    steps: Annotated[int, Field(ge=8, le=1000)] = 10
    seeds: Annotated[int, Field(ge=1, le=16)] = 2
    gate: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.widths is not None and list(self.widths) != sorted(set(self.widths)):
            raise fault("widths", f"{list(self.widths)} must rise without repeats")
        return self


class Verification(StrEnum):
    """How targets are checked. Only FULL can end in *transfers*."""

    FULL = "full"
    POINT = "point"
    NONE = "none"


class StudySpec(Value):
    """One question: does the optimal learning rate of these arms transfer over these widths (or depths)?"""

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$")]
    project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")] = "default"
    model: ModelSpec
    data: DataSpec = DataSpec()
    train: TrainSpec
    widths: AxisSpec
    depth: AxisSpec | None = None
    eval: EvalSpec = EvalSpec()
    audit: AuditSpec | None = None
    verify: Verification = Verification.FULL
    arms: Annotated[tuple[ArmSpec, ...], Field(min_length=1, max_length=64)]
    search: SearchSpec = SearchSpec()
    verdict: VerdictSpec = VerdictSpec()
    resources: ResourceSpec = ResourceSpec()

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_names()
        self._check_axis()
        self._check_heads()
        self._check_tying()
        self._check_zeros()
        return self

    def _check_names(self) -> None:
        names = [arm.name for arm in self.arms]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise fault(f"arms.{index}.name", f"two arms are called {name!r}: give one of them a name of its own")

    def _check_axis(self) -> None:
        if self.depth is None:
            return
        if self.widths.targets or len(self.widths.proxy) != 1:
            raise fault("widths", "a study over depth keeps one width: widths.proxy has one entry, widths.targets none")
        if self.model.family == "mlp":
            raise fault("depth", "an mlp has no residual branches: depth does not transfer; use nanogpt or llama")

    def _check_heads(self) -> None:
        fixed, field = (self.model.head_dim, "head_dim") if self.model.head_dim else (self.model.heads, "heads")
        for width in {self.widths.base, *self.widths.values, *self.audit_widths} if fixed else ():
            if fixed and width % fixed:
                raise fault("widths", f"width {width} is not divisible by model.{field} = {fixed}")
            if self.model.family == "llama":
                self._check_llama_heads(width, field)

    def _check_llama_heads(self, width: int, field: str) -> None:
        (heads, head_dim), shared = self.model.heads_at(width), self.model.queries_per_kv
        if head_dim % 2:
            raise fault(f"model.{field}", f"RoPE turns pairs: heads of odd size {head_dim} (width {width}) have none")
        if heads % shared:
            raise fault(
                "model.queries_per_kv",
                f"{heads} query heads (width {width}) cannot share key and value heads in groups of {shared}",
            )

    def _check_tying(self) -> None:
        if not self.model.tied:
            return
        for index, arm in enumerate(self.arms):
            if arm.parametrization is Parametrization.MUP:
                raise fault(
                    f"arms.{index}.parametrization",
                    "tied embeddings cannot train under mup: one matrix would "
                    "need the embedding's learning rate and the readout's at once; set model.tied to false",
                )
        raise fault("model.tied", "tied embeddings are not supported")

    def _check_zeros(self) -> None:
        """LAMB multiplies by the norm of the weights: a matrix of zeros gets ratio 1 once and then no scale at all."""
        if not any(arm.optimizer is Algorithm.LAMB for arm in self.arms):
            return
        why = "lamb's step is proportional to the weights' norm, so it cannot train a matrix that starts at zero: set"
        if self.model.init.readout is ReadoutInit.ZERO:
            raise fault("model.init.readout", f"{why} auto or inverse_width")
        if self.model.init.residual_out == "zero":
            raise fault("model.init.residual_out", f"{why} fan_in")

    @property
    def axis_name(self) -> Literal["width", "depth"]:
        """What grows along this study."""
        return "width" if self.depth is None else "depth"

    @property
    def axis(self) -> AxisSpec:
        """The growing axis."""
        return self.widths if self.depth is None else self.depth

    @property
    def audit_widths(self) -> tuple[int, ...]:
        """The ladder of widths that the audit climbs, empty when the study asks for none."""
        if self.audit is None:
            return ()
        return self.audit.widths or self.default_audit_widths

    @property
    def default_audit_widths(self) -> tuple[int, ...]:
        """The study's own widths when they are three or more, else the base and its first three doublings."""
        own = sorted({self.widths.base, *self.widths.values})
        return tuple(own) if len(own) >= 3 else tuple(self.widths.base * 2**doubling for doubling in range(4))

    def size_at(self, axis_value: int) -> tuple[int, int]:
        """(width, depth) of the models at one value of the axis."""
        if self.depth is None:
            return axis_value, self.model.depth
        return self.widths.proxy[0], axis_value

    @property
    def base_size(self) -> tuple[int, int]:
        """(width, depth) of the base model, where every multiplier is 1."""
        if self.depth is None:
            return self.widths.base, self.model.depth
        return self.widths.base, self.depth.base

    def digest(self) -> str:
        """Identity of the question: equal specs, however written, have equal digests."""
        return digest(self.model_dump(mode="json"))


def _problems(error: ValidationError) -> Iterator[Problem]:
    for item in error.errors():
        prefix = [str(part) for part in item["loc"] if part != "[key]"]
        context = item.get("ctx", {})
        own = context.get("field") if item["type"] == "study" else None
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown field: check the spelling against docs/guide/study-format.md"
        yield Problem(field=".".join([*prefix, own] if own else prefix), message=message)


def parse_study(document: Any) -> StudySpec:
    """Build a StudySpec from a parsed YAML or JSON document.

    Raises SpecError with one Problem a fault, each naming its field.
    """
    if not isinstance(document, Mapping):
        raise SpecError.at("", f"a study is a mapping of fields, this is {type(document).__name__}")
    try:
        return StudySpec.model_validate(dict(document))
    except ValidationError as error:
        found = list(_problems(error))
        # A faulty element makes pydantic report its container as too short as well: keep the inner fault only.
        raise SpecError([p for p in found if not any(q.field.startswith(p.field + ".") for q in found)]) from None
