import json
from dataclasses import replace

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
)

from stillhouse.data.encoding import encode
from stillhouse.data.splits import split_task
from stillhouse.data.task import task_from_dataset
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.errors import DataError, RunError, TeacherError, TrainingError
from stillhouse.model.modeling_free_head_bert import FreeHeadBertConfig
from stillhouse.model.own_families import add_code
from stillhouse.model.predict import predict
from stillhouse.model.teachers import hash_weights
from stillhouse.recipe import finetune as recipe
from stillhouse.recipe.finetune import finetune_checkpoint, open_bench
from stillhouse.run.directory import open_run
from stillhouse.run.settings import settings_from_dict

QUICK = {"epochs": 6, "learning_rates": [1e-3], "batch_size": 16, "dropout": 0.0}
BY_HALVES = {"evaluate_every": 0.5, "batch_size": 10, "learning_rates": [4e-5]}
"""An evaluation every five of the ten steps of an epoch."""


@pytest.fixture
def task(weather_dataset):
    return task_from_dataset(weather_dataset, text="text", label="label", name="weather")


@pytest.fixture
def three_classes(weather_rows):
    texts, names = zip(*weather_rows, strict=True)
    labels = ["so so" if number % 3 == 0 else name for number, name in enumerate(names)]
    data = Dataset.from_dict({"text": list(texts), "label": labels})
    return task_from_dataset(data, text="text", label="label", name="grades")


@pytest.fixture
def saved(weather_tokenizer, tmp_path):
    """Saves a model with the tokeniser of the task; gives the folder."""

    def save(model, name="model"):
        model.save_pretrained(tmp_path / name)
        weather_tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def encoder_folder(weather_teacher_folder, saved):
    """The teacher without its head."""
    return saved(BertModel.from_pretrained(weather_teacher_folder), "encoder")


@pytest.fixture
def given(task):
    """Makes settings and a task."""

    def make(folder, task=task, seed=0, **settings):
        data = {
            "finetune": {"model": str(folder), **QUICK, **settings},
            "distill": {"precision": "float32"},
            "task": {"name": "in-memory"},
            "seed": seed,
        }
        return settings_from_dict(data), task

    return make


@pytest.fixture
def tune(given, talk, tmp_path):
    """Fine-tunes a folder; gives the folder of the model and its measures."""

    def run(folder, *, narrator=talk, where="run", **changes):
        settings, task = given(folder, **changes)
        with open_run(tmp_path / where, settings) as opened:
            made = finetune_checkpoint(settings, opened, narrator, task=task)
            opened.update_state({"status": "complete"})
        return made, json.loads((made / "metrics.json").read_text())

    return run


@pytest.fixture
def start(given, talk, tmp_path):
    """Opens the bench only: what training would begin with."""

    def run(folder, where="run", **changes):
        settings, task = given(folder, **changes)
        with open_run(tmp_path / where, settings) as opened:
            return open_bench(settings, opened, talk, task=task)

    return run


def test_a_bare_encoder_learns_the_task(tune, talk, tmp_path, task, encoder_folder):
    made, metrics = tune(encoder_folder)
    assert made == tmp_path / "run" / "model"
    assert metrics["quality"] > 0.7  # the most frequent class alone has half
    assert metrics["quality_low"] <= metrics["quality"] <= metrics["quality_high"]
    assert metrics["scores"].keys() == {"accuracy", "f1_macro"}
    assert (metrics["metric"], metrics["quality_count"]) == ("accuracy", 12)
    assert metrics["quality_search_count"] == 11
    assert metrics["architecture"]["layers"] == 2
    assert (metrics["learning_rate"], metrics["has_fresh_head"]) == (1e-3, True)
    assert (metrics["stop_on"], metrics["is_optimistic"]) == ("validation", False)
    model = AutoModelForSequenceClassification.from_pretrained(made)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    dev = encode(task.dev, AutoTokenizer.from_pretrained(made), max_length=32)
    assert (predict(model, dev).argmax(axis=1) == dev.labels).mean() == metrics["quality"]
    assert any("no trained head of 2 outputs for weather" in said for said in talk.said)
    card = (made / "README.md").read_text(encoding="utf-8")
    assert f"{metrics['quality']:.4f}" in card
    assert "none on dev" in card
    curves = tmp_path / "run" / "tensorboard" / "rate-0.001"
    assert b"loss/term_0" in next(curves.glob("events.*")).read_bytes()
    assert b"validation/accuracy" in next(curves.glob("evaluations/events.*")).read_bytes()


def test_the_model_is_that_of_the_best_evaluation_and_of_equals_the_first(
    tune, task, encoder_folder, weather_tokenizer
):
    made, metrics = tune(encoder_folder, epochs=12, **BY_HALVES)
    told = metrics["evaluations"]
    assert [one["epoch"] for one in told] == [number / 2 for number in range(1, 25)]
    best = max(one["quality"] for one in told)
    assert metrics["epoch"] == next(one["epoch"] for one in told if one["quality"] == best) < 12
    assert told[0]["quality"] < best
    model = AutoModelForSequenceClassification.from_pretrained(made)
    held_out = encode(split_task(task, 0).validation, weather_tokenizer, max_length=32)
    right = (predict(model, held_out).argmax(axis=1) == held_out.labels).mean()
    assert metrics["quality_search"] == best == right


def test_training_stops_where_patience_ends(tune, encoder_folder):
    _, metrics = tune(encoder_folder, epochs=12, patience=3, **BY_HALVES)
    assert metrics["epochs_trained"] == metrics["epoch"] + 1.5 < 12
    assert metrics["evaluations"][-1]["epoch"] == metrics["epochs_trained"]


def test_dev_as_the_judge_is_called_optimistic(tune, talk, tmp_path, encoder_folder):
    made, metrics = tune(encoder_folder, stop_on="dev")
    assert metrics["quality"] == max(one["quality"] for one in metrics["evaluations"])
    assert (metrics["stop_on"], metrics["is_optimistic"]) == ("dev", True)
    assert "chosen on dev" in metrics["choice"]
    assert any("optimistic" in said for said in talk.said)
    assert "optimistic" in (made / "README.md").read_text(encoding="utf-8")


def head_of(bench):
    return bench.model.classifier.weight


def test_a_fresh_head_is_that_of_the_seed(start, encoder_folder):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(heads))
        heads.append(head_of(start(encoder_folder, f"run-{len(heads)}", seed=seed)))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_head_of_another_number_of_labels_is_replaced_and_that_is_said(
    start, talk, weather_teacher_folder, three_classes
):
    bench = start(weather_teacher_folder, task=three_classes)
    assert head_of(bench).shape == (3, 32)
    assert bench.has_fresh_head
    assert bench.model.config.id2label == {0: "bad", 1: "good", 2: "so so"}
    assert any("no trained head of 3 outputs for grades: it gets a fresh" in s for s in talk.said)


def test_a_head_of_other_labels_is_replaced_and_that_is_said(start, talk, weather_teacher, saved):
    weather_teacher.config.id2label = {0: "no", 1: "yes"}
    bench = start(saved(weather_teacher))
    assert bench.has_fresh_head
    assert not torch.equal(head_of(bench), weather_teacher.classifier.weight)
    assert any("names ['no', 'yes'], the task weather ['bad', 'good']" in s for s in talk.said)


def test_a_head_of_the_task_is_kept_in_the_order_of_its_labels(
    start, tune, talk, weather_teacher, saved
):
    original = weather_teacher.classifier.weight.detach().clone()
    weather_teacher.config.id2label = {0: "Good", 1: "Bad"}
    with torch.no_grad():
        for parameter in weather_teacher.classifier.parameters():
            parameter.copy_(parameter.flip(0).clone())
    folder = saved(weather_teacher)
    bench = start(folder, "opened")
    assert torch.equal(head_of(bench), original)
    assert not bench.has_fresh_head
    assert talk.said == []
    _, metrics = tune(folder, learning_rates=[1e-7], epochs=1)
    assert metrics["quality"] == 1.0


def test_of_several_rates_the_best_is_kept(tune, encoder_folder, tmp_path):
    _, metrics = tune(encoder_folder, learning_rates=[1e-7, 1e-3, 2e-7])
    assert metrics["learning_rate"] == 1e-3
    assert [one["learning_rate"] for one in metrics["rates"]] == [1e-7, 1e-3, 2e-7]
    assert metrics["quality_search"] == max(one["quality_search"] for one in metrics["rates"])


def test_a_rate_that_diverges_is_left_out(tune, talk, encoder_folder):
    _, metrics = tune(encoder_folder, learning_rates=[1e-3, 1e30])
    assert metrics["learning_rate"] == 1e-3
    [said] = [said for said in talk.said if "left out" in said]
    assert said.startswith("Learning rate 1e+30 is left out: ")
    with pytest.raises(TrainingError, match="learning rate 1e\\+30"):
        tune(encoder_folder, where="other", learning_rates=[1e30])


def test_on_many_examples_rates_are_tried_on_a_part(
    tune, talk, encoder_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(recipe, "MOST_FULL_TRIALS", 50)
    _, metrics = tune(encoder_folder, learning_rates=[1e-7, 1e-3])
    assert [one["learning_rate"] for one in metrics["rates"]] == [1e-3]
    assert any(said.startswith("Learning rate 0.001 (accuracy on held") for said in talk.said)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["learning_rate"] == 1e-3
    assert (tmp_path / "run" / "tensorboard" / "probe-1e-07").exists()


class Stopping:
    """A narrator that ends the process, so to say, when it is told of a given evaluation."""

    def __init__(self, talk, note):
        self._talk = talk
        self._notes_left = note

    def note(self, text):
        self._notes_left -= 1
        if not self._notes_left:
            raise KeyboardInterrupt

    def __getattr__(self, name):
        return getattr(self._talk, name)


@pytest.mark.parametrize("stopped_in", [2, 7, 9])
def test_a_resumed_run_ends_as_an_unbroken_one(
    tune, talk, encoder_folder, tmp_path, monkeypatch, stopped_in
):
    """Two rates of six evaluations each, stopped in the first, or early or later in the second."""
    monkeypatch.setitem(CheckpointFolder.__init__.__kwdefaults__, "every_s", 0.0)
    more = {"learning_rates": [2e-4, 1e-3], "epochs": 3, "evaluate_every": 0.5, "dropout": 0.1}
    _, whole = tune(encoder_folder, where="whole", **more)
    with pytest.raises(KeyboardInterrupt):
        tune(encoder_folder, narrator=Stopping(talk, stopped_in), **more)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    made, metrics = tune(encoder_folder, **more)
    assert metrics == whole  # the hash of the weights with it
    assert hash_weights(AutoModelForSequenceClassification.from_pretrained(made))
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_other_settings_weights_or_data_are_refused(
    tune, weather_dataset, encoder_folder, weather_teacher, saved, talk, monkeypatch
):
    monkeypatch.setitem(CheckpointFolder.__init__.__kwdefaults__, "every_s", 0.0)
    with pytest.raises(KeyboardInterrupt):
        tune(encoder_folder, narrator=Stopping(talk, 2))
    with pytest.raises(RunError, match=r"finetune.epochs: 6.0 → 7.0"):
        tune(encoder_folder, epochs=7)
    fewer = task_from_dataset(weather_dataset.select(range(100)), text="text", label="label")
    with pytest.raises(RunError, match="made with other data"):
        tune(encoder_folder, task=fewer)
    saved(weather_teacher, "encoder")
    with pytest.raises(RunError, match=r"begun from other weights of .*encoder"):
        tune(encoder_folder)


def test_a_complete_run_is_bound_to_its_settings(tune, encoder_folder, tmp_path):
    tune(encoder_folder)
    assert not (tmp_path / "run" / "work" / "training" / "0.001").exists()
    with pytest.raises(RunError, match=r"seed: 0 → 1"):
        tune(encoder_folder, seed=1)


def test_settings_are_written_with_what_the_run_stands_on(tune, encoder_folder, tmp_path):
    tune(encoder_folder)
    written = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert written["finetune"]["model"] == str(encoder_folder)
    origin = written["provenance"]
    assert len(origin["model_sha256"]) == len(origin["data_sha256"]) == 64
    assert origin["versions"]["torch"] == torch.__version__
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (state["task"], state["model"]) == ("weather", str(encoder_folder))
    assert state["phases_s"].keys() == {"data", "training", "evaluation"}


def test_texts_without_labels_are_left_out_and_that_is_said(
    start, talk, task, weather_rows, encoder_folder
):
    extra = Dataset.from_dict({"text_a": [f"{text} town" for text, _ in weather_rows]})
    bench = start(encoder_folder, task=replace(task, unlabelled=extra))
    assert len(bench.examples) == len(bench.data.train) < 120
    assert any("task.unlabelled is left out" in said for said in talk.said)


def test_a_task_without_labels_is_refused(start, task, encoder_folder):
    bare = replace(task, dev=task.dev.remove_columns("label"))
    with pytest.raises(DataError, match=r"needs labels, but the dev set of weather.*'text_a'"):
        start(encoder_folder, task=bare)


def test_nothing_to_load_is_refused(start, tmp_path):
    with pytest.raises(TeacherError, match=r"no model could be loaded from .*absent"):
        start(tmp_path / "absent")


def test_a_regression(tune, weather_dataset, encoder_folder):
    scores = [n / 119 + (name == "good") for n, name in enumerate(weather_dataset["label"])]
    numbers = weather_dataset.remove_columns("label").add_column("label", scores)
    task = task_from_dataset(numbers, text="text", label="label")
    made, metrics = tune(encoder_folder, task=task, epochs=20)
    assert metrics["metric"] == "pearson"
    assert metrics["scores"].keys() == {"pearson", "spearman"}
    assert metrics["quality"] > 0.5
    model = AutoModelForSequenceClassification.from_pretrained(made)
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")


def test_a_multi_label_task(tune, weather_rows, encoder_folder):
    texts, names = zip(*weather_rows, strict=True)
    labels = [["bad", "good"] if i % 5 == 0 else [name] for i, name in enumerate(names)]
    data = Dataset.from_dict({"text": list(texts), "label": labels})
    task = task_from_dataset(data, text="text", label="label")
    made, metrics = tune(encoder_folder, task=task, epochs=15)
    assert metrics["metric"] == "f1_micro"
    assert metrics["quality"] > 0.75  # the best constant answer has about 0.7
    model = AutoModelForSequenceClassification.from_pretrained(made)
    assert model.config.problem_type == "multi_label_classification"


def test_a_student_with_free_heads_needs_no_word_of_trust(tune, weather_tokenizer, saved):
    config = FreeHeadBertConfig(
        vocab_size=len(weather_tokenizer), hidden_size=32, num_hidden_layers=1,
        num_attention_heads=3, head_size=8, intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        folder = saved(AutoModel.from_config(config))
    add_code(folder)
    made, metrics = tune(folder, epochs=20, learning_rates=[3e-3])
    assert metrics["quality_search"] > 0.7
    assert metrics["architecture"]["head_size"] == 8
    assert (made / "modeling_free_head_bert.py").exists()


def test_every_family_is_tuned(tune, tiny_config, family, weather_tokenizer, saved):
    config = tiny_config(
        family, labels=2, vocab_size=len(weather_tokenizer), pad_token_id=0, hidden_size=32
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
    made, metrics = tune(saved(model.base_model), epochs=20, learning_rates=[3e-3])
    assert metrics["quality_search"] > 0.7
    again = AutoModelForSequenceClassification.from_pretrained(made)
    assert type(again) is type(model)
