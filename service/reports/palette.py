"""Colours and shapes of the charts: what means what, the same on every chart.

Arms are categorical: a colour of Okabe and Ito's set (safe for the colour-blind) and a marker of their own. Widths are
sequential: viridis, cut off where it would drown in the background. SP is dashed, μP solid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from mutransfer.spec import Parametrization

# matplotlib's viridis at eleven equal steps.
_VIRIDIS = (
    (68, 1, 84), (72, 36, 117), (65, 68, 135), (53, 95, 141), (42, 120, 142), (33, 145, 140),
    (34, 168, 132), (68, 191, 112), (122, 209, 81), (189, 223, 38), (253, 231, 37),
)  # fmt: skip
_MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star")

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", sans-serif'


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of one appearance. `arms` are Okabe–Ito in an order that reads on `paper`; `widths` cuts viridis."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    axis: str
    ghost: str
    hover: str
    arms: tuple[str, ...]
    widths: tuple[float, float]


LIGHT = Theme(
    name="light", paper="#fffefc", ink="#1c2024", muted="#61676e", grid="#ebe9e4", axis="#b9b6ae", ghost="#a8a69f",
    hover="#ffffff", widths=(0.04, 0.86),
    arms=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a900"),
)  # fmt: skip
DARK = Theme(
    name="dark", paper="#17191d", ink="#e9e7e2", muted="#9fa3a9", grid="#26292e", axis="#4a4e55", ghost="#6b6f76",
    hover="#22252a", widths=(0.3, 1.0),
    arms=("#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#0072b2", "#ffffff", "#f0e442"),
)  # fmt: skip
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


@dataclass(frozen=True, kw_only=True)
class ArmStyle:
    """How one arm is drawn on every chart."""

    colour: str
    marker: str
    dash: str


def arm_style(index: int, parametrization: Parametrization, theme: Theme) -> ArmStyle:
    """The style of a study's `index`-th arm: 56 arms differ in colour or marker."""
    return ArmStyle(
        colour=theme.arms[index % (len(theme.arms) - 1)],
        marker=_MARKERS[index % len(_MARKERS)],
        dash="dash" if parametrization is Parametrization.SP else "solid",
    )


def viridis(position: float) -> str:
    """The colour at `position` in [0, 1], linearly interpolated, as #rrggbb."""
    place = min(max(position, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    index = min(int(place), len(_VIRIDIS) - 2)
    low, high = _VIRIDIS[index], _VIRIDIS[index + 1]
    mixed = (round(a + (b - a) * (place - index)) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def size_colours(sizes: Sequence[int], theme: Theme) -> dict[int, str]:
    """A colour for each width (or depth), placed by its log2 between the smallest and the largest."""
    places = {size: log2(size) for size in sizes}
    low = min(places.values(), default=0.0)
    span = max(places.values(), default=0.0) - low
    start, end = theme.widths
    return {
        size: viridis(start + (end - start) * ((place - low) / span if span else 0.5)) for size, place in places.items()
    }


def faded(colour: str, alpha: float) -> str:
    """`colour` (#rrggbb) as rgba with `alpha` in [0, 1]."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"
