"""A task and a teacher so small that whole searches run in seconds.

The task: texts of a few words, `good` where one of them is "sunny" or the like, `bad` where it is
"rainy" or the like.
"""

# ruff: noqa: PLC0415  torch and the like are imported only for tests that ask for them

import csv
import os
import random
import shutil
import sys

import pytest

os.environ["COLUMNS"] = "160"  # of tables that are printed; tests in several processes have 80

FILLERS = [
    "the", "a", "this", "that", "day", "week", "morning", "evening", "road", "town", "river",
    "house", "garden", "train", "bird", "tree", "walk", "sit", "look", "wait", "long", "short",
]  # fmt: skip
KEYWORDS = {
    "bad": ("rainy", "grey", "foggy", "icy", "stormy", "windy"),
    "good": ("sunny", "blue", "clear", "mild", "calm", "bright"),
}


@pytest.fixture(scope="session")
def weather_words():
    """The words of the texts by what they tell: of bad weather, of good weather, of nothing."""
    return {**KEYWORDS, "nothing": tuple(FILLERS)}


@pytest.fixture(scope="session")
def weather_rows():
    """120 distinct texts with their labels, the classes in turn."""
    draw = random.Random(0)
    rows = []
    for number in range(120):
        label = ("bad", "good")[number % 2]
        words = draw.sample(FILLERS, 3 + number % 4)
        words.insert(draw.randrange(len(words)), KEYWORDS[label][number // 2 % 6])
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="session")
def weather_csv(weather_rows, tmp_path_factory):
    """The task as a table with the columns `text` and `label`."""
    path = tmp_path_factory.mktemp("task") / "weather.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *weather_rows])
    return path


@pytest.fixture(scope="session")
def weather_dataset(weather_rows):
    from datasets import Dataset

    texts, labels = zip(*weather_rows, strict=True)
    return Dataset.from_dict({"text": list(texts), "label": list(labels)})


@pytest.fixture(scope="session")
def weather_tokenizer():
    """One token a word."""
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *KEYWORDS["bad"], *KEYWORDS["good"], *FILLERS]
    vocabulary = {word: number for number, word in enumerate(words)}
    return BertTokenizer(vocab=vocabulary, model_max_length=512)


@pytest.fixture(scope="session")
def weather_teacher_folder(weather_rows, weather_tokenizer, tmp_path_factory):
    """A teacher of 2 layers of 32 with a head that names every training text right."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(weather_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )
    texts, labels = zip(*weather_rows, strict=True)
    encoded = weather_tokenizer(list(texts), padding=True, return_tensors="pt")
    classes = torch.tensor([config.label2id[label] for label in labels])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for _ in range(40):
            output = model(**encoded, labels=classes)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert (output.logits.argmax(dim=1) == classes).all()
    folder = tmp_path_factory.mktemp("teacher")
    model.save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def weather_teacher(weather_teacher_folder):
    """The teacher as an object, to do anything with."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(weather_teacher_folder).eval()


@pytest.fixture(scope="session")
def weather_text(weather_rows, tmp_path_factory):
    """The texts as a corpus without labels, a document a line."""
    path = tmp_path_factory.mktemp("corpus") / "weather.txt"
    path.write_text("".join(f"{text}\n" for text, _ in weather_rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def weather_encoder_folder(weather_tokenizer, tmp_path_factory):
    """A bare encoder of 4 layers of 32 with 4 heads, for students that learn without a task."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(weather_tokenizer),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    folder = tmp_path_factory.mktemp("encoder")
    model.save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def weather_table(tmp_path_factory):
    """A latency for every architecture below the teacher, 0.5 to 2 ms; the teacher's is 2 ms."""
    from stillhouse.space.architecture import BertArchitecture
    from stillhouse.space.default import default_space

    shape = BertArchitecture(layers=2, hidden_size=32, heads=2, ffn_size=128)

    def latency_ms(one):
        return one.layers * (0.2 + one.hidden_size / 64 + 0.3 * one.ffn_size / 128)

    path = tmp_path_factory.mktemp("device") / "weather-chip.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("architecture", "latency_ms"))
        writer.writerow(("teacher", latency_ms(shape)))
        writer.writerows((one.key, latency_ms(one)) for one in default_space(shape).enumerate())
    return path


@pytest.fixture(
    params=[
        "bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra", "factored electra",
    ]
)  # fmt: skip
def family(request):
    """A family of encoders; the embeddings of `factored electra` are narrower than its layers."""
    return request.param


@pytest.fixture(scope="session")
def tiny_config():
    """Makes a configuration of a family that reads 24 tokens; sizes are spelt as BERT's."""
    import transformers

    roberta = {"max_position_embeddings": 26, "type_vocab_size": 1}  # rows 0 and 1: no token's
    kinds = {
        "bert": (transformers.BertConfig, {}),
        "roberta": (transformers.RobertaConfig, roberta),
        "camembert": (transformers.CamembertConfig, roberta),
        "xlm-roberta": (transformers.XLMRobertaConfig, roberta),
        "distilbert": (transformers.DistilBertConfig, {}),
        "electra": (transformers.ElectraConfig, {}),
        "factored electra": (transformers.ElectraConfig, {"embedding_size": 12}),
    }
    of_distilbert = {
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }

    def make(family, *, labels=3, dropout=0.0, **more):
        kind, own = kinds[family]
        sizes = {
            "num_hidden_layers": 2,
            "hidden_size": 16,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "vocab_size": 50,
            "max_position_embeddings": 24,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
            "id2label": {index: f"label {index}" for index in range(labels)},
            **own,
            **more,
        }
        if family == "electra":
            sizes.setdefault("embedding_size", sizes["hidden_size"])
        if family == "distilbert":
            sizes = {of_distilbert.get(name, name): value for name, value in sizes.items()}
            sizes["seq_classif_dropout"] = dropout
        return kind(**sizes)

    return make


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Runs the program in this process; gives exit code, standard output and standard error."""
    from stillhouse.cli import main

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stillhouse", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def executable():
    named = os.environ.get("STILLHOUSE_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("there is no Chromium here: install one, or name it in STILLHOUSE_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser(executable):
    """One Chromium for all tests of a process, which can hold no second playwright beside it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=executable, args=[*as_root, "--disable-gpu"]
        )
        yield started
        started.close()
