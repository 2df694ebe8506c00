"""What may go from the disk: `mutransfer gc`. Looks first, decides by rules that are pure, then removes.

Nothing that a study in progress needs is ever removed. A file that another study asks for at this very moment costs at
most the work since its checkpoint, never a result.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
import re
import shutil

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import retention
from service.db.retention import Standing
from service.db.session import Sessions, db_now, reading
from service.settings import Settings

FRESH_SECONDS = 3600.0  # what was touched since is left alone, whatever the database says
_KEY = re.compile(r"[0-9a-f]{16,64}")
_RUN = re.compile(r"#/experiments/(\w+)/runs/(\w+)")


class Kind(StrEnum):
    """What a file is."""

    CHECKPOINT = "checkpoint"
    SPOOL = "spool"
    DATA = "data"
    LOG = "log"
    ARTIFACT = "artifact"


class Use(StrEnum):
    """What a file is good for."""

    NONE = "none"  # nothing: goes at once
    PAST = "past"  # something that has ended: goes after the retention, or earlier for the budget
    PRESENT = "present"  # work in progress, or too young to tell: stays


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing on the disk: a file, or a folder that goes as a whole. `age_seconds`: since it was last of use."""

    kind: Kind
    path: Path
    size_bytes: int
    age_seconds: float
    use: Use
    why: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long the past is kept, and how much the disk may hold of it (None: as much as there is)."""

    retention_seconds: float
    budget_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes and what stays. `over_bytes`: by how much what must stay exceeds the budget."""

    removed: tuple[Item, ...]
    kept: tuple[Item, ...]
    over_bytes: int


def plan(items: Sequence[Item], policy: Policy) -> Plan:
    """Everything without use goes, then what is older than the retention, then the oldest until the budget holds."""

    def must_go(item: Item) -> bool:
        return item.use is Use.NONE or (item.use is Use.PAST and item.age_seconds > policy.retention_seconds)

    removed = [item for item in items if must_go(item)]
    kept = [item for item in items if not must_go(item)]
    if policy.budget_bytes is None:
        return Plan(removed=tuple(removed), kept=tuple(kept), over_bytes=0)
    over = sum(item.size_bytes for item in kept) - policy.budget_bytes
    for item in sorted(kept, key=lambda item: -item.age_seconds):
        if over > 0 and item.use is Use.PAST:
            removed.append(item)
            over -= item.size_bytes
    gone = {item.path for item in removed}
    return Plan(
        removed=tuple(removed), kept=tuple(item for item in kept if item.path not in gone), over_bytes=max(0, over)
    )


def survey(settings: Settings, sessions: Sessions, *, artifacts: bool) -> list[Item]:
    """Everything of ours on the disk with its use. `artifacts`: those of the MLflow that `up` runs as well."""
    with reading(sessions) as session:
        now = float(session.scalar(select(db_now())) or 0.0)
        return [
            *_checkpoints(session, settings.storage, now),
            *_spooled(session, settings.storage / "spool", now),
            *_data(session, settings.storage / "data", now),
            *_logs(session, settings.home / "logs", now),
            *(_artifacts(session, settings.home / "mlflow" / "artifacts", now) if artifacts else ()),
        ]


def remove(items: Iterable[Item]) -> int:
    """Remove each item; returns the bytes that came free. What is gone already is no error."""
    freed = 0
    for item in items:
        if item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
        if not item.path.exists():
            freed += item.size_bytes
    return freed


def _checkpoints(session: Session, storage: Path, now: float) -> Iterator[Item]:
    folders = [path for path in _entries(storage) if _KEY.fullmatch(path.name) and path.is_dir()]
    standing = retention.standings(session, [path.name for path in folders])
    for path in folders:
        use, why = {
            Standing.DONE: (Use.NONE, "the trial's result is stored"),
            Standing.ACTIVE: (Use.PRESENT, "a study in progress needs it"),
            Standing.IDLE: (Use.PAST, "every study that asked for the trial has ended"),
            Standing.UNKNOWN: (Use.PAST, "no trial of this database"),
        }[standing[path.name]]
        yield from _items(Kind.CHECKPOINT, path, use, why, now)


def _spooled(session: Session, spool: Path, now: float) -> Iterator[Item]:
    files = [path for folder in _entries(spool) for path in _entries(folder)]
    standing = retention.standings(session, {path.stem for path in files})
    for path in files:
        if standing[path.stem] is Standing.DONE:
            yield from _items(Kind.SPOOL, path, Use.NONE, "the trial's result is stored", now)
        else:  # a result, and nowhere else: it stays until the database has it
            yield from _items(Kind.SPOOL, path, Use.PRESENT, "a result that the database does not have", now)


def _data(session: Session, folder: Path, now: float) -> Iterator[Item]:
    used = retention.data_used_at(session)
    for path in _entries(folder):
        if path.name in used and used[path.name] is None:
            yield from _items(Kind.DATA, path, Use.PRESENT, "a study in progress reads it", now)
            continue
        ended = used.get(path.name) or 0.0
        why = "every study on it has ended" if ended else "no study has used it"
        yield from _items(Kind.DATA, path, Use.PAST, why, now, needed_until=ended)


def _logs(session: Session, folder: Path, now: float) -> Iterator[Item]:
    files = [path for path in _entries(folder) if path.name.startswith("st_")]
    ended = retention.ended_at(session, [path.name.partition(".")[0] for path in files])
    for path in files:
        at = ended.get(path.name.partition(".")[0], 0.0)
        use, why = (Use.PRESENT, "the study goes on") if at is None else (Use.PAST, "the study has ended")
        yield from _items(Kind.LOG, path, use, why, now, needed_until=at or 0.0)


def _artifacts(session: Session, folder: Path, now: float) -> Iterator[Item]:
    urls = retention.run_urls(session)
    ended = retention.ended_at(session, urls)
    for study_id, url in urls.items():
        if not (found := _RUN.search(url)) or not (path := folder / found[1] / found[2]).is_dir():
            continue
        why = "the study has ended; `mutransfer report` writes it anew"
        yield from _items(Kind.ARTIFACT, path, Use.PAST, why, now, needed_until=ended[study_id] or now)


def _items(kind: Kind, path: Path, use: Use, why: str, now: float, *, needed_until: float = 0.0) -> Iterator[Item]:
    """The item at `path`, nothing when it has gone meanwhile. `needed_until` and `now` by the database's clock."""
    with suppress(FileNotFoundError):  # a worker has written its result, or its next checkpoint
        stats = [file.stat() for file in _files(path)]
        touched = max((stat.st_mtime for stat in stats), default=path.stat().st_mtime)
        age = now - max(touched, needed_until)
        if age < FRESH_SECONDS and use is Use.PAST:
            use, why = Use.PRESENT, "of use within the last hour"
        size = sum(stat.st_size for stat in stats)
        yield Item(kind=kind, path=path, size_bytes=size, age_seconds=age, use=use, why=why)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(path: Path) -> Iterator[Path]:
    yield from (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)


def totals(items: Iterable[Item]) -> Mapping[str, tuple[int, int]]:
    """(how many, bytes) of each kind."""
    found: dict[str, tuple[int, int]] = {}
    for item in items:
        count, size = found.get(item.kind, (0, 0))
        found[item.kind] = (count + 1, size + item.size_bytes)
    return found
