import json

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError


def split(count, start=0, label=lambda number: number % 2, feature=None):
    features = Features(
        words=Value("string"), y=feature or ClassLabel(names=["bad", "good"]), other=Value("int64")
    )
    columns = {"words": [f"text {start + i}" for i in range(count)]}
    columns["y"] = [label(i) for i in range(count)]
    columns["other"] = list(range(count))
    return Dataset.from_dict(columns, features=features)


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub: serves the given splits and notes what was asked for."""
    asked = []

    def serve(**splits):
        def load_dataset(*arguments, **options):
            asked.append((arguments, options))
            return DatasetDict(splits)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


def load(name="hf:imdb", **settings):
    return load_task(TaskSettings(name=name, text=("words",), label="y", **settings))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("hf:imdb", ("imdb", None)),
        ("hf:owner/name", ("owner/name", None)),
        ("hf:owner/name:plain", ("owner/name", "plain")),
        ("hf:glue:sst2", ("glue", "sst2")),
    ],
)
def test_a_name_may_have_an_owner_and_a_configuration(hub, name, arguments):
    asked = hub(train=split(40))
    assert load(name).name == name
    assert asked == [(arguments, {})]


@pytest.mark.parametrize(
    ("splits", "dev", "expected"),
    [
        ({"validation": 5, "test": 6}, None, 5),
        ({"test": 6, "unsupervised": 3}, None, 6),
        ({"validation": 5, "test": 6}, "test", 6),
        ({"validation_matched": 7}, "validation_matched", 7),
        ({}, None, 4),
    ],
)
def test_the_dev_set_is_a_split_or_held_out(hub, splits, dev, expected):
    hub(train=split(40), **{name: split(count, start=100) for name, count in splits.items()})
    task = load(dev=dev)
    assert len(task.dev) == expected
    assert len(task.train) == 40 - (0 if splits else 4)
    assert task.label_names == ("bad", "good")


def test_classes_and_lists_of_classes_keep_their_names(hub):
    hub(train=split(40, feature=ClassLabel(names=["z", "a"])))
    assert load().label_names == ("z", "a")
    feature = List(ClassLabel(names=["z", "a", "m"]))
    hub(train=split(40, label=lambda i: [i % 3] * (i % 4 > 0), feature=feature))
    task = load()
    assert (task.kind, task.label_names) == ("multi_label", ("z", "a", "m"))


def test_missing_splits_and_columns_are_named(hub):
    hub(test=split(5))
    with pytest.raises(DataError, match=r"hf:imdb has no split 'train'.*only 'test'"):
        load()
    hub(train=split(5), test=split(5))
    with pytest.raises(DataError, match="no split 'dev' for the dev set, only 'train', 'test'"):
        load(dev="dev")
    with pytest.raises(DataError, match="hf:imdb, split train has no column 'text'"):
        load_task(TaskSettings(name="hf:imdb"))


def test_hidden_labels_of_a_test_split_are_explained(hub):
    hub(train=split(10), test=split(5, label=lambda _: -1))
    with pytest.raises(DataError, match="hf:imdb, split test, column 'y': 5 of 5 examples have no"):
        load()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("offline"),
        ValueError("offline: no such configuration"),
        RuntimeError("offline: half of a file"),
        datasets.exceptions.DatasetNotFoundError("offline: no such dataset"),
    ],
)
def test_what_cannot_be_loaded_is_explained(monkeypatch, error):
    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"cannot load hf:imdb \(offline.*check the name, go online"
    ):
        load()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that `datasets` loads by itself, and a cache of its own."""
    for name, count in (("train", 30), ("validation", 6)):
        rows = ({"words": f"{name} {i}", "y": ["bad", "good"][i % 2]} for i in range(count))
        path = tmp_path / "reviews" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "reviews"


def test_a_folder_is_loaded_like_a_dataset_of_the_hub(folder):
    for name in ("hf:./reviews", f"hf:{folder}"):
        task = load(name)
        assert task.label_names == ("bad", "good")
        assert (len(task.train), len(task.dev)) == (30, 6)
        assert task.dev[0] == {"text_a": "validation 0", "label": 0}


def test_what_is_neither_folder_nor_dataset_is_explained(folder):
    with pytest.raises(DataError, match=r"cannot load hf:\./nowhere.*check the name"):
        load("hf:./nowhere")


def test_a_dataset_that_is_a_program_is_refused_and_not_run(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "old.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"hf:\./old is a program .* never run; .*Parquet"):
        load("hf:./old")
