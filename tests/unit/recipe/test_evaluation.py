from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertModel

from stillhouse.data.embedded import train_tokenizer
from stillhouse.data.task import IN_MEMORY, TaskSettings, task_from_dataset
from stillhouse.errors import DataError, TeacherError
from stillhouse.export.checkpoint import METRICS_FILE
from stillhouse.recipe.evaluation import evaluate_checkpoint

SETTINGS = TaskSettings(name=IN_MEMORY)


@pytest.fixture
def task(weather_dataset):
    return task_from_dataset(weather_dataset, text="text", label="label", name="weather")


@pytest.fixture
def saved(weather_tokenizer, tmp_path):
    def save(model):
        model.save_pretrained(tmp_path / "model")
        weather_tokenizer.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


def test_scores_of_a_checkpoint(weather_teacher_folder, task):
    found = evaluate_checkpoint(str(weather_teacher_folder), task, settings=SETTINGS)
    assert found.scores == {"accuracy": 1.0, "f1_macro": 1.0}
    assert (found.low, found.high, found.count, found.task) == (1.0, 1.0, 12, "weather")


def test_no_more_is_read_than_the_checkpoint_has_learnt_to_read(weather_teacher, task, saved):
    folder = saved(weather_teacher)
    whole = evaluate_checkpoint(folder, task, settings=SETTINGS)
    (Path(folder) / METRICS_FILE).write_text('{"max_length": 3}')
    short = evaluate_checkpoint(folder, task, settings=SETTINGS)
    assert short.scores["accuracy"] < whole.scores["accuracy"]


def test_outputs_in_another_order_are_matched_by_name(weather_teacher, task, saved):
    weather_teacher.config.id2label = {0: "good", 1: "bad"}
    assert (
        evaluate_checkpoint(saved(weather_teacher), task, settings=SETTINGS).scores["accuracy"] == 0
    )
    with torch.no_grad():
        for parameter in weather_teacher.classifier.parameters():
            parameter.copy_(parameter.flip(0).clone())
    assert (
        evaluate_checkpoint(saved(weather_teacher), task, settings=SETTINGS).scores["accuracy"] == 1
    )


def test_labels_of_another_task_are_refused(weather_teacher, task, saved):
    weather_teacher.config.id2label = {0: "no", 1: "yes"}
    with pytest.raises(DataError, match=r"labels \['no', 'yes'\], the task weather has \['bad'"):
        evaluate_checkpoint(saved(weather_teacher), task, settings=SETTINGS)


def test_another_number_of_outputs_is_refused(weather_teacher_folder, task, saved):
    model = AutoModelForSequenceClassification.from_pretrained(
        weather_teacher_folder, num_labels=3, ignore_mismatched_sizes=True
    )
    with pytest.raises(DataError, match="has 3 outputs, the task weather needs 2"):
        evaluate_checkpoint(saved(model), task, settings=SETTINGS)


def test_a_model_without_head_is_refused(weather_teacher_folder, task, saved):
    folder = saved(BertModel.from_pretrained(weather_teacher_folder))
    with pytest.raises(DataError, match="no trained head"):
        evaluate_checkpoint(folder, task, settings=SETTINGS)


def test_nothing_to_load_is_refused(tmp_path, task):
    with pytest.raises(TeacherError, match=r"no model could be loaded from .*nothing-here"):
        evaluate_checkpoint(str(tmp_path / "nothing-here"), task, settings=SETTINGS)


def test_loyalty_to_itself_is_whole(weather_teacher_folder, task):
    name = str(weather_teacher_folder)
    found = evaluate_checkpoint(name, task, settings=SETTINGS, teacher=name).loyalty
    assert (found.label, found.probability, found.count) == (1.0, 1.0, 12)


def test_a_teacher_of_other_words_is_refused(
    weather_teacher, weather_teacher_folder, task, tmp_path
):
    tokenizer = train_tokenizer(["quite other words"], vocab_size=40)
    weather_teacher.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(DataError, match="other vocabularies"):
        evaluate_checkpoint(
            str(weather_teacher_folder), task, settings=SETTINGS, teacher=str(tmp_path / "other")
        )
