"""First weights by kind; importance is measured once and kept."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from stillhouse.data.encoding import EncodedSet
from stillhouse.distill.importance import StatesLoss, TaskLoss, WordsLoss
from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.students import build_student, student_config
from stillhouse.model.teachers import Teacher
from stillhouse.recipe import first_weights as rooms
from stillhouse.recipe.first_weights import (
    first_weights,
    kept_importance,
    kept_layers_rule,
    resolve_loss,
)
from stillhouse.run.settings import settings_from_dict
from stillhouse.space.architecture import BertArchitecture

KEPT = "importance/neurons.safetensors"


@pytest.fixture
def config(weather_tokenizer):
    return BertConfig(
        vocab_size=len(weather_tokenizer),
        num_hidden_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.3,
    )


def build(kind, config, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).eval()


@pytest.fixture
def teacher(config, weather_tokenizer):
    model = build(BertForSequenceClassification, config).requires_grad_(requires_grad=False)
    return Teacher(name="scratch", model=model, tokenizer=weather_tokenizer, has_trained_head=True)


@pytest.fixture
def sample(weather_tokenizer):
    """Sixty texts of eight ordinary words."""
    generator = np.random.default_rng(0)
    ids = generator.integers(5, len(weather_tokenizer), 480).astype(np.int32)
    return EncodedSet(
        input_ids=ids,
        token_type_ids=np.zeros(480, np.int8),
        offsets=np.arange(0, 481, 8),
        labels=(ids[::8] % 2).astype(np.int64),
    )


@pytest.fixture
def student(teacher):
    shape = BertArchitecture(layers=1, hidden_size=8, heads=2, ffn_size=16)
    return build_student(student_config(shape, teacher.model.config), seed=3)


@pytest.fixture
def counted(monkeypatch):
    """Remembers how many examples each measuring read."""
    read = []
    measure = rooms.measure_importance

    def counting(model, sample, loss, **more):
        read.append(len(sample))
        return measure(model, sample, loss, **more)

    monkeypatch.setattr(rooms, "measure_importance", counting)
    return read


def settings(kind="extract", **extract):
    return settings_from_dict({"distill": {"initialisation": kind}, "extract": extract})


def weights(model):
    return copy.deepcopy(model.state_dict())


def alike(one, other):
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


@pytest.mark.parametrize(
    ("kind", "extract", "told"),
    [
        ("scratch", {}, {"kind": "scratch", "layers": []}),
        ("slices", {}, {"kind": "slices", "layers": [1]}),
        (
            "extract",
            {},
            {"kind": "extract", "layers": [1], "indices": "importance", "loss": "states"},
        ),
        (
            "extract",
            {"loss": "task"},
            {"kind": "extract", "layers": [1], "indices": "importance", "loss": "task"},
        ),
        (
            "extract",
            {"indices": "random"},
            {"kind": "extract", "layers": [1], "indices": "random"},
        ),
    ],
)
def test_each_kind_of_first_weights(student, teacher, sample, tmp_path, kind, extract, told):
    before, source = weights(student), weights(teacher.model)
    done = first_weights(
        student, teacher, settings=settings(kind, **extract), sample=sample, folder=tmp_path, seed=0
    )
    assert done.to_dict() == told
    assert alike(weights(student), before) is (kind == "scratch")
    assert alike(weights(teacher.model), source)
    assert (tmp_path / KEPT).exists() is (told.get("indices") == "importance")
    if kind != "scratch":  # every row of the word table is the teacher's, at eight of its neurons
        ours = student.bert.embeddings.word_embeddings.weight
        theirs = teacher.model.bert.embeddings.word_embeddings.weight
        found = [(column == theirs.T).all(dim=1).nonzero().flatten() for column in ours.T]
        assert all(len(place) == 1 for place in found)
        kept = [int(place) for place in found]
        assert kept == sorted(set(kept))
        assert (kept == list(range(8))) is (kind == "slices")


@pytest.mark.parametrize(
    ("distill", "rule"),
    [
        ({}, "spread"),  # outputs alone
        ({"hidden_weight": 1.0}, "uniform"),
        ({"attention_weight": 1.0}, "uniform"),
        ({"attention_weight": 1.0, "layer_map": "search"}, "uniform"),
        ({"hidden_weight": 1.0, "layer_map": "last"}, "spread"),
        ({"hidden_weight": 1.0, "layer_map": [2, 4]}, "spread"),
        ({"hidden_weight": 1.0, "kept_layers": "spread"}, "spread"),
        ({"kept_layers": "uniform"}, "uniform"),
    ],
)
def test_slices_keep_the_layers_that_they_learn_from(distill, rule):
    assert kept_layers_rule(settings_from_dict({"distill": distill}).distill) == rule


@pytest.mark.parametrize(("rule", "layers"), [("spread", (0, 3)), ("uniform", (1, 3))])
def test_slices_are_of_the_layers_of_the_rule(teacher, config, sample, tmp_path, rule, layers):
    config = copy.deepcopy(config)
    config.num_hidden_layers = 4
    deep = replace(teacher, model=build(BertForSequenceClassification, config))
    shape = BertArchitecture(layers=2, hidden_size=8, heads=2, ffn_size=16)
    done = first_weights(
        build_student(student_config(shape, config), seed=3),
        deep,
        settings=settings_from_dict({"distill": {"kept_layers": rule}}),
        sample=sample,
        folder=tmp_path,
        seed=0,
    )
    assert done.layers == layers


def test_chance_follows_the_seed_that_is_passed(student, teacher, sample, tmp_path):
    made = []
    for seed in (1, 1, 2):
        copied = copy.deepcopy(student)
        asked = settings(indices="random")
        first_weights(copied, teacher, settings=asked, sample=sample, folder=tmp_path, seed=seed)
        made.append(weights(copied))
    assert alike(made[0], made[1])
    assert not alike(made[0], made[2])


def test_importance_is_measured_once_for_all_students(student, teacher, sample, tmp_path, counted):
    asked, made = settings(examples=20), []
    for seed in (0, 1):
        copied = copy.deepcopy(student)
        first_weights(copied, teacher, settings=asked, sample=sample, folder=tmp_path, seed=seed)
        made.append(weights(copied))
    assert counted == [20]
    assert alike(*made)
    first, _ = kept_importance(teacher, asked, sample, tmp_path)
    afresh, _ = kept_importance(teacher, asked, sample, tmp_path / "other")
    assert counted == [20, 20]
    for name in ("hidden_D", "heads_LHK", "ffn_LF"):
        assert torch.equal(getattr(first, name), getattr(afresh, name))


def test_importance_of_something_else_is_measured_again(teacher, sample, tmp_path, counted):
    asked = settings(examples=500)
    kept_importance(teacher, asked, sample, tmp_path)
    kept_importance(teacher, asked, sample, tmp_path)
    assert counted == [60]
    kept_importance(teacher, asked, sample.select(range(40)), tmp_path)
    assert counted == [60, 40]
    kept_importance(teacher, settings(examples=500, loss="task"), sample, tmp_path)
    assert counted == [60, 40, 60]
    with torch.no_grad():
        teacher.model.bert.encoder.layer[0].output.dense.weight[0, 0] += 1
    kept_importance(teacher, settings(examples=500, loss="task"), sample, tmp_path)
    assert counted == [60, 40, 60, 60]
    (tmp_path / KEPT).write_bytes(b"torn")
    kept_importance(teacher, settings(examples=500, loss="task"), sample, tmp_path)
    assert counted == [60, 40, 60, 60, 60]


def test_a_measuring_that_is_interrupted_leaves_nothing(teacher, sample, tmp_path, monkeypatch):
    calls = []

    class Interrupted(StatesLoss):
        def __call__(self, model, batch, step):
            calls.append(step)
            if step == 2:
                raise KeyboardInterrupt
            return super().__call__(model, batch, step)

    talk = SimpleNamespace(begun=[], ended=0)
    narrator = SimpleNamespace(
        begin=lambda task, total: talk.begun.append(task),
        advance=lambda done, detail="": None,
        end=lambda: setattr(talk, "ended", talk.ended + 1),
    )
    with monkeypatch.context() as patch:
        patch.setattr(rooms, "StatesLoss", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            kept_importance(teacher, settings(), sample, tmp_path, narrator)
    assert calls == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []
    assert not any(one.requires_grad for one in teacher.model.parameters())
    found, told = kept_importance(teacher, settings(), sample, tmp_path, narrator)
    assert told == "states"
    assert (found.ffn_LF > 0).all()
    assert talk.begun == ["Importance of the teacher's neurons on 60 examples"] * 2
    assert talk.ended == 2


@pytest.fixture
def mlm_teacher(config, weather_tokenizer, tmp_path):
    """A teacher whose checkpoint has a head for masked words, fine-tuned a little since."""
    folder = tmp_path / "checkpoint"
    build(BertForMaskedLM, config, seed=1).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    model = build(BertForSequenceClassification, config, seed=2)
    return Teacher(
        name=str(folder), model=model, tokenizer=weather_tokenizer, has_trained_head=True
    )


def test_masked_words_where_the_checkpoint_knows_them(mlm_teacher, sample, tmp_path):
    loss, told = resolve_loss(mlm_teacher, settings(), sample)
    assert told == "words"
    assert isinstance(loss, WordsLoss)
    published = BertForMaskedLM.from_pretrained(mlm_teacher.name)
    transform = published.cls.predictions.transform
    assert torch.equal(loss.head.dense.weight, transform.dense.weight)
    # It reads the teacher at hand, and compares with the words that this one reads.
    assert (
        loss.head.words_VE.data_ptr() == mlm_teacher.model.get_input_embeddings().weight.data_ptr()
    )
    _, told = kept_importance(mlm_teacher, settings(), sample, tmp_path / "work")
    assert told == "words"
    assert resolve_loss(mlm_teacher, settings(loss="states"), sample)[1] == "states"


def test_a_checkpoint_without_such_a_head_has_states(
    mlm_teacher, config, sample, weather_tokenizer, tmp_path
):
    folder = tmp_path / "classifier"
    build(BertForSequenceClassification, config).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    teacher = Teacher(
        name=str(folder),
        model=mlm_teacher.model,
        tokenizer=weather_tokenizer,
        has_trained_head=True,
    )
    loss, told = resolve_loss(teacher, settings(), sample)
    assert told == "states"
    assert isinstance(loss, StatesLoss)
    with pytest.raises(TeacherError, match=r"extract.loss words needs .*has none: take states"):
        resolve_loss(teacher, settings(loss="words"), sample)


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (None, "classes"),
        ("single_label_classification", "classes"),
        ("multi_label_classification", "multi_label"),
        ("regression", "scores"),
    ],
)
def test_the_task_is_told_from_its_teacher(teacher, sample, problem, kind):
    teacher.model.config.problem_type = problem
    assert resolve_loss(teacher, settings(loss="task"), sample) == (TaskLoss(kind=kind), "task")


def test_the_task_of_a_teacher_that_tags(config, sample, weather_tokenizer):
    model = build(BertForTokenClassification, config)
    teacher = Teacher(name="t", model=model, tokenizer=weather_tokenizer, has_trained_head=True)
    assert resolve_loss(teacher, settings(loss="task"), sample)[0] == TaskLoss(kind="tags")


def test_plain_text_has_no_task(teacher, sample):
    bare = EncodedSet(
        input_ids=sample.input_ids,
        token_type_ids=sample.token_type_ids,
        offsets=sample.offsets,
    )
    with pytest.raises(SettingsError, match=r"extract.loss task needs labelled examples.*states"):
        resolve_loss(teacher, settings(loss="task"), bare)


@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_workbench_measures_a_prepared_teacher_on_its_training_examples(
    bench, teacher, student, sample, tmp_path, counted, is_prepared
):
    made = bench(
        {"distill": {"initialisation": "extract"}, "extract": {"examples": 12}},
        run=SimpleNamespace(work=tmp_path),
        data=SimpleNamespace(train=sample),
        teacher_hash="its hash" if is_prepared else "",
    )
    told = replace(made, source=teacher).initialise(student)
    assert told.kind == "extract"
    assert told.indices == ("importance" if is_prepared else "random")
    assert counted == ([12] if is_prepared else [])
    assert (tmp_path / KEPT).exists() is is_prepared


def test_words_that_nobody_tells_are_refused_before_the_teacher_is_prepared(
    bench, teacher, student, sample
):
    asked = {"distill": {"initialisation": "extract"}, "extract": {"loss": "words"}}
    data, run = SimpleNamespace(train=sample), SimpleNamespace(work=None)
    made = bench(asked, data=data, run=run, teacher_hash="")
    with pytest.raises(TeacherError, match=r"extract.loss words needs a head for masked words"):
        replace(made, source=teacher).initialise(student)
