"""Taggers and readers as ONNX folders that run without torch, and as what is measured."""

import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from transformers import RobertaTokenizer

import stillhouse
from stillhouse.data.batching import collate
from stillhouse.data.encoding import encode
from stillhouse.data.tagging import to_dataset
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError
from stillhouse.evaluate.answering import answers
from stillhouse.model.chains import chain_config
from stillhouse.model.heads import auto_class_of, outputs_of
from stillhouse.model.inputs import model_inputs
from stillhouse.model.own_families import add_code, needs_code
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock

FREE = BertArchitecture(layers=1, hidden_size=24, heads=2, head_size=16, ffn_size=48)
CHAIN = ChainArchitecture(
    embedding_size=16,
    blocks=(
        ChainBlock(hidden_size=24, operations=("S3", "M", "F")),
        ChainBlock(hidden_size=16, operations=("M", "S7")),
    ),
    head_size=8,
)
LONGEST = 60
TEXTS = [
    "sunny",
    "a rainy day",
    "the town that look long",
    "this evening road river house garden",
    "a blue bird ||| this is a blue bird of the long river",
]
PAIRS = [
    ("long road", "the road this morning is long and grey"),
    ("a bird", "garden"),
    ("this", "a river that look blue, a town; the icy evening"),
    ("the day", "sunny day, stormy evening"),
]


@pytest.fixture(scope="module")
def byte_tokenizer(weather_rows):
    """A tokeniser after RoBERTa's, which tells words within a text from the first one."""
    texts = [text for text, _ in weather_rows]
    return RobertaTokenizer().train_new_from_iterator(texts, vocab_size=290)


def build(family, kind, tiny_config, words, *, outputs=3):
    labels = outputs if kind == "tags" else 2
    positions = LONGEST + 2 * (family == "roberta")
    base = tiny_config(
        "bert" if family in ("free heads", "chain") else family,
        vocab_size=words, labels=labels, pad_token_id=0, max_position_embeddings=positions,
    )  # fmt: skip
    config = {"free heads": lambda: student_config(FREE, base)}.get(family, lambda: base)()
    if family == "chain":
        config = chain_config(CHAIN, base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return auto_class_of(kind).from_config(config)


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if needs_code(model.config):
        add_code(folder)
    return folder


@pytest.fixture(
    scope="module",
    params=[
        ("bert", "tags"), ("roberta", "tags"), ("chain", "tags"),
        ("distilbert", "spans"), ("roberta", "spans"), ("free heads", "spans"),
    ],
    ids="-".join,
)  # fmt: skip
def exported(request, tiny_config, weather_tokenizer, byte_tokenizer, tmp_path_factory):
    """A model with random weights and its tokeniser, and its folder with a file of float32."""
    family, kind = request.param
    tokenizer = byte_tokenizer if family == "roberta" else weather_tokenizer
    model = build(family, kind, tiny_config, len(tokenizer)).eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
    if family == "distilbert":
        model.config.no_answer_threshold = -0.45
    folder = save(model, tokenizer, tmp_path_factory.mktemp("checkpoint"))
    return kind, model, tokenizer, stillhouse.export_onnx(folder, check=TEXTS)


@pytest.mark.slow
def test_a_checkpoint_becomes_a_folder_that_says_what_it_answers(exported):
    kind, model, _, result = exported
    told = json.loads((result.path / "export.json").read_text())
    card = (result.path / "README.md").read_text(encoding="utf-8")
    assert told["checked_on"]["texts"] == len(TEXTS)
    assert max(told["differences_fraction"]["onnx float32"].values()) <= 1e-4
    if kind == "tags":
        assert told["head"] == "tagger"
        assert told["outputs"] == ["logits"]
        assert told["labels"] == ["label 0", "label 1", "label 2"]
        assert "Checked on 5 sentences of given texts." in card
    else:
        assert told["head"] == "reader"
        assert told["outputs"] == ["start_logits", "end_logits"]
        assert told["labels"] == []
        assert told["checked_on"]["name"] == "given texts (4 of them both question and passage)"
        assert "Checked on 5 questions of given texts (4 of them" in card
        threshold = getattr(model.config, "no_answer_threshold", None)
        assert told["no_answer_threshold"] == threshold
        assert ("more than -0.4500" in card) is (threshold is not None)
    assert told["example"] in card


@pytest.mark.slow
def test_the_example_answers_as_the_model_does(exported, infer):
    kind, model, tokenizer, result = exported
    (tags_are_right if kind == "tags" else answers_are_right)(model, tokenizer, result.path, infer)


@torch.no_grad()
def logits_of(model, encoded):
    """Gives what PyTorch says of every token, one example at a time."""
    rows = []
    for place in range(len(encoded)):
        batch = collate(encoded.select([place]), [0])
        rows.append(outputs_of(model(**model_inputs(model.config, batch)))[0].numpy())
    return np.concatenate(rows)


def tags_are_right(model, tokenizer, folder, infer):
    sentences = [text.split() for text in ("a sunny day", "U.S. town, the rainy road!", "tree")]
    encoded = encode(to_dataset(sentences), tokenizer, max_length=LONGEST)
    odds = torch.tensor(logits_of(model, encoded)).softmax(-1)[encoded.tags != -100]
    lines = infer(folder, *[" ".join(words) for words in sentences])
    assert [len(line) for line in lines] == [3] * 3 + [1] + [3] * 5 + [1] + [3] + [1]
    told = [line for line in lines if line != [""]]
    assert [word for word, _, _ in told] == [word for words in sentences for word in words]
    assert [tag for _, tag, _ in told] == [f"label {number}" for number in odds.argmax(-1)]
    scores = [float(score) for _, _, score in told]
    assert scores == pytest.approx(odds.max(-1).values.tolist(), abs=2e-4)


def answers_are_right(model, tokenizer, folder, infer):
    columns = {
        "key": list("abcd"), "answers": [[]] * 4, "answer_starts": [[]] * 4,
        "question": [question for question, _ in PAIRS],
        "context": [context for _, context in PAIRS],
    }  # fmt: skip
    names = ("key", "question", "context")
    features = Features(
        {name: Value("string") for name in names}
        | {"answers": List(Value("string")), "answer_starts": List(Value("int64"))}
    )
    dataset = Dataset.from_dict(columns, features=features)
    encoded = encode(dataset, tokenizer, max_length=LONGEST)
    assert len(encoded) == len(PAIRS)  # a window each
    expected = answers(logits_of(model, encoded), encoded.gold, n_best=1000)
    threshold = getattr(model.config, "no_answer_threshold", math.inf)
    lines = infer(folder, *[" ||| ".join(pair) for pair in PAIRS])
    assert [question for _, _, question in lines] == columns["question"]
    leads = [one.score - one.score_of_none for one in expected]
    assert [float(lead) for _, lead, _ in lines] == pytest.approx(leads, abs=2e-4)
    assert [answer for answer, _, _ in lines] == [
        "(no answer)" if -lead > threshold else one.span
        for one, lead in zip(expected, leads, strict=True)
    ]
    if threshold < math.inf:
        assert 0 < sum(-lead > threshold for lead in leads) < len(PAIRS)


def tagging_file(rows, words_by_kind, folder):
    """Writes the texts in columns; words of the weather are chunks."""
    kinds = {word: f"B-{name}" for name in ("bad", "good") for word in words_by_kind[name]}
    sentences = [
        "\n".join(f"{word} {kinds.get(word, 'O')}" for word in text.split()) for text, _ in rows
    ]
    path = folder / "weather.conll"
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return path


def question_file(rows, words_by_kind, folder):
    """Asks every text for its word of the weather; every fourth has none."""
    known, paragraphs = {*words_by_kind["bad"], *words_by_kind["good"]}, []
    for number, (text, _) in enumerate(rows):
        words = [word for word in text.split() if number % 4 or word not in known]
        context = " ".join(words)
        told = [{"text": w, "answer_start": context.index(w)} for w in words if w in known]
        asked = {"id": str(number), "question": "day", "answers": told, "is_impossible": not told}
        paragraphs.append({"context": context, "qas": [asked]})
    path = folder / "weather.json"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


@pytest.fixture(scope="module", params=["tags", "spans"])
def trained(request, tiny_config, weather_rows, weather_words, weather_tokenizer, tmp_path_factory):
    """A task, its file, and a checkpoint that has learnt it."""
    kind, folder = request.param, tmp_path_factory.mktemp("trained")
    write = tagging_file if kind == "tags" else question_file
    path = write(weather_rows, weather_words, folder)
    task = load_task(TaskSettings(name=str(path)))
    words = len(weather_tokenizer)
    model = build("bert", kind, tiny_config, words, outputs=task.output_count)
    if kind == "tags":
        model.config.id2label = dict(enumerate(task.label_names))
    encoded = encode(task.train, weather_tokenizer, max_length=LONGEST)
    batch = collate(encoded, np.arange(len(encoded)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(60):
        outputs = outputs_of(model(**model_inputs(model.config, batch)))
        targets = batch.labels.flatten() if kind == "tags" else batch.labels.T.flatten()
        rows = outputs.flatten(0, 1) if kind == "tags" else torch.cat(outputs.unbind(-1))
        loss = torch.nn.functional.cross_entropy(rows, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if kind == "spans":
        model.config.no_answer_threshold = 0.25
    return kind, path, save(model.eval(), weather_tokenizer, folder / "model")


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_the_command_scores_the_files_on_their_task(trained, run_cli, tmp_path, precision, infer):
    kind, path, folder = trained
    out = tmp_path / "served"
    code, told, err = run_cli(
        "export", folder, "--precision", precision, "--check", path, "--out", out
    )
    assert code == 0, err
    metric, unit = {"tags": ("entity_f1", "sentences"), "spans": ("answer_f1", "questions")}[kind]
    assert metric in told
    export = json.loads((out / "export.json").read_text())
    scores, file = export["scores"], f"onnx {precision}"
    evaluated = stillhouse.evaluate(folder, str(path))
    assert scores["pytorch float32"] == scores["onnx float32"] == pytest.approx(evaluated.scores)
    assert scores["pytorch float32"][metric] > 0.9
    assert scores[file][metric] > 0.8
    assert 0.9 < export["int8_agreement_fraction"] <= 1
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| {scores[file][metric]:.4f} |" in card
    assert f"Checked on 12 {unit} of the dev set of" in card
    if precision == "int8-static":
        assert f"Scales fixed on 108 {unit} of the training set of" in card
    if kind == "tags":
        tags = [line[1] for line in infer(out, "a sunny day", "the icy road") if len(line) > 1]
        assert tags == ["O", "B-good", "O", "O", "B-bad", "O"]
    else:
        asked = infer(out, "day ||| a long sunny road", "day ||| a long road")
        assert [answer for answer, *_ in asked] == ["sunny", "(no answer)"]


def test_what_is_not_the_heads_task_is_refused(trained, weather_csv, weather_teacher_folder):
    kind, path, folder = trained
    called = {"tags": "tagger", "spans": "reader"}[kind]
    with pytest.raises(DataError, match=f"is a {called}, the task weather.csv needs a classifier"):
        stillhouse.export_onnx(folder, check=weather_csv)
    with pytest.raises(DataError, match=f"is a classifier, the task .* needs a {called}"):
        stillhouse.export_onnx(weather_teacher_folder, check=path)


def test_a_checkpoint_is_measured_beside_another(trained, run_cli, tmp_path):
    _, _, folder = trained
    file = tmp_path / "measured.json"
    code, _, err = run_cli(
        "measure", folder, "--against", folder, "--device", "cpu", "--length", "8",
        "--threads", "1", "--seconds", "0", "--no-memory", "--out", file,
    )  # fmt: skip
    assert code == 0, err
    [row] = json.loads(file.read_text())["rows"]
    assert row["latency"]["median_ms"] > 0
    assert row["teacher"]["median_ms"] > 0
