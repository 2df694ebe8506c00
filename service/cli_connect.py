"""How the command line finds its service, and reads a study from a file."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

from mutransfer.errors import SpecError

if TYPE_CHECKING:
    from service.client import Client

URL_HELP = "Address of the service. Default: the `mutransfer up` that runs here (of MUTRANSFER_HOME or ~/.mutransfer)."


def find_url(url: str | None) -> str:
    """`url` if given, else the running embedded service. Raises SpecError when there is neither."""
    from service.runtime import default_home, read_runtime

    found = url or read_runtime(default_home()).get("url")
    if not found:
        raise SpecError.at("--url", "no service runs here: start one with `mutransfer up`, or give its address")
    return str(found).rstrip("/")


def find_token(url: str) -> str | None:
    """The token for `url`: MUTRANSFER_TOKEN, or that of the home whose service answers there; never sent elsewhere."""
    from service.runtime import TOKEN_FILE, default_home, read_runtime

    if token := os.environ.get("MUTRANSFER_TOKEN"):
        return token
    home = default_home()
    runtime = read_runtime(home)
    if runtime.get("url") == url and runtime.get("token"):
        return (home / TOKEN_FILE).read_text().strip()
    return None


def runs_here() -> bool:
    """Whether a service of this machine's home says that it runs."""
    from service.runtime import default_home, read_runtime

    return bool(read_runtime(default_home()).get("url"))


def connect(url: str | None) -> "Client":
    """A client of the service."""
    from service.client import Client

    found = find_url(url)
    return Client(found, token=find_token(found))


def load_study(path: Path) -> dict[str, Any]:
    """The document in a YAML or JSON file (`-`: standard input), local data paths made absolute.

    Raises SpecError when the file cannot be read as a mapping.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError.at(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    document = _parse(path, text)
    if not isinstance(document, dict):
        raise SpecError.at(str(path), f"a study is a mapping of fields, this is {type(document).__name__}")
    return absolute_paths(document, Path.cwd() if str(path) == "-" else path.absolute().parent)


def study_text(path: Path) -> str:
    """The study in a file as YAML to send, whatever its form was."""
    import yaml

    return yaml.safe_dump(load_study(path), sort_keys=False, allow_unicode=True)


def _parse(path: Path, text: str) -> Any:
    import yaml

    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise SpecError.at(str(path), f"not valid {'JSON' if path.suffix == '.json' else 'YAML'}: {error}") from None


def absolute_paths(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The study with local paths in `data` resolved against `folder`; whatever is malformed stays for the service."""
    data = document.get("data")
    if not isinstance(data, Mapping):
        return dict(document)
    resolved = dict(data)
    source, tokenizer = data.get("source"), data.get("tokenizer")
    if isinstance(source, str) and ":" in source:
        kind, _, path = source.partition(":")
        resolved["source"] = f"{kind}:{_absolute(path, folder)}"
    if isinstance(tokenizer, str) and tokenizer.endswith(".json"):
        resolved["tokenizer"] = _absolute(tokenizer, folder)
    return {**document, "data": resolved}


def _absolute(path: str, folder: Path) -> str:
    return str(folder / Path(path).expanduser()) if path else path
