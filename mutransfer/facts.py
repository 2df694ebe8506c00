"""What only a worker can know of a study before its first trial: recorded once, read by plan, recipe and page."""

from mutransfer.base import Value
from mutransfer.errors import ConflictError, ScalingError
from mutransfer.roles import ParameterInfo, ParameterRole, parameter_info
from mutransfer.trial import Environment


class ParameterRecord(Value):
    """A ParameterInfo as JSON."""

    name: str
    role: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, info: ParameterInfo) -> "ParameterRecord":
        """The record of one parameter."""
        return cls(name=info.name, role=info.role.value, shape=info.shape)

    def info(self) -> ParameterInfo:
        """The parameter this record describes."""
        return parameter_info(self.name, ParameterRole(self.role), self.shape)


class ModelRecord(Value):
    """The parameters of a model of the user's own at one width, as it was built."""

    width: int
    depth: int
    parameters: tuple[ParameterRecord, ...]

    def infos(self) -> tuple[ParameterInfo, ...]:
        """All parameters, in module order."""
        return tuple(record.info() for record in self.parameters)


class StudyFacts(Value):
    """Facts of the data, the environment and, for a model of the user's own, its parameters at two widths or more."""

    vocab: int
    train_tokens: int
    heldout_tokens: int
    environment: Environment
    own_models: tuple[ModelRecord, ...] = ()

    def joined(self, later: "StudyFacts") -> "StudyFacts":
        """These facts with the sizes that a later driver of the same study built besides.

        Raises ConflictError when they are not facts of the same data and code: results of both never mix.
        """
        sizes = {(record.width, record.depth): record for record in later.own_models}
        known = {(record.width, record.depth): record for record in self.own_models}
        same = self.model_copy(update={"own_models": ()}) == later.model_copy(update={"own_models": ()})
        if not same or any(sizes.get(size, record) != record for size, record in known.items()):
            raise ConflictError("the data or the code changed since this study began: clone it to run it anew")
        return self.model_copy(update={"own_models": tuple((known | sizes)[size] for size in sorted(known | sizes))})

    def own_model(self, width: int, depth: int) -> ModelRecord:
        """The recorded model of one size. Raises ScalingError when it was never built."""
        for record in self.own_models:
            if (record.width, record.depth) == (width, depth):
                return record
        raise ScalingError(f"the model was not built at width {width}, depth {depth}")
