"""The threat model points at code and tests that are there."""

from pathlib import Path
import re

TOP = Path(__file__).parents[3]
MODEL = (TOP / "docs" / "threat-model.md").read_text()
TESTS = "\n".join(f"{path.stem}\n{path.read_text()}" for path in (TOP / "tests").rglob("test_*.py"))
CODE = "\n".join(
    f"{path.name}\n{path.read_text()}" for part in ("service", "workers") for path in (TOP / part).rglob("*.py")
)


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(test_\w+)…?`", MODEL)
    assert len(named) > 20
    assert [name for name in named if name not in TESTS] == []


def test_every_file_and_function_that_is_named_exists() -> None:
    files = re.findall(r"`((?:service|workers|tests)/[\w/.]+)`", MODEL)
    assert len(files) > 10
    assert [name for name in files if not (TOP / name).exists()] == []
    short = re.findall(r"`(\w+)\.(py|\w+)`", MODEL)
    assert [name for name, end in short if f"{name}.py" not in CODE and f"class {name}" not in CODE] == []
    functions = [end for _, end in short if end != "py"]
    assert [name for name in functions if f"def {name}" not in CODE] == []
