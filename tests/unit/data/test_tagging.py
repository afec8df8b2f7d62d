import json

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from stillhouse.data.task import TaskSettings, load_task, task_from_dataset
from stillhouse.errors import DataError, SettingsError

ENTITIES = ("entity_f1", "entity_precision", "entity_recall", "tag_accuracy")


def conll(*sentences):
    return "".join(
        "".join(f"{pair.replace('/', ' ')}\n" for pair in sentence.split()) + "\n"
        for sentence in sentences
    )


def many(count=30):
    return [f"Ann/B-PER Lee/I-PER saw/O town{i}/B-LOC" for i in range(count)]


def load(path, **settings):
    return load_task(TaskSettings(name=str(path), **settings))


def json_lines(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_a_conll_file_becomes_a_tagging_task(write):
    task = load(write("a.conll", conll(*many())))
    assert (task.name, task.kind, task.is_regression) == ("a.conll", "tags", False)
    assert task.label_names == ("B-LOC", "B-PER", "I-PER", "O")
    assert (task.output_count, task.metrics) == (4, ENTITIES)
    assert (len(task.train), len(task.dev)) == (27, 3)
    assert task.train.features["tags"] == List(ClassLabel(names=list(task.label_names)))
    example = task.dev[0]
    assert example["words"][:3] == ["Ann", "Lee", "saw"]
    assert example["tags"] == [1, 2, 3, 0]
    words = [tuple(row) for row in [*task.train["words"], *task.dev["words"]]]
    assert len(set(words)) == 30


def test_a_dev_file_and_columns_are_the_users(write):
    train = write("train.txt", "NNP Ann B-PER\nVBD ran O\n\nNNP Bo B-PER\n")
    dev = write("dev.iob2", "NNP Lee B-PER\n")
    task = load(f"conll:{train}", dev=str(dev), text=("2",), label="1", metric="tag_accuracy")
    assert (task.name, task.label_names) == ("train.txt", ("NNP", "VBD"))
    assert task.metrics == ("tag_accuracy",)
    assert task.dev[:] == {"words": [["Lee"]], "tags": [[0]]}
    chunks = load(f"conll:{train}", dev=f"conll:{dev}", text=("2",), metric="tag_accuracy")
    assert chunks.metrics == ("tag_accuracy", "entity_f1", "entity_precision", "entity_recall")


def test_metrics_of_chunks_need_chunks(write):
    path = write("a.conll", conll(*["the/DET cat/NOUN"] * 4))
    with pytest.raises(SettingsError, match=r"'entity_f1' is for tags of chunks .* 'tag_accuracy'"):
        load(path, dev=str(path), metric="entity_f1")
    with pytest.raises(SettingsError, match="does not fit a tagging task"):
        load(path, dev=str(path), metric="accuracy")


def test_conllu_has_its_own_columns(write):
    line = "1\tSo\tso\tADV\tRB\t_\t0\troot\t_\t_\n2\tis\tbe\tAUX\tVBZ\t_\t1\tcop\t_\t_\n\n"
    path = write("a.conllu", line)
    assert load(path, dev=str(path)).label_names == ("ADV", "AUX")
    assert load(path, dev=str(path), label="deprel").label_names == ("cop", "root")


def test_tables_of_lists_of_words_and_tags(write, caplog):
    rows = [{"tokens": ["Ann", "ran"], "ner_tags": ["B-PER", "O"], "id": i} for i in range(3)]
    path = write("t.jsonl", json_lines(*rows))
    task = load(path, dev=str(path))
    assert (task.kind, task.label_names) == ("tags", ("B-PER", "O"))
    assert not caplog.records
    rows = [{"w": ["Ann", "ran"], "t": [10, 9]} for _ in range(3)]
    path = write("t.jsonl", json_lines(*rows))
    task = load(path, dev=str(path), text=("w",), label="t")
    assert (task.label_names, task.metrics) == (("9", "10"), ("tag_accuracy",))
    assert task.dev["tags"][0] == [1, 0]
    assert "tags are numbers without names" in caplog.text


def tagged(rows, names):
    features = Features(
        tokens=List(Value("string")), ner_tags=List(ClassLabel(names=names)), id=Value("string")
    )
    columns = {"tokens": [words for words, _ in rows], "ner_tags": [tags for _, tags in rows]}
    columns["id"] = [str(number) for number in range(len(rows))]
    return Dataset.from_dict(columns, features=features)


def test_classes_keep_their_names_and_their_order(tmp_path):
    rows = [([f"Ann{i}", "Lee", "ran"], [1, 2, 0]) for i in range(20)]
    data = tagged(rows, ["O", "B-PER", "I-PER", "B-LOC"])
    other = tagged([(["Bo"], [1])], ["B-LOC", "B-PER", "O"])
    task = task_from_dataset(data, other, text="tokens", label="ner_tags", metric="entity_recall")
    assert task.label_names == ("O", "B-PER", "I-PER", "B-LOC")
    assert task.train[0] == {"words": ["Ann0", "Lee", "ran"], "tags": [1, 2, 0]}
    assert task.dev[:]["tags"] == [[1]]
    assert task.metrics[0] == "entity_recall"
    data.to_parquet(tmp_path / "train.parquet")
    path = str(tmp_path / "train.parquet")
    assert load(path, dev=path).label_names == ("B-PER", "I-PER", "O")
    folder = load(f"hf:{tmp_path}")
    assert (folder.label_names, len(folder.dev)) == (("O", "B-PER", "I-PER", "B-LOC"), 2)


def test_dev_may_have_few_unknown_tags(write, caplog):
    train = write("train.conll", conll(*many()))
    dev = write("dev.conll", conll(*many(40), "Lee/B-PER x/B-MISC"))
    task = load(train, dev=str(dev))
    assert task.label_names == ("B-LOC", "B-PER", "I-PER", "O", "B-MISC")
    assert task.dev[40]["tags"] == [1, 4]
    assert "1 of 162 words have 1 tag(s) that no training sentence has: 'B-MISC'" in caplog.text
    dev = write("dev.conll", conll(*many(2), "Lee/B-PER x/B-MISC y/B-ODD"))
    with pytest.raises(DataError, match=r"2 of 11 words have 2 tag\(s\).*'B-MISC', 'B-ODD'; known"):
        load(train, dev=str(dev))


def test_another_scheme_of_dev_is_explained(write):
    train = write("train.conll", conll(*many()))
    dev = write("dev.conll", conll("Ann/B-PER Lee/E-PER saw/O Rome/S-LOC"))
    with pytest.raises(DataError, match=r"dev\.conll is tagged in IOBES, but .* in IOB2 .*convert"):
        load(train, dev=str(dev))
    dev = write("dev.conll", conll("Ann/I-PER Lee/I-PER saw/O Rome/I-PER"))
    with pytest.raises(DataError, match=r"dev\.conll is tagged in IOB1"):
        load(train, dev=str(dev))
    with pytest.raises(DataError, match="mark chunks, but 'X' beside them"):
        load(write("a.conll", conll(*many(), "Ann/X")))


def test_empty_sentences_are_left_out_and_counted(write, caplog):
    rows = [{"words": ["a", "b"], "tags": ["X", "Y"]}, {"words": [], "tags": []}] * 4
    path = write("t.jsonl", json_lines(*rows))
    task = load(path, dev=str(path))
    assert (len(task.train), len(task.dev)) == (4, 4)
    assert caplog.text.count("left out 4 of 8 sentences without a word") == 2
    path = write("t.jsonl", json_lines({"words": [], "tags": []}))
    with pytest.raises(DataError, match="every sentence is empty"):
        load(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": ["EU", "is"], "tags": ["X"]}, "sentence 2: 2 words, but 1 tags: 'EU is'"),
        ({"words": list("abcdefghij"), "tags": []}, "10 words, but 0 tags: 'a b c d e f g h ...'"),
        ({"words": ["EU", None], "tags": ["X", "Y"]}, "sentence 2: word 2 is None, which is no te"),
        ({"words": ["EU", "is"], "tags": ["X", None]}, "tag of word 2, 'is', is None, which is ne"),
        ({"words": ["EU", "is"], "tags": ["X", 0.5]}, "is 0.5, which is neither"),
        ({"words": "EU is", "tags": ["X", "Y"]}, "sentence 2, column 'words': 'EU is' is no list"),
        ({"words": ["EU"], "tags": "X"}, "sentence 2, column 'tags': 'X' is no list"),
    ],
)
def test_unusable_sentences_are_named(write, row, message):
    path = write("t.jsonl", json_lines({"words": ["a", "b"], "tags": ["X", "Y"]}, row))
    with pytest.raises(DataError, match=message):
        load(path)


def test_hidden_tags_of_a_dataset_are_named():
    data = tagged([(["a", "b"], [0, 1]), (["c"], [-1])], ["x", "y"])
    with pytest.raises(DataError, match="train, sentence 2: the tag of word 1, 'c', is None"):
        task_from_dataset(data, text="tokens", label="ner_tags")


def test_a_single_tag_is_refused_and_rare_ones_are_told(write, caplog):
    with pytest.raises(DataError, match="at least two tags, but the only one is 'O'"):
        load(write("a.conll", conll(*[f"a{i}/O b/O" for i in range(20)])))
    path = write("a.conll", conll(*many(), "x/B-MISC"))
    load(path, dev=str(path))
    assert "1 tag(s) have only one word, which cannot be learnt and judged: 'B-MISC'" in caplog.text


def test_a_file_of_words_alone_cannot_train(write):
    with pytest.raises(DataError, match="has words alone"):
        load(write("a.conll", "a\nb\n"))


def test_text_with_lists_of_labels_stays_multi_label(write):
    rows = [{"text": f"row {i}", "label": [["x"], ["x", "y"]][i % 2]} for i in range(40)]
    assert load(write("t.jsonl", json_lines(*rows))).kind == "multi_label"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("more.txt", "EU is\r\n\n so  so \n", [["EU", "is"], ["so", "so"]]),
        ("more.jsonl", json_lines({"tokens": ["EU", "is"]}, {"tokens": []}), [["EU", "is"]]),
        ("more.conll", conll("EU/X is/Y", "so/X"), [["EU", "is"], ["so"]]),
        ("more.iob", "EU\nis\n\nso\n", [["EU", "is"], ["so"]]),
        ("more.conllu", "1\tEU" + "\t_" * 8 + "\n", [["EU"]]),
    ],
)
def test_unlabelled_sentences_are_part_of_the_task(write, name, text, expected):
    path, more = write("a.conll", conll(*many())), write(name, text)
    task = load(path, dev=str(path), unlabelled=str(more))
    assert task.unlabelled[:] == {"words": expected}
    assert task.fingerprint() != load(path, dev=str(path)).fingerprint()


def test_columns_of_words_may_differ_between_kinds_of_files(write):
    rows = [{"w": ["Ann", "ran"], "tags": ["B-PER", "O"]} for _ in range(3)]
    table, columns = write("t.jsonl", json_lines(*rows)), write("a.conllu", "X EU\nX is\n")
    task = load(table, dev=str(table), text=("w",), unlabelled=f"conll:{columns}")
    assert task.unlabelled["words"][:] == [["X", "X"]]
    path = write("b.conll", "B-PER Ann\nO ran\n")
    more = write("more.jsonl", json_lines({"words": ["Bo"]}))
    task = load(path, dev=str(path), text=("2",), label="1", unlabelled=str(more))
    assert task.unlabelled["words"][:] == [["Bo"]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("more.txt", "\n \n", "holds no word"),
        ("more.jsonl", json_lines({"tokens": "EU is"}), "no column of lists of words called"),
        ("more.jsonl", json_lines({"w": ["EU"]}), "its columns are 'w'"),
        ("more.jsonl", json_lines({"words": ["EU"]}, {"words": None}), "sentence 2: None is no li"),
    ],
)
def test_unusable_unlabelled_sentences_are_refused(write, name, text, message):
    path, more = write("a.conll", conll(*many())), write(name, text)
    with pytest.raises(DataError, match=message):
        load(path, unlabelled=str(more))


@pytest.mark.data
def test_conll_2000_is_a_task(data_folder, caplog):
    folder = data_folder("tagging/conll2000")
    task = load(f"conll:{folder / 'train.txt'}", dev=f"conll:{folder / 'test.txt'}")
    assert (len(task.train), len(task.dev)) == (8_936, 2_012)
    assert (task.kind, task.metrics) == ("tags", ENTITIES)
    # 23 tags on the hub; I-LST stands in the test set alone.
    assert len(task.label_names) == 23
    assert "2 of 47377 words have 1 tag(s) that no training sentence has: 'I-LST'" in caplog.text


@pytest.mark.data
def test_ewt_is_a_task(data_folder):
    folder = data_folder("tagging/ud_ewt")
    task = load(
        folder / "en_ewt-ud-train.conllu", dev=str(folder / "en_ewt-ud-dev.conllu"), label="xpos"
    )
    assert (len(task.train), len(task.dev)) == (12_544, 2_001)
    assert task.metrics == ("tag_accuracy",)
    assert {"NN", "VBZ", "-LRB-"} <= set(task.label_names)
