from hypothesis import given
from hypothesis import strategies as st
import pytest

from mutransfer.shares import fair_shares


@pytest.mark.parametrize(
    ("limit", "wanted", "shares"),
    [
        (8, [10, 1, 10], [4, 1, 3]),
        (8, [10], [8]),
        (8, [2, 3], [2, 3]),
        (2, [5, 5, 5], [1, 1, 0]),
        (3, [0, 5], [0, 3]),
        (0, [5], [0]),
        (4, [], []),
    ],
)
def test_worked_shares(limit: int, wanted: list[int], shares: list[int]) -> None:
    assert fair_shares(limit, wanted) == shares


@given(st.integers(0, 60), st.lists(st.integers(0, 20), max_size=8))
def test_shares_waste_nothing_and_are_fair(limit: int, wanted: list[int]) -> None:
    shares = fair_shares(limit, wanted)
    assert sum(shares) == min(limit, sum(wanted))
    assert all(share <= want for share, want in zip(shares, wanted, strict=True))
    least = min((s for s, w in zip(shares, wanted, strict=True) if s < w), default=None)
    assert least is None or max(shares) <= least + 1
