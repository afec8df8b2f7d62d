import csv
import json
import random

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError, RunError, SettingsError
from stillhouse.recipe.attacking import (
    AttackJob,
    ConstraintSettings,
    attack_checkpoints,
    choose_targets,
)
from stillhouse.recipe.victims import load_victim
from stillhouse.run.progress import LoggingNarrator

FILES = ("adversarial.tsv", "attack.json", "outcomes.jsonl", "settings.json")


@pytest.fixture(scope="module")
def classifier(weather_tokenizer, tmp_path_factory):
    """Makes a classifier with random weights, which a word may well bring to another answer."""

    def make(seed=0, kind=BertForSequenceClassification, labels=("bad", "good")):
        folder = tmp_path_factory.mktemp("classifier")
        config = BertConfig(
            vocab_size=len(weather_tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            initializer_range=0.4,
            id2label=dict(enumerate(labels)),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind(config).save_pretrained(folder)
        weather_tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="module")
def first(classifier):
    return classifier()


@pytest.fixture(scope="module")
def table(first, weather_rows, tmp_path_factory):
    """40 texts with the labels that the first model gives them, but for every fifth."""
    texts = [text for text, _ in weather_rows[:40]]
    victim = load_victim(first, ("bad", "good"), max_length=32)
    answers = victim.answer([(text,) for text in texts]).argmax(axis=1)
    path = tmp_path_factory.mktemp("task") / "dev.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for place, (text, answer) in enumerate(zip(texts, answers, strict=True)):
            label = answer if place % 5 else 1 - answer
            writer.writerow((text, ("bad", "good")[label]))
    return path


@pytest.fixture(scope="module")
def synonyms(weather_rows, tmp_path_factory):
    words = sorted({word for text, _ in weather_rows for word in text.split()})
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("synonyms") / "toy.json"
    path.write_text(json.dumps({word: draw.sample(words, 3) for word in words[::2]}))
    return path


@pytest.fixture
def job(first, weather_csv, table, synonyms):
    def make(*more, **options):
        task = TaskSettings(name=str(weather_csv), dev=str(table))
        return AttackJob(
            **{"models": (first, *more), "task": task, "synonyms": synonyms, "seed": 3} | options
        )

    return make


class Stopping(LoggingNarrator):
    """Ends the work, as Ctrl-C does, when so many texts are done."""

    def __init__(self, after):
        self.after = after

    def advance(self, done, detail=""):
        if done == self.after:
            raise KeyboardInterrupt


def files_of(folder):
    return {name: (folder / name).read_text() for name in FILES}


def without_folder(report):
    return {name: value for name, value in report.to_dict().items() if name != "folder"}


def test_two_models_are_attacked_on_the_same_texts_and_compared(job, classifier, tmp_path, talk):
    second = classifier(seed=1)
    given = job(second, examples=30)
    report = attack_checkpoints(given, tmp_path, talk)
    assert report.texts == 30
    one, other = report.models
    assert (one.model, other.model) == given.models
    assert one.scores.original_accuracy.count == other.scores.original_accuracy.count == 30
    assert 0.7 < one.scores.original_accuracy.value < 0.9
    assert 0 < one.scores.after_attack_accuracy.value < one.scores.original_accuracy.value
    (pair,) = report.differences
    assert (pair.model, pair.less) == (second, given.models[0])
    assert pair.difference.after_attack_accuracy.value == pytest.approx(
        other.scores.after_attack_accuracy.value - one.scores.after_attack_accuracy.value
    )
    assert json.loads((tmp_path / "attack.json").read_text()) == json.loads(
        json.dumps(report.to_dict())
    )


def test_the_texts_are_written_side_by_side(job, tmp_path, talk):
    report = attack_checkpoints(job(), tmp_path, talk)
    lines = (tmp_path / "adversarial.tsv").read_text().splitlines()
    header, *rows = (line.split("\t") for line in lines)
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    assert [int(row["example"]) for row in rows] == list(range(40))
    results = [row["result"] for row in rows]
    scores = report.models[0].scores
    assert results.count("wrong before") == 8
    assert results.count("robust") / 40 == scores.after_attack_accuracy.value
    assert results.count("fooled") / 32 == scores.success_fraction.value
    for row in rows:
        marks = row["original"].count("[["), row["adversarial"].count("[[")
        assert marks[0] == marks[1]
        assert bool(marks[0]) or row["original"] == row["adversarial"]
        assert (row["after"] != row["label"]) == (row["result"] != "robust")
    task = load_task(job().task)
    originals = [row["original"].replace("[[", "").replace("]]", "") for row in rows]
    assert originals == task.dev[:]["text_a"]


@pytest.mark.parametrize("at_once", [1, 5, 64])
def test_the_number_of_texts_at_once_decides_nothing(job, tmp_path, talk, at_once):
    usual = attack_checkpoints(job(), tmp_path / "usual", talk)
    other = attack_checkpoints(job(at_once=at_once), tmp_path / "other", talk)
    assert without_folder(usual) == without_folder(other)
    found, expected = files_of(tmp_path / "other"), files_of(tmp_path / "usual")
    del found["attack.json"], expected["attack.json"]  # they name their folder
    assert found == expected


def test_a_stopped_attack_goes_on_where_it_was(job, classifier, tmp_path, talk):
    given = job(classifier(seed=1), at_once=3)
    whole = attack_checkpoints(given, tmp_path / "a", talk)
    out = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        attack_checkpoints(given, out, Stopping(after=17))
    lines = (out / "outcomes.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 17
    (out / "outcomes.jsonl").write_text("".join(lines)[:-20])  # killed while it wrote
    talk.said.clear()
    again = attack_checkpoints(given, out, talk)
    assert talk.said == ["16 of 40 texts are attacked already."]
    assert without_folder(again) == without_folder(whole)
    found, expected = files_of(out), files_of(tmp_path / "a")
    assert found.pop("attack.json") == expected.pop("attack.json").replace(
        json.dumps(str(tmp_path / "a")), json.dumps(str(out))
    )
    assert found == expected


def test_more_examples_are_added_to_those_that_are_known(job, tmp_path, talk):
    attack_checkpoints(job(examples=10), tmp_path / "a", talk)
    talk.said.clear()
    more = attack_checkpoints(job(examples=25), tmp_path / "a", talk)
    assert talk.said == ["10 of 25 texts are attacked already."]
    assert without_folder(more) == without_folder(
        attack_checkpoints(job(examples=25), tmp_path / "b", talk)
    )


def test_another_attack_in_the_same_folder_is_refused(job, classifier, synonyms, tmp_path, talk):
    attack_checkpoints(job(examples=5), tmp_path, talk)
    kept = files_of(tmp_path)
    changed = tmp_path.parent / "changed.json"
    changed.write_text(json.dumps({**json.loads(synonyms.read_text()), "unheard": ["day"]}))
    stop_words = tmp_path.parent / "stop.txt"
    stop_words.write_text("the\n")
    weather = job().task.name
    others = {
        r"models\.1\.weights_sha256": {"models": (classifier(seed=1),)},
        r"models\.2": {"models": (*job().models, classifier(seed=1))},
        r"task\.dev_sha256": {"task": TaskSettings(name=weather)},
        r"synonyms\.sha256": {"synonyms": changed},
        r"constraints\.stop_words": {"constraints": ConstraintSettings(stop_words=stop_words)},
        "seed: 3 → 4": {"seed": 4},
    }
    for said, options in others.items():
        with pytest.raises(RunError, match=rf"holds another attack than is asked for.*{said}"):
            attack_checkpoints(job(examples=5, **options), tmp_path, talk)
    assert files_of(tmp_path) == kept


def test_damaged_folders_are_refused(job, tmp_path, talk):
    attack_checkpoints(job(examples=5), tmp_path, talk)
    outcomes, settings = tmp_path / "outcomes.jsonl", tmp_path / "settings.json"
    kept = outcomes.read_text()
    outcomes.write_text(kept.replace('"queries"', '"quarries"', 1))
    with pytest.raises(RunError, match="line 1 is no outcome"):
        attack_checkpoints(job(examples=5), tmp_path, talk)
    settings.write_text("{")
    with pytest.raises(RunError, match=r"damaged settings\.json"):
        attack_checkpoints(job(examples=5), tmp_path, talk)
    settings.unlink()
    with pytest.raises(RunError, match=r"outcomes but no settings\.json"):
        attack_checkpoints(job(examples=5), tmp_path, talk)


def test_constraints_restrict_the_attack_and_are_told(
    job, weather_encoder_folder, synonyms, tmp_path, talk
):
    free = attack_checkpoints(job(), tmp_path / "free", talk)
    assert any("part of speech: not restricted" in line for line in free.conditions)
    assert any("similarity: not restricted" in line for line in free.conditions)
    words = list(json.loads(synonyms.read_text()))
    parts = tmp_path / "parts.tsv"
    rows = [f"{word}\t{'nar'[place % 3]}\tnothing" for place, word in enumerate(words)]
    parts.write_text("\n".join(["word\tpos\tsynonyms", *rows, ""]))
    given = ConstraintSettings(parts_of_speech=parts, similarity=str(weather_encoder_folder))
    strict = attack_checkpoints(job(constraints=given), tmp_path / "strict", talk)
    assert sum("parts.tsv" in line for line in strict.conditions) == 1
    assert sum(str(weather_encoder_folder) in line for line in strict.conditions) == 1
    assert not any("not restricted" in line for line in strict.conditions)
    left = [one.models[0].scores.after_attack_accuracy.value for one in (free, strict)]
    assert left[0] < left[1]
    given = ConstraintSettings(
        similarity=str(weather_encoder_folder), least_similarity=1.0
    )  # texts of less than a window are let through
    lax = attack_checkpoints(job(constraints=given), tmp_path / "lax", talk)
    assert lax.models[0].scores.queries.count == free.models[0].scores.queries.count


def test_a_tagger_restricts_the_attack_and_is_told(job, classifier, tmp_path, talk):
    tagger = classifier(
        kind=BertForTokenClassification, labels=("NOUN", "ADJ", "ADV", "DET", "VERB", "ADP")
    )
    given = job(constraints=ConstraintSettings(pos_tagger=tagger))
    strict = attack_checkpoints(given, tmp_path / "strict", talk)
    assert sum(f"as tagged by {tagger}" in line for line in strict.conditions) == 1
    free = attack_checkpoints(job(), tmp_path / "free", talk)
    left = [one.models[0].scores.after_attack_accuracy.value for one in (free, strict)]
    assert left[0] < left[1]
    with pytest.raises(RunError, match=rf"constraints\.pos_tagger: '{tagger}' → None"):
        attack_checkpoints(job(), tmp_path / "strict", talk)


def test_texts_without_synonyms_are_counted_or_refused(job, tmp_path, talk):
    few = tmp_path / "few.json"
    few.write_text('{"sunny": ["rainy"]}')
    report = attack_checkpoints(job(synonyms=few), tmp_path / "few", talk)
    texts = load_task(job().task).dev[:]["text_a"]
    assert report.without_synonyms == sum("sunny" not in text for text in texts) > 30
    few.write_text('{"snowy": ["icy"]}')
    with pytest.raises(DataError, match=r"none of 40 texts .* has a word with a synonym"):
        attack_checkpoints(job(synonyms=few), tmp_path / "none", talk)


def test_labels_are_matched_by_name(first):
    texts = [(text,) for text in ("sunny day", "rainy walk")]
    usual = load_victim(first, ("bad", "good"), max_length=32).answer(texts)
    turned = load_victim(first, ("Good", "BAD"), max_length=32).answer(texts)
    assert turned[:, ::-1].tolist() == usual.tolist()
    assert usual.sum(axis=1) == pytest.approx(1)


def test_models_that_are_no_classifiers_of_the_task_are_refused(
    job, classifier, weather_encoder_folder, tmp_path, talk
):
    with pytest.raises(DataError, match=r"labels \['no', 'yes'\], the task has \['bad', 'good'\]"):
        attack_checkpoints(job(models=(classifier(labels=("no", "yes")),)), tmp_path, talk)
    tagger = classifier(kind=BertForTokenClassification)
    with pytest.raises(DataError, match=r"is no classifier of texts, .* tagger"):
        attack_checkpoints(job(models=(tagger,)), tmp_path, talk)
    with pytest.raises(DataError, match=r"is no classifier of texts, .* encoder"):
        attack_checkpoints(job(models=(str(weather_encoder_folder),)), tmp_path, talk)


def write_rows(path, labels):
    with path.open("w", newline="", encoding="utf-8") as file:
        for place, label in enumerate(labels):
            file.write(json.dumps({"text": f"text {place}", "label": label}) + "\n")
    return TaskSettings(name=str(path))


def test_tasks_without_one_class_a_text_are_refused(job, tmp_path, talk):
    scores = write_rows(tmp_path / "scores.jsonl", [place + 0.25 for place in range(60)])
    with pytest.raises(SettingsError, match="it is a regression"):
        attack_checkpoints(job(task=scores), tmp_path, talk)
    lists = write_rows(tmp_path / "lists.jsonl", [["a"], ["b"], ["a", "b"], []] * 10)
    with pytest.raises(SettingsError, match="any number of labels"):
        attack_checkpoints(job(task=lists), tmp_path, talk)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"models": ()}, "needs a model"),
        ({"synonyms": None}, "needs a synonym file"),
        ({"examples": 0}, "examples is at least 1"),
        ({"at_once": 0}, "at_once is at least 1"),
    ],
)
def test_impossible_jobs_are_refused(job, options, said):
    with pytest.raises(SettingsError, match=said):
        job(**options)


def test_constraints_without_what_they_restrict_are_refused(job, tmp_path):
    with pytest.raises(SettingsError, match="needs an encoder"):
        ConstraintSettings(least_similarity=0.5)
    given = ConstraintSettings(stop_words=tmp_path / "stop.txt")
    with pytest.raises(SettingsError, match="no synonym file is given"):
        job(synonyms=None, adv_glue=tmp_path / "dev.json", constraints=given)


def test_pairs_are_drawn_with_both_texts(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"a{place},b{place},{('no', 'yes')[place % 2]}" for place in range(20)]
    path.write_text("\n".join(["one,two,label", *rows]))
    task = load_task(TaskSettings(name=str(path), dev=str(path), text=("one", "two")))
    few = choose_targets(task, most=5, seed=0)
    more = choose_targets(task, most=12, seed=0)
    assert [one.key for one in few] == sorted(one.key for one in few)
    assert {one.key for one in few} < {one.key for one in more}
    assert all(one.texts == (f"a{one.key}", f"b{one.key}") for one in more)
    assert all(one.label == one.key % 2 for one in more)
    assert len(choose_targets(task, most=50, seed=0)) == 20


def test_adv_glue_is_evaluated_without_synonyms(classifier, tmp_path, talk):
    model = classifier(labels=("negative", "positive"))
    texts = ["sunny day", "rainy day", "the long walk", "calm river"]
    answers = load_victim(model, ("negative", "positive"), max_length=32).answer(
        [(text,) for text in texts]
    )
    wrong, right, odd, last = answers.argmax(axis=1).tolist()
    rows = [
        {"sentence": texts[0], "original_sentence": texts[1], "label": 1 - wrong},
        {"sentence": texts[2], "label": odd},
        {"sentence": texts[3], "original_sentence": texts[3], "label": last},
    ]
    path = tmp_path / "dev_ann.json"
    path.write_text(json.dumps({"sst2": rows}))
    job = AttackJob(models=(model,), task=TaskSettings(name="glue/sst2"), adv_glue=path)
    report = attack_checkpoints(job, tmp_path / "out", talk)
    assert report.models == ()
    (found,) = report.adv_glue
    assert (found.section, found.perturbed.value, found.perturbed.count) == ("sst2", 2 / 3, 3)
    assert (found.perturbed_with_original.value, found.perturbed_with_original.count) == (0.5, 2)
    assert found.originals.value == (0.5 if right == wrong else 1.0)
    path.write_text(json.dumps({"sst2": rows[1:2]}))
    (found,) = attack_checkpoints(job, tmp_path / "out", talk).adv_glue
    assert found.originals is found.perturbed_with_original is None
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [".lock", "attack.json"]


def test_adv_glue_of_another_task_is_refused(job, tmp_path, talk):
    with pytest.raises(SettingsError, match="AdvGLUE has examples of glue/sst2"):
        attack_checkpoints(job(adv_glue=tmp_path / "dev.json"), tmp_path, talk)
