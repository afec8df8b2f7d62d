import json

import datasets
import pytest
from datasets import DatasetDict

from stillhouse.data.encoding import encode
from stillhouse.data.squad import read_squad
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError


def question(key="a", answer="Ann", start=0, **more):
    return {"id": key, "question": "Who?", "answers": [{"text": answer, "answer_start": start}]} | (
        more
    )


def article(*questions, context="Ann met Bo."):
    return {"title": "x", "paragraphs": [{"context": context, "qas": list(questions)}]}


def squad(*articles):
    return json.dumps({"version": "1.1", "data": list(articles)})


def articles(count, first=0):
    return [
        article(question(f"{number} 0"), question(f"{number} 1"), context=f"Ann met Bo {number}.")
        for number in range(first, first + count)
    ]


def load(name, **settings):
    return load_task(TaskSettings(name=str(name), **settings))


def test_a_json_file_is_a_task(write, caplog):
    path = write("train.json", squad(*articles(10)))
    task = load(path)
    assert (task.name, task.kind) == ("train.json", "spans")
    assert (len(task.train), len(task.dev)) == (18, 2)
    given = load(path, dev=str(write("dev.json", squad(*articles(3, first=20)))))
    assert (len(given.train), len(given.dev)) == (20, 6)
    assert given.dev["key"][0] == "20 0"
    assert not caplog.records


def test_impossible_questions_have_no_answer(write):
    impossible = question("b", is_impossible=True, plausible_answers=[{"text": "Bo"}])
    path = write("t.json", squad(article(question(), impossible, question("c", answers=[]))))
    assert [len(one.answers) for one in read_squad(path).questions] == [1, 0, 0]
    none = {"id": "d", "question": "Why?", "is_impossible": True}
    assert read_squad(write("t.json", squad(article(none)))).questions[0].answers == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"t\.json: Expecting .* is a \.jsonl file"),
        ('{"text": "a"}\n{"text": "b"}\n', r"Extra data.* is a \.jsonl file"),
        ("[]", r"t\.json has no list 'data'; a \.json file holds questions in SQuAD's form"),
        ('{"data": [{}]}', "article 1 has no list 'paragraphs'"),
        ('{"data": [{"paragraphs": [{}]}]}', "article 1, paragraph 1 has no text 'context'"),
        (squad(article({"question": "Who?", "answers": []})), "'Who[?]' has no id"),
        (squad(article({"id": "a", "answers": []})), "paragraph 1 has no text 'question'"),
        (squad(article({"id": "a", "question": "Who?"})), "'Who[?]' has no list 'answers'"),
        (squad(article(question(answer=3))), "answer 3 is no text"),
        (squad(), "holds no question"),
        (squad(article(question(answer="\ud800"))), r"surrogates not allowed"),
    ],
)
def test_broken_files_are_refused(write, text, message):
    with pytest.raises(DataError, match=message):
        read_squad(write("t.json", text))


def test_named_versions_come_from_folders(write, tmp_path, monkeypatch):
    for name, count in (("train-v1.1", 6), ("dev-v1.1", 2), ("dev-v2.0", 1)):
        write(f"squad/{name}.json", squad(*articles(count)))
    task = load("squad", directory=str(tmp_path / "squad"))
    assert (task.name, len(task.train), len(task.dev)) == ("squad", 12, 4)
    with pytest.raises(DataError, match=r"has no file 'train-v2\.0\.json'; give the folder"):
        load("squad-v2", directory=str(tmp_path / "squad"))
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path))
    assert load("squad").fingerprint() == task.fingerprint()


def test_named_versions_come_from_the_hub(tmp_path, monkeypatch):
    asked = []

    def rows(count):
        return datasets.Dataset.from_list(
            [
                {"id": str(i), "title": "x", "context": f"Ann {i}", "question": "Who?"}
                | {"answers": {"text": ["Ann"] * (i % 2), "answer_start": [0] * (i % 2)}}
                for i in range(count)
            ]
        )

    def load_dataset(*arguments):
        asked.append(arguments)
        return DatasetDict(train=rows(8), validation=rows(4))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path))
    task = load("squad-v2")
    assert asked == [("rajpurkar/squad_v2", None)]
    assert (task.name, len(task.train), len(task.dev)) == ("squad-v2", 8, 4)
    assert task.dev[:]["answers"] == [[], ["Ann"], [], ["Ann"]]
    load("squad")
    assert asked[1:] == [("rajpurkar/squad", None)]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "unanswerable"),
    [
        ("dev-v1.1", 10_570, 0),
        ("dev-v2.0", 11_873, 5_945),
        pytest.param("train-v1.1", 87_599, 0, marks=pytest.mark.slow),
    ],
)
def test_squad_has_its_questions(data_folder, name, count, unanswerable):
    questions = read_squad(data_folder("squad") / f"{name}.json").questions
    assert len(questions) == count
    assert sum(not one.answers for one in questions) == unanswerable
    for one in questions:
        for answer in one.answers:
            assert one.context.startswith(answer.text, answer.start)


@pytest.mark.data
def test_the_dev_set_alone_is_a_task(data_folder, caplog):
    task = load(data_folder("squad") / "dev-v2.0.json")
    assert len(task.train) + len(task.dev) == 11_873
    assert 1_187 <= len(task.dev) < 1_250
    assert not set(task.train["context"]) & set(task.dev["context"])
    assert not caplog.records


@pytest.mark.data
def test_answers_come_back_from_their_tokens(data_folder, bert_tokenizer):
    path = str(data_folder("squad") / "dev-v1.1.json")
    questions = load(path, dev=path).dev.select(range(0, 10_570, 21)).select(range(500))
    encoded = encode(questions, bert_tokenizer, max_length=384, stride=128)
    sheet = encoded.sheet
    assert {one.key for one in sheet.questions} == set(questions["key"])
    found, cut = set(), set()
    for window, (first, last) in enumerate(encoded.labels.tolist()):
        if last == 0:
            continue
        number = int(sheet.question_of_N[window])
        places = sheet.characters_P2[encoded.offsets[window] :]
        start, end = places[first, 0], places[last, 1]
        context, answer = sheet.questions[number].context, sheet.questions[number].answers[0]
        place = questions[number]["answer_starts"][0]
        assert start <= place < place + len(answer) <= end
        found.add(number)
        if context[start:end] != answer:
            cut.add(number)
            # Only because a token goes on where the answer begins or ends.
            assert start == place or not context[place - 1].isspace()
            assert end == place + len(answer) or not context[place + len(answer)].isspace()
    assert len(found) == 500
    assert len(cut) <= 5
