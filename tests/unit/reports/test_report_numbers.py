import pytest

from mutransfer.result import Interval
from service.reports import numbers


@pytest.mark.parametrize(
    ("octaves", "text"),
    [(-4.6, "2⁻⁴·⁶"), (0.0, "2⁰"), (-8.0, "2⁻⁸"), (2.25, "2²·²⁵"), (-0.004, "2⁰"), (-4.596, "2⁻⁴·⁶"), (-10.0, "2⁻¹⁰")],
)
def test_powers_of_two(octaves: float, text: str) -> None:
    assert numbers.power_of_two(octaves) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0412, "0.0412"), (0.04123, "0.0412"), (1.2, "1.20"), (0.09999, "0.100"), (15312.0, "15300"), (0.0, "0"),
        (3.1e-7, "3.10e−07"), (-2.5, "−2.50"), (1e-8, "1.00e−08"), (9.996, "10.0"), (1e12, "1.00e+12"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float, text: str) -> None:
    assert numbers.significant(value) == text


def test_a_rate_is_told_both_ways() -> None:
    assert numbers.rate(-4.6) == "2⁻⁴·⁶ = 0.0412"
    assert numbers.rate(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"), [(0.14, "+0.14"), (-1.3, "−1.30"), (0.0, "0.00"), (-0.001, "0.00"), (0.004, "0.00"), (None, "–")]
)
def test_signed(value: float | None, text: str) -> None:
    assert numbers.signed(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"), (0.84, "840 ms"), (12.34, "12.3 s"), (59.97, "1 min"), (252.0, "4 min 12 s"), (3600.0, "1 h"),
        (7500.0, "2 h 5 min"), (3599.7, "1 h"), (273600.0, "3 d 4 h"), (None, "–"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (84, "84"),
        (1200, "1\u202f200"),
        (91_000_000, "91.0 M"),
        (1_630_000, "1.63 M"),
        (2.5e9, "2.50 G"),
        (3e12, "3.00 T"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert numbers.count(value) == text


def test_intervals_say_where_they_are_unbounded() -> None:
    assert numbers.interval(Interval(value=0.14, low=-0.2, high=0.5)) == "+0.14 [−0.20, +0.50]"
    assert numbers.bounds(Interval(value=0.14, low=None, high=None)) == "[−∞, ∞]"
    assert numbers.rate_interval(Interval(value=-4.6, low=None, high=-4.4)) == "2⁻⁴·⁶ [0, 2⁻⁴·⁴]"
    assert numbers.interval(None) == "–"


def test_lists() -> None:
    assert numbers.listed(["a"]) == "a"
    assert numbers.listed(["a", "b"]) == "a and b"
    assert numbers.listed(["a", "b", "c"]) == "a, b and c"
