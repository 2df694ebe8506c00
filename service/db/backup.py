"""A backup is one SQLite file, whichever kind the database is: whole, checked, readable by its owner only.

It restores into an empty database of either kind. One of an older revision is brought up to date on the way, in a copy.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
import os
from pathlib import Path
import shutil
import sqlite3
import tempfile

from sqlalchemy import make_url

from mutransfer.errors import ConflictError, NotFoundError, SpecError
from service.db.copy import Copied, copy
from service.db.integrity import problems
from service.db.migrate import current, head, is_known, upgrade


def backup(url: str, file: Path) -> None:
    """Write the database at `url` into a new file. Safe while the service runs, on SQLite too.

    Raises ConflictError when the file exists, or the database is not at this version's revision.
    """
    if file.exists():
        raise ConflictError(f"{file} exists: give a new name, such as one with the date")
    if current(url) != head():
        raise ConflictError(f"the database is at revision {current(url)}, not {head()}: run `mutransfer db upgrade`")
    with _beside(file) as part:
        if make_url(url).get_backend_name() == "sqlite":
            _copy_file(_path(url), part)
        else:
            copy(url, f"sqlite:///{part}", live=True)
            _into_one_file(part)
        _require_whole(part)
        part.rename(file)


def restore(file: Path, url: str) -> Copied:
    """Fill the empty database at `url` from a backup.

    Raises NotFoundError without the file, SpecError when it is no backup or damaged, ConflictError when the database is
    not empty or the backup is of a newer version.
    """
    if not file.is_file():
        raise NotFoundError(f"no file {file}")
    with tempfile.TemporaryDirectory(prefix="mt-restore-", dir=file.absolute().parent) as folder:
        own = Path(folder) / "backup.db"
        shutil.copyfile(file, own)  # the backup itself is never written to
        _require_whole(own)
        revision = current(f"sqlite:///{own}")
        if revision is None:
            raise SpecError.at(str(file), "this is no backup of mutransfer")
        if not is_known(revision):
            raise ConflictError(
                f"the backup is at revision {revision}, which this version does not know: update it first"
            )
        upgrade(f"sqlite:///{own}")
        copied = copy(f"sqlite:///{own}", url, live=True)
    if wrong := problems(url):
        raise ConflictError(f"the restored database is not sound: {'; '.join(wrong[:5])}")
    return copied


def _path(url: str) -> Path:
    return Path(make_url(url).database or "")


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A new file for its owner only, in the same folder; gone unless it was renamed."""
    file.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield part
    finally:
        for left in (part, *(part.with_name(part.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
            left.unlink(missing_ok=True)


def _copy_file(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)
        writer.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file


def _into_one_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _require_whole(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = [said for (said,) in connection.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        raise SpecError.at(str(path), f"not a whole SQLite file: {error}") from None
    if found != ["ok"]:
        raise SpecError.at(str(path), f"the file is damaged: {found[0]}")
