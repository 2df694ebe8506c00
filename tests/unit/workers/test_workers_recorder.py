"""The recorder through an outage: results wait on disk, arrive once and in order, and training never notices."""

from collections.abc import Callable, Iterator, Mapping
import errno
import os
from pathlib import Path
import time

import pytest
import torch

from mutransfer.errors import LeaseLostError, TransientError
from mutransfer.trial import TrialResult
from workers import recorder as recorder_module
from workers.checkpoint import Checkpoints
from workers.failures import Fault
from workers.recorder import Recorder, Spool


def result(loss: float) -> TrialResult:
    return TrialResult(
        status="finished", loss_nats=loss, initial_loss_nats=4.0, train_loss_nats=2.0, steps=10, tokens=100,
        parameters=9, device_seconds=1.0, device="cpu",
    )  # fmt: skip


class FakeStore:
    """What Recorder calls of DriverStore; raises `fault` while it is set."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.calls: list[tuple[object, ...]] = []
        self.batches: list[int] = []  # how many results each transaction took

    def _do(self, *calls: tuple[object, ...]) -> None:
        if self.fault is not None:
            raise self.fault
        self.calls.extend(calls)

    def record_results(self, results: Mapping[str, TrialResult]) -> Mapping[str, TrialResult]:
        self._do(*(("result", key, result.loss_nats) for key, result in results.items()))
        self.batches.append(len(results))
        return results

    def record_failure(self, key: str, *, attempt: int, traceback: str, final: bool, fault: str) -> None:
        self._do(("failure", key, attempt, traceback, final, fault))

    def trial_started(self, key: str, *, attempt: int) -> None:
        self._do(("started", key, attempt))

    def trial_progress(self, key: str, *, step: int, steps: int, train_loss_nats: float | None) -> None:
        self._do(("progress", key, step, steps, train_loss_nats))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(recorder_module, "PROGRESS_SECONDS", 0.05)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def make(store: FakeStore, tmp_path: Path) -> Iterator[Callable[[], Recorder]]:
    made: list[Recorder] = []

    def build() -> Recorder:
        recorder = Recorder(store, spool=Spool(tmp_path, "study"), checkpoints=tmp_path / "ck", epoch=1)  # type: ignore[arg-type]
        recorder.start()
        made.append(recorder)
        return recorder

    yield build
    store.fault = None
    for recorder in made:
        recorder.close(timeout_seconds=10.0)
    assert not any(recorder._thread.is_alive() for recorder in made), "a recorder goes on into other tests"


def spooled(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "spool" / "study").glob("*"))


def test_results_and_failures_arrive_in_order(store: FakeStore, make: Callable[[], Recorder]) -> None:
    recorder = make()
    recorder.result("a", result(1.0))
    recorder.failure("b", attempt=2, traceback="boom", final=False, fault=Fault.MACHINE)
    recorder.result("c", result(3.0))
    wait_until(recorder.settled)
    assert store.calls == [("result", "a", 1.0), ("failure", "b", 2, "boom", False, "machine"), ("result", "c", 3.0)]


def test_what_waits_is_written_together_up_to_a_limit(
    store: FakeStore, make: Callable[[], Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "BATCH", 3)
    store.fault = TransientError("away")
    recorder = make()
    for number in range(5):
        recorder.result(f"a{number}", result(number))
    recorder.failure("b", attempt=1, traceback="boom", final=True)
    recorder.result("a0", result(9.0))  # of one trial a second time, from a spool: the first one stays
    store.fault = None
    wait_until(recorder.settled)
    assert store.batches == [3, 2, 1]
    assert [call[0] for call in store.calls] == ["result"] * 5 + ["failure", "result"]


def test_an_outage_spools_results_and_drains_them_once(
    store: FakeStore, make: Callable[[], Recorder], tmp_path: Path
) -> None:
    store.fault = TransientError("away")
    recorder = make()
    recorder.result("a", result(1.0))
    recorder.result("b", result(2.0))
    wait_until(lambda: spooled(tmp_path) == ["a.json", "b.json"])
    assert not recorder.settled()
    recorder.check()
    store.fault = None
    wait_until(recorder.settled)
    assert store.calls == [("result", "a", 1.0), ("result", "b", 2.0)]
    assert spooled(tmp_path) == []


def test_a_successor_finds_what_a_killed_driver_spooled(
    store: FakeStore, make: Callable[[], Recorder], tmp_path: Path
) -> None:
    spool = Spool(tmp_path, "study")
    spool.put("a", result(1.0))
    (tmp_path / "spool" / "study" / "broken.json").write_text('{"status":')
    recorder = make()
    wait_until(recorder.settled)
    assert store.calls == [("result", "a", 1.0)]
    assert spooled(tmp_path) == ["broken.unreadable"]


@pytest.mark.parametrize("broken", [b'{"status":', b"", b"\xff\xfe"])
def test_an_unreadable_file_does_not_keep_its_trials_next_result_from_the_spool(
    store: FakeStore, make: Callable[[], Recorder], tmp_path: Path, broken: bytes
) -> None:
    folder = tmp_path / "spool" / "study"
    folder.mkdir(parents=True)
    (folder / "a.json").write_bytes(broken)
    store.fault = TransientError("away")
    recorder = make()
    recorder.result("a", result(1.0))
    wait_until(lambda: spooled(tmp_path) == ["a.json", "a.unreadable"])
    assert (folder / "a.unreadable").read_bytes() == broken
    assert dict(Spool(tmp_path, "study").items()) == {"a": result(1.0)}


def test_a_full_disk_keeps_results_in_memory(
    store: FakeStore, make: Callable[[], Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    store.fault = TransientError("away")
    recorder = make()
    recorder.result("a", result(1.0))
    time.sleep(0.2)
    assert spooled(tmp_path) == []
    store.fault = None
    wait_until(recorder.settled)
    assert store.calls == [("result", "a", 1.0)]


def test_only_the_latest_progress_of_running_trials_is_told(store: FakeStore, make: Callable[[], Recorder]) -> None:
    recorder = make()
    recorder.started("a", attempt=1)
    for step in range(1, 200):
        recorder.progress("a", step=step, steps=200, train_loss_nats=2.0)
    wait_until(lambda: ("progress", "a", 199, 200, 2.0) in store.calls)
    assert store.calls[0] == ("started", "a", 1)
    assert len(store.calls) < 20
    recorder.result("a", result(1.0))
    wait_until(recorder.settled)
    recorder.progress("a", step=200, steps=200, train_loss_nats=2.0)
    time.sleep(0.2)
    assert store.calls[-1] == ("result", "a", 1.0)


def test_progress_lost_in_an_outage_comes_again(store: FakeStore, make: Callable[[], Recorder]) -> None:
    store.fault = TransientError("away")
    recorder = make()
    recorder.started("a", attempt=1)
    recorder.progress("a", step=5, steps=9, train_loss_nats=None)
    time.sleep(0.2)
    store.fault = None
    recorder.progress("a", step=6, steps=9, train_loss_nats=None)
    wait_until(lambda: ("progress", "a", 6, 9, None) in store.calls)
    assert store.calls[0] == ("started", "a", 1)


def test_a_lost_lease_is_raised_where_it_is_handled(store: FakeStore, make: Callable[[], Recorder]) -> None:
    store.fault = LeaseLostError("epoch 1 is over")
    recorder = make()
    recorder.result("a", result(1.0))
    with pytest.raises(LeaseLostError):
        wait_until(recorder.check)
    assert not recorder.close(timeout_seconds=1)


def test_results_that_a_lost_lease_refuses_are_left_to_the_next_driver(
    store: FakeStore, make: Callable[[], Recorder], tmp_path: Path
) -> None:
    store.fault = LeaseLostError("epoch 2 owns it")
    recorder = make()
    recorder.result("a", result(2.0))
    wait_until(lambda: (tmp_path / "spool").exists() and list((tmp_path / "spool").rglob("a.json")))
    with pytest.raises(LeaseLostError):
        recorder.check()
    assert [call for call in store.calls if call[0] == "result"] == []


def test_checkpoints_go_once_the_result_is_stored(
    store: FakeStore, make: Callable[[], Recorder], tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "ck", key="a", epoch=1)
    checkpoints.save(1, {"w": torch.zeros(1)})
    store.fault = TransientError("away")
    recorder = make()
    recorder.result("a", result(1.0))
    time.sleep(0.2)
    assert checkpoints.load() is not None
    store.fault = None
    wait_until(recorder.settled)
    assert checkpoints.load() is None
