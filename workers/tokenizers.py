"""From text to token ids: three tokenizers, all deterministic and without state.

`bytes`      256 symbols: the UTF-8 bytes themselves.
`printable`  98 symbols, one a character: the 95 printable ASCII characters (ids 0-94 = code points 32-126), newline
             (95), tab (96), and one symbol (97) for every other character.
`*.json`     a file of Hugging Face's `tokenizers` library; no special tokens are added.
"""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as JsonTokenizer

from mutransfer.errors import SpecError

FIELD = "data.tokenizer"

NEWLINE_ID = 95
TAB_ID = 96
OTHER_ID = 97
PRINTABLE_VOCAB = 98


class Tokenizer(Protocol):
    """Turns text into ids in `range(vocab)`. Equal `identity`, equal ids for every text."""

    @property
    def vocab(self) -> int:
        """Number of symbols."""
        ...

    @property
    def identity(self) -> str:
        """Names the mapping, for fingerprints."""
        ...

    def encode(self, text: str) -> NDArray[np.integer[Any]]:
        """The ids of `text`, in order."""
        ...


class BytesTokenizer:
    """The UTF-8 bytes of the text."""

    vocab = 256
    identity = "bytes"

    def encode(self, text: str) -> NDArray[np.integer[Any]]:
        """One id a byte."""
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _printable_table() -> NDArray[np.uint8]:
    table = np.full(256, OTHER_ID, dtype=np.uint8)
    table[32:127] = np.arange(95, dtype=np.uint8)
    table[ord("\n")] = NEWLINE_ID
    table[ord("\t")] = TAB_ID
    return table


class PrintableTokenizer:
    """Printable ASCII, newline, tab, and one symbol for all else."""

    vocab = PRINTABLE_VOCAB
    identity = "printable-98"
    _table = _printable_table()

    def encode(self, text: str) -> NDArray[np.integer[Any]]:
        """One id a character."""
        raw = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        # Continuation bytes (0b10xxxxxx) go, so that a character of several bytes is one OTHER.
        ids: NDArray[np.uint8] = self._table[raw[(raw & 0xC0) != 0x80]]
        return ids


class FileTokenizer:
    """A tokenizer read from a `tokenizers` JSON file."""

    def __init__(self, path: Path) -> None:
        """Raises SpecError when the file is missing or no tokenizer."""
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise SpecError.at(FIELD, f"cannot read the tokenizer file {path}: {reason}") from error
        try:
            self._tokenizer = JsonTokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the Rust library raises bare Exception for every fault
            raise SpecError.at(FIELD, f"{path} is no tokenizers JSON file: {error}") from error
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids:
            raise SpecError.at(FIELD, f"{path} has an empty vocabulary: train the tokenizer first")
        # Ids may have holes: the model needs a row for the largest.
        self.vocab = max(ids) + 1
        self.identity = f"file-{hashlib.sha256(content).hexdigest()}"
        self._path = path

    def encode(self, text: str) -> NDArray[np.integer[Any]]:
        """The file's own ids. Raises SpecError for text that it cannot express."""
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # the Rust library raises bare Exception for every fault
            raise SpecError.at(FIELD, f"{self._path} cannot encode the data: {error}") from error
        return np.asarray(encoding.ids, dtype=np.int64)


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer that a study names. Raises SpecError for a file that is missing or broken."""
    if name == "bytes":
        return BytesTokenizer()
    if name == "printable":
        return PrintableTokenizer()
    return FileTokenizer(Path(name).expanduser())
