"""What goes and what stays is decided by rules alone."""

from pathlib import Path

from service.gc import Item, Kind, Policy, Use, plan

DAY = 86_400.0


def item(name: str, use: Use, *, days: float = 0.0, size: int = 100) -> Item:
    return Item(kind=Kind.CHECKPOINT, path=Path(name), size_bytes=size, age_seconds=days * DAY, use=use, why="")


ITEMS = [
    item("done", Use.NONE),
    item("old", Use.PAST, days=15),
    item("older-in-use", Use.PRESENT, days=90),
    item("recent", Use.PAST, days=3),
    item("more-recent", Use.PAST, days=1),
]


def removed(policy: Policy) -> list[str]:
    return [str(found.path) for found in plan(ITEMS, policy).removed]


def test_the_past_goes_after_its_retention() -> None:
    made = plan(ITEMS, Policy(retention_seconds=14 * DAY))
    assert removed(Policy(retention_seconds=14 * DAY)) == ["done", "old"]
    assert [str(found.path) for found in made.kept] == ["older-in-use", "recent", "more-recent"]
    assert made.over_bytes == 0


def test_a_budget_takes_the_oldest_first_and_no_more_than_it_needs() -> None:
    assert removed(Policy(retention_seconds=14 * DAY, budget_bytes=300)) == ["done", "old"]
    assert removed(Policy(retention_seconds=14 * DAY, budget_bytes=299)) == ["done", "old", "recent"]
    assert removed(Policy(retention_seconds=14 * DAY, budget_bytes=150)) == ["done", "old", "recent", "more-recent"]


def test_what_a_study_needs_stays_and_the_budget_says_so() -> None:
    made = plan(ITEMS, Policy(retention_seconds=0.0, budget_bytes=40))
    assert [str(found.path) for found in made.kept] == ["older-in-use"]
    assert made.over_bytes == 60
