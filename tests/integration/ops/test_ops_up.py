"""`mutransfer up` as a real process: comes up, keeps its parts alive, refuses what is taken, leaves nothing behind."""

from collections.abc import Iterator
import contextlib
import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import time

import httpx
import pytest

from service.processes import descendants
from tests.integration.ops.conftest import REPOSITORY, STUB, is_running, spawned, stub_study, wait_until


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **extra}


@contextlib.contextmanager
def running_up(home: Path, *options: str, **extra: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A running `up` on a free port, and the address of its ready line."""
    arguments = ("up", "--home", str(home), "--port", "0", "--driver", STUB[-1], *options)
    with spawned(*arguments, env=environment(**extra), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), (line, process.stderr and process.stderr.read())
        try:
            yield process, line.split()[1]
        finally:
            process.terminate()
            process.wait(timeout=30)


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, trust_env=False, timeout=30)


def post_study(url: str, name: str, **headers: str) -> str:
    document = stub_study(name).model_dump(mode="json")
    response = httpx.post(f"{url}/api/v1/studies", json=document, headers=headers, trust_env=False, timeout=60)
    assert response.status_code == 201, response.text
    study_id: str = response.json()["id"]
    return study_id


@pytest.mark.timeout(480)
def test_up_serves_survives_deaths_and_ends_without_orphans(tmp_path: Path) -> None:
    with running_up(tmp_path) as (process, url):
        assert get(f"{url}/healthz").json()["status"] == "ok"
        runtime = json.loads((tmp_path / "runtime.json").read_text())
        assert (runtime["url"], runtime["pid"]) == (url, process.pid)
        assert (tmp_path / "runtime.json").stat().st_mode & 0o077 == 0

        hanging = post_study(url, "hang")
        pids_file = tmp_path / f"{hanging}.pids"
        wait_until(lambda: pids_file.exists() and len(pids_file.read_text().split()) == 2, seconds=120)
        family = descendants(process.pid)
        assert {int(pid) for pid in pids_file.read_text().split()} <= set(family)
        controller = next(pid for pid in family if b"\0controller\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(controller, signal.SIGKILL)
        wait_until(lambda: not is_running(controller))
        wait_until(lambda: answers(url), seconds=120, what="the new controller")

        family = descendants(process.pid)
        sent_at = time.monotonic()
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - sent_at < 20
        assert [pid for pid in family if is_running(pid)] == []
        assert not (tmp_path / "runtime.json").exists()


def answers(url: str) -> bool:
    try:
        return get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_port_or_a_home_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run_up("--home", str(tmp_path / "a"), "--port", port)
    assert refused.returncode == 2
    assert f"port {port}" in refused.stderr
    assert "--port" in refused.stderr
    with running_up(tmp_path / "b", "--no-mlflow") as (_, url):
        second = run_up("--home", str(tmp_path / "b"), "--port", "0")
        assert second.returncode == 2
        assert url in second.stderr
        assert "--home" in second.stderr


def run_up(*options: str) -> "subprocess.CompletedProcess[str]":
    with spawned("up", *options, env=environment(), stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_on_a_shared_host_callers_need_the_token_that_only_the_owner_can_read(tmp_path: Path) -> None:
    with running_up(tmp_path, "--no-mlflow", SLURM_JOB_ID="17") as (_, url):
        assert get(f"{url}/healthz").status_code == 200
        assert get(f"{url}/api/v1/studies").status_code == 401
        file = tmp_path / "token"
        assert file.stat().st_mode & 0o777 == 0o600
        token = file.read_text().strip()
        assert len(token) >= 43
        assert get(f"{url}/api/v1/studies", Authorization=f"Bearer {token}").status_code == 200
        with spawned("list", env=environment(MUTRANSFER_HOME=str(tmp_path)), stdout=subprocess.PIPE) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "Submitted" in out


def test_a_killed_up_takes_its_processes_along(tmp_path: Path) -> None:
    with running_up(tmp_path, "--no-mlflow") as (process, url):
        assert answers(url)
        family = descendants(process.pid)
        assert len(family) >= 2
        process.kill()
        process.wait()
        wait_until(lambda: not any(is_running(pid) for pid in family), seconds=30, what="the end of all processes")
