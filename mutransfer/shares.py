"""Dividing a quota among those who want of it: pure."""

from collections.abc import Sequence


def fair_shares(limit: int, wanted: Sequence[int]) -> list[int]:
    """Max-min fair parts of `limit`: nobody gets more than wanted, and whoever gets less gets as much as any other.

    What does not divide evenly goes to those who come first. [10, 1, 10] of 8 → [4, 1, 3].
    """
    shares = [0] * len(wanted)
    left = max(0, limit)
    hungry = [index for index, want in enumerate(wanted) if want > 0]
    while left and hungry:
        for index in hungry:
            if left:
                shares[index] += 1
                left -= 1
        hungry = [index for index in hungry if shares[index] < wanted[index]]
    return shares
