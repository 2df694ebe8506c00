"""Tokenizers: stated vocabularies, and clear errors for broken files."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mutransfer.errors import SpecError
from workers.tokenizers import NEWLINE_ID, OTHER_ID, TAB_ID, load_tokenizer


def test_bytes_are_the_utf8_bytes() -> None:
    tokenizer = load_tokenizer("bytes")
    assert tokenizer.vocab == 256
    assert tokenizer.encode("aμ\n").tolist() == [97, 0xCE, 0xBC, 10]


def test_printable_gives_one_id_a_character() -> None:
    tokenizer = load_tokenizer("printable")
    assert tokenizer.vocab == 98
    assert tokenizer.encode(" ~A").tolist() == [0, 94, 33]
    assert tokenizer.encode("\n\tμ語\r\0😀").tolist() == [NEWLINE_ID, TAB_ID, *[OTHER_ID] * 5]


def test_every_printable_character_has_an_id_of_its_own() -> None:
    text = "".join(map(chr, range(32, 127))) + "\n\t"
    assert load_tokenizer("printable").encode(text).tolist() == list(range(97))


def word_level(path: Path, vocab: dict[str, int], unknown: str | None) -> Path:
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=unknown) if unknown else models.WordLevel(vocab))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


def test_a_tokenizer_file_gives_its_own_ids_and_the_largest_sets_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(word_level(tmp_path / "t.json", {"[UNK]": 0, "cat": 2, "sat": 9}, "[UNK]")))
    assert tokenizer.vocab == 10
    assert tokenizer.encode("cat sat flew").tolist() == [2, 9, 0]


def test_two_files_with_equal_content_are_the_same_tokenizer(tmp_path: Path) -> None:
    first = word_level(tmp_path / "a.json", {"[UNK]": 0, "cat": 1}, "[UNK]")
    second = tmp_path / "b.json"
    second.write_bytes(first.read_bytes())
    other = word_level(tmp_path / "c.json", {"[UNK]": 0, "dog": 1}, "[UNK]")
    assert load_tokenizer(str(first)).identity == load_tokenizer(str(second)).identity
    assert load_tokenizer(str(first)).identity != load_tokenizer(str(other)).identity


@pytest.mark.parametrize("content", [b"{}", b"not json", b"\xff\xfe", b""])
def test_a_broken_tokenizer_file_is_a_spec_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=r"data\.tokenizer: .*broken\.json is no tokenizers JSON file"):
        load_tokenizer(str(path))


def test_a_missing_tokenizer_file_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.tokenizer: cannot read .*absent\.json: No such file"):
        load_tokenizer(str(tmp_path / "absent.json"))


def test_an_empty_vocabulary_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="empty vocabulary"):
        load_tokenizer(str(word_level(tmp_path / "t.json", {}, None)))
