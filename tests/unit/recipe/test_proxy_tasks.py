"""Proxy tasks: which examples they have, what their heads begin as, and which are refused."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import accuracy_score

from stillhouse.data.task import TaskSettings, load_task
from stillhouse.distill.loop import TrainSettings
from stillhouse.distill.steps import UNWATCHED
from stillhouse.errors import DataError, SettingsError
from stillhouse.model.predict import predict
from stillhouse.recipe.proxy_tasks import (
    encode_proxy_task,
    finetuned_score,
    load_proxy_tasks,
    with_fresh_head,
)
from stillhouse.run.layer_map_settings import LayerMapSettings


@pytest.fixture
def proxy(weather_csv, weather_tokenizer):
    def make(seed=0, **settings):
        wanted = LayerMapSettings(tasks=(str(weather_csv),), **settings)
        [(name, task)] = load_proxy_tasks(wanted).items()
        return encode_proxy_task(name, task, weather_tokenizer, wanted, longest=32, seed=seed)

    return make


def texts(encoded):
    return [
        tuple(encoded.input_ids[start:end])
        for start, end in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
    ]


def test_examples_are_fixed_by_the_seed_held_apart_and_in_proportion(proxy):
    one, again, other = proxy(task_examples=20), proxy(task_examples=20), proxy(1, task_examples=20)
    assert texts(one.train) == texts(again.train) != texts(other.train)
    assert not set(texts(one.train)) & set(texts(one.validation))
    assert np.bincount(one.train.labels).tolist() == [10, 10]  # the classes are as many
    dev = proxy().task.dev
    assert len(proxy().train) + len(proxy().validation) + len(dev) == 120


def test_the_constant_answer_of_even_classes(proxy):
    one = proxy()
    assert one.constant == max(np.bincount(one.validation.labels)) / len(one.validation)


def test_a_fresh_head_stands_on_the_same_encoder(proxy, weather_teacher):
    before = copy.deepcopy(weather_teacher.state_dict())
    model = with_fresh_head(weather_teacher, proxy().task, seed=3)
    for name, weight in weather_teacher.base_model.state_dict().items():
        assert torch.equal(weight, model.base_model.state_dict()[name])
    assert not torch.equal(model.classifier.weight, weather_teacher.classifier.weight)
    again = with_fresh_head(weather_teacher, proxy().task, seed=3)
    other = with_fresh_head(weather_teacher, proxy().task, seed=4)
    assert torch.equal(model.classifier.weight, again.classifier.weight)
    assert not torch.equal(model.classifier.weight, other.classifier.weight)
    assert model.config.id2label == {0: "bad", 1: "good"}
    after = weather_teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_heads_of_scores_have_one_output(weather_teacher, weather_rows, tmp_path):
    table = tmp_path / "scores.csv"
    lines = [f"{text},{number / 119:.3f}" for number, (text, _) in enumerate(weather_rows)]
    table.write_text("\n".join(["text,label", *lines]))
    task = load_task(TaskSettings(name=str(table)))
    model = with_fresh_head(weather_teacher, task, seed=0)
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")


def test_the_score_is_that_of_search_validation_and_the_encoder_stays(proxy, weather_teacher):
    before = copy.deepcopy(weather_teacher.state_dict())
    one = proxy(task_max_length=16)
    settings = TrainSettings(epochs=4, learning_rate=2e-3, batch_size=8)
    found = finetuned_score(
        one, weather_teacher, settings, accelerator=Accelerator(cpu=True), watch=UNWATCHED
    )
    assert found > one.constant  # its teacher knows the task, a head is all that is missing
    after = weather_teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    answers = predict(weather_teacher, one.validation).argmax(axis=1)
    expected = accuracy_score(one.validation.labels, answers)
    assert one.score(weather_teacher, precision="float32") == pytest.approx(expected)


def test_a_class_without_an_example_is_refused(proxy):
    with pytest.raises(
        DataError, match=r"1 examples of proxy task .* none of class '(good|bad)': raise"
    ):
        proxy(task_examples=1)


def test_tasks_of_words_and_questions_are_refused_unread(tmp_path):
    for name in ("squad", "words.conll", "train.json"):
        with pytest.raises(SettingsError, match="has tags of words or questions on passages"):
            load_proxy_tasks(LayerMapSettings(tasks=(name,)))


def test_a_task_of_words_in_a_table_is_refused(tmp_path):
    table = tmp_path / "words.jsonl"
    line = '{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n'
    table.write_text("".join(line.replace('"b"', f'"b{n}"') for n in range(30)))
    with pytest.raises(SettingsError, match="has tags of words or questions on passages"):
        load_proxy_tasks(LayerMapSettings(tasks=(str(table),)))


def test_a_missing_task_names_the_settings_that_mend_it(tmp_path):
    settings = LayerMapSettings(tasks=("glue/rte",), directory=str(tmp_path))
    with pytest.raises(DataError, match=r"'glue/rte' \(layer_map.tasks\): .* layer_map.directory"):
        load_proxy_tasks(settings)
