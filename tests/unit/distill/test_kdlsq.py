import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn
from torch.nn import functional as F  # noqa: N812  the name that everybody knows
from transformers import BertForQuestionAnswering, BertForTokenClassification

from stillhouse.data.batching import collate
from stillhouse.distill import loop
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.kdlsq import (
    Rates,
    kdlsq_terms,
    rated_parts,
    soft_binary_cross_entropy,
    soft_cross_entropy,
    soft_span_cross_entropy,
)
from stillhouse.distill.loop import TrainSettings, train
from stillhouse.distill.signals import SignalReader, Signals
from stillhouse.distill.steps import Evaluations, Part, Schedule, Watch, run_steps
from stillhouse.distill.teacher import LiveTeacher
from stillhouse.distill.vocabulary import compact_vocabulary, whole_vocabulary
from stillhouse.model.inputs import model_inputs
from stillhouse.model.lsq import activation_clips, quantise_model, quantised_parts, weight_clips
from stillhouse.model.lsq_parts import QuantisedEmbedding
from stillhouse.model.lsq_ranges import set_activation_clips, set_weight_clips
from stillhouse.model.predict import predict

RATES = Rates(weights=5e-5, weight_clips=1e-3, activation_clips=3e-2)
FOUR_STEPS = TrainSettings(epochs=1, learning_rate=5e-5, batch_size=16, warmup_fraction=0.0)
EVERYTHING = frozenset({-1, 0, 1}), frozenset({0, 1})


def random_logits(*shape, seed=0):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


def in_few_bits(model, encoded, *, bits=4):
    """A quantised copy of a model."""
    student = copy.deepcopy(model)
    quantise_model(student, weight_bits=bits)
    set_weight_clips(student, "quantile")
    batch = collate(encoded, np.arange(16))
    set_activation_clips(student, model_inputs(student.config, batch), "quantile")
    return student


def live(model):
    layers, attention = EVERYTHING
    return LiveTeacher(copy.deepcopy(model), layers, "float32", attention=attention)


@pytest.fixture
def pair(make_bert, make_set):
    """A model that has learnt something to say, and its quantised copy."""
    model = make_bert()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
    return model, in_few_bits(model, make_set())


def fit(model, student, encoded, accelerator, **more):
    settings = more.pop("settings", FOUR_STEPS)
    kind = more.pop("kind", "classes")
    return train(
        student,
        encoded,
        kdlsq_terms(student.config, kind=kind, label_weight=0.0),
        settings,
        accelerator=accelerator,
        teacher=live(model),
        parts=rated_parts(RATES),
        **more,
    )


def test_soft_cross_entropy_is_divided_by_classes_too():
    student, teacher = random_logits(6, 3)
    expected = -(softmax(teacher.numpy(), axis=1) * log_softmax(student.numpy(), axis=1)).mean()
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(float(expected), rel=1e-5)
    by_torch = F.cross_entropy(student, teacher.softmax(dim=-1)) / 3
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(by_torch.item())


def test_soft_binary_cross_entropy_against_torch():
    student, teacher = random_logits(6, 3)
    expected = F.binary_cross_entropy(student.sigmoid(), teacher.sigmoid())
    found = soft_binary_cross_entropy(student, teacher)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_soft_cross_entropy_of_places_by_hand():
    student, teacher = random_logits(2, 5, 2)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    student[1, 2:], teacher[1, 2:] = torch.nan, torch.inf  # padding may be anything
    summed = 0.0
    for example, length in ((0, 5), (1, 2)):
        for end in range(2):
            ours, theirs = (one[example, :length, end].numpy() for one in (student, teacher))
            summed -= float((softmax(theirs) * log_softmax(ours)).sum())
    found = soft_span_cross_entropy(student, teacher, mask)
    assert found.item() == pytest.approx(summed / 7, rel=1e-5)


def test_no_example_gives_zero():
    nothing = torch.zeros(0, 3)
    assert soft_cross_entropy(nothing, nothing) == 0
    assert soft_binary_cross_entropy(nothing, nothing) == 0
    empty = torch.zeros(1, 4, 2)
    assert soft_span_cross_entropy(empty, empty, torch.zeros(1, 4)) == 0


@pytest.mark.parametrize("loss", [soft_cross_entropy, soft_binary_cross_entropy])
def test_the_gradient_goes_to_the_student_and_is_zero_at_equality(loss):
    student, teacher = (one.clone().requires_grad_() for one in random_logits(4, 3))
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0
    same = teacher.detach().clone().requires_grad_()
    loss(same, teacher).backward()
    torch.testing.assert_close(same.grad, torch.zeros_like(same), atol=1e-6, rtol=0)


def both_signals(model, student, batch):
    layers, attention = EVERYTHING
    found = []
    for one in (student, model):
        with SignalReader(one, layers, attention=attention) as reader, torch.no_grad():
            found.append(reader(batch))
    return found


def test_the_objective_is_the_sum_that_is_written(pair, make_set):
    """Each part out of the models' own outputs, layer by layer."""
    model, student = pair
    batch = collate(make_set(), np.arange(8))
    signals = both_signals(model, student, batch)
    terms = kdlsq_terms(model.config, kind="classes", label_weight=0.0)
    assert [term.weight for term in terms] == [1.0, 1.0, 1.0]
    found = [term(*signals, batch).item() for term in terms]
    real = batch.attention_mask.bool()
    hidden = []
    for one in (student, model):
        with torch.no_grad():
            hidden.append(
                one(**model_inputs(one.config, batch), output_hidden_states=True).hidden_states
            )
    expected_hidden = sum(
        F.mse_loss(ours[real], theirs[real]).item() for ours, theirs in zip(*hidden, strict=True)
    )
    assert len(hidden[0]) == 3  # embeddings and two layers
    expected_attention = 0.0
    for layer in (0, 1):
        squared = []
        for example in range(8):
            length = int(batch.attention_mask[example].sum())
            scores = []
            for one in signals:
                both = one.attention[layer]
                query, key = (
                    tokens[example, :length].unflatten(-1, (2, 8)).transpose(0, 1)
                    for tokens in (both.query_BTW, both.key_BTW)
                )
                scores.append(query @ key.mT / 8**0.5)
            squared.append((scores[0] - scores[1]).square().flatten())
        expected_attention += torch.cat(squared).mean().item()
    logits = [one.logits for one in signals]
    expected_logits = F.cross_entropy(logits[0], logits[1].softmax(dim=-1)).item() / 2
    assert found == pytest.approx([expected_logits, expected_attention, expected_hidden], rel=1e-4)


def test_what_attention_is_compared_with_is_quantised(pair, make_set):
    model, student = pair
    batch = collate(make_set(), np.arange(8))
    ours, _ = both_signals(model, student, batch)
    layer = student.bert.encoder.layer[1].attention.self
    codes = ours.attention[1].query_BTW / layer.query.output_clip.detach() * 127
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def test_scores_learn_from_labels_and_labels_can_be_added(make_bert, make_set):
    config = make_bert(labels=1).config
    terms = kdlsq_terms(config, kind="scores", label_weight=0.0)
    assert [term.reads_teacher for term in terms] == [False, True, True]
    encoded = make_set(scores=True)
    batch = collate(encoded, np.arange(8))
    outputs = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    found = terms[0](Signals(logits=outputs), None, batch)
    assert found.item() == pytest.approx(F.mse_loss(outputs[:, 0], batch.labels).item())
    [*_, labels] = kdlsq_terms(config, kind="classes", label_weight=0.5)
    assert (labels.weight, labels.reads_teacher) == (0.5, False)


def test_questions_count_a_hundred_times(make_span_set, make_bert):
    model = make_bert(head=BertForQuestionAnswering)
    student = in_few_bits(model, make_span_set())
    batch = collate(make_span_set(), np.arange(8))
    ours, theirs = both_signals(model, student, batch)
    [outputs, *_] = kdlsq_terms(model.config, kind="spans", label_weight=0.0)
    bare = soft_span_cross_entropy(ours.logits, theirs.logits, batch.attention_mask)
    assert outputs(ours, theirs, batch).item() == pytest.approx(100 * bare.item())


def test_tags_count_where_they_are_asked_for(make_tagged_set, make_bert):
    model = make_bert(head=BertForTokenClassification, labels=3)
    student = in_few_bits(model, make_tagged_set())
    batch = collate(make_tagged_set(), np.arange(8))
    ours, theirs = both_signals(model, student, batch)
    [outputs, *_] = kdlsq_terms(model.config, kind="tags", label_weight=0.0)
    asked = batch.labels != -100
    expected = F.cross_entropy(ours.logits[asked], theirs.logits[asked].softmax(dim=-1)) / 3
    assert outputs(ours, theirs, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_parts_and_their_decay(pair):
    _, student = pair
    weights, clips, ranges = rated_parts(RATES)(student)
    assert [part.weight_decay for part in (weights, clips, ranges)] == [None, 2e-5, 1e-4]
    assert [part.multiplier(7) for part in (weights, clips, ranges)] == pytest.approx([1, 20, 600])
    assert len(clips.parameters) == len(quantised_parts(student))
    assert len(ranges.parameters) == len(activation_clips(student))
    every = [id(p) for part in (weights, clips, ranges) for p in part.parameters]
    assert sorted(every) == sorted(id(p) for p in student.parameters())


def test_the_first_step_moves_everything_by_its_own_rate(pair, make_set, accelerator):
    """AdamW's first step is the rate itself, whatever the gradient's size."""
    model, student = pair
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    one = TrainSettings(epochs=1, learning_rate=5e-5, batch_size=64, warmup_fraction=0.0)
    fit(model, student, make_set(), accelerator, settings=one)
    moved = {name: (p.detach() - before[name]).abs() for name, p in student.named_parameters()}
    for name in weight_clips(student):
        assert moved[name].item() == pytest.approx(1e-3, rel=0.02), name
    for name in activation_clips(student):
        assert moved[name].item() == pytest.approx(3e-2, rel=0.02), name
    clips = {*weight_clips(student), *activation_clips(student)}
    rest = torch.cat([change.flatten() for name, change in moved.items() if name not in clips])
    # Decay adds 0.01 times the rate times a weight of about 1 at most.
    assert rest.max().item() == pytest.approx(5e-5, rel=0.05)


@pytest.fixture
def easy(make_bert, make_set, make_tagged_set, make_span_set):
    """Makes a model for a kind of task that has something to say, and examples."""

    def make(kind):
        if kind == "classes":
            model, encoded = make_bert(), make_set()
        elif kind == "tags":
            model, encoded = make_bert(head=BertForTokenClassification, labels=3), make_tagged_set()
        else:
            model, encoded = make_bert(head=BertForQuestionAnswering), make_span_set()
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(std=0.3, generator=generator)
        return model, encoded

    return make


@pytest.mark.parametrize("kind", ["classes", "tags", "spans"])
def test_training_brings_the_student_nearer(kind, easy, accelerator):
    """The objective falls towards what it is where the teacher is its own student."""
    model, encoded = easy(kind)
    student = in_few_bits(model, encoded, bits=3)
    settings = TrainSettings(epochs=15, learning_rate=1e-3, batch_size=16, warmup_fraction=0.0)
    batch = collate(encoded, np.arange(len(encoded)))
    terms = kdlsq_terms(model.config, kind=kind, label_weight=0.0)

    def loss(one):
        return sum(term(*both_signals(model, one, batch), batch).item() for term in terms)

    least, before = loss(model), loss(student)
    fit(model, student, encoded, accelerator, settings=settings, kind=kind)
    assert student.config._attn_implementation == "lsq"
    assert least < loss(student) < least + 0.6 * (before - least)


def test_the_teacher_stays(pair, make_set, accelerator):
    model, student = pair
    before = copy.deepcopy(model.state_dict())
    fit(model, student, make_set(), accelerator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_cut_vocabulary_is_quantised_with_the_table_s_own_clip(pair, make_set):
    _, student = pair
    few = make_set(40, tokens=(7, 9, 20, 33, 49))
    batch = collate(few, np.arange(8))
    whole = student(**model_inputs(student.config, batch)).logits
    whole.sum().backward()
    full = student.bert.embeddings.word_embeddings
    expected = full.weight_clip.grad.clone()
    student.zero_grad()
    with compact_vocabulary(student, few) as compact:
        assert student.bert.embeddings.word_embeddings.weight_clip is full.weight_clip
        cut = student(**model_inputs(student.config, collate(compact, np.arange(8)))).logits
        cut.sum().backward()
        assert torch.equal(cut, whole)
        torch.testing.assert_close(full.weight_clip.grad, expected)
        with whole_vocabulary(student):
            assert isinstance(student.bert.embeddings.word_embeddings, QuantisedEmbedding)
            again = student(**model_inputs(student.config, batch)).logits
            assert torch.equal(again, whole)
    assert student.bert.embeddings.word_embeddings is full


def test_training_on_the_cut_vocabulary_is_that_on_the_whole(
    pair, make_set, accelerator, monkeypatch
):
    model, student = pair
    few = make_set(40, tokens=(7, 9, 20, 33, 49))
    other = copy.deepcopy(student)
    fit(model, student, few, accelerator)
    monkeypatch.setattr(loop, "compact_vocabulary", lambda _, encoded: nullcontext(encoded))
    fit(model, other, few, accelerator)
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_a_killed_training_goes_on_to_the_same_numbers(pair, make_set, accelerator, tmp_path):
    model, student = pair
    unbroken, broken, resumed = (copy.deepcopy(student) for _ in range(3))
    settings = TrainSettings(epochs=2, learning_rate=1e-3, batch_size=16, warmup_fraction=0.0)

    def watch(one, **more):
        def quality(_):
            return -float(np.square(predict(one, make_set()) - predict(model, make_set())).mean())

        return Watch(evaluations=Evaluations(score=quality, every_steps=2), **more)

    expected = fit(model, unbroken, make_set(), accelerator, settings=settings,
                   watch=watch(unbroken))  # fmt: skip

    def stop(progress):
        if progress.step == 6:
            raise KeyboardInterrupt

    folder = CheckpointFolder(path=tmp_path, fingerprint="mine", every_s=0)
    with pytest.raises(KeyboardInterrupt):
        fit(model, broken, make_set(), accelerator, settings=settings,
            watch=watch(broken, on_step=stop, checkpoint=folder))  # fmt: skip
    steps = []
    report = fit(
        model, resumed, make_set(), accelerator, settings=settings,
        watch=watch(resumed, checkpoint=folder, on_step=lambda p: steps.append(p.step)),
    )  # fmt: skip
    assert steps == [6, 7, 8]
    assert report.scores == expected.scores
    assert report.best_step == expected.best_step
    theirs = unbroken.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in resumed.state_dict().items())


def test_a_part_s_own_decay_is_on_all_of_it(accelerator):
    """Without a gradient AdamW multiplies by 1 − rate × decay, and by nothing without decay."""
    scalar, vector, matrix = (nn.Parameter(torch.ones(shape)) for shape in ((), 2, (2, 2)))
    other = nn.Parameter(torch.ones(2))
    parts = [
        Part(parameters=[scalar, vector], multiplier=lambda _: 2.0, weight_decay=0.5),
        Part(parameters=[other, matrix], multiplier=lambda _: 1.0),
    ]

    def backward(_):
        sum(0.0 * p.sum() for p in (scalar, vector, matrix, other)).backward()
        return torch.zeros(1)

    run_steps(
        nn.ParameterList([scalar, vector, matrix, other]),
        backward,
        Schedule(steps=1, learning_rate=0.1, weight_decay=0.3),
        accelerator=accelerator,
        parameters=parts,
    )
    assert scalar.item() == pytest.approx(1 - 0.2 * 0.5)
    assert vector.tolist() == pytest.approx([0.9, 0.9])
    assert matrix.flatten().tolist() == pytest.approx([1 - 0.1 * 0.3] * 4)
    assert other.tolist() == [1.0, 1.0]
