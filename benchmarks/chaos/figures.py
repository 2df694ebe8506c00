"""What a row measures: figures, each against its bar."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number and what it had to be; `bar` is empty for what is only told."""

    name: str
    value: float
    bar: str = ""
    passed: bool = True

    def line(self) -> str:
        """For people."""
        mark = "" if not self.bar else f"   (bar: {self.bar}) {'pass' if self.passed else 'FAIL'}"
        return f"{self.name}: {self.value:g}{mark}"

    def document(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def exactly(name: str, value: float, wanted: float) -> Figure:
    """A figure that must be one number."""
    return Figure(name=name, value=value, bar=f"= {wanted:g}", passed=value == wanted)


def at_most(name: str, value: float, limit: float) -> Figure:
    """A figure that must not be larger."""
    return Figure(name=name, value=round(value, 3), bar=f"≤ {limit:g}", passed=value <= limit)


def at_least(name: str, value: float, limit: float) -> Figure:
    """A figure that must not be smaller: what makes sure that a row did what it says."""
    return Figure(name=name, value=round(value, 3), bar=f"≥ {limit:g}", passed=value >= limit)


def told(name: str, value: float) -> Figure:
    """A figure without a bar."""
    return Figure(name=name, value=round(value, 3))


def p95(values: Sequence[float]) -> float:
    """The 95th percentile by nearest rank: the largest of fewer than twenty."""
    ordered = sorted(values)
    return ordered[ceil(0.95 * len(ordered)) - 1]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table. `run` takes a Lab and one of the sizes."""

    number: int
    fault: str
    databases: tuple[str, ...]
    run: Callable[[Any, Any], list[Figure]]
    long: Any
    short: Any
