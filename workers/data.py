"""Tokens on disk: prepared once, memory-mapped by every trial, read at random by (seed, step).

Layout of a cache: `<cache_dir>/<fingerprint>/{train.bin, heldout.bin, meta.json}`, appearing at once by a rename. The
fingerprint covers content, tokenizer and split rule, so that an edited file is another data set.

Split rule: the token stream is cut into blocks; of every ten, one (the sixth) is held out. Blocks are 65,536 tokens, or
a 200th of the stream where that is less (256 at least). So both parts run through all of the text, and no held-out
token is ever trained on. Where blocks of one part meet, text jumps: one window in many sees such a seam.

Shapes: B = sequences in a batch, T = context. Ids are int64 in batches, and as small as the vocabulary allows on disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path
import shutil
from typing import Any, BinaryIO, cast
import uuid

import numpy as np
from numpy.typing import NDArray

from mutransfer.base import canonical_json, digest
from mutransfer.errors import SpecError, TransientError
from mutransfer.spec import DataSpec
from workers.sources import FIELD, pieces, source_path
from workers.tokenizers import load_tokenizer

SPLIT_VERSION = 1
BLOCK_TOKENS = 65_536
MIN_BLOCK_TOKENS = 256
GROUP_BLOCKS = 10
HELDOUT_BLOCK = 5

#: Keeps the stream of data draws apart from every other use of the same seeds.
_DATA_STREAM = 0xDA7A

Tokens = NDArray[np.integer[Any]]
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class TokenData:
    """A prepared data set: two one-dimensional arrays of ids in `range(vocab)`."""

    vocab: int
    fingerprint: str
    train: Tokens
    heldout: Tokens

    def check(self, *, context: int) -> None:
        """Raises SpecError unless each part holds one window of `context` tokens and the token that follows it."""
        for name, part in (("training", self.train), ("held-out", self.heldout)):
            if len(part) < context + 1:
                raise SpecError.at(
                    FIELD,
                    f"the {name} part has {len(part)} tokens, too short for one window of model.context + 1 = "
                    f"{context + 1}: give more text or a smaller model.context",
                )

    def batch(self, step: int, seed: int, *, batch: int, context: int) -> Batch:
        """Inputs and next tokens (x_BT, y_BT) of one step: windows drawn at random, a function of (seed, step) only.

        Raises SpecError when the training part is shorter than one window.
        """
        self.check(context=context)
        sequence = np.random.SeedSequence([_DATA_STREAM, seed, step])
        rng = np.random.Generator(np.random.Philox(sequence))
        starts_B = rng.integers(0, len(self.train) - context, size=batch)
        return _windows(self.train, starts_B, context)

    def heldout_batches(self, *, tokens: int, batch: int, context: int) -> Iterator[Batch]:
        """The one evaluation set: disjoint windows spread evenly over the held-out part, in order.

        It predicts `tokens` tokens rounded up to whole windows, or as many as the held-out part has. The last batch may
        have fewer than `batch` sequences. Raises SpecError when the held-out part is shorter than one window.
        """
        self.check(context=context)
        room = len(self.heldout) - 1
        count = min(-(-tokens // context), room // context)
        # Integer arithmetic: the same starts on every machine. Neighbours are at least `context` apart.
        starts_N = np.arange(count, dtype=np.int64) * (room - context) // max(count - 1, 1)
        for first in range(0, count, batch):
            yield _windows(self.heldout, starts_N[first : first + batch], context)


def _windows(part: Tokens, starts_B: NDArray[np.int64], context: int) -> Batch:
    window_BT = part[starts_B[:, None] + np.arange(context + 1)].astype(np.int64)
    return window_BT[:, :-1], window_BT[:, 1:]


def prepare(data: DataSpec, cache_dir: Path) -> TokenData:
    """Tokenize the source of `data` into `cache_dir`, unless it is there already, and map it.

    Raises SpecError for a source or tokenizer that cannot be read, TransientError when the disk is full or the source
    changes while it is read.
    """
    stream = _Stream(data)
    fingerprint = stream.fingerprint()
    known = load(cache_dir, fingerprint)
    if known is not None:
        return known
    try:
        _write(stream, cache_dir, fingerprint)
    except OSError as error:
        message = f"cannot write prepared data below {cache_dir}: {error.strerror or error}"
        raise TransientError(message) from error
    prepared = load(cache_dir, fingerprint)
    if prepared is None:
        raise TransientError(f"the prepared data in {cache_dir / fingerprint} is not what was written")
    return prepared


def load(cache_dir: Path, fingerprint: str) -> TokenData | None:
    """Map data prepared before. None when it is not there, or not whole."""
    folder = cache_dir / fingerprint
    try:
        meta = json.loads((folder / "meta.json").read_text())
        parts = {}
        for name in ("train", "heldout"):
            parts[name] = _map(folder / f"{name}.bin", np.dtype(meta["dtype"]), int(meta[name]))
        return TokenData(vocab=int(meta["vocab"]), fingerprint=fingerprint, **parts)
    except (OSError, ValueError, KeyError):
        return None


def _map(path: Path, dtype: np.dtype[Any], length: int) -> Tokens:
    if path.stat().st_size != length * dtype.itemsize:
        raise ValueError(f"{path} is cut short")
    if length == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(length,))


class _Stream:
    """The source as arrays of ids, readable more than once, with a digest of what was read."""

    def __init__(self, data: DataSpec) -> None:
        self._data = data
        self._is_bin = data.kind == "bin"
        self._tokenizer = None if self._is_bin else load_tokenizer(data.tokenizer)

    def fingerprint(self) -> str:
        """Reads the whole source."""
        content = hashlib.sha256()
        for chunk in self._chunks():
            _update(content, chunk)
        return self._digest(content.hexdigest())

    def ids(self, fingerprint: str) -> Iterator[Tokens]:
        """All ids, in order. Raises TransientError at the end when the source is no longer what `fingerprint` says."""
        content = hashlib.sha256()
        for chunk in self._chunks():
            _update(content, chunk)
            if isinstance(chunk, bytes):
                yield np.frombuffer(chunk, dtype="<u2")
            elif self._tokenizer is not None:
                yield self._tokenizer.encode(chunk)
        if self._digest(content.hexdigest()) != fingerprint:
            raise TransientError(f"{self._data.source} changed while it was read")

    def vocab(self) -> int:
        """Number of symbols; of a bin file its meta.json's `vocab_size`, else the largest id + 1.

        Raises SpecError when an id of a bin file reaches beyond meta.json's.
        """
        if self._tokenizer is not None:
            return self._tokenizer.vocab
        largest = max((int(ids.max()) for ids in self._bin_ids() if ids.size), default=0)
        stated = _bin_vocab(source_path(self._data))
        if stated is not None and largest >= stated:
            raise SpecError.at(
                FIELD, f"{self._data.path} holds token id {largest}, but meta.json says vocab_size {stated}"
            )
        return stated if stated is not None else largest + 1

    def _bin_ids(self) -> Iterator[NDArray[np.uint16]]:
        return (np.frombuffer(chunk, dtype="<u2") for chunk in _bin_chunks(source_path(self._data)))

    def _chunks(self) -> Iterator[str] | Iterator[bytes]:
        return _bin_chunks(source_path(self._data)) if self._is_bin else pieces(self._data)

    def _digest(self, content: str) -> str:
        if self._tokenizer is not None:
            symbols = self._tokenizer.identity
        else:
            symbols = f"uint16-{_bin_vocab(source_path(self._data))}"
        split = [SPLIT_VERSION, BLOCK_TOKENS, MIN_BLOCK_TOKENS, GROUP_BLOCKS, HELDOUT_BLOCK]
        return digest({"content": content, "symbols": symbols, "split": split})


def _update(content: "hashlib._Hash", chunk: str | bytes) -> None:
    """Add a piece and its length: a tokenizer may see the same text cut elsewhere as other ids."""
    raw = chunk if isinstance(chunk, bytes) else chunk.encode("utf-8")
    content.update(len(raw).to_bytes(8, "little"))
    content.update(raw)


def _bin_chunks(path: Path) -> Iterator[bytes]:
    """A nanoGPT `.bin`: little-endian uint16 ids and nothing else. `data.tokenizer` plays no part: it is tokenized."""
    try:
        if path.is_dir():
            raise SpecError.at(FIELD, f"{path} is a folder: name one .bin file in it, such as {path / 'train.bin'}")
        if path.stat().st_size % 2:
            raise SpecError.at(FIELD, f"{path} has an odd number of bytes: a .bin file holds uint16 token ids")
        with path.open("rb") as stream:
            while chunk := stream.read(4 << 20):
                yield chunk
    except OSError as error:
        raise SpecError.at(FIELD, f"cannot read {path}: {error.strerror or error}") from error


def _bin_vocab(path: Path) -> int | None:
    """`vocab_size` of a meta.json beside the file. nanoGPT's own meta.pkl is not read: a pickle can run code."""
    meta = path.parent / "meta.json"
    if not meta.is_file():
        return None
    try:
        size = json.loads(meta.read_text())["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError.at(FIELD, f'{meta} should read {{"vocab_size": N}}: {error}') from error
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 65_536:
        raise SpecError.at(FIELD, f"{meta}: vocab_size must be a whole number from 1 to 65536, not {size!r}")
    return size


def _dtype(vocab: int) -> np.dtype[Any]:
    return np.dtype("<u1" if vocab <= 256 else "<u2" if vocab <= 65_536 else "<u4")


def _write(stream: _Stream, cache_dir: Path, fingerprint: str) -> None:
    cache_dir.mkdir(parents=True, exist_ok=True)
    temporary = cache_dir / f".{fingerprint}.{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        _fill(stream, temporary, fingerprint)
        _publish(temporary, cache_dir / fingerprint)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, final: Path) -> None:
    """Rename into place. What lies there is either another process's equal work, or broken and goes."""
    if final.exists() and load(final.parent, final.name) is None:
        shutil.rmtree(final, ignore_errors=True)
    try:
        temporary.rename(final)
    except OSError:
        if load(final.parent, final.name) is None:
            raise


def _fill(stream: _Stream, folder: Path, fingerprint: str) -> None:
    vocab = stream.vocab()
    dtype = _dtype(vocab)
    whole = folder / "all.bin"
    with whole.open("wb") as file:
        for ids in stream.ids(fingerprint):
            ids.astype(dtype).tofile(file)
    counts = _split(whole, folder, dtype)
    whole.unlink()
    meta = {"vocab": vocab, "dtype": dtype.str, "split": SPLIT_VERSION, **counts}
    with (folder / "meta.json").open("w") as file_out:
        file_out.write(canonical_json(meta))
        file_out.flush()
        os.fsync(file_out.fileno())


def _split(whole: Path, folder: Path, dtype: np.dtype[Any]) -> dict[str, int]:
    """Deal the blocks of the stream out to train.bin and heldout.bin; returns how many tokens each got."""
    total = whole.stat().st_size // dtype.itemsize
    block = min(BLOCK_TOKENS, max(MIN_BLOCK_TOKENS, total // (20 * GROUP_BLOCKS)))
    counts = {"train": 0, "heldout": 0}
    with whole.open("rb") as source, _sink(folder / "train.bin") as train, _sink(folder / "heldout.bin") as heldout:
        for index in range(-(-total // block)):
            chunk = source.read(block * dtype.itemsize)
            held = index % GROUP_BLOCKS == HELDOUT_BLOCK
            (heldout if held else train).write(chunk)
            counts["heldout" if held else "train"] += len(chunk) // dtype.itemsize
        for file in (train, heldout):
            file.flush()
            os.fsync(file.fileno())
    return counts


def _sink(path: Path) -> BinaryIO:
    return cast(BinaryIO, path.open("wb"))
