"""Pure rules of operations: when to give up, what a watcher sees, what child processes are told."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr
import pytest

from mutransfer.errors import ConflictError
from service.cli_connect import absolute_paths, find_token
from service.cli_watch import PhaseCount, StudyProgress
from service.dispatch.attempts import MAX_CRASHES, MAX_KILLS, Failure, is_exhausted, retry_delay_seconds
from service.dispatch.launchers import tail
from service.ports import free_port, require_free
from service.runtime import ensure_token, write_runtime
from service.settings import Settings
from service.studies.schemas import EventRead
from service.up import child_environment


def failures(*outcomes: tuple[int, int]) -> list[Failure]:
    return [Failure(progress=progress, exit_status=status) for progress, status in outcomes]


@pytest.mark.parametrize(
    ("outcomes", "exhausted"),
    [
        ([], False),
        ([(0, 1)] * (MAX_CRASHES - 1), False),
        ([(0, 1)] * MAX_CRASHES, True),
        ([(0, 1), (0, 1), (1, 1), (1, 1)], False),  # progress between: counted anew
        ([(5, -9)] * MAX_CRASHES, False),  # the machine's doing
        ([(5, -9)] * MAX_KILLS, True),
        ([(n, -9) for n in range(100)], False),  # killed again and again, but getting on
        ([(5, 1), (5, -9), (5, 1), (5, -9), (5, 1)], True),
    ],
)
def test_only_deaths_in_a_row_without_progress_count(outcomes: list[tuple[int, int]], exhausted: bool) -> None:
    assert is_exhausted(failures(*outcomes)) is exhausted


def test_pauses_double_up_to_half_a_minute() -> None:
    assert [retry_delay_seconds(tries) for tries in (1, 2, 3, 4, 5, 6, 50)] == [1, 2, 4, 8, 16, 30, 30]


def progress_event(phase: str, done: int, planned: int, state: str = "running") -> EventRead:
    payload: dict[str, Any] = {
        "phase": phase, "trials_done": done, "trials_planned": planned, "trials_failed": 0, "trials_expected": 9,
        "state": state, "running": [],
    }  # fmt: skip
    return EventRead(kind="progress", payload=payload)


def test_each_phase_counts_its_own_trials() -> None:
    seen = StudyProgress()
    for event in (
        progress_event("search", 0, 5),
        progress_event("search", 5, 5),
        EventRead(kind="phase_started", payload={"phase": "transfer"}),
        progress_event("transfer", 5, 6),
        progress_event("verify", 6, 10),
    ):
        seen.update(event)
    assert list(seen.phases()) == [
        PhaseCount(name="search", done=5, planned=5, over=True),
        PhaseCount(name="transfer", done=0, planned=1, over=True),
        PhaseCount(name="verify", done=1, planned=4, over=False),
    ]
    seen.update(EventRead(kind="finished", payload={"state": "completed"}))
    assert seen.line() == "completed · verify · 6 of 10 trials, about 9 expected"


def test_children_read_back_the_very_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        home=tmp_path, port=8123, token=SecretStr("secret"), data_roots=(tmp_path / "a", tmp_path / "b"),
        model_packages=("mine", "ours.models"), allowed_hosts=("127.0.0.1", "gpu-box"), mlflow_url="http://127.0.0.1:5",
        ray_jobs_withhold=("MUTRANSFER_TOKEN", "MUTRANSFER_SMTP_URL"),
    )  # fmt: skip
    monkeypatch.setenv("MUTRANSFER_STALE", "1")
    environment = child_environment(settings)
    assert "MUTRANSFER_STALE" not in environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_paths_in_a_study_are_resolved_against_its_folder(tmp_path: Path) -> None:
    def resolved(**data: object) -> dict[str, Any]:
        found: dict[str, Any] = absolute_paths({"data": data}, tmp_path)["data"]
        return found

    assert resolved(source="stdlib", tokenizer="bytes") == {"source": "stdlib", "tokenizer": "bytes"}
    assert resolved(source="parquet:a/b.parquet#text")["source"] == f"parquet:{tmp_path}/a/b.parquet#text"
    assert resolved(source="text:/data/x.txt")["source"] == "text:/data/x.txt"
    assert resolved(source="text:~/x.txt")["source"] == f"text:{Path.home()}/x.txt"
    assert resolved(tokenizer="tok.json")["tokenizer"] == f"{tmp_path}/tok.json"
    assert absolute_paths({"data": 3}, tmp_path) == {"data": 3}


def test_the_token_goes_to_its_own_service_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUTRANSFER_HOME", str(tmp_path))
    token = ensure_token(tmp_path)
    assert ensure_token(tmp_path) == token
    write_runtime(tmp_path, {"url": "http://127.0.0.1:8400", "token": True})
    assert find_token("http://127.0.0.1:8400") == token
    assert find_token("http://elsewhere:8400") is None
    monkeypatch.setenv("MUTRANSFER_TOKEN", "given")
    assert find_token("http://elsewhere:8400") == "given"


def test_ports() -> None:
    port = free_port()
    assert require_free("127.0.0.1", port) == port
    assert require_free("127.0.0.1", 0) > 0
    with pytest.raises(ConflictError, match="--port"):
        require_free("192.0.2.1", port)  # an address that is not ours


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log, 3) == ""
    log.write_bytes(b"x" * 70_000 + b"\n" + b"\n".join(b"line %d \xff" % n for n in range(5)))
    assert tail(log, 2) == "line 3 \ufffd\nline 4 \ufffd"
