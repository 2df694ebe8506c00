"""Data: every source, the split, batches that depend on (seed, step) alone, and clear errors."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mutransfer.errors import SpecError, TransientError
from mutransfer.spec import DataSpec
from workers import data as data_module
from workers.data import TokenData, load, prepare
from workers.sources import STDLIB_CAP_BYTES, stdlib_files

ALPHABET = "abcdefghijklmnopqrstuvwxyz \n"


def random_text(characters: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return "".join(ALPHABET[i] for i in rng.integers(0, len(ALPHABET), size=characters))


def write_text(path: Path, characters: int = 6000, seed: int = 0) -> DataSpec:
    path.write_text(random_text(characters, seed))
    return DataSpec(source=f"text:{path}", tokenizer="bytes")


def all_bytes(prepared: TokenData) -> bytes:
    """Train and held-out put back together: the inverse of the split rule."""
    total = len(prepared.train) + len(prepared.heldout)
    block = min(65_536, max(256, total // 200))
    parts = {"train": bytes(prepared.train), "heldout": bytes(prepared.heldout)}
    out = b""
    for index in range(-(-total // block)):
        name = "heldout" if index % 10 == 5 else "train"
        out, parts[name] = out + parts[name][:block], parts[name][block:]
    assert parts == {"train": b"", "heldout": b""}
    return out


def test_train_and_heldout_are_all_of_the_text_and_share_nothing(tmp_path: Path) -> None:
    spec = write_text(tmp_path / "t.txt", 100_000)
    prepared = prepare(spec, tmp_path / "cache")
    assert all_bytes(prepared) == (tmp_path / "t.txt").read_bytes()
    assert len(prepared.heldout) == pytest.approx(10_000, rel=0.1)
    assert prepared.train.dtype == np.uint8


def test_a_folder_is_read_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("b" * 2000)
    (folder / "a.md").write_text("a" * 2000)
    (folder / "sub" / "c.txt").write_text("c" * 2000)
    (folder / ".hidden").write_text("h" * 2000)
    prepared = prepare(DataSpec(source=f"text:{folder}", tokenizer="bytes"), tmp_path / "cache")
    assert all_bytes(prepared) == b"a" * 2000 + b"b" * 2000 + b"c" * 2000


def test_pieces_of_a_large_file_join_seamlessly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sources.PIECE_BYTES", 100)
    spec = write_text(tmp_path / "t.txt", 20_000)
    assert all_bytes(prepare(spec, tmp_path / "cache")) == (tmp_path / "t.txt").read_bytes()


def test_the_standard_library_without_tests_or_packages(tmp_path: Path) -> None:
    prepared = prepare(DataSpec(), tmp_path)
    assert prepared.vocab == 98
    assert 4_000_000 < len(prepared.train) + len(prepared.heldout) <= STDLIB_CAP_BYTES
    assert prepare(DataSpec(), tmp_path).fingerprint == prepared.fingerprint


def test_stdlib_files_leave_out_tests_packages_and_build_records(tmp_path: Path) -> None:
    for name in ("z.py", "a/b.py", "test/x.py", "a/tests/x.py", "site-packages/x.py", "_sysconfigdata_x.py", "n.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert [f.relative_to(tmp_path).as_posix() for f in stdlib_files(tmp_path)] == ["a/b.py", "z.py"]


def test_bin_is_tokenized_already(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 300, size=9000).astype("<u2")
    ids[17] = 299
    ids.tofile(tmp_path / "train.bin")
    prepared = prepare(DataSpec(source=f"bin:{tmp_path / 'train.bin'}"), tmp_path / "cache")
    assert prepared.vocab == 300
    assert prepared.train.dtype == np.uint16
    assert np.bincount(np.concatenate([prepared.train, prepared.heldout])).tolist() == np.bincount(ids).tolist()


def test_meta_json_states_the_vocabulary_of_a_bin(tmp_path: Path) -> None:
    np.arange(4000, dtype="<u2").tofile(tmp_path / "x.bin")
    (tmp_path / "meta.json").write_text('{"vocab_size": 50257}')
    assert prepare(DataSpec(source=f"bin:{tmp_path / 'x.bin'}"), tmp_path / "cache").vocab == 50257


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_tables_give_one_document_a_line(tmp_path: Path, kind: str) -> None:
    documents = [random_text(100, seed).replace("\n", " ") for seed in range(50)]
    path = tmp_path / f"d.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"body": [*documents, None]}), path)
    else:
        path.write_text("".join(json.dumps({"body": text}) + "\n\n" for text in documents))
    prepared = prepare(DataSpec(source=f"{kind}:{path}#body", tokenizer="bytes"), tmp_path / "cache")
    assert all_bytes(prepared).decode() == "".join(f"{text}\n" for text in documents)


def test_half_a_surrogate_pair_in_json_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "' + "x" * 4000 + '\\ud800"}\n')
    assert prepare(DataSpec(source=f"jsonl:{path}"), tmp_path / "cache").vocab == 98


# Cache and fingerprint


def test_a_second_preparation_only_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_text(tmp_path / "t.txt")
    first = prepare(spec, tmp_path / "cache")
    monkeypatch.setattr(data_module, "_write", lambda *_: pytest.fail("tokenized twice"))
    again = prepare(spec, tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert again.train.tobytes() == first.train.tobytes()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.fingerprint]


def test_content_and_tokenizer_make_another_fingerprint(tmp_path: Path) -> None:
    spec = write_text(tmp_path / "t.txt")
    first = prepare(spec, tmp_path / "cache").fingerprint
    other_tokenizer = prepare(spec.model_copy(update={"tokenizer": "printable"}), tmp_path / "cache").fingerprint
    write_text(tmp_path / "t.txt", seed=1)
    assert len({first, other_tokenizer, prepare(spec, tmp_path / "cache").fingerprint}) == 3


def test_a_cut_cache_is_rebuilt(tmp_path: Path) -> None:
    spec = write_text(tmp_path / "t.txt")
    first = prepare(spec, tmp_path / "cache")
    whole = first.train.tobytes()
    train = tmp_path / "cache" / first.fingerprint / "train.bin"
    train.write_bytes(train.read_bytes()[:-1])
    assert load(tmp_path / "cache", first.fingerprint) is None
    assert prepare(spec, tmp_path / "cache").train.tobytes() == whole


def test_a_source_that_changes_while_it_is_read_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_text(tmp_path / "t.txt")
    real = data_module._Stream.fingerprint

    def then_change(stream: data_module._Stream) -> str:
        found = real(stream)
        write_text(tmp_path / "t.txt", seed=9)
        return found

    monkeypatch.setattr(data_module._Stream, "fingerprint", then_change)
    with pytest.raises(TransientError, match="changed while it was read"):
        prepare(spec, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


# Batches


@pytest.fixture
def prepared(tmp_path: Path) -> TokenData:
    return prepare(write_text(tmp_path / "t.txt", 30_000), tmp_path / "cache")


def test_batches_depend_on_seed_and_step_only(prepared: TokenData) -> None:
    x, y = prepared.batch(7, 3, batch=4, context=16)
    for _ in range(3):
        prepared.batch(1, 1, batch=2, context=8)
    again_x, again_y = prepared.batch(7, 3, batch=4, context=16)
    assert x.dtype == np.int64
    assert x.shape == y.shape == (4, 16)
    assert (x == again_x).all()
    assert (y == again_y).all()
    assert (x[:, 1:] == y[:, :-1]).all()
    assert not (x == prepared.batch(8, 3, batch=4, context=16)[0]).all()
    assert not (x == prepared.batch(7, 4, batch=4, context=16)[0]).all()


def test_a_known_batch_never_changes() -> None:
    counting = TokenData(vocab=256, fingerprint="", train=np.arange(250, dtype=np.uint8), heldout=np.zeros(9, np.uint8))
    assert counting.batch(0, 0, batch=4, context=2)[0][:, 0].tolist() == [121, 236, 129, 6]


def test_every_window_of_the_training_part_can_be_drawn() -> None:
    tiny = TokenData(vocab=256, fingerprint="", train=np.arange(10, dtype=np.uint8), heldout=np.zeros(9, np.uint8))
    drawn = {int(tiny.batch(step, 0, batch=8, context=4)[0][0, 0]) for step in range(200)}
    assert drawn == set(range(6))


def test_the_evaluation_set_is_fixed_disjoint_and_spread(prepared: TokenData) -> None:
    counting = TokenData(vocab=256, fingerprint="", train=prepared.train, heldout=np.arange(100_000, dtype=np.uint32))
    batches = list(counting.heldout_batches(tokens=3200, batch=7, context=32))
    x = np.concatenate([x for x, _ in batches])
    assert [len(x) for x, _ in batches] == [7] * 14 + [2]
    assert x.size == 3200
    assert len(np.unique(x)) == x.size
    assert x[0, 0] == 0
    assert x[-1, -1] == 99_998
    assert all((y == x + 1).all() for x, y in batches)
    again = np.concatenate([x for x, _ in counting.heldout_batches(tokens=3200, batch=3, context=32)])
    assert (again == x).all()


@pytest.mark.parametrize(("heldout", "tokens", "windows"), [(33, 64, 1), (65, 64, 2), (64, 64, 1), (97, 33, 2)])
def test_evaluation_takes_whole_windows_as_far_as_they_last(heldout: int, tokens: int, windows: int) -> None:
    few = TokenData(vocab=256, fingerprint="", train=np.zeros(99, np.uint8), heldout=np.arange(heldout, dtype=np.uint8))
    x = np.concatenate([x for x, _ in few.heldout_batches(tokens=tokens, batch=64, context=32)])
    assert len(x) == windows
    assert len(np.unique(x)) == x.size


# Errors


def problem(spec: DataSpec, tmp_path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        prepare(spec, tmp_path / "cache")
    assert caught.value.problems[0].field == "data.source"
    return caught.value.problems[0].message


def test_a_missing_path(tmp_path: Path) -> None:
    for kind in ("text", "bin", "parquet", "jsonl"):
        assert "No such file" in problem(DataSpec(source=f"{kind}:{tmp_path}/absent"), tmp_path)


def test_too_little_text(tmp_path: Path) -> None:
    short = prepare(write_text(tmp_path / "t.txt", 1600), tmp_path / "cache")
    with pytest.raises(SpecError, match=r"held-out part has 256 tokens, too short .* = 513: give more text"):
        short.check(context=512)
    empty = prepare(write_text(tmp_path / "empty.txt", 0), tmp_path / "cache")
    with pytest.raises(SpecError, match="training part has 0 tokens"):
        empty.batch(0, 0, batch=1, context=8)


@pytest.mark.parametrize(
    ("content", "message"), [(b"caf\xe9 " * 99, "not UTF-8 text"), (b"a\0b" * 99, "binary .it holds NUL")]
)
def test_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    found = problem(DataSpec(source=f"text:{tmp_path / 't.txt'}"), tmp_path)
    assert "t.txt" in found
    assert message.replace(".", "") in found.replace("(", "")


def test_an_empty_folder_and_a_link_out_of_one(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "holds no text files" in problem(DataSpec(source=f"text:{folder}"), tmp_path)
    (tmp_path / "secret").write_text("s")
    (folder / "link.txt").symlink_to(tmp_path / "secret")
    assert "links out of the folder" in problem(DataSpec(source=f"text:{folder}"), tmp_path)


def test_faults_of_bin_files(tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"abc")
    assert "odd number of bytes" in problem(DataSpec(source=f"bin:{tmp_path / 'odd.bin'}"), tmp_path)
    assert "name one .bin file in it" in problem(DataSpec(source=f"bin:{tmp_path}"), tmp_path)
    np.array([1, 70, 2], dtype="<u2").tofile(tmp_path / "x.bin")
    spec = DataSpec(source=f"bin:{tmp_path / 'x.bin'}")
    (tmp_path / "meta.json").write_text('{"vocab_size": 70}')
    assert "holds token id 70, but meta.json says vocab_size 70" in problem(spec, tmp_path)
    for content in ("{}", "[]", "nonsense"):
        (tmp_path / "meta.json").write_text(content)
        assert "should read" in problem(spec, tmp_path)
    (tmp_path / "meta.json").write_text('{"vocab_size": "many"}')
    assert "whole number from 1 to 65536" in problem(spec, tmp_path)


def test_faults_of_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    spec = DataSpec(source=f"jsonl:{path}#body")
    for content, message in (
        ('{"body": "x"}\n{"other": "x"}', "line 2 has no column 'body' (it has other)"),
        ("[1]", "(it has a list)"),
        ("{", "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"body": 3}', "holds no text but a int"),
    ):
        path.write_text(content)
        assert message in problem(spec, tmp_path)


def test_faults_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"text": ["x"], "n": [1]}), path)
    assert "no column 'body' (it has text, n)" in problem(DataSpec(source=f"parquet:{path}#body"), tmp_path)
    assert "column 'n' holds no text but int64" in problem(DataSpec(source=f"parquet:{path}#n"), tmp_path)
    path.write_text("not parquet at all")
    assert "is no parquet file" in problem(DataSpec(source=f"parquet:{path}"), tmp_path)
