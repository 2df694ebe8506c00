import re

from mutransfer.spec import Parametrization
from service.reports.palette import DARK, LIGHT, THEMES, Theme, arm_style, faded, size_colours, viridis
from service.reports.stylesheet import stylesheet

OKABE_ITO = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_arms_are_okabe_and_itos_colours() -> None:
    assert set(LIGHT.arms[:7]) < OKABE_ITO
    assert set(DARK.arms[:6]) < OKABE_ITO


def test_the_first_arms_stand_out_from_the_paper() -> None:
    for theme in THEMES.values():
        assert all(contrast(colour, theme.paper) >= 2.9 for colour in theme.arms[:4])
        assert contrast(theme.ink, theme.paper) > 10
        assert contrast(theme.muted, theme.paper) > 4.5


def test_widths_stand_out_from_the_paper_and_from_each_other() -> None:
    for theme in THEMES.values():
        colours = list(size_colours([32, 64, 128, 256], theme).values())
        assert len(set(colours)) == 4
        levels = [luminance(colour) for colour in colours]
        assert levels == sorted(levels)  # sequential in either appearance
        assert all(contrast(colour, theme.paper) >= 1.6 for colour in colours)


def test_a_width_has_the_same_colour_whatever_the_order() -> None:
    assert size_colours([32, 64, 256], LIGHT)[64] == size_colours([256, 32, 64], LIGHT)[64]
    assert list(size_colours([64], LIGHT)) == [64]
    assert size_colours([], LIGHT) == {}


def test_viridis_ends() -> None:
    assert viridis(0.0) == "#440154"
    assert viridis(1.0) == "#fde725"
    assert viridis(-3.0) == "#440154"
    assert viridis(0.05) == "#461264"  # half-way between (68, 1, 84) and (72, 36, 117)


def test_fifty_six_arms_differ_in_colour_or_marker() -> None:
    styles = [arm_style(index, Parametrization.MUP, LIGHT) for index in range(56)]
    assert len({(style.colour, style.marker) for style in styles}) == 56
    assert arm_style(0, Parametrization.SP, LIGHT).dash == "dash"
    assert styles[0].dash == "solid"


def test_the_stylesheet_colours_arms_as_charts_do() -> None:
    style = stylesheet()
    found = re.findall(r"\.arm-(\d) \{ color: light-dark\((#\w{6}), (#\w{6})\); \}", style)
    assert found == [(str(i), LIGHT.arms[i], DARK.arms[i]) for i in range(7)]


def test_faded() -> None:
    assert faded("#0072b2", 0.07) == "rgba(0,114,178,0.07)"


def test_themes_are_complete() -> None:
    assert set(THEMES) == {"light", "dark"}
    assert all(isinstance(theme, Theme) for theme in THEMES.values())
