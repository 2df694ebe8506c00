"""What is shipped: a wheel with all of its files, and a controller that needs neither torch nor ray."""

from pathlib import Path
import shutil
import subprocess
import sys
import zipfile

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGES = ("mutransfer", "models", "optimizers", "workers", "service", "migrations")
WORKER_ONLY = ("torch", "ray", "optuna", "pyarrow", "tokenizers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel built from a copy of the sources, so that no build output lands in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(TOP / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", out, source], check=True, timeout=120)
    (built,) = out.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_packages(wheel: set[str]) -> None:
    expected = {
        str(path.relative_to(TOP))
        for name in PACKAGES
        for path in (TOP / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"service/dashboard/templates/", "service/dashboard/static/"} <= {
        "/".join([*name.split("/")[:3], ""]) for name in expected
    }
    assert expected - wheel == set()


def test_the_wheel_holds_nothing_else(wheel: set[str]) -> None:
    foreign = {name for name in wheel if not name.startswith((*(f"{p}/" for p in PACKAGES), "mutransfer-"))}
    assert foreign == set()


def _without_worker_packages(code: str) -> str:
    """Run `code` in a Python that cannot import what only the worker extra installs."""
    blocked = f"import sys\nfor name in {WORKER_ONLY!r}:\n    sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked + code], cwd=TOP, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_works_without_worker_packages() -> None:
    code = "import sys\nsys.argv = ['mutransfer', '--help']\nfrom service.cli import main\nmain()"
    shown = _without_worker_packages(code)
    assert "judge" in shown
    assert "recipe" in shown


def test_the_controller_works_without_worker_packages(tmp_path: Path) -> None:
    code = f"""
from service.app import create_app
from service.settings import Settings
app = create_app(Settings(home={str(tmp_path)!r}).prepare_home())
loaded = [name for name in {WORKER_ONLY!r} if sys.modules.get(name) is not None]
print(len(app.openapi()["paths"]), loaded)
"""
    routes, loaded = _without_worker_packages(code).split(maxsplit=1)
    assert int(routes) >= 10
    assert loaded.strip() == "[]"
