"""The repository's own promises: examples parse, documents name what exists, layers hold, versions agree."""

from importlib.metadata import version
from pathlib import Path
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from mutransfer.spec import parse_study

TOP = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("deploy/**/*.md")])
STUDIES = sorted(TOP.glob("examples/*.yaml"))


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), flags=re.MULTILINE))


def test_there_are_examples_and_documents() -> None:
    assert {"quickstart.yaml", "standard.yaml", "own-model.yaml"} <= {path.name for path in STUDIES}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= {path.name for path in DOCUMENTS}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_example_is_a_study(path: Path) -> None:
    assert parse_study(yaml.safe_load(path.read_text())).name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_document_names_targets_that_exist(path: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", path.read_text(), flags=re.MULTILINE))
    assert named <= _targets()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_document_links_to_files_that_exist(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_studies_in_the_guides_parse() -> None:
    text = (TOP / "docs/guide/study-format.md").read_text() + (TOP / "README.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL) if block.startswith("version")]
    assert len(blocks) == 2
    for block in blocks:
        parse_study(yaml.safe_load(block))


def test_every_target_is_described_by_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    described = set(re.findall(r"^  ([a-z-]+) ", shown, flags=re.MULTILINE))
    assert {"demo", "test", "check", "bench", "venv", "clean"} <= described <= _targets()


def test_import_directions_hold() -> None:
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=TOP, capture_output=True, text=True
    )
    assert lint.returncode == 0, lint.stdout


def test_versions_agree() -> None:
    declared = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
    newest = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (TOP / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert version("mutransfer") == declared
    assert newest[:1] in ([], [declared])


def test_compose_services_run_commands_that_exist() -> None:
    import typer.main

    from service.cli import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    compose = yaml.safe_load((TOP / "docker-compose.yml").read_text())
    ours = [s for s in compose["services"].values() if s["image"].startswith("mutransfer") and "entrypoint" not in s]
    assert len(ours) == 4
    assert {service["command"][0] for service in ours} <= known
