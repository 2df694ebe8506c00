"""What a result depends on besides its TrialSpec: the data, the code that trains, torch, the kind of device."""

from collections.abc import Iterator, Sequence
import hashlib
import importlib.util
from pathlib import Path

import torch

import models
import mutransfer
from mutransfer.trial import Environment
import optimizers
import workers

#: Files beside models/ and optimizers/ that decide numbers of a trial.
_WORKER_FILES = ("data.py", "divergence.py", "schedule.py", "sources.py", "tokenizers.py", "train.py")
_KERNEL_FILES = (
    "arms.py",
    "model_spec.py",
    "spec.py",
    "trial.py",  # horizons, heads, overrides
    "algorithms.py",
    "architecture.py",
    "parametrize.py",
    "roles.py",
    "scaling.py",
    "updates.py",
)


def device_type() -> str:
    """`cuda` where trials find a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def environment(*, data_fingerprint: str, device: str, nonce: str = "", own: Sequence[str] = ()) -> Environment:
    """The environment of this process; `own` are models and optimizers of the user's, as `package.module:name`."""
    return Environment(
        data_fingerprint=data_fingerprint,
        code_digest=code_digest(own),
        torch_version=str(torch.__version__),
        device_type=device,
        nonce=nonce,
    )


def code_digest(own: Sequence[str] = ()) -> str:
    """32 hex digits over the source of everything that decides a trial's numbers, whole packages of `own` included."""
    content = hashlib.sha256()
    for name, path in _sources(own):
        content.update(f"{name}\0".encode())
        content.update(path.read_bytes())
        content.update(b"\0")
    return content.hexdigest()[:32]


def _sources(own: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for package in (models, optimizers):
        yield from _tree(package.__name__, _folder(package.__file__))
    for package, names in ((workers, _WORKER_FILES), (mutransfer, _KERNEL_FILES)):
        for name in names:
            yield f"{package.__name__}/{name}", _folder(package.__file__) / name
    for top in sorted({path.partition(":")[0].partition(".")[0] for path in own} - {"torch"}):
        yield from _own_sources(top)


def _own_sources(package: str) -> Iterator[tuple[str, Path]]:
    """The source of a top-level module or package, without importing it; nothing when it is not found."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return
    for folder in spec.submodule_search_locations or ():
        yield from _tree(package, Path(folder))
    if spec.submodule_search_locations is None and spec.origin is not None:
        yield package, Path(spec.origin)


def _tree(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        yield f"{name}/{path.relative_to(folder).as_posix()}", path


def _folder(file: str | None) -> Path:
    return Path(file or "").parent
