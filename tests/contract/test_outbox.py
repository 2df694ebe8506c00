from collections.abc import Callable
import time

import pytest
from sqlalchemy import update

from service.db.outbox import LONGEST_DELAY_SECONDS, Message, Outbox, OutboxKind, add_message
from service.db.session import Sessions, db_now
from service.db.tables import OutboxRow

Submit = Callable[..., str]


def _keys(messages: list[Message]) -> list[str]:
    return [message.key for message in messages]


def _add(sessions: Sessions, study_id: str, *keys: str) -> list[bool]:
    with sessions.begin() as session:
        return [add_message(session, OutboxKind.TRIAL_RESULT, study_id, key=key, payload={"n": key}) for key in keys]


def test_a_message_is_enqueued_once_and_delivered_once(sessions: Sessions, submit: Submit) -> None:
    study_id = submit()
    assert _add(sessions, study_id, "a", "b", "a") == [True, True, False]
    outbox = Outbox(sessions)
    assert _keys(outbox.due()) == ["a", "b"]
    assert (outbox.undelivered(), outbox.undelivered(study_id), outbox.undelivered("st_x")) == (2, 2, 0)
    outbox.done(outbox.due()[0].id)
    assert _keys(outbox.due()) == ["b"]
    assert _add(sessions, study_id, "a") == [False]
    assert outbox.undelivered() == 1


def test_a_message_being_retried_holds_back_its_study_only(sessions: Sessions, submit: Submit) -> None:
    first, second = submit(), submit()
    _add(sessions, first, "a", "b")
    _add(sessions, second, "c")
    outbox = Outbox(sessions)
    outbox.retry(outbox.due()[0].id, error="MLflow is away", delay_seconds=0.3)
    assert _keys(outbox.due()) == ["c"]
    time.sleep(0.35)
    retried = outbox.due()
    assert _keys(retried) == ["a", "b", "c"]
    assert retried[0].attempts == 1


def test_a_clock_that_was_moved_back_holds_no_message_up(sessions: Sessions, submit: Submit) -> None:
    study_id = submit()
    _add(sessions, study_id, "before", "retried", "after")
    outbox = Outbox(sessions)
    with sessions.begin() as session:
        session.execute(update(OutboxRow).where(OutboxRow.key == "before").values(next_at=db_now() + 3600.0))
    assert _keys(outbox.due()) == ["before", "retried", "after"]
    outbox.retry(outbox.due()[1].id, error="away", delay_seconds=LONGEST_DELAY_SECONDS)
    assert _keys(outbox.due()) == ["before"]
    with pytest.raises(ValueError, match="longer than"):
        outbox.retry(outbox.due()[0].id, error="away", delay_seconds=LONGEST_DELAY_SECONDS + 1.0)


def test_a_message_of_a_transaction_that_fails_is_never_sent(sessions: Sessions, submit: Submit) -> None:
    study_id = submit()
    try:
        with sessions.begin() as session:
            add_message(session, OutboxKind.STUDY_STARTED, study_id)
            raise KeyError("the fact it tells did not happen")
    except KeyError:
        pass
    assert Outbox(sessions).due() == []
