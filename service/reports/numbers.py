"""Numbers as people read them: octaves as powers of two, losses in nats, durations, 3 significant digits.

The one place where a number becomes text, so that page, report, chart and table never disagree. All functions are pure
and return Unicode text without markup.
"""

from math import floor, isfinite, log10

from mutransfer.result import Interval

MISSING = "–"
_SUPERSCRIPT = str.maketrans("0123456789-.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·")


def minus(text: str) -> str:
    """Replace ASCII hyphens by true minus signs, which are as wide as a digit."""
    return text.replace("-", "−")


def trimmed(value: float, digits: int) -> str:
    """At most `digits` decimals, no trailing zeros, never `-0`."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def power_of_two(octaves: float, digits: int = 2) -> str:
    """`2⁻⁴·⁶` for -4.6: the learning rate as a power of two."""
    return "2" + trimmed(octaves, digits).translate(_SUPERSCRIPT)


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits, without an exponent where that stays readable: `0.0412`, `1.20`, `3.10e-07`."""
    if value == 0 or not isfinite(value):
        return "0" if value == 0 else minus(str(value))
    exponent = floor(log10(abs(value)))
    if exponent < -6 or exponent >= 9:
        return minus(f"{value:.{digits - 1}e}")
    rounded = round(value, digits - 1 - exponent)
    exponent = floor(log10(abs(rounded)))  # 0.09999 has become 0.100
    return minus(f"{rounded:.{max(0, digits - 1 - exponent)}f}")


def rate(octaves: float | None) -> str:
    """`2⁻⁴·⁶ = 0.0412`."""
    return MISSING if octaves is None else f"{power_of_two(octaves)} = {significant(2.0**octaves)}"


def decimal_rate(octaves: float | None) -> str:
    """`0.0412` for -4.6."""
    return MISSING if octaves is None else significant(2.0**octaves)


def signed(value: float | None, digits: int = 2) -> str:
    """`+0.14`, `−1.30`; a value that rounds to zero has no sign."""
    if value is None:
        return MISSING
    text = f"{value:+.{digits}f}"
    return minus(text if text.strip("+-0.") else text[1:])


def loss(value: float | None, digits: int = 3) -> str:
    """Nats per token with three decimals."""
    return MISSING if value is None else minus(f"{value:.{digits}f}")


def octaves(value: float) -> str:
    """`+0.14 octave`, `−1.30 octaves`: a distance with its unit."""
    return f"{signed(value)} {'octave' if abs(value) <= 1 else 'octaves'}"


def _bound(value: float | None, unbounded: str, *, sign: bool, digits: int) -> str:
    if value is None:
        return unbounded
    return signed(value, digits) if sign else minus(f"{value:.{digits}f}")


def bounds(interval: Interval | None, *, sign: bool = True, digits: int = 2) -> str:
    """`[−0.20, +0.50]`; `−∞`/`∞` where the data do not limit the value."""
    if interval is None:
        return MISSING
    low = _bound(interval.low, "−∞", sign=sign, digits=digits)
    return f"[{low}, {_bound(interval.high, '∞', sign=sign, digits=digits)}]"


def interval(value: Interval | None, *, sign: bool = True, digits: int = 2) -> str:
    """`+0.14 [−0.20, +0.50]`."""
    if value is None:
        return MISSING
    centre = signed(value.value, digits) if sign else minus(f"{value.value:.{digits}f}")
    return f"{centre} {bounds(value, sign=sign, digits=digits)}"


def rate_interval(value: Interval | None) -> str:
    """`2⁻⁴·⁶ [2⁻⁴·⁸, 2⁻⁴·⁴]`."""
    if value is None:
        return MISSING
    low = "0" if value.low is None else power_of_two(value.low)
    high = "∞" if value.high is None else power_of_two(value.high)
    return f"{power_of_two(value.value)} [{low}, {high}]"


def duration(seconds: float | None) -> str:
    """`840 ms`, `12.3 s`, `4 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None:
        return MISSING
    if seconds < 1:
        return f"{round(seconds * 1000)} ms" if seconds else "0 s"
    if seconds < 59.95:
        return f"{trimmed(seconds, 1)} s"
    whole = round(seconds)
    for size, unit, below, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    raise AssertionError("unreachable: a minute or more matches a unit")


def count(value: float) -> str:
    """`84`, `1 200`, `91.0 M`: exact to five digits (narrow spaces), then three significant."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{significant(value / size)} {unit}"
    return f"{value:,.0f}".replace(",", "\u202f")


def listed(names: list[str], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
