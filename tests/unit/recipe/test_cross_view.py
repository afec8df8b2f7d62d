"""Data and teachers of word taggers, and the whole job in memory."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForTokenClassification, BertTokenizer

from stillhouse.data.bioes import TagCode
from stillhouse.data.task import task_from_dataset
from stillhouse.distill.cross_view import drawn_sentences
from stillhouse.distill.teacher import LiveTeacher
from stillhouse.errors import DataError, RunError, SettingsError, TeacherError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, read_answers
from stillhouse.model.word_tagger import PUBLISHED, SMALL
from stillhouse.recipe.cross_view import train_word_tagger
from stillhouse.recipe.cross_view_data import labelled_part, read_tagger_data
from stillhouse.recipe.cross_view_teacher import TaggingTargets, load_tagging_teacher
from stillhouse.recipe.cross_view_training import cross_view_rule, movement, tagger_sizes
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

NAMES = ("O", "B-good", "B-bad")
WORDS = {"sunny": "B-good", "mild": "B-good", "icy": "B-bad", "rainy": "B-bad", "day": "O",
         "the": "O", "road": "O"}  # fmt: skip


def rows(count, seed):
    draw = np.random.default_rng(seed)
    return [
        [str(word) for word in draw.choice(list(WORDS), draw.integers(2, 7))] for _ in range(count)
    ]


@pytest.fixture(scope="module")
def task():
    def dataset(count, seed):
        words = rows(count, seed)
        tags = [[WORDS[word] for word in row] for row in words]
        return Dataset.from_dict({"words": words, "tags": tags})

    return task_from_dataset(dataset(40, 0), dataset(12, 1), text="words", label="tags", name="sky")


def settings(**cross_view):
    given = {"labels_fraction": 0.5, "steps": 6, "batch_size": 4, "unlabelled_batch_size": 4,
             "evaluate_every": 3, "word_size": 8}  # fmt: skip
    others = {name: cross_view.pop(name) for name in ("teacher", "task") if name in cross_view}
    return settings_from_dict({"cross_view": {**given, **cross_view}, **others})


# What the settings mean.


def test_warm_up_is_as_published_or_a_tenth_of_the_steps():
    told = {
        steps: movement(settings(steps=steps).cross_view).warmup_steps for steps in (100, 10**6)
    }
    assert told == {100: 10, 10**6: 5000}
    assert movement(settings(warmup_steps=3).cross_view).warmup_steps == 3


def test_sizes_and_the_rule_follow_the_settings():
    assert tagger_sizes(settings(word_size=None).cross_view) == SMALL
    assert tagger_sizes(settings(size="published", word_size=None).cross_view) == PUBLISHED
    assert tagger_sizes(settings(word_size=50).cross_view).word == 50
    rule = cross_view_rule(settings(dropout=0.3, unlabelled_weight=0.7))
    assert (rule.dropout, rule.unlabelled_weight, rule.batch_size) == (0.3, 0.7, 4)


# Data.


def test_sentences_are_parted_and_none_stands_on_two_sides(task):
    data = read_tagger_data(task, settings(), word_size=8)
    # 20 of 40 have tags, 2 of these to choose by; their duplicates are not learnt from.
    assert len(data.validation.gold) == 2
    assert 10 < len(data.labelled) <= 18
    assert len(data.text.sentences) == len(data.unlabelled) == 20
    assert len(data.dev.gold) == 12
    drawn, others = labelled_part(task.train, 0.5)
    assert data.text.sentences == others[:]["words"]
    order = np.random.default_rng(0).permutation(40)  # as task.max_train draws
    assert drawn[:]["words"] == [task.train[int(place)]["words"] for place in order[:20]]


def test_text_without_tags_may_be_left_unread(task):
    data = read_tagger_data(task, settings(unlabelled_weight=0), word_size=8)
    assert data.unlabelled is None
    assert data.text.sentences == []


def test_more_text_joins_and_what_is_unusable_is_told(task):
    more = Dataset.from_dict({"words": [["a"] * 101, ["new", "words"]]})
    wider = replace(task, unlabelled=more)
    data = read_tagger_data(wider, settings(labels_fraction=1.0), word_size=8)
    assert data.text.sentences == [["new", "words"]]
    assert "1 sentences of more than 100 words and 0 without a word are left out" in data.told()[1]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"labels_fraction": 1.0}, SettingsError, "there is no sentence of it: give a file with"),
        ({"labels_fraction": 0.02}, DataError, "labels_fraction 0.02 leaves 1 of 40 sentences"),
    ],
)
def test_too_little_text_is_refused(task, given, error, message):
    with pytest.raises(error, match=message):
        read_tagger_data(task, settings(**given), word_size=8)


def test_a_task_of_texts_is_refused(weather_dataset):
    texts = task_from_dataset(weather_dataset, text="text", label="label", name="weather")
    with pytest.raises(SettingsError, match="for tags of words, and the task weather has none"):
        read_tagger_data(texts, settings(), word_size=8)


def test_vectors_of_a_file_are_found_and_another_width_is_refused(task, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("Sunny 1 2 3\nwhale 4 5 6\n")
    given = settings(vectors=str(path), word_size=3)
    data = read_tagger_data(task, given, word_size=3)
    assert data.words_with_vectors == 2
    found, vectors = data.vector_rows()
    by_row = dict(zip(found.tolist(), vectors.tolist(), strict=True))
    assert by_row[data.lexicon.word_number("SUNNY")] == [1, 2, 3]
    assert by_row[data.lexicon.word_number("whale")] == [4, 5, 6]
    assert "2 of 8 words begin with a vector of the file." in data.told()
    with pytest.raises(
        DataError, match=r"vectors of 3 numbers, but .* 8: set cross_view.word_size"
    ):
        read_tagger_data(task, given, word_size=8)
    other = tmp_path / "other.txt"
    other.write_text("Sunny 1 2 4\n")
    again = read_tagger_data(task, settings(vectors=str(other), word_size=3), word_size=3)
    assert again.fingerprint != data.fingerprint


def test_vectors_of_words_that_are_not_known_are_refused(task, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("soleil 1 2 3\n")
    given = settings(vectors=str(path), word_size=3, most_words=1)
    with pytest.raises(
        DataError, match=r"a vector for none of the 1 words .*cross_view.most_words"
    ):
        read_tagger_data(task, given, word_size=3)


# Teachers.


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    """An untrained tagger that cuts "sunny" and "rainy" into two pieces."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "rain", "##ny", "##y", "mild",
              "icy", "day", "the", "road"]  # fmt: skip
    tokenizer = BertTokenizer(vocab={one: place for place, one in enumerate(pieces)})
    names = ("B-bad", "extra", "O", "B-good")
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16, initializer_range=0.5,
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tagger")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def live(model, encoded):
    return LiveTeacher(model, frozenset(), "float32")


def test_a_teacher_is_read_at_the_first_piece_of_each_word(teacher_folder):
    teacher = load_tagging_teacher(str(teacher_folder), NAMES)
    assert teacher.order == (2, 3, 0)
    sentences = {7: ["sunny", "day"], 3: ["rainy", "the", "mild"]}
    code = TagCode(task_names=NAMES, scheme=None)
    targets = TaggingTargets(teacher, code, sentences, max_length=16, ask=live)(np.array([3, 7]), 3)
    assert targets.known_BT.tolist() == [[True] * 3, [True, True, False]]
    for row, (pieces, first) in enumerate(
        [("[CLS] rain ##y the mild [SEP]", [1, 3, 4]), ("[CLS] sun ##ny day [SEP]", [1, 3])]
    ):
        ids = torch.tensor([teacher.tokenizer.convert_tokens_to_ids(pieces.split())])
        logits = teacher.model(input_ids=ids).logits[0][:, [2, 3, 0]]
        expected = logits[first].softmax(dim=-1)
        torch.testing.assert_close(targets.probabilities_BTC[row, : len(first)], expected)
    assert not targets.probabilities_BTC[1, 2].any()


def test_words_beyond_the_teachers_length_have_no_target(teacher_folder):
    teacher = load_tagging_teacher(str(teacher_folder), NAMES)
    code = TagCode(task_names=NAMES, scheme=None)
    targets = TaggingTargets(teacher, code, {0: ["day"] * 9}, max_length=8, ask=live)
    assert targets(np.array([0]), 9).known_BT.tolist() == [[True] * 6 + [False] * 3]


def test_a_teacher_without_the_tasks_tags_is_refused_with_their_names(teacher_folder):
    with pytest.raises(TeacherError, match=r"lacks 2 of the task's 3 tags: 'B-NP', 'I-NP'; it has"):
        load_tagging_teacher(str(teacher_folder), ("O", "B-NP", "I-NP"))


def test_a_teacher_of_texts_is_refused(weather_teacher_folder):
    with pytest.raises(TeacherError, match="no trained head for tags of words: fine-tune it first"):
        load_tagging_teacher(str(weather_teacher_folder), NAMES)


# The job.


def run_job(given, task, path):
    with open_run(path, given) as run:
        folder = train_word_tagger(given, run, LoggingNarrator(), task=task)
        return json.loads((folder / "metrics.json").read_text())


def test_the_whole_job_tells_scores_sizes_and_costs(task, teacher_folder, tmp_path):
    given = settings(targets="teacher", teacher={"model": str(teacher_folder)})
    told = run_job(given, task, tmp_path / "run")
    assert told["metric"] == "entity_f1"
    assert {row["label"] for row in told["labels"]} == {"good", "bad"}
    assert told["quality_low"] <= told["quality"] <= told["quality_high"]
    assert [one["step"] for one in told["evaluations"]] == [3, 6]
    assert told["quality_search"] == max(one["quality"] for one in told["evaluations"])
    assert (told["targets"], told["teacher"]) == ("teacher", str(teacher_folder))
    assert told["parameters"] < told["parameters_trained"]
    assert told["cost"]["seconds"] > 0
    assert told["cost"]["energy_wh"] > 0
    assert run_job(given, task, tmp_path / "run") == told
    kept = read_answers(tmp_path / "run" / "model" / ANSWERS_FILE)
    assert (kept.metric, kept.dev_sha256) == ("entity_f1", task.dev_fingerprint())
    assert kept.primary.score() == pytest.approx(told["quality"])


def test_costs_of_all_starts_are_added(task, tmp_path, monkeypatch):
    given = settings()

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("stillhouse.recipe.cross_view.train_tagger", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(given, task, tmp_path / "run")
    state = tmp_path / "run" / "run.json"
    data = json.loads(state.read_text())
    assert data["cost"]["seconds"] < 100
    state.write_text(json.dumps({**data, "cost": {**data["cost"], "seconds": 1000.0}}))
    assert 1000 < run_job(given, task, tmp_path / "run")["cost"]["seconds"] < 1100


def test_other_data_or_another_teacher_is_refused(task, teacher_folder, tmp_path, monkeypatch):
    given = settings(targets="teacher", teacher={"model": str(teacher_folder)})

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("stillhouse.recipe.cross_view.train_tagger", stop)
    with pytest.raises(KeyboardInterrupt):
        run_job(given, task, tmp_path / "run")
    (tmp_path / "run" / "work").mkdir()
    fewer = replace(task, train=task.train.select(range(30)))
    with pytest.raises(RunError, match="was made with other data"):
        run_job(given, fewer, tmp_path / "run")
    monkeypatch.setattr("stillhouse.recipe.cross_view.hash_weights", lambda _: "f" * 64)
    with pytest.raises(RunError, match="other weights of its teacher"):
        run_job(given, task, tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": "teacher"}, "targets is 'teacher', but no teacher is named"),
        ({"teacher": {"model": "some"}}, "is 'some', but cross_view.targets is 'own'"),
        (
            {"targets": "teacher", "teacher": {"model": "some"}, "unlabelled_weight": 0},
            "unlabelled_weight is 0, so that the teacher would never be asked",
        ),
        (
            {"task": {"unlabelled": "more.txt"}, "unlabelled_weight": 0},
            "task.unlabelled is 'more.txt', but cross_view.unlabelled_weight is 0",
        ),
    ],
)
def test_teacher_and_targets_go_together(task, given, message, tmp_path):
    with pytest.raises(SettingsError, match=re.escape(message)):
        run_job(settings(**given), task, tmp_path / "run")


def test_only_sentences_that_are_drawn_are_asked_for(task):
    data = read_tagger_data(task, settings(), word_size=8)
    drawn = drawn_sentences(data.unlabelled, cross_view_rule(settings()), steps=5)
    assert [len(batch) for batch in drawn] == [4, 4]


def test_words_of_both_kinds_of_text_are_counted(task, tmp_path):
    """A batch holds all sentences of a kind, and steps take turns."""
    data = read_tagger_data(task, settings(), word_size=8)
    words = [sum(map(int, part.lengths)) for part in (data.labelled, data.unlabelled)]
    given = settings(steps=3, batch_size=100, unlabelled_batch_size=100)
    told = run_job(given, task, tmp_path / "run")
    assert told["cost"]["tokens"] == 2 * words[0] + words[1]
