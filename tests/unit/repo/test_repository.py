"""The repository's own promises: examples parse, documents name what exists, layers hold, versions agree."""

from importlib.metadata import version
from pathlib import Path
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from mutransfer.algorithms import OPTIONS
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec, parse_study
from service.settings import Settings

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


def _field_names(schema: dict[str, Any]) -> set[str]:
    """Names of all fields of a JSON Schema and of the definitions it carries."""
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}


def test_guides_name_every_field_and_setting() -> None:
    study, result, operations = (
        set(re.findall(r"\w+", (TOP / "docs/guide" / name).read_text()))
        for name in ("study-format.md", "result-format.md", "operations.md")
    )
    options = {name for kind in OPTIONS.values() for name in kind.model_fields}
    assert _field_names(StudySpec.model_json_schema()) | options <= study
    assert _field_names(StudyResult.model_json_schema()) <= result
    # Where the process was started is no setting of the operator's; launchers are one so far.
    settings = {f"MUTRANSFER_{name.upper()}" for name in Settings.model_fields} - {
        "MUTRANSFER_WORKING_DIR", "MUTRANSFER_LAUNCHER",
    }  # fmt: skip
    assert settings <= operations


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
