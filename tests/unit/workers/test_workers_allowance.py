"""What may start while a project's quota is asked for."""

import pytest

from mutransfer.errors import TransientError
from service.db.quotas import UNLIMITED, Grant
from workers.allowance import Allowance


class Quota:
    def __init__(self, *answers: Grant | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, int]] = []

    def __call__(self, wanted: int, running: int) -> Grant:
        self.asked.append((wanted, running))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_nothing_starts_before_the_quota_is_known() -> None:
    quota = Quota(Grant(slots=2))
    allowance = Allowance(quota)
    assert not allowance.take(0)
    allowance.refresh()
    assert quota.asked == [], "nobody wants anything yet"
    allowance.want(8)
    allowance.refresh()
    assert [allowance.take(running) for running in (0, 1, 2)] == [True, True, False]


def test_what_has_just_started_is_counted() -> None:
    quota = Quota(Grant(slots=4), Grant(slots=1))
    allowance = Allowance(quota)
    allowance.want(8)
    allowance.refresh()
    assert allowance.take(2)
    allowance.refresh()
    assert quota.asked == [(8, 0), (8, 3)]
    assert not allowance.take(3)


def test_nothing_starts_while_the_answer_is_out() -> None:
    seen: list[bool] = []
    allowance: Allowance

    def ask(_wanted: int, _running: int) -> Grant:
        seen.append(allowance.take(1))
        return Grant(slots=4)

    allowance = Allowance(ask)
    allowance.want(8)
    allowance.refresh()
    assert allowance.take(0)
    allowance.refresh()
    assert seen == [False, False]


def test_an_outage_of_the_database_starts_nothing_under_a_quota_and_stops_nothing_without_one() -> None:
    limited = Allowance(Quota(Grant(slots=4), TransientError("away"), Grant(slots=4)))
    limited.want(8)
    limited.refresh()
    with pytest.raises(TransientError):
        limited.refresh()
    assert not limited.take(0)
    limited.refresh()
    assert limited.take(0)
    free = Allowance(Quota(UNLIMITED, TransientError("away")))
    free.want(8)
    free.refresh()
    with pytest.raises(TransientError):
        free.refresh()
    assert free.take(100)
