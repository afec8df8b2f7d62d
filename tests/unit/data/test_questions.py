import json

import pytest
from datasets import Dataset, Features, List, Value

from stillhouse.data.task import TaskSettings, load_task, task_from_dataset
from stillhouse.errors import DataError, SettingsError

CONTEXT = "Ann met Bo in Rome. Bo left Rome in May."


def row(number=0, context=CONTEXT, question="Who?", answers=(("Ann", 0),), **more):
    given = {"text": [one for one, _ in answers], "answer_start": [at for _, at in answers]}
    return {"id": f"q{number}", "question": question, "context": context, "answers": given, **more}


def many(count=40, a_context=4):
    return [
        row(number, context=f"{CONTEXT} It was day {number // a_context}.")
        for number in range(count)
    ]


@pytest.fixture
def table(write):
    def write_table(rows, name="t.jsonl"):
        return str(write(name, "".join(f"{json.dumps(each)}\n" for each in rows)))

    return write_table


def load(path, **settings):
    return load_task(TaskSettings(name=path, **settings))


def test_rows_of_questions_become_a_task(table):
    task = load(table(many()))
    assert (task.kind, task.is_regression, task.output_count) == ("spans", False, 2)
    assert (task.label_names, task.metrics) == ((), ("answer_f1", "exact_match"))
    assert task.train.features == Features(
        key=Value("string"),
        question=Value("string"),
        context=Value("string"),
        answers=List(Value("string")),
        answer_starts=List(Value("int64")),
    )
    assert (len(task.train), len(task.dev)) == (36, 4)
    example = task.dev[0]
    assert (example["question"], example["answers"], example["answer_starts"]) == (
        "Who?", ["Ann"], [0],
    )  # fmt: skip


def test_held_out_questions_share_no_context(table):
    task = load(table(many(200, a_context=7)))
    train, dev = set(task.train["context"]), set(task.dev["context"])
    assert not train & dev
    assert len(train | dev) == 29
    assert 20 <= len(task.dev) < 27
    assert set(task.train["key"]) | set(task.dev["key"]) == {f"q{i}" for i in range(200)}


def test_columns_and_a_dev_file_are_the_users(table):
    rows = [{"q": "Who?", "c": CONTEXT, "a": [{"text": "Bo", "answer_start": 8}]}] * 3
    dev = [{"q": "When?", "c": CONTEXT, "a": [{"text": "May"}]}, {"q": "x", "c": "y", "a": []}]
    settings = {"text": ("q", "c"), "label": "a", "metric": "exact_match"}
    task = load(table(rows), dev=table(dev, "dev.jsonl"), **settings)
    assert task.metrics == ("exact_match", "answer_f1")
    assert task.train["key"][:] == ["1", "2", "3"]
    assert task.dev[:]["answers"] == [["May"], []]
    assert task.dev[:]["answer_starts"] == [[36], []]
    with pytest.raises(SettingsError, match="'f1' does not fit a question-answering task"):
        load(table(rows), dev=table(dev, "dev.jsonl"), **{**settings, "metric": "f1"})


def test_datasets_and_parquet_files(tmp_path):
    rows = [row(number, context=f"{CONTEXT} {number}") for number in range(20)]
    data = Dataset.from_list(rows)
    task = task_from_dataset(data, data, text=("question", "context"), label="answers")
    assert (task.kind, len(task.train)) == ("spans", 20)
    data.to_parquet(tmp_path / "train.parquet")
    again = load(str(tmp_path / "train.parquet"), dev=str(tmp_path / "train.parquet"))
    assert again.fingerprint() == task.fingerprint()
    assert len(load(f"hf:{tmp_path}").dev) == 2


def test_impossible_questions_have_no_answer(table):
    rows = [row(0), row(1, is_impossible=True), row(2, answers=()), row(3, answers=[("", -1)])]
    task = load(table(rows), dev=table(rows, "dev.jsonl"))
    assert task.dev[:]["answers"] == [["Ann"], [], [], []]


@pytest.mark.parametrize(
    ("answer", "start"),
    [
        (("Rome", 14), 14),
        (("Rome", 13), 14),
        (("Rome", 24), 28),
        (("Rome", 20), 14),
        (("Rome", None), 14),
        (("Rome", 900), 28),
        (("Rome", -5), 14),
        (("Paris", 3), -1),
    ],
)
def test_answers_go_to_their_nearest_place(table, answer, start, caplog):
    rows = [row(0, answers=[answer]), row(1)]
    task = load(table(many()), dev=table(rows, "dev.jsonl"))
    assert task.dev[:]["answer_starts"] == [[start], [0]]
    moved = start not in (-1, answer[1]) and answer[1] is not None
    assert ("1 answers do not stand at their answer_start" in caplog.text) == moved


def test_answers_outside_their_contexts(table, caplog):
    rows = [*many(), row("x", answers=[("Paris", 3)]), row("y", answers=[("Paris", 3), ("Bo", 8)])]
    path = table(rows)
    task = load(path, dev=path)
    assert (len(task.train), len(task.dev)) == (41, 42)
    assert "left out 1 of 42 questions: questions whose answers do not occur" in caplog.text
    assert "the answers to 1 of 42 questions do not occur in their contexts; they" in caplog.text
    assert task.train[40]["answer_starts"] == [-1, 8]
    assert task.dev[40]["answers"] == ["Paris"]


def test_empty_questions_and_contexts_are_left_out(table, caplog):
    rows = [*many(), row("x", question=" "), row("y", context="", answers=())]
    path = table(rows)
    task = load(path, dev=path)
    assert (len(task.train), len(task.dev)) == (40, 40)
    told = "left out 2 of 42 questions: questions without a text or without a context"
    assert caplog.text.count(told) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0), row(0), row(1), row(1)], "2 ids stand at several questions, the first is 'q0'"),
        ([row(0, answers=())] * 1, "none of 1 questions has a usable answer"),
        ([row(0, answers=[("Oslo", 0)])], "none of 1 questions has a usable answer"),
        ([row(0), row(1, question=3)], "example 2, column 'question': 3 is no text"),
        ([row(0), row(1, context=None)], "example 2, column 'context': None is no text"),
        ([{**row(0), "answers": "Ann"}], "example 1, 'answers': 'Ann' is no set of answers"),
        ([{**row(0), "answers": {"text": ["a"], "answer_start": []}}], "is no set of answers"),
        ([row(0, answers=[("Ann", "0")])], "answer_start '0' of 'Ann' is no whole number"),
        ([{**row(0), "answers": [{"answer_start": 0}]}], "answer None is no text"),
        ([row(number) for number in range(9)], "cannot hold 1 of 9 .* at least two contexts"),
    ],
)
def test_unusable_questions_are_named(table, rows, message):
    with pytest.raises(DataError, match=message):
        load(table(rows))


def test_short_examples_and_unlabelled_texts_are_not_for_questions(table, write):
    path = table(many())
    with pytest.raises(SettingsError, match=r"min_length is not for questions.*but is 12"):
        load(path, min_length=12)
    with pytest.raises(SettingsError, match="a text alone asks none; remove unlabelled"):
        load(path, unlabelled=str(write("more.txt", "a\n")))


def test_windows_of_usual_texts_are_told(table, caplog):
    path = table(many())
    load(path)
    assert "cut into windows of 128 tokens (task.max_length), usual for questions are 384" in (
        caplog.text
    )
    caplog.clear()
    for settings in ({"label": "answers"}, {"max_length": 200}):
        load(path, **settings)
    assert not caplog.records
