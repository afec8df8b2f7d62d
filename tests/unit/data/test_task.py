import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from stillhouse.data.task import TaskSettings, load_task, task_from_dataset, usual_length
from stillhouse.errors import DataError, SettingsError


def dataset(count=40, **columns):
    return Dataset.from_dict(
        {"words": [f"row {i}" for i in range(count)], "y": [i % 2 for i in range(count)], **columns}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "glue/nope"}, "glue/sst2"),
        ({"name": "reviews.xlsx"}, r"name a \.csv, \.tsv, \.jsonl"),
        ({"name": "hf:"}, r"task\.name 'hf:' names no dataset"),
        ({"name": "hf:imdb:"}, "names no dataset"),
        ({"name": "hf:a:b:c"}, "names no dataset"),
        ({"name": "hf:imdb", "directory": "/data"}, "directory is for GLUE"),
        ({"text": ("a",)}, "brings its own columns"),
        ({"name": "glue/sst2", "dev": "dev.csv"}, "brings its own columns"),
        ({"name": "t.csv", "directory": "/data"}, "directory is for GLUE"),
        ({"name": "t.csv", "dev": "dev.txt"}, r"'dev\.txt'"),
        ({"name": "t.csv", "text": ("a", "b", "c")}, "two different ones"),
        ({"name": "t.csv", "text": ("a", "a")}, "two different ones"),
        ({"metric": "bleu"}, "no metric 'bleu'"),
        ({"max_length": 4}, "at least 8, but is 4"),
        ({"min_length": 128}, r"below max_length \(128\), but is 128"),
        ({"min_length": -1}, "from 0 to"),
        ({"name": "squad", "min_length": 8}, "min_length is not for questions"),
        ({"stride": -1}, "stride is at least 0, but is -1"),
        ({"max_train": 0}, "at least 1, but is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        TaskSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 128),
        ({"name": "t.jsonl"}, 128),
        ({"name": "squad"}, 384),
        ({"name": "t.json"}, 384),
        ({"name": "hf:rajpurkar/squad_v2"}, 384),
        ({"name": "t.jsonl", "label": "answers"}, 384),
        ({"name": "t.jsonl", "text": ("question", "context")}, 384),
        ({"name": "squad", "max_length": 64}, 64),
    ],
)
def test_questions_are_usually_longer(settings, expected):
    assert TaskSettings(**settings).max_length == expected
    assert (usual_length("spans"), usual_length("tags")) == (384, 128)


def test_a_dataset_becomes_a_task():
    task = task_from_dataset(dataset(), dataset(4), text="words", label="y", metric="mcc")
    assert task.name == "dataset"
    assert task.metrics == ("mcc", "accuracy", "f1_macro")
    assert task.label_names == ("0", "1")
    assert task.dev[:] == {"text_a": [f"row {i}" for i in range(4)], "label": [0, 1, 0, 1]}


def test_class_label_names_keep_their_order_whatever_the_dev_set_numbers():
    def labelled(names, numbers):
        features = Features(words=Value("string"), y=ClassLabel(names=names))
        columns = {"words": [f"row {i}" for i in range(len(numbers))], "y": numbers}
        return Dataset.from_dict(columns, features=features)

    train, dev = labelled(["yes", "no"], [0, 1, 1]), labelled(["no", "yes"], [0, 1, 1])
    task = task_from_dataset(train, dev, text=["words"], label="y")
    assert task.label_names == ("yes", "no")
    assert task.train[:]["label"] == [0, 1, 1]
    assert task.dev[:]["label"] == [1, 0, 0]
    with pytest.raises(DataError, match="have no label"):
        task_from_dataset(labelled(["yes", "no"], [0, 1, -1]), text="words", label="y")


def test_lists_of_classes_keep_their_names_and_their_order():
    features = Features(words=Value("string"), y=List(ClassLabel(names=["yes", "no", "so"])))
    columns = {"words": [f"row {i}" for i in range(40)], "y": [[0], [1, 0], [], [1]] * 10}
    data = Dataset.from_dict(columns, features=features)
    task = task_from_dataset(data, data, text="words", label="y")
    assert task.label_names == ("yes", "no", "so")
    assert task.dev[:]["label"] == [[0], [0, 1], [], [1]] * 10
    assert task.kind == "multi_label"
    other = task_from_dataset(data, data.select(range(39)), text="words", label="y")
    assert task.fingerprint() != other.fingerprint()


def test_float_labels_make_a_regression():
    task = task_from_dataset(dataset(y=[i / 4 for i in range(40)]), text="words", label="y")
    assert task.is_regression
    assert (len(task.train), len(task.dev)) == (36, 4)


@pytest.mark.parametrize(
    ("columns", "text", "message"),
    [
        ({}, "nope", "train has no column 'nope'; its columns are 'words', 'y'"),
        ({"words": list(range(40))}, "words", "column 'words', example 1: 0 is not a text"),
        ({"y": [None, *[1] * 39]}, "words", "1 of 40 examples have no label"),
        ({"y": [[1]] * 40}, "words", "at least two classes"),
        ({"y": [{"a": 1}] * 40}, "words", "neither a text nor a number"),
    ],
)
def test_unusable_datasets_are_refused(columns, text, message):
    with pytest.raises(DataError, match=message):
        task_from_dataset(dataset(**columns), text=text, label="y")


def test_empty_datasets_and_no_columns_are_refused():
    with pytest.raises(DataError, match="dev is empty"):
        task_from_dataset(dataset(), dataset().select([]), text="words", label="y")
    with pytest.raises(SettingsError, match="names no column"):
        task_from_dataset(dataset(), text=[], label="y")


def test_max_train_draws_from_train_only(write):
    path = write("t.csv", "text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(200)))
    whole = load_task(TaskSettings(name=str(path)))
    small = load_task(TaskSettings(name=str(path), max_train=50))
    assert len(small.train) == 50
    assert set(small.train["text_a"]) < set(whole.train["text_a"])
    assert small.train["text_a"][:] != whole.train["text_a"][:50]
    assert small.dev[:] == whole.dev[:]
    again = load_task(TaskSettings(name=str(path), max_train=50))
    assert again.fingerprint() == small.fingerprint() != whole.fingerprint()


def test_the_fingerprint_tells_contents_apart():
    task = task_from_dataset(dataset(), dataset(4), text="words", label="y")
    same = task_from_dataset(dataset(), dataset(4), text="words", label="y", name="other")
    assert task.fingerprint() == same.fingerprint()
    assert len(task.fingerprint()) == 64
    changed = dataset(4, words=["row 0", "row 1", "row 2", "row 4"])
    other = task_from_dataset(dataset(), changed, text="words", label="y")
    renamed = task_from_dataset(
        dataset(y=[i % 2 + 1 for i in range(40)]),
        dataset(4, y=[1, 2, 1, 2]),
        text="words",
        label="y",
    )
    assert len({task.fingerprint(), other.fingerprint(), renamed.fingerprint()}) == 3


def test_unlabelled_texts_are_part_of_the_task(write):
    path = write("t.csv", "words,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(40)))
    more = write("more.csv", "words\nnew one\n")
    plain = TaskSettings(name=str(path), text=("words",))
    extended = TaskSettings(name=str(path), text=("words",), unlabelled=str(more))
    task = load_task(extended)
    assert task.unlabelled is not None
    assert task.unlabelled[:] == {"text_a": ["new one"]}
    assert task.fingerprint() != load_task(plain).fingerprint()
