import json

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertModel,
)

from stillhouse.data.encoding import encode
from stillhouse.data.task import task_from_dataset
from stillhouse.errors import RunError, TeacherError
from stillhouse.model.predict import predict
from stillhouse.model.teachers import Teacher
from stillhouse.recipe import open_workbench as opening
from stillhouse.recipe.open_workbench import open_workbench
from stillhouse.run.directory import open_run
from stillhouse.run.settings import settings_from_dict


@pytest.fixture
def task(weather_dataset):
    return task_from_dataset(weather_dataset, text="text", label="label")


@pytest.fixture
def prepare(tmp_path, talk, task, weather_tokenizer):
    """Opens a workbench with a teacher in memory; gives the workbench and what was said."""

    def opened(model=None, task=task, has_trained_head=True, **settings):
        teacher = None
        if model is not None:
            teacher = Teacher(
                name="mine",
                model=model,
                tokenizer=weather_tokenizer,
                has_trained_head=has_trained_head,
            )
        made = settings_from_dict({"teacher": settings, "distill": {"precision": "float32"}})
        with open_run(tmp_path / "run", made) as run:
            return open_workbench(made, run, talk, teacher=teacher, task=task)

    return opened


def swap_outputs(model):
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter.flip(0).clone())


def rename(model, names):
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}


def dev_accuracy(model, task, tokenizer):
    dev = encode(task.dev, tokenizer, max_length=32)
    return float((predict(model, dev).argmax(axis=1) == dev.labels).mean())


def kept(tmp_path):
    folder = tmp_path / "run" / "teacher"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model, json.loads((folder / "metrics.json").read_text())


def test_a_trained_head_is_used_as_it_is(prepare, talk, tmp_path, weather_teacher):
    before = {name: tensor.clone() for name, tensor in weather_teacher.state_dict().items()}
    bench = prepare(weather_teacher)
    model, metrics = kept(tmp_path)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert metrics["quality"] == metrics["quality_search"] == 1.0
    assert metrics["parameters"] == sum(tensor.numel() for tensor in before.values())
    assert bench.teacher_name == metrics["name"] == "mine"
    assert not any("matched" in said for said in talk.said)
    assert any("accuracy 1.0000 on 12 dev examples" in said for said in talk.said)


def test_outputs_are_matched_by_name_in_any_order_and_case(
    prepare, talk, tmp_path, task, weather_teacher, weather_tokenizer
):
    swap_outputs(weather_teacher)
    rename(weather_teacher, ["Good", "BAD"])
    prepare(weather_teacher)
    model, _ = kept(tmp_path)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert dev_accuracy(model, task, weather_tokenizer) == 1.0
    assert not any("matched" in said for said in talk.said)


def test_permuted_outputs_without_names_are_found_and_said(
    prepare, talk, tmp_path, task, weather_teacher, weather_tokenizer
):
    swap_outputs(weather_teacher)
    rename(weather_teacher, ["LABEL_0", "LABEL_1"])
    assert dev_accuracy(weather_teacher, task, weather_tokenizer) == 0.0
    prepare(weather_teacher)
    [said] = [said for said in talk.said if "matched by best agreement" in said]
    assert "['LABEL_0', 'LABEL_1']" in said
    assert "['bad', 'good']" in said
    assert "[1, 0]" in said
    model, metrics = kept(tmp_path)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert dev_accuracy(model, task, weather_tokenizer) == metrics["quality"] == 1.0


def test_worse_than_the_most_frequent_class_is_an_error(prepare, weather_teacher, tmp_path):
    swap_outputs(weather_teacher)  # its names say that they are right
    with pytest.raises(TeacherError, match=r"mine names 0\.0% of 11 .*\(54\.5%\).*always"):
        prepare(weather_teacher)
    assert not (tmp_path / "run" / "teacher").exists()


def test_no_head_and_never_finetuned_is_an_error(prepare, weather_teacher):
    with pytest.raises(TeacherError, match=r"no trained head of 2 outputs.*'never'.*'auto'"):
        prepare(weather_teacher, has_trained_head=False, finetune="never")


@pytest.mark.parametrize("finetune", ["auto", "always"])
def test_another_number_of_outputs_is_an_error(prepare, weather_teacher, finetune):
    weather_teacher.config.id2label = {0: "a", 1: "b", 2: "c"}
    model = BertForSequenceClassification(weather_teacher.config)
    with pytest.raises(TeacherError, match="mine has 3 outputs, the task dataset needs 2"):
        prepare(model, finetune=finetune)


@pytest.fixture
def encoder_folder(weather_teacher_folder, weather_tokenizer, tmp_path):
    """The teacher without its head."""
    folder = tmp_path / "encoder"
    BertModel.from_pretrained(weather_teacher_folder).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def prepare_folder(tmp_path, talk, task):
    def opened(folder, task=task, **settings):
        made = settings_from_dict(
            {"teacher": {"model": str(folder), **settings}, "distill": {"precision": "float32"}}
        )
        with open_run(tmp_path / "run", made) as run:
            return open_workbench(made, run, talk, task=task)

    return opened


def test_a_checkpoint_without_head_and_never_is_an_error(prepare_folder, encoder_folder):
    with pytest.raises(TeacherError, match="no trained head"):
        prepare_folder(encoder_folder, finetune="never")


def test_a_checkpoint_without_head_is_finetuned_at_the_best_rate(
    prepare_folder, talk, tmp_path, encoder_folder
):
    prepare_folder(encoder_folder, epochs=12, learning_rates=[1e-6, 1e-3])
    [said] = [said for said in talk.said if "learning rate" in said]
    assert said.startswith("Teacher's learning rate 0.001")
    assert "1e-06: " in said
    model, metrics = kept(tmp_path)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert metrics["quality"] > 0.7  # the most frequent class alone has half
    assert not (tmp_path / "run" / "work" / "teacher").exists()


def test_always_trains_a_trained_head_too(prepare, tmp_path, weather_teacher, talk):
    before = weather_teacher.classifier.weight.clone()
    prepare(weather_teacher, finetune="always", epochs=0.5, learning_rates=[1e-4])
    model, metrics = kept(tmp_path)
    assert not torch.equal(model.classifier.weight, before)
    assert metrics["quality"] == 1.0
    assert not any("learning rate" in said for said in talk.said)  # only one: nothing to try


def test_the_prepared_teacher_is_taken_on_resuming(prepare, weather_teacher, monkeypatch):
    first = prepare(weather_teacher)

    def again(*_):
        raise AssertionError("prepared twice")

    monkeypatch.setattr(opening, "prepare_teacher", again)
    monkeypatch.setattr(opening, "load_teacher", again)
    second = prepare(None)
    assert second.teacher_hash == first.teacher_hash
    for name, tensor in first.teacher.state_dict().items():
        assert torch.equal(second.teacher.state_dict()[name], tensor)


def test_other_data_is_refused_on_resuming(prepare, weather_teacher, weather_dataset):
    prepare(weather_teacher)
    fewer = task_from_dataset(weather_dataset.select(range(100)), text="text", label="label")
    with pytest.raises(RunError, match="made with other data"):
        prepare(weather_teacher, task=fewer)


@pytest.fixture
def regression(weather_dataset):
    scores = [
        number / 119 + (name == "good") for number, name in enumerate(weather_dataset["label"])
    ]
    numbers = weather_dataset.remove_columns("label").add_column("label", scores)
    return task_from_dataset(numbers, text="text", label="label")


def test_a_classifier_is_no_teacher_for_a_regression(prepare, regression, weather_teacher):
    with pytest.raises(TeacherError, match="mine has 2 outputs, the task dataset needs 1"):
        prepare(weather_teacher, task=regression)


def test_a_regression_teacher_has_one_output(prepare_folder, tmp_path, regression, encoder_folder):
    prepare_folder(encoder_folder, task=regression, epochs=50, learning_rates=[1e-3])
    model, metrics = kept(tmp_path)
    assert metrics["metric"] == "pearson"
    assert metrics["quality"] > 0.5
    assert model.config.num_labels == 1
    assert model.config.problem_type == "regression"


@pytest.fixture
def multi_label(weather_rows):
    """Each text is good or bad as the teacher says; every fifth is both by its label."""
    texts, names = zip(*weather_rows, strict=True)
    labels = [["bad", "good"] if i % 5 == 0 else [name] for i, name in enumerate(names)]
    data = Dataset.from_dict({"text": list(texts), "label": labels})
    return task_from_dataset(data, text="text", label="label")


def test_a_multi_label_head_is_matched_by_name_and_trusted(
    prepare, weather_teacher, tmp_path, multi_label
):
    swap_outputs(weather_teacher)
    rename(weather_teacher, ["Good", "bad"])
    bench = prepare(weather_teacher, task=multi_label)
    model, metrics = kept(tmp_path)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.problem_type == "multi_label_classification"
    assert metrics["metric"] == "f1_micro"
    assert metrics["quality"] > 0.8
    assert bench.data.validation.labels.shape == (11, 2)


def test_a_multi_label_head_with_other_names_is_not_guessed(prepare, weather_teacher, multi_label):
    rename(weather_teacher, ["LABEL_0", "LABEL_1"])
    with pytest.raises(TeacherError, match=r"labels of mine, \['LABEL_0', .*matched by name alone"):
        prepare(weather_teacher, task=multi_label)


def test_a_multi_label_head_worse_than_a_constant_is_an_error(
    prepare, weather_teacher, multi_label
):
    swap_outputs(weather_teacher)  # its names say that they are right
    with pytest.raises(TeacherError, match=r"mine reaches f1_micro 0\.\d+ on 11 .*always"):
        prepare(weather_teacher, task=multi_label)
