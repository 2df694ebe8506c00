"""Files of a study by API, client, command line and notebook, from a study that a driver has finished."""

from collections.abc import Iterator
import csv
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from mutransfer.errors import ConflictError, NotFoundError
from service.cli import app
from service.client import Client
from service.settings import Settings
from tests.integration.api_fixtures import Api, finish_study, served, settings_in


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Settings:
    return settings_in(tmp_path_factory.mktemp("reports"), migrated_database)


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[Api]:
    with Api(settings) as made:
        yield made


@pytest.fixture(scope="module")
def study(api: Api) -> str:
    made = api.submit()
    finish_study(api.drive())
    return made


@pytest.fixture(scope="module")
def waiting(api: Api, study: str) -> str:
    return api.submit(name="waiting")


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[Client]:
    with served(api.app) as url, Client(url) as made:  # type: ignore[arg-type]
        yield made


def test_reports_in_every_form(api: Api, study: str) -> None:
    starts = {"html": b"<!doctype html>", "md": b"# small: ", "pdf": b"%PDF-"}
    for form, start in starts.items():
        answer = api.get(f"/api/v1/studies/{study}/report", params={"format": form})
        assert answer.status_code == 200
        assert answer.content.startswith(start)
        assert answer.headers["content-disposition"] == f'attachment; filename="{study}-report.{form}"'
        again = api.get(
            f"/api/v1/studies/{study}/report?format={form}", headers={"If-None-Match": answer.headers["etag"]}
        )
        assert again.status_code == 304
    assert api.get(f"/api/v1/studies/{study}/report?format=docx").status_code == 422
    assert api.get("/api/v1/studies/st_none/report").status_code == 404


def test_trials_and_fits_as_data(api: Api, client: Client, study: str) -> None:
    rows = list(csv.DictReader(StringIO(client.export(study).decode())))
    assert len(rows) == 44
    known = {(t.arm, t.axis_value, t.lr_octaves, t.seed): t for t in client.trials(study)}
    for row in rows:
        trial = known[row["arm"], int(row["width"]), float(row["lr_octaves"]), int(row["seed"])]
        assert float(row["loss_nats"]) == trial.loss_nats
        assert (row["status"], row["key"]) == (trial.status.value, trial.key)
    frame = client.frames(study).trials()
    assert len(frame) == 44
    assert list(frame.columns) == list(rows[0])
    assert list(frame["loss_nats"]) == [float(row["loss_nats"]) for row in rows]
    fits = client.frames(study).fits()
    assert len(fits) == 4
    by_arm = fits[fits["role"] == "target"].set_index("arm")["optimum_octaves"]
    assert by_arm["adamw-mup"] == pytest.approx(-5.5, abs=0.01)
    assert pd.isna(by_arm["adamw-sp"])  # its minimum lies two points from the end of the grid
    assert list(fits[fits["arm"] == "adamw-sp"]["status"]) == ["bracketed", "incomplete"]


def test_frames_of_a_study(client: Client, study: str) -> None:
    frames = client.frames(study)
    verdicts = frames.verdicts().set_index("arm")
    assert verdicts.loc["adamw-mup", "drift_octaves"] == pytest.approx(0.0, abs=0.01)
    assert pd.isna(verdicts.loc["adamw-sp", "drift_octaves"])
    assert dict(verdicts["outcome"]) == {"adamw-sp": "inconclusive", "adamw-mup": "transfers"}
    points = frames.points()
    assert len(points) == 44
    assert points.loc[points["loss_nats"].idxmin(), "lr_octaves"] == -5.5
    history = frames.history(arm="adamw-mup", width=64, lr_octaves=-5.5)
    assert set(history["seed"]) == {0}
    assert history["train_loss_nats"].notna().all()
    assert frames.history(arm="nobody").empty
    with pytest.raises(KeyError, match="no column 'size': choose among study"):
        frames.history(size=64)
    assert "lr" in frames.recipe(width=128).columns


def test_what_has_not_begun_has_empty_frames_and_no_charts(client: Client, waiting: str) -> None:
    frames = client.frames(waiting)
    assert frames.trials().empty
    assert list(frames.trials().columns)[:3] == ["study", "study_id", "arm"]
    assert isinstance(frames.points(), pd.DataFrame)
    with pytest.raises(ConflictError, match="nothing to draw yet"):
        client.figure(waiting, "optimal-lr")
    assert client.report(waiting, form="pdf").startswith(b"%PDF-")


def test_charts_as_images(client: Client, study: str) -> None:
    assert client.figure(study, "optimal-lr").startswith(b"<?xml")
    assert client.figure(study, "training", form="png", arm="adamw-mup", size=64).startswith(b"\x89PNG")
    assert client.figure(study, "loss-lr", theme="dark") != client.figure(study, "loss-lr")
    with pytest.raises(NotFoundError, match="no chart nothing: there are optimal-lr"):
        client.figure(study, "nothing")


def test_the_commands_write_files(client: Client, study: str, tmp_path: Path) -> None:
    run = CliRunner()

    def call(*words: str) -> str:
        found = run.invoke(app, [*words, "--url", client.url])
        assert found.exit_code == 0, found.output
        return found.stdout

    printed = call("report", study, "-o", str(tmp_path / "all")).splitlines()
    said = [line for line in printed if line.startswith(str(tmp_path))]  # beside the log of the service
    assert {Path(path).name for path in said} >= {"report.html", "report.md", "report.pdf", "result.json"}
    assert all(Path(path).stat().st_size > 100 for path in said)
    call("report", study, "-f", "pdf", "-f", "md", "-o", str(tmp_path / "some"))
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["report.md", "report.pdf"]
    call("export", study, "fits", "-f", "parquet", "-o", str(tmp_path / "fits.parquet"))
    assert len(pd.read_parquet(tmp_path / "fits.parquet")) == 4
    assert "study,study_id,arm,optimizer," in call("export", study, "-o", "-")
    call("export", study, "optimal-lr", "-f", "png", "-o", str(tmp_path / "a" / "chart.png"))
    assert (tmp_path / "a" / "chart.png").read_bytes().startswith(b"\x89PNG")
    wrong = run.invoke(app, ["export", study, "fits", "-f", "svg", "--url", client.url])
    assert wrong.exit_code == 2
    assert "fits cannot be written as svg: use csv or parquet" in wrong.stderr


def test_the_notebook_runs(
    client: Client, study: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient
    import nbformat

    notebook = nbformat.read(repository / "examples" / "results.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit the notebook without its outputs"
    monkeypatch.setenv("MUTRANSFER_URL", client.url)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    done = NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
    texts = " ".join(str(output["data"].get("text/plain", "")) for output in outputs if "data" in output)
    assert "small: 44 trials" in texts
    assert "transfers" in texts
    assert "-5.5" in texts
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
