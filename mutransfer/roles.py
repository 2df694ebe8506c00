"""What a parameter is, as far as scaling is concerned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
import re

from mutransfer.errors import ScalingError


class ParameterRole(StrEnum):
    """The part a parameter plays. Scaling rules depend on role and shape, never on names."""

    EMBEDDING = "embedding"  # a lookup table (vocab, width): d_in = vocab is constant, d_out = width
    POSITION = "position"  # learned positions (context, width): a lookup as well
    HIDDEN = "hidden"  # both sides grow with width
    RESIDUAL_OUT = "residual_out"  # a hidden matrix that ends a residual branch
    READOUT = "readout"  # (vocab, width): d_in = width, d_out = vocab is constant
    VECTOR = "vector"  # biases and norm gains: d_in = 1, d_out = its length

    @property
    def is_hidden(self) -> bool:
        """Whether both sides grow with width, and the depth factor N applies."""
        return self in (ParameterRole.HIDDEN, ParameterRole.RESIDUAL_OUT)

    @property
    def is_lookup(self) -> bool:
        """Whether the matrix is stored `(rows, width)` and read by row, so that d_in is its number of rows."""
        return self in (ParameterRole.EMBEDDING, ParameterRole.POSITION)


@dataclass(frozen=True, kw_only=True)
class ParameterInfo:
    """Name, role and shape of one parameter; `d_in` and `d_out` as in `h = W x`, whatever the storage order."""

    name: str
    role: ParameterRole
    shape: tuple[int, ...]
    d_in: int
    d_out: int

    @property
    def size(self) -> int:
        """Number of scalars."""
        count = 1
        for side in self.shape:
            count *= side
        return count


def parameter_info(name: str, role: ParameterRole, shape: Sequence[int]) -> ParameterInfo:
    """Describe a parameter stored as torch stores it: `(d_out, d_in)` for matrices, `(rows, width)` for lookups.

    Raises ScalingError when the role does not fit the number of dimensions.
    """
    dims = tuple(int(side) for side in shape)
    if role is ParameterRole.VECTOR:
        if len(dims) != 1:
            raise ScalingError(f"{name}: a vector has one dimension, this has shape {dims}")
        return ParameterInfo(name=name, role=role, shape=dims, d_in=1, d_out=dims[0])
    if len(dims) != 2:
        raise ScalingError(f"{name}: role {role.value} needs a matrix, this has shape {dims}")
    rows, columns = dims
    d_in, d_out = (rows, columns) if role.is_lookup else (columns, rows)
    return ParameterInfo(name=name, role=role, shape=dims, d_in=d_in, d_out=d_out)


def describe(
    shapes: Mapping[str, Sequence[int]], roles: Mapping[str, ParameterRole | str]
) -> tuple[ParameterInfo, ...]:
    """Give every parameter in `shapes` the role of the first pattern in `roles` that matches its whole name.

    Raises ScalingError for a parameter that no pattern matches, and for a pattern that matches nothing: both are
    how a parameter silently ends up with the wrong learning rate.
    """
    used: set[str] = set()
    infos = []
    for name, shape in shapes.items():
        pattern = next((p for p in roles if re.fullmatch(p, name)), None)
        if pattern is None:
            raise ScalingError(f"no role for parameter {name} of shape {tuple(shape)}: add a pattern that matches it")
        used.add(pattern)
        infos.append(parameter_info(name, ParameterRole(roles[pattern]), shape))
    if unused := [p for p in roles if p not in used]:
        raise ScalingError(f"role patterns that match no parameter: {', '.join(unused)}")
    return tuple(infos)
