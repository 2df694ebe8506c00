"""The files of deployment: what they name is there, every entry point starts, becomes healthy and ends when told to.

There is no container engine here: the commands, probes and environments are taken from the files and run as processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import click
import httpx
import pytest
import typer.main
import yaml

from service.cli import app, load_extensions
from service.ports import free_port
from service.processes import Child, end_all
from service.settings import Settings
from tests import deployed
from tests.deployed import TOP, Role
from tests.integration.ops.conftest import stub_study, wait_until
from tests.postgres_server import PostgresServer, database_factory, drop_databases

SECRETS = {"POSTGRES_PASSWORD": "p", "MUTRANSFER_TOKEN": "deployed-token-of-the-test", "RAY_AUTH_TOKEN": "r" * 32}
ROLES = ("controller", "dispatcher", "scheduler", "exporter")
GRACE_SECONDS = 30.0  # stop_grace_period


def cli(name: str) -> click.Command:
    """The command group behind a program."""
    if name == "mutransfer":
        load_extensions()
        return typer.main.get_command(app)
    from ray.scripts.scripts import cli as ray_cli

    return ray_cli


@cache
def mlflow_options() -> set[str]:
    """What `mlflow server` takes; asked of a process, since its import upsets the mappers of ours."""
    command = [sys.executable, "-m", "mlflow", "server", "--help"]
    return set(re.findall(r"--[\w-]+", subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def parsed(program: str, arguments: tuple[str, ...]) -> click.Context:
    """The command that `arguments` name, its options checked; nothing is run. Raises click's UsageError."""
    command, rest = cli(program), list(arguments)
    while hasattr(command, "commands"):
        name, *rest = rest
        assert name in command.commands, f"{program} has no command {name}"
        command = command.commands[name]
    return command.make_context(program, rest)


@pytest.mark.parametrize("command", sorted(deployed.commands()), ids=" ".join)
def test_every_command_is_one_that_its_program_takes(command: tuple[str, ...]) -> None:
    program, *arguments = command
    if program == "python":
        assert arguments[0] == "-c"
        compile(arguments[1], deployed.commands()[command], "exec")
    elif program == "mlflow":
        assert {name.partition("=")[0] for name in arguments[1:]} <= mlflow_options()
    elif program != "pg_isready":  # in the image of postgres, not one of ours
        with parsed(program, tuple(arguments)):
            pass


def test_a_command_that_is_not_there_is_found() -> None:
    with pytest.raises(AssertionError, match="no command dispatch"):
        parsed("mutransfer", ("dispatch",))
    for program, *arguments in (
        ("mutransfer", "gc", "--age=3"),
        ("ray", "start", "--hed"),
    ):
        with pytest.raises(Exception, match=r"(?i)no such option"):
            parsed(program, tuple(arguments))


def test_kuberay_starts_nodes_with_options_that_ray_has() -> None:
    (cluster,) = yaml.safe_load_all((TOP / "deploy/kubernetes/ray.yaml").read_text())
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        parsed("ray", ("start", *(f"--{name}={value}" for name, value in group["rayStartParams"].items())))
    declared = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]["worker"]
    assert any(cluster["spec"]["rayVersion"].removesuffix(".0") in requirement for requirement in declared)


def test_every_setting_that_the_files_give_is_one() -> None:
    files = [TOP / "docker-compose.yml", TOP / "deploy/env.example", *deployed.MANIFESTS, *deployed.DOCKERFILES]
    known = {f"MUTRANSFER_{name.upper()}" for name in Settings.model_fields}
    for path in files:
        assert set(re.findall(r"MUTRANSFER_[A-Z_]+", path.read_text())) <= known, path.name


def test_images_run_as_nobody_in_particular_and_install_what_there_is() -> None:
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in deployed.DOCKERFILES:
        assert deployed.dockerfile(path)["USER"] == ["10001"]
        assert set(re.findall(r"\$\{wheel\}\[(\w+)\]", path.read_text())) <= set(extras)
    pods = [
        pod for path in deployed.MANIFESTS for d in yaml.safe_load_all(path.read_text()) for pod in deployed._pods(d)
    ]
    assert len(pods) > 8
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The services of the compose file as processes of this machine."""

    folder: Path
    database_url: str
    ports: dict[str, str]  # those of the file → those here
    roles: dict[str, Role]

    def environment(self, name: str) -> dict[str, str]:
        """What a container of this service would see, addresses and folders moved."""
        given = {
            key: self.moved(deployed.substituted(str(value), SECRETS))
            for key, value in self.roles[name].environment.items()
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MUTRANSFER_", "RAY_"))}
        ours = {"MUTRANSFER_HOME": str(self.folder), "MUTRANSFER_EMBEDDED": "false", "PYTHONPATH": str(TOP)}
        moved = {"MUTRANSFER_DATABASE_URL": self.database_url, "MUTRANSFER_PORT": self.ports["8400"]}
        return kept | ours | given | {key: value for key, value in moved.items() if name != "mlflow"}

    def moved(self, text: str) -> str:
        """An argument with this machine's ports and folders."""
        for there, here in self.ports.items():
            text = re.sub(rf"(?<!\d){there}(?!\d)", here, text)
        return text.replace("/var/lib/mutransfer", str(self.folder)).replace("http://mlflow:", "http://127.0.0.1:")

    def argv(self, command: tuple[str, ...]) -> list[str]:
        """A command of the files as one of this machine."""
        program = {
            "mutransfer": [sys.executable, "-m", "service.cli"], "mlflow": [sys.executable, "-m", "mlflow"],
            "python": [sys.executable],
        }[command[0]]  # fmt: skip
        return [*program, *map(self.moved, command[1:])]

    def probe(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the health check of a service: its own, or its image's."""
        image = TOP / "deploy" / f"{self.roles[name].image.removeprefix('mutransfer-')}.Dockerfile"
        command = (*self.roles[name].probes, tuple(deployed.dockerfile(image)["HEALTHCHECK"]))[0]
        return subprocess.run(self.argv(command), env=self.environment(name), capture_output=True, text=True, cwd=TOP)


@pytest.fixture(scope="module")
def deployment(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    created: list[str] = []
    yield Deployment(
        folder=tmp_path_factory.mktemp("deployed"), database_url=database_factory(postgres_server, created)(),
        ports={"8400": str(free_port()), "5000": str(free_port())}, roles=deployed.compose(),
    )  # fmt: skip
    drop_databases(postgres_server, created)


@pytest.mark.postgres
def test_the_compose_file_runs_as_processes(deployment: Deployment) -> None:
    assert deployment.probe("exporter").returncode == 1, "no tables yet"
    roles = deployment.roles
    migrated = subprocess.run(
        deployment.argv(roles["migrate"].command), env=deployment.environment("migrate"), capture_output=True, text=True
    )
    assert migrated.returncode == 0, migrated.stderr
    children = {name: _start(deployment, name) for name in ("mlflow", *ROLES)}
    try:
        for name in children:
            wait_until(lambda name=name: deployment.probe(name).returncode == 0, seconds=120, what=name)  # type: ignore[misc]
        time.sleep(1.0)
        assert {name: child.poll() for name, child in children.items()} == dict.fromkeys(children)
        _look_from_outside(deployment)
    finally:
        end_all(list(children.values()), grace_seconds=GRACE_SECONDS)
    ended = {name: children[name].poll() for name in ROLES}
    # uvicorn shuts down in good order and then lets the signal end it, as shells expect.
    wanted = dict.fromkeys(ROLES, 0) | {"controller": -signal.SIGTERM}
    assert ended == wanted, {name: _log(deployment, name) for name in ROLES if ended[name] != wanted[name]}
    assert "Finished server process" in _log(deployment, "controller")


def _start(deployment: Deployment, name: str) -> Child:
    with (deployment.folder / f"{name}.log").open("wb") as log:
        return Child(deployment.argv(deployment.roles[name].command), env=deployment.environment(name), log=log)


def _log(deployment: Deployment, name: str) -> str:
    return (deployment.folder / f"{name}.log").read_text(errors="replace")[-2000:]


def _look_from_outside(deployment: Deployment) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{deployment.ports['8400']}", trust_env=False) as client:
        assert client.get("/api/v1/studies").status_code == 401
        token = {"Authorization": f"Bearer {SECRETS['MUTRANSFER_TOKEN']}"}
        assert client.get("/api/v1/studies", headers=token).json() == {"items": [], "next_cursor": None}
        assert client.get("/api/v1/studies", headers={**token, "Host": "evil.example"}).status_code == 403
        _metrics_exist(client.get("/metrics", headers=token).text)
    # MLflow's own checks: from the exporter's container it is called by the name of its service.
    port = deployment.ports["5000"]
    answers = {
        host: httpx.get(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1",
            headers={"Host": host},
            trust_env=False,
        ).status_code
        for host in (f"mlflow:{port}", "evil.example")
    }
    assert answers == {f"mlflow:{port}": 200, "evil.example": 403}


def _metrics_exist(exposed: str) -> None:
    """Every metric that a panel or an alert asks for is one that the controller gives."""
    known = set(re.findall(r"^(mutransfer_\w+?)(?:\{[^}]*\})? ", exposed, flags=re.MULTILINE)) | {"mutransfer_studies"}
    board = json.loads((TOP / "deploy/grafana/mutransfer.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    alerts = yaml.safe_load((TOP / "deploy/prometheus/alerts.yml").read_text())
    asked += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    assert {name for expression in asked for name in re.findall(r"mutransfer_\w+", expression)} <= known
    scraped = yaml.safe_load((TOP / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert (scraped["metrics_path"], scraped["static_configs"][0]["targets"]) == ("/metrics", ["controller:8400"])


SHIM = """\
#!/bin/sh
if [ "$1" = up ]; then shift; set -- up --no-mlflow --driver tests.integration.ops.stub_driver "$@"; fi
exec {python} -m service.cli "$@"
"""


def test_the_slurm_job_runs_a_study_and_is_resumable(tmp_path: Path) -> None:
    """Under bash in place of slurmd, on the stub driver; the second submission reuses every trial."""
    shim = tmp_path / ".venv/bin/mutransfer"
    shim.parent.mkdir(parents=True)
    shim.write_text(SHIM.format(python=sys.executable))
    shim.chmod(0o755)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(stub_study("ok slurm").model_dump(mode="json")))
    env = {key: value for key, value in os.environ.items() if not key.startswith("MUTRANSFER_")}
    env |= {"SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(tmp_path), "PYTHONPATH": str(TOP)}
    script = shutil.copy(TOP / "deploy/slurm/study.sbatch", tmp_path / "spooled-by-slurmd")
    for run in (1, 2):
        done = subprocess.run(["bash", script, "study.yaml"], env=env, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "result study.yaml.result.json" in done.stdout
        cost = json.loads((tmp_path / "study.yaml.result.json").read_text())["cost"]
        assert (cost["reused"] == cost["trials"]) == (run == 2)
    assert (tmp_path / ".mutransfer/token").exists(), "others share the node"
