"""Checkpoints: atomic, verified, fenced by epoch, and never code."""

import errno
import os
from pathlib import Path
import pickle

import pytest
import torch

from mutransfer.errors import TransientError
from workers.checkpoint import Checkpoints


def state(step: int) -> dict[str, object]:
    return {"step_index": step, "model": {"w": torch.full((3,), float(step))}, "history": [{"step": step}]}


def step_of(checkpoints: Checkpoints) -> int | None:
    found = checkpoints.load()
    return None if found is None else int(found["step_index"])


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, key="k", epoch=2)


def test_what_was_saved_comes_back(checkpoints: Checkpoints) -> None:
    assert checkpoints.load() is None
    checkpoints.save(5, state(5))
    found = checkpoints.load()
    assert found is not None
    assert found["history"] == [{"step": 5}]
    assert torch.equal(found["model"]["w"], torch.full((3,), 5.0))


def test_the_last_two_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (9, 10, 11):
        checkpoints.save(step, state(step))
    names = sorted(path.name for path in (tmp_path / "k" / "2").iterdir())
    assert names == ["step-10.pt", "step-10.sha256", "step-11.pt", "step-11.sha256"]


def test_the_most_steps_of_any_epoch_up_to_ones_own(tmp_path: Path) -> None:
    for epoch, step in ((1, 30), (2, 20), (3, 40), (10, 50)):
        Checkpoints(tmp_path, key="k", epoch=epoch).save(step, state(step))
    assert step_of(Checkpoints(tmp_path, key="k", epoch=1)) == 30
    assert step_of(Checkpoints(tmp_path, key="k", epoch=2)) == 30
    assert step_of(Checkpoints(tmp_path, key="k", epoch=9)) == 40
    assert step_of(Checkpoints(tmp_path, key="k", epoch=10)) == 50
    assert step_of(Checkpoints(tmp_path, key="other", epoch=10)) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "no digest", "empty"])
def test_a_corrupt_checkpoint_falls_back_to_the_one_before(checkpoints: Checkpoints, damage: str) -> None:
    checkpoints.save(1, state(1))
    newest = checkpoints.save(2, state(2))
    content = bytearray(newest.read_bytes())
    match damage:
        case "cut":
            newest.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[len(content) // 2] ^= 1
            newest.write_bytes(content)
        case "no digest":
            newest.with_suffix(".sha256").unlink()
        case "empty":
            newest.write_bytes(b"")
    assert step_of(checkpoints) == 1


def test_a_pickle_with_code_is_refused_though_its_digest_fits(checkpoints: Checkpoints, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    checkpoints.save(1, state(1))
    checkpoints.save(2, {"step_index": 2, "evil": Evil()})
    assert step_of(checkpoints) == 1
    assert not (tmp_path / "pwned").exists()
    assert pickle.loads(pickle.dumps(Evil())) is None
    assert (tmp_path / "pwned").exists()  # the trap does work on those who unpickle


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_full_disk_is_transient_and_keeps_the_earlier_ones(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    checkpoints.save(1, state(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(TransientError, match=r"step-2\.pt: No space left on device; free space"):
        checkpoints.save(2, state(2))
    monkeypatch.undo()
    assert step_of(checkpoints) == 1
    assert sorted(path.name for path in (tmp_path / "k" / "2").iterdir()) == ["step-1.pt", "step-1.sha256"]


def test_discard_removes_all_epochs(checkpoints: Checkpoints, tmp_path: Path) -> None:
    Checkpoints(tmp_path, key="k", epoch=1).save(1, state(1))
    checkpoints.save(2, state(2))
    checkpoints.discard()
    checkpoints.discard()
    assert list(tmp_path.iterdir()) == []
