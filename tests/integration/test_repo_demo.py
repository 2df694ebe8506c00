"""`make demo` as a script runs it: an answer, a report, and nothing left behind, whatever happens."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
STUDY = {
    "version": 1,
    "name": "tiny",
    "model": {"family": "nanogpt", "depth": 1, "head_dim": 8, "context": 16},
    "train": {"batch": 8, "steps": 12},
    "widths": {"base": 8, "proxy": [8], "targets": [32]},
    "eval": {"tokens": 2048},
    "verify": "none",
    "arms": [{"optimizer": "adamw", "parametrization": "mup"}],
    "search": {"algorithm": "grid", "lr_octaves": {"low": -8, "high": -3}, "seeds": {"min": 1, "max": 1}},
}


def _processes_of(home: Path) -> list[str]:
    """Command lines of living processes that belong to a home: it stands in their arguments or environment."""
    needle, found = str(home).encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if int(entry.name) != os.getpid() and needle in arguments + environment:
            found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _command(tmp_path: Path, port: int) -> list[str]:
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    folders = ["--home", str(tmp_path / "home"), "--reports", str(tmp_path / "reports")]
    return [sys.executable, str(TOP / "scripts/demo.py"), *folders, "--port", str(port), "--study", str(study)]


@pytest.mark.ray
@pytest.mark.timeout(600)  # about 40 s alone; starting Ray on a busy machine takes minutes
def test_without_a_terminal_the_demo_ends_and_leaves_a_report(tmp_path: Path, taken_port: int) -> None:
    done = subprocess.run(
        _command(tmp_path, taken_port), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"port {taken_port} is in use" in done.stdout
    assert "dashboard  http://127.0.0.1:" in done.stdout
    assert done.stdout.index("dashboard") < done.stdout.index("adamw-mup")
    result = json.loads((tmp_path / "reports/tiny/result.json").read_text())
    assert result["study"]["state"] == "completed"
    assert "adamw-mup" in (tmp_path / "reports/tiny/report.html").read_text()
    assert _processes_of(tmp_path / "home") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_demo_takes_its_service_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with (tmp_path / "out").open("wb") as out:
        demo = subprocess.Popen(_command(tmp_path, 0), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    deadline = time.monotonic() + 120
    while "dashboard" not in (tmp_path / "out").read_text() and demo.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _processes_of(tmp_path / "home"), (tmp_path / "out").read_text()
    demo.send_signal(number)
    demo.wait(timeout=60)
    deadline = time.monotonic() + 40
    while (left := _processes_of(tmp_path / "home")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
