"""Temporary folders: gone after use, and cleared when their process was killed."""

import os
from pathlib import Path

from workers.scratch import scratch


def test_a_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with scratch("ray", parent=str(tmp_path)) as folder:
        assert folder.parent == tmp_path
        assert str(os.getpid()) in folder.name
        (folder / "x").write_text("y")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    beyond_any_pid = 2**22 + 1
    for name in (
        f"mt-ray-{beyond_any_pid}-abc",
        f"mt-ray-{os.getpid()}-abc",
        "mt-ray-abc",
        f"other-{beyond_any_pid}-a",
    ):
        (tmp_path / name).mkdir()
    with scratch("tune", parent=str(tmp_path)) as folder:
        left = {path.name for path in tmp_path.iterdir()} - {folder.name}
    assert left == {f"mt-ray-{os.getpid()}-abc", "mt-ray-abc", f"other-{beyond_any_pid}-a"}
