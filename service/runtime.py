"""Where a running `mutransfer up` can be found: HOME/runtime.json, and the token in HOME/token when there is one.

Both files belong to their owner alone. The command line reads them, so that it needs no address and no password.
"""

from collections.abc import Mapping
import contextlib
import json
import os
from pathlib import Path
import secrets
from typing import Any

RUNTIME_FILE = "runtime.json"
TOKEN_FILE = "token"  # noqa: S105 - a file's name


def default_home() -> Path:
    """`MUTRANSFER_HOME` or `~/.mutransfer`."""
    return Path(os.environ.get("MUTRANSFER_HOME") or Path.home() / ".mutransfer").expanduser().absolute()


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read, in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(path=part, flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600), "w") as stream:
        stream.write(text)
    part.replace(path)


def ensure_token(home: Path) -> str:
    """The token of this home, made at first: 256 random bits."""
    path = home / TOKEN_FILE
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    path.chmod(0o600)
    return path.read_text().strip()


def write_runtime(home: Path, document: Mapping[str, Any]) -> None:
    """Say where the service of this home answers."""
    write_private(home / RUNTIME_FILE, json.dumps(document))


def read_runtime(home: Path) -> dict[str, Any]:
    """What a running `up` said of itself; empty when none does."""
    with contextlib.suppress(OSError, json.JSONDecodeError):
        document = json.loads((home / RUNTIME_FILE).read_text())
        if isinstance(document, dict):
            return document
    return {}


def forget_runtime(home: Path) -> None:
    """Remove what `write_runtime` wrote."""
    (home / RUNTIME_FILE).unlink(missing_ok=True)
