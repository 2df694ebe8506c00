import pytest

from mutransfer.errors import ConflictError, SpecError
from service import cursors
from service.db.states import TRANSITIONS, StudyState
from service.ids import is_study_id, new_study_id, ulid


def test_a_ulid_is_26_letters_of_base_32() -> None:
    assert ulid(0, 0) == "0" * 26
    assert ulid((1 << 48) - 1, (1 << 80) - 1) == "7" + "Z" * 25
    assert ulid(1469918176385, 0)[:10] == "01ARYZ6S41"  # the ULID specification's own example


def test_study_ids_differ_and_sort_by_time() -> None:
    ids = {new_study_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_study_id(study_id) for study_id in ids)
    assert ulid(1, (1 << 80) - 1) < ulid(2, 0)


@pytest.mark.parametrize("text", ["", "st_", "st_" + "0" * 25, "st_8" + "0" * 25, "st_" + "I" * 26, "st_" + "0" * 27])
def test_other_texts_are_no_study_ids(text: str) -> None:
    assert not is_study_id(text)


ALLOWED = {
    ("queued", "running"), ("queued", "paused"), ("queued", "cancelled"), ("queued", "failed"),
    ("running", "completed"), ("running", "pausing"), ("running", "cancelling"), ("running", "failed"),
    ("pausing", "paused"), ("pausing", "running"), ("pausing", "cancelling"), ("pausing", "completed"),
    ("pausing", "failed"), ("paused", "queued"), ("paused", "cancelled"),
    ("completed", "queued"), ("failed", "queued"), ("cancelled", "queued"),
    ("cancelling", "cancelled"), ("cancelling", "completed"), ("cancelling", "failed"),
}  # fmt: skip


@pytest.mark.parametrize("before", StudyState)
@pytest.mark.parametrize("after", StudyState)
def test_only_these_transitions_are_allowed(before: StudyState, after: StudyState) -> None:
    if (before.value, after.value) in ALLOWED:
        assert before.to(after) is after
    else:
        with pytest.raises(ConflictError, match=f"a {before} study cannot become {after}"):
            before.to(after)


def test_final_states_are_those_that_only_a_person_leaves() -> None:
    assert {state.value for state in StudyState if state.is_final} == {"completed", "failed", "cancelled"}
    assert set(TRANSITIONS) == set(StudyState)


def test_a_cursor_comes_back_as_it_went() -> None:
    assert cursors.decode(cursors.encode(["a-b", 64, -4.5, 0]), str, int, float, int) == ["a-b", 64, -4.5, 0]


@pytest.mark.parametrize("cursor", ["", "!", "bnVsbA", cursors.encode(["a"]), cursors.encode([1, "a"]), "é", "W1tbW1s"])
def test_other_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(SpecError, match="cursor"):
        cursors.decode(cursor, str, int)
