"""General distillation: what is learnt on plain text, and that it is learnt the same each time."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModel

from stillhouse.data.batching import collate
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.signals import EMBEDDINGS
from stillhouse.distill.steps import Watch
from stillhouse.distill.terms import AttentionTerm, HiddenTerm
from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.encoders import load_encoder
from stillhouse.recipe.general import (
    distil_on_text,
    fresh_student,
    held_out_losses,
    learn_terms,
    open_text_bench,
    text_terms,
)
from stillhouse.recipe.general_student import bare_encoder
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.settings import settings_from_dict
from stillhouse.run.settings_file import apply_overrides
from stillhouse.space.architecture import BertArchitecture

SAME_WIDTH = BertArchitecture(layers=2, hidden_size=32, heads=4, ffn_size=64)
NARROW = BertArchitecture(layers=2, hidden_size=16, heads=2, ffn_size=32)


class Killed(Exception):  # noqa: N818  no error: somebody ended the process
    """Raised in the middle of a training."""


@pytest.fixture
def open_bench(weather_encoder_folder, weather_text, talk, tmp_path):
    def make(**changed):
        common = {
            "recipe": "general",
            "teacher": {"model": str(weather_encoder_folder)},
            "corpus": {"name": str(weather_text), "length": 16, "held_out": 6},
            "distill": {"precision": "float32", "learning_rate": 3e-3, "batch_size": 4},
        }
        overrides = {name.replace("__", "."): value for name, value in changed.items()}
        settings = settings_from_dict(apply_overrides(common, overrides))
        with open_run(tmp_path / "run", settings):
            pass
        run = RunDirectory(path=tmp_path / "run")
        return open_text_bench(settings, run, talk, Accelerator(cpu=True))

    return make


@pytest.fixture
def text_bench(open_bench):
    return open_bench()


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_text_is_parted_and_whole(text_bench):
    assert len(text_bench.held_out) == 6
    assert len(text_bench.examples) == len(text_bench.corpus.train) > 20
    assert set(text_bench.examples.lengths) == {16}
    held = {tuple(row) for row in text_bench.held_out.input_ids.reshape(-1, 16).tolist()}
    learnt = {tuple(row) for row in text_bench.examples.input_ids.reshape(-1, 16).tolist()}
    assert not held & learnt
    assert not any(weight.requires_grad for weight in text_bench.teacher.parameters())


def test_what_is_learnt_by_default(text_bench):
    student, initialisation = fresh_student(text_bench, SAME_WIDTH, seed=0)
    hidden, attention = text_terms(text_bench, student, "uniform", seed=0)
    assert isinstance(hidden, HiddenTerm)
    assert [(link.student, link.teacher) for link in hidden.links] == [
        (EMBEDDINGS, (EMBEDDINGS,)),
        (0, (1,)),
        (1, (3,)),
    ]
    assert hidden.projection is None
    assert isinstance(attention, AttentionTerm)
    assert attention.pairs == ((0, 1), (1, 3))
    assert (hidden.weight, attention.weight) == (1.0, 1.0)
    assert initialisation.kind == "slices"


def test_genes_name_the_layers_that_learn(text_bench):
    student, _ = fresh_student(text_bench, NARROW, seed=0)
    hidden, attention = text_terms(text_bench, student, (0, 3), seed=0)
    assert [link.student for link in hidden.links] == [EMBEDDINGS, 1]
    assert hidden.links[1].teacher == (2,)
    assert hidden.projection.weight.shape == (32, 16)
    assert attention.pairs == ((1, 2),)
    [embeddings] = text_terms(text_bench, student, (0, 0), seed=0)
    assert [link.student for link in embeddings.links] == [EMBEDDINGS]


def test_losses_on_held_out_text_are_those_of_tinybert(text_bench):
    """Against the states and the attention that transformers itself gives out."""
    student, _ = fresh_student(text_bench, SAME_WIDTH, seed=0)
    terms = text_terms(text_bench, student, "uniform", seed=0)
    told = held_out_losses(text_bench, student, terms)
    batch = collate(text_bench.held_out, torch.arange(6).numpy())
    ours, theirs = states_of(student, batch), states_of(text_bench.teacher, batch)
    hidden = [
        torch.nn.functional.mse_loss(ours.hidden[i], theirs.hidden[j])
        for i, j in ((0, 0), (1, 2), (2, 4))
    ]
    scores = [
        torch.nn.functional.mse_loss(ours.scores[i], theirs.scores[j]) for i, j in ((0, 1), (1, 3))
    ]
    # The cache keeps the teacher's states in float16.
    assert told["hidden"] == pytest.approx(torch.stack(hidden).mean().item(), rel=1e-3)
    assert told["attention"] == pytest.approx(torch.stack(scores).mean().item(), rel=1e-3)


@torch.no_grad()
def states_of(model, batch):
    """Hidden states, embeddings first, and attention before its softmax."""
    output = model.base_model(input_ids=batch.input_ids, output_hidden_states=True)
    scores = []
    for layer, state in zip(model.base_model.encoder.layer, output.hidden_states, strict=False):
        part = layer.attention.self
        size = part.attention_head_size
        query, key = (
            one(state).view(*state.shape[:2], -1, size).transpose(1, 2)
            for one in (part.query, part.key)
        )
        scores.append(query @ key.transpose(2, 3) / size**0.5)
    return SimpleNamespace(hidden=output.hidden_states, scores=scores)


@pytest.mark.parametrize("shape", [SAME_WIDTH, NARROW], ids=["same width", "narrow"])
def test_losses_fall_and_are_told_with_the_trained_projection(text_bench, shape):
    student, _ = fresh_student(text_bench, shape, seed=0)
    terms = text_terms(text_bench, student, "uniform", seed=0)
    before = held_out_losses(text_bench, student, terms)
    learn_terms(text_bench, student, text_bench.examples, terms, epochs=6, seed=0)
    after = held_out_losses(text_bench, student, terms)
    assert after.keys() == before.keys() == {"hidden", "attention"}
    assert all(after[name] < 0.9 * before[name] for name in after)


def test_the_teacher_is_asked_once_for_many_students(text_bench):
    asked = []
    text_bench.teacher.register_forward_hook(lambda *_: asked.append(1))
    first, _ = fresh_student(text_bench, SAME_WIDTH, seed=0)
    distil_on_text(text_bench, first, text_bench.examples, layer_map=(2, 4), epochs=1, seed=0)
    assert asked
    asked.clear()
    second, _ = fresh_student(text_bench, SAME_WIDTH, seed=0)
    distil_on_text(text_bench, second, text_bench.examples, layer_map=(2, 4), epochs=2, seed=1)
    third, _ = fresh_student(text_bench, SAME_WIDTH, seed=0)
    distil_on_text(text_bench, third, text_bench.examples, layer_map=(0, 4), epochs=1, seed=0)
    assert not asked
    assert not equal(weights(first), weights(third))


def test_a_cache_over_its_limit_leaves_the_teacher_live(open_bench, caplog):
    bench = open_bench(distill__cache_gb=1e-9)
    student, _ = fresh_student(bench, NARROW, seed=0)
    report = distil_on_text(bench, student, bench.examples, layer_map="last", epochs=0.5, seed=0)
    assert report.steps > 1
    assert "over its limit" in caplog.text
    assert not any(module._forward_hooks for module in bench.teacher.modules())
    assert not any((bench.run.work / "cache").glob("*/*.npy"))


def test_the_same_seed_gives_the_same_student(text_bench):
    students = []
    for _ in range(2):
        student, _ = fresh_student(text_bench, NARROW, seed=3)
        distil_on_text(text_bench, student, text_bench.examples, layer_map="last", epochs=1, seed=5)
        students.append(weights(student))
        torch.rand(1)
    assert equal(*students)


def test_stopped_and_begun_again_equals_unbroken(text_bench, tmp_path):
    def distil(watch):
        student, _ = fresh_student(text_bench, NARROW, seed=0)
        terms = text_terms(text_bench, student, "uniform", seed=0)
        learn_terms(text_bench, student, text_bench.examples, terms, epochs=2, seed=0, watch=watch)
        return weights(student), held_out_losses(text_bench, student, terms)

    def kill(progress):
        if progress.step == 9:
            raise Killed

    checkpoint = CheckpointFolder(path=tmp_path / "kept", fingerprint="one", every_s=0.0)
    with pytest.raises(Killed):
        distil(Watch(on_step=kill, checkpoint=checkpoint))
    steps = []
    resumed, its_losses = distil(
        Watch(on_step=lambda progress: steps.append(progress.step), checkpoint=checkpoint)
    )
    assert steps[0] == 9  # told before the checkpoint of its step was written
    unbroken, losses = distil(Watch())
    assert equal(resumed, unbroken)
    assert its_losses == losses


def test_nothing_of_the_head_is_exported(text_bench):
    student, _ = fresh_student(text_bench, SAME_WIDTH, seed=0)
    bare = bare_encoder(student)
    assert type(bare) is type(AutoModel.from_config(student.config))
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        ours = bare.eval()(input_ids=ids).last_hidden_state
        theirs = student.eval().base_model(input_ids=ids).last_hidden_state
    assert torch.equal(ours, theirs)


def test_first_weights_from_the_teacher_or_by_chance(open_bench, weather_encoder_folder):
    bench = open_bench()
    teacher = load_encoder(str(weather_encoder_folder)).model.state_dict()
    assert all(
        torch.equal(bench.teacher.base_model.state_dict()[name], weight)
        for name, weight in teacher.items()
    )
    table = "embeddings.word_embeddings.weight"
    cut, _ = fresh_student(bench, NARROW, seed=0)
    assert torch.equal(cut.base_model.state_dict()[table], teacher[table][:, :16])


def test_a_student_from_scratch_follows_its_seed(open_bench):
    bench = open_bench(distill__initialisation="scratch")
    one, other = (fresh_student(bench, NARROW, seed=seed)[0] for seed in (0, 1))
    again, initialisation = fresh_student(bench, NARROW, seed=0)
    assert initialisation.kind == "scratch"
    assert equal(weights(one), weights(again))
    assert not equal(weights(one), weights(other))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"distill__logit_weight": 1.0}, r"distill\.logit_weight must be 0 on plain text"),
        ({"distill__label_weight": 0.5}, r"distill\.label_weight must be 0 .* but is 0\.5"),
        ({"corpus__held_out": 0}, r"corpus\.held_out must be at least 1"),
        ({"corpus__length": 40}, r"corpus\.length 40 is above the teacher's 32 positions"),
        ({"teacher__model": "scratch"}, "needs a trained teacher .*'scratch'.*--teacher"),
    ],
)
def test_settings_that_do_not_go_with_text_are_refused(open_bench, changed, message):
    with pytest.raises(SettingsError, match=message):
        open_bench(**changed)


def test_a_teacher_that_is_not_there(open_bench, tmp_path):
    with pytest.raises(TeacherError, match="no model could be loaded from"):
        open_bench(teacher__model=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("layer_map", "message"),
    [
        ((1,), r"has 1 genes, but the student 2 layers"),
        ((1, 5), r"5 is no layer of the teacher, which has 4"),
    ],
)
def test_genes_that_do_not_fit_are_refused(text_bench, layer_map, message):
    student, _ = fresh_student(text_bench, NARROW, seed=0)
    with pytest.raises(SettingsError, match=message):
        distil_on_text(
            text_bench, student, text_bench.examples, layer_map=layer_map, epochs=1, seed=0
        )


def test_a_map_that_leaves_nothing_to_learn_is_refused(open_bench):
    bench = open_bench(distill__embeddings=False)
    student, _ = fresh_student(bench, NARROW, seed=0)
    with pytest.raises(SettingsError, match=r"layer map \[0, 0\] links no layer"):
        distil_on_text(bench, student, bench.examples, layer_map=(0, 0), epochs=1, seed=0)
