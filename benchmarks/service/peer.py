"""MLflow's REST API on this machine: runs a second, each created, given one batch of metrics and params, and ended."""

from pathlib import Path
import time

import httpx

from service.export.server import mlflow_command, mlflow_environment
from service.ports import free_port
from service.processes import Child, end_all

START_SECONDS = 120.0
RUNS = 100
METRICS = 30  # points, like a trial's training curve


def runs_per_second(home: Path, *, runs: int = RUNS) -> float:
    """One client, one after another, over a fresh server with its own SQLite: as `mutransfer up` starts it."""
    (home / "artifacts").mkdir(parents=True, exist_ok=True)
    port = free_port()
    with (home / "mlflow.log").open("wb") as log:
        server = Child(mlflow_command(home, host="127.0.0.1", port=port), env=mlflow_environment(), log=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30.0) as client:
            _wait(client)
            created = _post(client, "experiments/create", {"name": "bench"})
            _run(client, created["experiment_id"])  # the first builds what later ones find ready
            begun = time.perf_counter()
            for _ in range(runs):
                _run(client, created["experiment_id"])
            return runs / (time.perf_counter() - begun)
    finally:
        end_all([server], grace_seconds=5.0)


def _run(client: httpx.Client, experiment_id: str) -> None:
    now = int(time.time() * 1000)
    run = _post(client, "runs/create", {"experiment_id": experiment_id, "start_time": now})["run"]["info"]["run_id"]
    metrics = [{"key": "loss", "value": 3.0 - point / 30, "timestamp": now, "step": point} for point in range(METRICS)]
    params = [{"key": f"p{number}", "value": str(number)} for number in range(10)]
    _post(client, "runs/log-batch", {"run_id": run, "metrics": metrics, "params": params})
    _post(client, "runs/update", {"run_id": run, "status": "FINISHED", "end_time": now})


def _post(client: httpx.Client, path: str, body: dict[str, object]) -> dict[str, object]:
    answer = client.post(f"/api/2.0/mlflow/{path}", json=body)
    answer.raise_for_status()
    return dict(answer.json())


def _wait(client: httpx.Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if client.get("/health").status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise RuntimeError("MLflow did not start")
