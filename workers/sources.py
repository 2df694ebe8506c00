"""Where text comes from: the standard library, text files, parquet, JSON lines. Read in a fixed order, in pieces.

Every source yields pieces of text whose concatenation is the text; documents of a table end with a newline. Faults are
SpecErrors that name `data.source` and what to change.
"""

from collections.abc import Iterator
import json
from pathlib import Path
import sysconfig

import pyarrow as pa
import pyarrow.parquet as pq

from mutransfer.errors import SpecError
from mutransfer.spec import DataSpec

FIELD = "data.source"

#: Most text that `stdlib` reads, in bytes: all of it today (about 12 MB), and a bound for the day it grows.
STDLIB_CAP_BYTES = 20_000_000
#: Text files are cut into pieces of about this many bytes, at a line's end, to bound memory.
PIECE_BYTES = 4 << 20

_STDLIB_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


def pieces(data: DataSpec) -> Iterator[str]:
    """The text of any source but `bin`, piece by piece. Raises SpecError."""
    if data.kind == "stdlib":
        return _stdlib()
    path = source_path(data)
    if data.kind == "text":
        return (piece for file in _files(path, "") for piece in _text(file))
    if data.kind == "jsonl":
        return (piece for file in _files(path, ".jsonl") for piece in _jsonl(file, data.column))
    return (piece for file in _files(path, ".parquet") for piece in _parquet(file, data.column))


def source_path(data: DataSpec) -> Path:
    """The path that a source names. Raises SpecError when nothing is there."""
    path = Path(data.path or "").expanduser()
    try:
        path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return path


def _unreadable(path: Path, error: OSError) -> SpecError:
    return SpecError.at(FIELD, f"cannot read {path}: {error.strerror or error}; give a path that the worker can read")


def stdlib_files(root: Path) -> list[Path]:
    """Sources of the standard library under `root`, sorted, without tests, installed packages and build records."""
    found = []
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).parts
        # _sysconfigdata*.py records the build machine: the same Python would have two fingerprints.
        if _STDLIB_LEFT_OUT.isdisjoint(parts) and not file.name.startswith("_sysconfigdata"):
            found.append((parts, file))
    return [file for _, file in sorted(found)]


def _stdlib() -> Iterator[str]:
    left = STDLIB_CAP_BYTES
    for file in stdlib_files(Path(sysconfig.get_path("stdlib"))):
        content = file.read_bytes()[:left]
        left -= len(content)
        yield content.decode("utf-8", "replace")
        if left <= 0:
            return


def _files(path: Path, suffix: str) -> Iterator[Path]:
    """`path` itself, or the files in that folder, at any depth, that end in `suffix`: sorted, hidden ones left out."""
    if not path.is_dir():
        yield path
        return
    root = path.resolve()
    inside = sorted(file for file in path.rglob(f"*{suffix}") if file.is_file())
    visible = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not visible:
        raise SpecError.at(FIELD, f"the folder {path} holds no {suffix or 'text'} files")
    for file in visible:
        # The operator allows folders, not what links in them point to.
        if not file.resolve().is_relative_to(root):
            raise SpecError.at(FIELD, f"{file} links out of the folder {path}: copy the file into it")
        yield file


def _text(file: Path) -> Iterator[str]:
    try:
        with file.open("rb") as stream:
            while lines := stream.readlines(PIECE_BYTES):
                yield _decode(file, b"".join(lines))
    except OSError as error:
        raise _unreadable(file, error) from error


def _decode(file: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError.at(FIELD, f"{file} is not UTF-8 text ({error.reason}): convert it, or leave it out") from error
    if "\0" in text:
        raise SpecError.at(FIELD, f"{file} is binary (it holds NUL characters): give text, or use bin:PATH for tokens")
    return text


def _jsonl(file: Path, column: str) -> Iterator[str]:
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _json_text(f"{file}, line {number}", line, column)
    except OSError as error:
        raise _unreadable(file, error) from error


def _json_text(place: str, line: bytes, column: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SpecError.at(FIELD, f"{place} is not JSON: {error}") from error
    if not isinstance(record, dict) or column not in record:
        keys = ", ".join(sorted(record)) if isinstance(record, dict) else f"a {type(record).__name__}"
        raise SpecError.at(FIELD, f"{place} has no column {column!r} (it has {keys}): name one as jsonl:PATH#COLUMN")
    if not isinstance(record[column], str):
        raise SpecError.at(FIELD, f"{place}: column {column!r} holds no text but a {type(record[column]).__name__}")
    # JSON may spell half a surrogate pair, which is no character.
    return str(record[column]).encode("utf-8", "replace").decode("utf-8") + "\n"


def _parquet(file: Path, column: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(file) as table:
            _check_column(file, table.schema_arrow, column)
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                # Missing values hold no text; crawls are full of them.
                yield "".join(f"{text}\n" for text in batch.column(0).to_pylist() if text is not None)
    except OSError as error:
        raise _unreadable(file, error) from error
    except pa.ArrowInvalid as error:
        raise SpecError.at(FIELD, f"{file} is no parquet file: {error}") from error


def _check_column(file: Path, schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        known = ", ".join(schema.names)
        raise SpecError.at(FIELD, f"{file} has no column {column!r} (it has {known}): name one as parquet:PATH#COLUMN")
    kind = schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise SpecError.at(FIELD, f"{file}: column {column!r} holds no text but {kind}")
