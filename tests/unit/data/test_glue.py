from pathlib import Path

import datasets
import pytest

from stillhouse.data.glue import GLUE_TASKS, load_glue
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError, SettingsError

# Rows, and examples of class 1, from the official release.
OFFICIAL = {
    "sst2": (67_349, 872, 37_569, 444),
    "mrpc": (3_668, 408, 2_474, 279),
    "cola": (8_551, 1_043, 6_023, 721),
    "rte": (2_490, 277, 1_241, 131),
    "wnli": (635, 71, 312, 31),
}


@pytest.mark.data
@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_counts_are_read(glue_folder, name):
    task = load_task(TaskSettings(name=f"glue/{name}", directory=str(glue_folder)))
    sets = (task.train, task.dev)
    counts = (*map(len, sets), *(sum(part[:]["label"]) for part in sets))
    assert counts == OFFICIAL[name]
    assert task.name == f"glue/{name}"


@pytest.mark.data
def test_stsb_is_a_regression_from_0_to_5(glue_folder):
    task = load_task(TaskSettings(name="glue/stsb", directory=str(glue_folder)))
    assert task.is_regression
    assert task.metrics == ("pearson", "spearman")
    assert (len(task.train), len(task.dev)) == (5_749, 1_500)
    labels = task.train[:]["label"]
    assert (min(labels), max(labels)) == (0.0, 5.0)
    assert task.train[0] == {
        "text_a": "A plane is taking off.",
        "text_b": "An air plane is taking off.",
        "label": 5.0,
    }


@pytest.mark.data
def test_quotes_are_kept_and_the_byte_order_mark_dropped(glue_folder):
    task = load_task(TaskSettings(name="glue/mrpc", directory=str(glue_folder)))
    first = task.train[0]
    assert first["text_b"].startswith('Referring to him as only " the witness " , Amrozi')
    assert first["label"] == 1
    assert task.label_names == ("not_equivalent", "equivalent")
    assert task.metrics == ("accuracy", "f1")


def write_rte(root: Path, train: str) -> Path:
    folder = root / "glue" / "RTE"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text(train)
    (folder / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\tp\tq\tentailment\n")
    return root / "glue"


HEADER = "index\tsentence1\tsentence2\tlabel\n"
GOOD = HEADER + "0\ta\tb\tentailment\n1\tc\td\tnot_entailment\n"


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    write_rte(tmp_path, GOOD)
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path))
    source = load_glue("rte", None)
    assert source.train[:] == {"text_a": ["a", "c"], "text_b": ["b", "d"], "label": [0, 1]}
    assert source.label_names == ("entailment", "not_entailment")


def test_a_few_broken_rows_are_left_out_with_a_warning(tmp_path, caplog):
    folder = write_rte(tmp_path, GOOD + "2\te\tf\tentailment\n" * 200 + "3\tbroken\n")
    assert len(load_glue("rte", folder).train) == 202
    assert "left 1 broken rows out" in caplog.text


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("", "no column 'sentence1'"),
        (HEADER, "0 of 0 rows"),
        ("index\tsentence1\tlabel\n0\ta\tentailment\n", "no column 'sentence2'"),
        (GOOD + "3\tbroken\n", "1 of 3 rows do not have 4 fields"),
        (GOOD + "2\te\tf\tperhaps\n", "'perhaps'"),
    ],
)
def test_files_that_are_not_glue_are_refused(tmp_path, train, message):
    with pytest.raises(DataError, match=message):
        load_glue("rte", write_rte(tmp_path, train))


def test_a_missing_folder_or_task_is_refused(tmp_path):
    with pytest.raises(DataError, match="no folder 'RTE'"):
        load_glue("rte", tmp_path)
    with pytest.raises(SettingsError, match="glue/qqp"):
        load_glue("nope", tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stands in for the hub and notes what was asked for."""
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path))
    asked = []

    def load_dataset(name, task, split):
        asked.append((name, task, split))
        layout = GLUE_TASKS[task]
        label = (
            datasets.ClassLabel(names=list(reversed(layout.label_names)))
            if layout.label_names
            else datasets.Value("float32")
        )
        features = {column: datasets.Value("string") for column in layout.hub_text}
        columns = {column: [f"{column} 0", f"{column} 1"] for column in layout.hub_text}
        return datasets.Dataset.from_dict(
            {**columns, "label": [0, 1]}, features=datasets.Features({**features, "label": label})
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_the_hub_serves_what_no_folder_holds(hub):
    source = load_glue("mnli", None)
    assert hub == [
        ("nyu-mll/glue", "mnli", "train"),
        ("nyu-mll/glue", "mnli", "validation_matched"),
    ]
    assert source.train[0] == {"text_a": "premise 0", "text_b": "hypothesis 0", "label": 2}


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_every_task_loads_from_the_hub_with_labels_matched_by_name(hub, name):
    task = load_task(TaskSettings(name=f"glue/{name}"))
    last = len(task.label_names) - 1
    expected = [0.0, 1.0] if task.is_regression else [last, last - 1]
    assert task.train[:]["label"] == expected
    assert len(hub) == 2


def test_an_unreachable_hub_is_explained(tmp_path, monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"qnli, train.*\(offline\).*STILLHOUSE_DATA/glue"):
        load_glue("qnli", None)


MNLI_START = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2"
)
ORIGINAL = {
    "qnli": {
        "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n"
        "0\tWho \"said\" so?\tShe did.\tentailment\n1\tWhy?\tNo one knows.\tnot_entailment\n",
        "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWhen?\tNow.\tnot_entailment\n",
    },
    "qqp": {
        "QQP/train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        + "1\t2\t3\tHow?\tIn what way?\t1\n" * 150
        + "4\t5\t6\tA question with a\n line break?\tAnother?\t0\n"
        + "7\t8\t9\tWho?\tWhere?\t0\n" * 150,
        "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "1\t2\t3\tQ\tR\t0\n",
    },
    "mnli": {
        "MNLI/train.tsv": f"{MNLI_START}\tlabel1\tgold_label\n"
        + "0\t1\t1n\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tp\th\tneutral\tneutral\n"
        + "1\t2\t2e\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tq\ti\tneutral\tentailment\n",
        "MNLI/dev_matched.tsv": MNLI_START
        + "\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
        + "0\t1\t1c\tslate\t(\t(\t(\t(\tr\tj"
        + "\tneutral" * 2 + "\tcontradiction" * 4 + "\n",
        "MNLI/dev_mismatched.tsv": "not read",
    },
    "mrpc": {
        "MRPC/train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        "1\t10\t11\tHe said \" no .\tNo , he said .\n0\t12\t13\tOne .\tTwo .\n",
        "MRPC/dev.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        "0\t10\t11\tThree .\tFour .\n",
    },
}  # fmt: skip


@pytest.fixture
def original(tmp_path):
    """Writes files in the layout of the original release and loads the task."""

    def load(name):
        for path, text in ORIGINAL[name].items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")
        return load_task(TaskSettings(name=f"glue/{name}", directory=str(tmp_path)))

    return load


def test_qnli_has_questions_and_sentences(original):
    task = original("qnli")
    assert task.train[:] == {
        "text_a": ['Who "said" so?', "Why?"],
        "text_b": ["She did.", "No one knows."],
        "label": [0, 1],
    }
    assert task.dev[:]["label"] == [1]


def test_rows_of_qqp_that_a_line_break_parts_are_left_out(original, caplog):
    task = original("qqp")
    assert "left 2 broken rows out" in caplog.text
    assert (len(task.train), sum(task.train[:]["label"])) == (300, 150)
    assert task.train[0] == {"text_a": "How?", "text_b": "In what way?", "label": 1}
    assert task.label_names == ("not_duplicate", "duplicate")


def test_mnli_is_the_gold_label_on_the_matched_dev_set(original):
    task = original("mnli")
    assert task.train[:] == {"text_a": ["p", "q"], "text_b": ["h", "i"], "label": [1, 0]}
    assert task.dev[:] == {"text_a": ["r"], "text_b": ["j"], "label": [2]}


def test_mrpc_begins_with_a_byte_order_mark(original):
    task = original("mrpc")
    assert task.train[0] == {"text_a": 'He said " no .', "text_b": "No , he said .", "label": 1}
    assert task.dev[:]["label"] == [0]
