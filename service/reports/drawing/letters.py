"""How wide text is in DejaVu Sans, the font of everything that is drawn here. Widths and sizes in one unit."""

from functools import cache


@cache
def _letter(letter: str, bold: bool) -> float:
    """The advance of one letter as a share of the size."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.ft2font import LoadFlags

    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    glyph = font.load_char(ord(letter), flags=LoadFlags.NO_SCALE)
    return float(glyph.horiAdvance / font.units_per_EM)


def measure(text: str, size: float, *, bold: bool = False) -> float:
    """The width of a line; kerning would make it a little narrower."""
    return size * sum(_letter(letter, bold) for letter in text)


def fitted(text: str, size: float, width: float, *, smallest: float = 0.75) -> tuple[str, float]:
    """The text and a size at which it is at most `width` wide: smaller, and cut where that is not enough."""
    fits = min(1.0, width / max(measure(text, size), 1e-9))
    size *= max(fits, smallest)
    while len(text) > 2 and measure(text, size) > width:
        text = f"{text[:-2]}…"
    return text, size
