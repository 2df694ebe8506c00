"""Optimizers from other packages: which of them a study may name."""

from collections.abc import Sequence
from importlib.metadata import entry_points

#: Installed packages announce their optimizers here, `NAME = "package.module:Class"`; those need no permission.
ENTRY_POINTS = "mutransfer.optimizers"


def announced() -> dict[str, str]:
    """Optimizers that installed packages announce: name to `package.module:Class`."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def refusal(path: str, packages: Sequence[str]) -> str | None:
    """Why `package.module:Class` may not be named, or None. torch's own optimizers always may."""
    module = path.partition(":")[0]
    if any(module == package or module.startswith(f"{package}.") for package in ("torch", *packages)):
        return None
    if path in announced().values():
        return None
    allowed = ", ".join(packages) or "none"
    return (
        f"{path!r} is neither in an allowed package ({allowed}; the operator sets MUTRANSFER_MODEL_PACKAGES) nor "
        f"announced by an installed one (entry points {ENTRY_POINTS})"
    )
