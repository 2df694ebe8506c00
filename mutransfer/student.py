"""Student's t and binomial tails without SciPy: what a flag at one in ten thousand needs, the bootstrap cannot give."""

from functools import lru_cache
from math import comb, exp, inf, lgamma, log

_TINY = 1e-300
_TERMS = 400


def t_tail(t: float, degrees: float) -> float:
    """P(T > t) of Student's t with `degrees` of freedom."""
    half = 0.5 * _beta_share(degrees / (degrees + t * t), degrees / 2.0, 0.5)
    return half if t >= 0.0 else 1.0 - half


@lru_cache(maxsize=4096)
def t_quantile(tail: float, degrees: float) -> float:
    """The positive t that P(T > t) = `tail` holds for; `tail` in (0, 0.5]. Infinite where no freedom is left."""
    if degrees <= 0.0:
        return inf
    low, high = 0.0, 2.0
    while t_tail(high, degrees) > tail:
        high *= 2.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_tail(middle, degrees) > tail else (low, middle)
    return high


def sign_tail(more: int, total: int) -> float:
    """P(at least `more` heads in `total` tosses of a fair coin): the one-sided sign test (McNemar's, exact)."""
    return sum(comb(total, k) for k in range(more, total + 1)) / 2.0**total


def _beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) (continued fraction, DLMF 8.17.22)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_share(1.0 - x, b, a)
    front = exp(a * log(x) + b * log(1.0 - x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a
    return front * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """Lentz's evaluation of 1 / (1 + d1 / (1 + d2 / ...))."""
    value, c, d = 1.0, 1.0, 0.0
    for i in range(_TERMS):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _nonzero(1.0 + term * d)
        c = _nonzero(1.0 + term / c)
        value *= c * d
        if abs(1.0 - c * d) < 1e-13:
            break
    return value - 1.0


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
