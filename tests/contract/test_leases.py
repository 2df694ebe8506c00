from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import threading
import time

import pytest

from mutransfer.errors import LeaseLostError
from service.db import studies
from service.db.driver_store import DriverStore
from service.db.leases import Claim, Leases
from service.db.session import Sessions
from service.db.states import StudyState


def test_the_oldest_queued_study_is_claimed_once(sessions: Sessions, submit: Callable[..., str]) -> None:
    first, second = submit(), submit()
    leases = Leases(sessions)
    assert leases.claim_next("a", 30.0) == Claim(study_id=first, epoch=1, state=StudyState.QUEUED)
    assert leases.claim_next("b", 30.0) == Claim(study_id=second, epoch=1, state=StudyState.QUEUED)
    assert leases.claim_next("c", 30.0) is None


def test_an_expired_lease_is_claimed_again_with_the_next_epoch(sessions: Sessions, submit: Callable[..., str]) -> None:
    study_id = submit()
    leases = Leases(sessions)
    claim = leases.claim_next("a", 2.0)  # long beside the pauses of a busy machine
    assert claim is not None
    DriverStore(sessions, study_id, 1, ttl_seconds=2.0).mark_running()
    assert leases.claim_next("b", 2.0) is None
    time.sleep(2.1)
    assert leases.claim_next("b", 30.0) == Claim(study_id=study_id, epoch=2, state=StudyState.RUNNING)


def test_renewal_holds_a_lease_beyond_its_ttl(sessions: Sessions, submit: Callable[..., str]) -> None:
    study_id = submit()
    leases = Leases(sessions)
    leases.claim_next("a", 2.0)
    DriverStore(sessions, study_id, 1, ttl_seconds=30.0).renew()
    time.sleep(2.1)
    assert leases.claim_next("b", 30.0) is None


def test_a_released_lease_is_free_after_its_delay(sessions: Sessions, submit: Callable[..., str]) -> None:
    study_id = submit()
    leases = Leases(sessions)
    claim = leases.claim_next("a", 30.0)
    assert claim is not None
    leases.release(claim, delay_seconds=2.0)
    assert leases.claim_next("b", 30.0) is None
    time.sleep(2.1)
    again = leases.claim_next("b", 30.0)
    assert again is not None
    assert (again.study_id, again.epoch) == (study_id, 2)
    leases.release(claim)  # of epoch 1: late, and without effect
    assert leases.claim_next("c", 30.0) is None


def test_ended_studies_are_not_claimed(sessions: Sessions, submit: Callable[..., str]) -> None:
    study_id = submit()
    with sessions.begin() as session:
        studies.cancel(session, study_id)
    assert Leases(sessions).claim_next("a", 30.0) is None


def test_dispatchers_at_once_claim_each_study_exactly_once(sessions: Sessions, submit: Callable[..., str]) -> None:
    expected = sorted(submit() for _ in range(24))
    start = threading.Barrier(4)

    def claim_all(owner: str) -> list[str]:
        start.wait()
        leases, claimed = Leases(sessions), []
        while (claim := leases.claim_next(owner, 30.0)) is not None:
            claimed.append(claim.study_id)
        return claimed

    with ThreadPoolExecutor(4) as pool:
        claimed = [study for found in pool.map(claim_all, "abcd") for study in found]
    # SKIP LOCKED may hide a study from one look, never from the next: sweep up before counting.
    claimed += claim_all_left(sessions)
    assert Counter(claimed) == Counter(expected)


def claim_all_left(sessions: Sessions) -> list[str]:
    leases, claimed = Leases(sessions), []
    while (claim := leases.claim_next("rest", 30.0)) is not None:
        claimed.append(claim.study_id)
    return claimed


def test_a_stale_driver_cannot_renew_or_release(sessions: Sessions, submit: Callable[..., str]) -> None:
    study_id = submit()
    leases = Leases(sessions)
    leases.claim_next("a", 0.05)
    time.sleep(0.1)
    leases.claim_next("b", 30.0)
    stale = DriverStore(sessions, study_id, 1, ttl_seconds=30.0)
    with pytest.raises(LeaseLostError, match="epoch 1"):
        stale.renew()
    stale.release()
    assert leases.claim_next("c", 30.0) is None
