"""The command line: what it prints where, and its exit status. In process where that is enough."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result
import yaml

from mutransfer.result import StudyResult
from mutransfer.spec import parse_study
from service.cli import app
from service.client import Client
from service.export.verify import compare
from tests.e2e.samples import ARMS
from tests.integration.ops.conftest import REPOSITORY, spawned, stub_study, wait_until
from tests.integration.ops.test_ops_up import running_up


def run(*arguments: str, url: str | None = None, stdin: str | None = None) -> Result:
    where = ["--url", url] if url else []
    return CliRunner().invoke(app, [*arguments, *where], input=stdin)


def write_study(folder: Path, name: str, **changes: object) -> Path:
    path = folder / f"{name.replace(' ', '-')}.yaml"
    path.write_text(yaml.safe_dump(stub_study(name, **changes).model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service on the stub driver."""
    home = tmp_path_factory.mktemp("home")
    with running_up(home, "--no-mlflow", "--max-studies", "2") as (_, address):
        yield address


@pytest.fixture(autouse=True)
def nobody_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service of the developer's is found by accident."""
    monkeypatch.setenv("MUTRANSFER_HOME", str(tmp_path / "nobody"))


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    """What takes time is imports; their list is the same on a busy machine, a stop-watch's reading is not."""
    code = """
import sys
from typer.testing import CliRunner
from service import cli
cli.load_extensions()
print(CliRunner().invoke(cli.app, ["--help"]).stdout)
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    shown, _, imported = done.stdout.partition("imported:")
    heavy = {"pydantic", "numpy", "yaml", "httpx", "sqlalchemy", "fastapi", "mlflow", "torch", "ray", "structlog"}
    assert heavy & set(imported.split()) == set()
    for command in (
        "run",
        "submit",
        "watch",
        "list",
        "show",
        "cancel",
        "recipe",
        "judge",
        "plan",
        "verify",
        "up",
        "db",
    ):
        assert f" {command} " in shown


def test_run_prints_the_verdict_and_writes_a_report(url: str, tmp_path: Path) -> None:
    done = run("run", str(write_study(tmp_path, "ok table")), "--report", str(tmp_path / "report"), url=url)
    assert done.exit_code == 0, done.stderr
    assert "adamw-sp" in done.stdout
    assert "drifts" in done.stdout
    known, _, address = done.stderr.splitlines()[:3]
    assert "already known" in known
    assert f"{url}/studies/st_" in address, "the dashboard's address comes before any progress"
    assert "search" in done.stderr
    assert (tmp_path / "report" / "report.html").is_file()
    StudyResult.model_validate_json((tmp_path / "report" / "result.json").read_text())


def test_run_json_prints_one_document_and_nothing_else(url: str, tmp_path: Path) -> None:
    done = run("run", str(write_study(tmp_path, "ok json")), "--json", "--no-watch", url=url)
    assert done.exit_code == 0, done.stderr
    result = StudyResult.model_validate_json(done.stdout)
    assert result.study.state == "completed"
    with Client(url) as client:
        assert compare(client.result(result.study.id), result) == []
    again = run("run", str(tmp_path / "ok-json.yaml"), "--json", "--fresh", url=url)
    anew = StudyResult.model_validate_json(again.stdout)
    assert anew.study.id != result.study.id
    assert anew.cost.reused == 0


def test_a_failed_study_exits_1_with_the_reason(url: str, tmp_path: Path) -> None:
    done = run("run", str(write_study(tmp_path, "crash now")), url=url)
    assert done.exit_code == 1
    assert "the stub was told to crash" in done.stderr


def test_cancel_ends_a_running_study_and_its_watcher_exits_1(url: str, tmp_path: Path) -> None:
    study_id = run("submit", str(write_study(tmp_path, "hang here")), url=url).stdout.strip()
    assert study_id.startswith("st_")
    with Client(url) as client:
        wait_until(lambda: client.get(study_id).state == "running", seconds=120)
        assert run("cancel", study_id, url=url).stdout == f"{study_id} is cancelling\n"
        done = run("watch", study_id, url=url)
        assert done.exit_code == 1
        assert "cancelled" in done.stderr
    assert run("cancel", study_id, url=url).stdout == f"{study_id} is cancelled\n"


def test_ctrl_c_leaves_the_study_running_and_says_how_to_come_back(url: str, tmp_path: Path) -> None:
    file = write_study(tmp_path, "hang on")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with spawned("run", str(file), "--url", url, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        next(line for line in lines if line.startswith("running"))
        process.send_signal(signal.SIGINT)
        said = "".join(lines)
        assert process.wait(timeout=30) == 130
    with Client(url) as client:
        study = client.list(limit=1).items[0]
        assert study.state == "running"
        assert f"mutransfer watch {study.id} --url {url}" in said
        assert f"mutransfer cancel {study.id}" in said
        client.cancel(study.id)
        wait_until(lambda: client.get(study.id).state == "cancelled", seconds=60)


def test_bad_input_names_each_field_and_exits_2(url: str, tmp_path: Path) -> None:
    document = stub_study("ok").model_dump(mode="json")
    document["arms"][0]["optimizer"] = "adam"
    document["widths"]["targets"] = [8]
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(document))
    with Client(url) as client:
        before = len(client.list(limit=200).items)
        done = run("run", str(tmp_path / "bad.yaml"), url=url)
        assert done.exit_code == 2
        assert done.stdout == ""
        fields = [line.partition(": ")[0] for line in done.stderr.splitlines()]
        assert fields == ["widths.targets", "arms.0.optimizer"]
        assert len(client.list(limit=200).items) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1", "not valid YAML"), ("- 1", "a study is a mapping"), (b"\xff\xfe", "cannot be read")],
)
def test_files_that_are_no_study_are_refused(url: str, tmp_path: Path, text: str | bytes, said: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = run("run", str(file), url=url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_missing_file_and_a_missing_service_are_said(tmp_path: Path) -> None:
    done = run("run", str(tmp_path / "none.yaml"), url="http://127.0.0.1:1")
    assert done.exit_code == 2
    assert "No such file" in done.stderr
    assert run("list").exit_code == 2
    assert "mutransfer up" in run("list").stderr


def test_unknown_studies_exit_2(url: str) -> None:
    done = run("show", "st_01ARZ3NDEKTSV4RRFFQ69G5FAV", url=url)
    assert (done.exit_code, done.stderr) == (2, "error: no study st_01ARZ3NDEKTSV4RRFFQ69G5FAV\n")


def test_data_paths_are_relative_to_the_study_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("some text")
    file = write_study(tmp_path, "ok paths", data={"source": "text:corpus.txt"})
    service_roots = run(
        "submit", str(file), url=url
    )  # pytest's folder is outside the roots: the refusal shows the path
    assert service_roots.exit_code == 2
    assert f"data.source: {tmp_path}/corpus.txt is outside the folders" in service_roots.stderr


def test_list_and_show_speak_json_and_text(url: str, tmp_path: Path) -> None:
    study_id = run("submit", str(write_study(tmp_path, "ok listed", project="listing")), url=url).stdout.strip()
    run("watch", study_id, url=url)
    assert study_id in run("list", "--project", "listing", url=url).stdout
    page = json.loads(run("list", "--project", "listing", "--json", url=url).stdout)
    assert [study["id"] for study in page["items"]] == [study_id]
    assert json.loads(run("show", study_id, "--json", url=url).stdout)["study"]["state"] == "completed"
    assert "drifts" in run("show", study_id, url=url).stdout


def test_plan_needs_no_service_and_adds_up(tmp_path: Path) -> None:
    file = write_study(tmp_path, "ok planned")
    document = json.loads(run("plan", str(file), "--json").stdout)
    expected = sum(curve["arms"] * curve["trials_expected"] for curve in document["curves"])
    assert document["trials_expected"] == expected
    assert f" {expected} " in run("plan", str(file)).stdout
    (tmp_path / "bad.yaml").write_text("version: 1\nname: x\n")
    done = run("plan", str(tmp_path / "bad.yaml"))
    assert done.exit_code == 2
    assert "model: Field required" in done.stderr


def test_schemas_describe_what_is_read_and_written(tmp_path: Path) -> None:
    study = json.loads(run("schema", "study").stdout)
    assert set(study["required"]) == {"name", "model", "train", "widths", "arms"}
    result = json.loads(run("schema", "result").stdout)
    assert set(result["properties"]) >= {"version", "study", "arms", "cost"}
    parse_study(yaml.safe_load(write_study(tmp_path, "ok").read_text()))


def sweeps() -> str:
    """Two arms at widths 64 and 256: μP stays, SP moves two octaves."""
    lines = ["arm,width,lr,seed,loss"]
    for arm in ("adamw-mup", "adamw-sp"):
        for width in (64, 256):
            bowl = ARMS[arm][width]
            for step in range(-20, -3):
                for seed in (0, 1):
                    loss = bowl.loss(step / 2, seed)
                    lines.append(f"{arm},{width},{2.0 ** (step / 2)!r},{seed},{'nan' if loss is None else loss}")
    return "\n".join(lines) + "\n"


def test_judge_judges_sweeps_run_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    file.write_text(sweeps())
    result = StudyResult.model_validate_json(run("judge", str(file), "--json").stdout)
    assert {arm.name: arm.verdict.outcome.value for arm in result.arms}["adamw-sp"] == "drifts"
    assert "drifts" in run("judge", str(file)).stdout
    file.write_text(sweeps().replace("adamw-mup,64", "adamw-mup,wide", 1))
    done = run("judge", str(file))
    assert done.exit_code == 2
    assert "line 2" in done.stderr


def test_extensions_that_are_not_installed_are_left_out_and_others_join(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from service import cli

    found = [
        EntryPoint(name="absent", value="no_such_module_here:register", group="mutransfer.commands"),
        EntryPoint(name="joined", value=f"{__name__}:register_extra", group="mutransfer.commands"),
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: found)
    before = list(app.registered_commands)
    try:
        cli.load_extensions()
        assert run("extra").stdout == "joined\n"
    finally:
        app.registered_commands[:] = before


def register_extra(target: object) -> None:
    """An extension's entry point."""
    assert target is app
    app.command("extra")(lambda: print("joined"))  # noqa: T201


def test_a_study_is_paused_resumed_cancelled_and_retried(url: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, "hang actions")
    study_id = run("submit", str(path), "--priority", "7", url=url).stdout.strip()
    with Client(url) as client:
        assert client.get(study_id).priority == 7
        wait_until(lambda: client.get(study_id).state == "running")
        assert run("pause", study_id, url=url).stdout == f"{study_id} is pausing\n"
        wait_until(lambda: client.get(study_id).state == "paused")
        assert run("resume", study_id, url=url).stdout == f"{study_id} is queued\n"
        wait_until(lambda: client.get(study_id).state == "running")
        assert run("priority", study_id, url=url).exit_code == 2
        assert run("priority", study_id, "9", url=url).stdout.endswith(", priority 9\n")
        assert run("cancel", study_id, url=url).stdout == f"{study_id} is cancelling\n"
        wait_until(lambda: client.get(study_id).state == "cancelled")
        late = run("pause", study_id, url=url)
        assert (late.exit_code, late.stdout) == (2, "")
        assert "cancelled" in late.stderr
        assert run("retry", study_id, url=url).stdout == f"{study_id} is queued\n"
        run("cancel", study_id, url=url)
        wait_until(lambda: client.get(study_id).state == "cancelled")


def test_a_study_is_extended_and_cloned(url: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, "ok actions")
    study_id = run("submit", str(path), url=url).stdout.strip()
    with Client(url) as client:
        assert client.wait(study_id).state == "completed"
        before = client.get(study_id)
        assert run("extend", study_id, "--targets", "128", "--seeds", "2", url=url).exit_code == 0
        after = client.wait(study_id)
        assert (after.state, after.revision) == ("completed", 2)
        assert after.spec.widths.targets == (64, 128)
        assert after.spec.search.seeds.max == 2
        assert after.trials_done > before.trials_done
        assert {c.width for arm in client.result(study_id).arms for c in arm.curves} == {16, 64, 128}
        refused = run("extend", study_id, "--set", "train.steps=10", "--targets", "a", url=url)
        assert refused.exit_code == 2
        assert "--targets: 'a' is no list" in refused.stderr
        refused = run("extend", study_id, "--set", "train.steps=10", url=url)
        assert "train.steps: an extension adds" in refused.stderr
        changes = tmp_path / "changes.yaml"
        changes.write_text("name: ok clone\nsearch: {seeds: {max: 3}}\n")
        cloned = run("clone", study_id, "--changes", str(changes), "--set", "search.seeds.max=4", url=url)
        clone = client.wait(cloned.stdout.strip())
        assert (clone.name, clone.spec.search.seeds.max, clone.state) == ("ok clone", 4, "completed")
        assert clone.device_seconds == 0.0, "every trial was reused"
    planned = run("plan", str(path), url=url)
    assert " trials already known: no study has run on these data" in planned.stdout, "the stub records no facts"
    assert json.loads(run("plan", str(path), "--json", url=url).stdout)["reuse"]["trials_known"] == 0
    assert "already known" in run("submit", str(path), "--fresh", url=url).stderr
