"""Points of standard distributions, so that the kernel needs no more than numpy."""

# 97.5 % points of Student's t for 1 … 10 degrees of freedom; beyond, a series in 1/degrees is exact to 0.1 %.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
#: The 97.5 % point of the standard normal.
Z975 = 1.959964


def t975(degrees: int) -> float:
    """The 97.5 % point of Student's t, to 0.1 %."""
    if degrees <= len(_T975):
        return _T975[degrees - 1]
    z, n = Z975, float(degrees)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
