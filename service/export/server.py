"""How the embedded MLflow tracking server is started: one worker, no jobs, no telemetry, its own database."""

from collections.abc import Mapping
import os
from pathlib import Path
import sys

ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # with jobs it starts ten processes and takes 1.9 GB
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def mlflow_command(home: Path, *, host: str, port: int) -> tuple[str, ...]:
    """The command of a server that keeps everything under `home`, a folder that exists."""
    return (
        sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--artifacts-destination", str(home / "artifacts"),
    )  # fmt: skip


def mlflow_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The server's environment: ours without settings of ours or of an MLflow client."""
    inherited = os.environ if base is None else base
    kept = {name: value for name, value in inherited.items() if not name.startswith(("MUTRANSFER_", "MLFLOW_"))}
    return kept | ENVIRONMENT
