import json
import os
import platform
import shutil
import sysconfig

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertTokenizer, PreTrainedTokenizerFast

from stillhouse.data import corpus as corpus_module
from stillhouse.data import corpus_texts
from stillhouse.data.corpus import CorpusSettings, prepare_corpus
from stillhouse.errors import DataError, SettingsError

CLS, SEP = 2, 3
TEN = "a b c d a b c d a b "


@pytest.fixture
def prepare(tokenizer, tmp_path):
    """Prepares a corpus in sequences of 8 tokens, nothing held out."""

    def prepare_it(name, *, store="store", tokenizer=tokenizer, on_progress=None, **settings):
        chosen = CorpusSettings(**{"name": str(name), "length": 8, "held_out": 0, **settings})
        return prepare_corpus(chosen, tokenizer, tmp_path / store, on_progress=on_progress)

    return prepare_it


def sequences(corpus, tokenizer):
    """The sequences of `train` as words, `[SEP]` as `|`."""
    rows = corpus.train.batch(range(len(corpus.train)))
    return [tokenizer.decode(row).replace("[SEP]", "|").removeprefix("[CLS] ") for row in rows]


def documents(corpus, tokenizer):
    """The documents of a corpus that fits into one sequence."""
    (sequence,) = sequences(corpus, tokenizer)
    return [text.strip() for text in sequence.replace("[PAD]", "").strip(" |").split("|")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": ""}, r"corpus\.name is empty"),
        ({"name": "hf:"}, r"corpus\.name 'hf:' names no dataset"),
        ({"name": "hf:owner/name:"}, r"corpus\.name .* names no dataset"),
        ({"text": ""}, r"corpus\.text names no column"),
        ({"length": 7}, r"corpus\.length is at least 8, but is 7"),
        ({"held_out": -1}, r"corpus\.held_out is not negative, but is -1"),
        ({"max_tokens": 0}, r"corpus\.max_tokens is at least 1, but is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        CorpusSettings(**settings)


def test_a_dataset_that_changed_is_refused(prepare, write, tmp_path):
    write("set/train.jsonl", '{"t": "a b", "x": 1}\n{"t": "c", "x": 2}\n')
    assert prepare(f"hf:{tmp_path / 'set'}", text="t", length=64).document_count == 2
    write("set/train.jsonl", '{"t": "a b", "x": 1}\n')
    with pytest.raises(DataError, match=r"corpus changed.*train\.jsonl has another"):
        prepare(f"hf:{tmp_path / 'set'}", text="t", length=64)


def test_a_dataset_of_the_hub_is_streamed_and_asked_for_once(hub, prepare, tokenizer):
    asked = hub(
        train=[{"t": "a b", "x": 1}, {"t": None, "x": 1}, {"t": "c", "x": 2}], test=[{"t": "d"}]
    )
    for _ in range(2):
        corpus = prepare("hf:owner/name:plain", text="t", length=64)
        assert documents(corpus, tokenizer) == ["a b", "c"]
    assert asked == [(("owner/name", "plain"), {"streaming": True})]


def test_long_documents_are_cut_into_full_sequences(prepare, write, tokenizer):
    corpus = prepare(write("a.txt", 2 * TEN + "\n\n" + TEN))
    assert sequences(corpus, tokenizer) == [
        "a b c d a b |",
        "c d a b a b |",
        "c d a b c d |",
        # of the next document three tokens would fit: they fill the sequence, and it begins anew
        "a b | a b c |",
        "a b c d a b |",
    ]
    assert corpus.train.attention_mask([0, 4]).all()
    assert corpus.train.length == 8
    assert (corpus.token_count, corpus.document_count) == (30, 2)


def test_tokens_are_those_of_the_tokeniser(prepare, write, weather_tokenizer, weather_rows):
    texts = [text for text, _ in weather_rows]
    path = write("a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = prepare(path, length=512, tokenizer=weather_tokenizer)
    packed = corpus.train.batch([0])[0].tolist()
    whole = [weather_tokenizer.cls_token_id]
    for text in texts:
        whole += weather_tokenizer(text)["input_ids"][1:]
    assert packed[:-1] == whole[:511]


@pytest.mark.parametrize("line_bytes", [5, 64])
def test_how_much_is_read_at_once_changes_nothing(prepare, write, monkeypatch, line_bytes):
    text = "ab äöü cd " * 30 + "\nb 漢字 c\n\n" + "d " * 40 + "\n\nb"
    json_lines = "".join(json.dumps({"text": part}) + "\n" for part in text.split("\n\n"))
    files = [write("a.txt", text), write("b.jsonl", json_lines)]
    whole = [prepare(path, store=f"{path.name} whole") for path in files]
    monkeypatch.setattr(corpus_texts, "LINE_BYTES", line_bytes)
    monkeypatch.setattr(corpus_module, "PIECE_CHARACTERS", 40)
    monkeypatch.setattr(corpus_module, "CHARACTERS_AT_ONCE", 50)
    parts = [prepare(path, store=f"{path.name} parts") for path in files]
    assert [part.fingerprint for part in parts] == [one.fingerprint for one in whole]
    assert [part.document_count for part in parts] == [3, 3]


def test_start_and_end_tokens_frame_where_there_are_no_others(prepare, write):
    vocabulary = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "a": 70_000}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    corpus = prepare(write("a.txt", "a a b a a a"), tokenizer=tokenizer)
    a = 70_000
    assert corpus.train.batch([0]).tolist() == [[2, a, a, 1, a, a, a, 3]]


def test_the_only_sequence_is_padded_and_masked(prepare, write, tokenizer):
    corpus = prepare(write("a.txt", "a b c"))
    assert corpus.train.batch([0]).tolist() == [[CLS, 5, 6, 7, SEP, 0, 0, 0]]
    assert corpus.train.attention_mask([0]).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert len(corpus.held_out) == 0


def test_max_tokens_ends_the_reading(prepare, write, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(corpus_module, "CHARACTERS_AT_ONCE", 1)
    write("texts/a.txt", 2 * TEN)
    broken = write("texts/b.txt", "\0")
    corpus = prepare(tmp_path / "texts", max_tokens=15)
    assert corpus.token_count == 15
    assert sequences(corpus, tokenizer) == ["a b c d a b |", "c d a b a b |"]
    assert prepare(tmp_path / "texts", max_tokens=20, store="all of a").token_count == 20
    with pytest.raises(DataError, match=r"b\.txt"):
        prepare(tmp_path / "texts", max_tokens=21, store="beyond")
    broken.write_text("c")
    assert prepare(tmp_path / "texts", max_tokens=99, store="less").token_count == 21


def test_held_out_blocks_are_a_tenth_at_most(prepare, write):
    path = write("a.txt", "\n\n".join(TEN * number for number in range(1, 40)))
    corpus = prepare(path, held_out=2_000)
    total = len(corpus.train) + len(corpus.held_out)
    assert len(corpus.held_out) == total // 10 > 100
    assert len(prepare(path, held_out=7).held_out) == 7
    assert len(prepare(path).held_out) == 0
    assert len(prepare(path, held_out=1).train) == total - 1


def test_two_sequences_are_enough_to_hold_one_out(prepare, write):
    corpus = prepare(write("a.txt", TEN + "c d"), held_out=2_000)
    assert (len(corpus.train), len(corpus.held_out)) == (1, 1)
    read = [part.batch([0]).tolist() for part in (corpus.train, corpus.held_out)]
    assert read[0] != read[1]


def test_the_same_texts_give_the_same_bytes(prepare, write, tmp_path):
    path = write("a.txt", "\n\n".join(TEN * number for number in range(1, 9)))
    first, second = prepare(path, store="one"), prepare(path, store="two")
    assert first.fingerprint == second.fingerprint
    for name in ("sequences.arrow", "corpus.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_fingerprint_names_texts_settings_and_tokeniser(prepare, write, tokenizer):
    path = write("a.txt", TEN)
    cased = BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=False)
    corpora = [
        prepare(path),
        prepare(path, store="length", length=9),
        prepare(path, store="most", max_tokens=9),
        prepare(path, store="cased", tokenizer=cased),
    ]
    path.write_text(TEN.replace("d", "c"))
    corpora.append(prepare(path, store="texts"))
    assert len({corpus.fingerprint for corpus in corpora}) == 5


def test_a_prepared_corpus_opens_without_its_texts_being_read(prepare, write):
    path = write("a.txt", 3 * TEN)
    first = prepare(path)
    state = path.stat()
    path.write_bytes(b"\0" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    told = []
    second = prepare(path, on_progress=told.append)
    assert second.fingerprint == first.fingerprint
    assert (second.train.batch(range(4)) == first.train.batch(range(4))).all()
    assert (second.token_count, second.document_count) == (30, 1)
    assert told == [1.0]


def test_a_corpus_that_changed_is_refused(prepare, write, tmp_path):
    path = write("texts/a.txt", TEN)
    prepare(tmp_path / "texts")
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(DataError, match=r"corpus changed since .*store was.*a\.txt has another"):
        prepare(tmp_path / "texts")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    prepare(tmp_path / "texts")
    write("texts/b.txt", TEN)
    with pytest.raises(DataError, match=r"corpus changed.*b\.txt"):
        prepare(tmp_path / "texts")
    path.rename(tmp_path / "elsewhere.txt")
    with pytest.raises(DataError, match=r"corpus changed.*a\.txt"):
        prepare(tmp_path / "texts")


def test_a_store_of_another_corpus_is_refused(prepare, write, tokenizer):
    path = write("a.txt", TEN)
    prepare(path)
    with pytest.raises(
        DataError, match=r"store holds another .*corpus\.length was 8 and is 9.*delete"
    ):
        prepare(path, length=9)
    with pytest.raises(DataError, match=r"corpus\.max_tokens was None and is 5"):
        prepare(path, max_tokens=5)
    cased = BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=False)
    with pytest.raises(DataError, match="tokeniser is another"):
        prepare(path, tokenizer=cased)


def test_an_interrupted_preparation_leaves_nothing_behind(prepare, write, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "CHARACTERS_AT_ONCE", 1)
    path = write("a.txt", "\n\n".join([TEN] * 9))
    told = []

    def stop(done_fraction):
        told.append(done_fraction)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(path, on_progress=stop)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert prepare(path).fingerprint == prepare(path, store="another").fingerprint


def test_a_killed_preparation_is_not_taken_for_a_whole_one(prepare, write, tmp_path):
    path = write("a.txt", TEN)
    whole = prepare(path)
    shutil.copytree(tmp_path / "store", tmp_path / ".killed.tmp")
    assert prepare(path, store="killed").fingerprint == whole.fingerprint
    assert not (tmp_path / ".killed.tmp").exists()


def test_progress_grows_to_1(prepare, write, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "CHARACTERS_AT_ONCE", 1)
    write("texts/a.txt", "\n\n".join([TEN] * 9))
    write("texts/b.jsonl", '{"text": "a"}\n' * 9)
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "texts" / "c.parquet")
    told = []
    prepare(tmp_path / "texts", on_progress=told.append)
    assert len(told) == 9 + 9 + 3 + 1
    assert told == sorted(told)
    assert 0 < told[0] < 0.1
    assert told[-2:] == [1.0, 1.0]
    told.clear()
    prepare(tmp_path / "texts", on_progress=told.append, max_tokens=40, store="some")
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_foreign_files_are_kept(prepare, write, tmp_path):
    path = write("a.txt", TEN)
    write("store/thesis.tex", "years of work")
    with pytest.raises(DataError, match="store exists, but holds no corpus"):
        prepare(path)
    assert (tmp_path / "store" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert len(prepare(path, store="empty").train) == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:50], "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: text.replace("token_count", "tokens"), "damaged"),
        (lambda text: text.replace('"store_format": 1', '"store_format": 0'), "another version"),
        (lambda text: text.replace('"sequence_count": 1', '"sequence_count": 2'), "holds 1 seq"),
    ],
)
def test_a_damaged_store_is_refused(prepare, write, tmp_path, edit, message):
    path = write("a.txt", TEN)
    prepare(path)
    manifest = tmp_path / "store" / "corpus.json"
    text = manifest.read_text()
    manifest.write_text(edit(text))
    with pytest.raises(DataError, match=f"{message}.*delete"):
        prepare(path)
    manifest.write_text(text)
    (tmp_path / "store" / "sequences.arrow").write_bytes(b"ARROW1")
    with pytest.raises(DataError, match=r"sequences\.arrow is missing or damaged"):
        prepare(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b""), ("a.txt", b" \n\n\n"), ("a.jsonl", b"\n"), ("a.jsonl", b'{"text": null}')],
)
def test_a_corpus_without_text_is_refused(prepare, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="holds no text"):
        prepare(tmp_path / name)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("text", ["a", "a b c d a b", "a b c d a b c d"])
def test_a_corpus_too_small_to_hold_out_is_refused(prepare, write, tmp_path, text):
    path = write("a.txt", text)
    count = len(text.split())
    with pytest.raises(DataError, match=f"its {count} tokens fill fewer than two .* of 8.*needed"):
        prepare(path, held_out=2_000)
    assert not (tmp_path / "store").exists()
    assert len(prepare(path, held_out=0).train) == 1
    with pytest.raises(DataError, match="fewer than two"):
        prepare(path, held_out=2_000)


def test_sequences_longer_than_the_tokeniser_allows_are_refused(prepare, write, weather_tokenizer):
    with pytest.raises(SettingsError, match=r"corpus\.length is .* the tokeniser's 512 .* 513"):
        prepare(write("a.txt", TEN), length=513, tokenizer=weather_tokenizer)


def test_the_embedded_corpus_is_the_training_part_of_the_embedded_task(
    prepare, write, tmp_path, monkeypatch
):
    for module in ("alpha", "beta"):
        texts = [f"{module} {number} says a thing of many words" for number in range(20)]
        write(
            f"stdlib/{module}.py",
            "".join(f"def f{i}():\n    '{text}'\n" for i, text in enumerate(texts)),
        )
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "stdlib"))
    corpus = prepare("embedded", held_out=2_000)
    assert corpus.document_count == 34
    assert corpus.token_count == 34 * 8
    assert len(corpus.held_out) == (len(corpus.train) + len(corpus.held_out)) // 10
    monkeypatch.setattr(platform, "python_version", lambda: "2.7")
    with pytest.raises(DataError, match=r"corpus changed.*Python"):
        prepare("embedded", held_out=2_000)
