"""Cross-view training: which modules learn from which text, from what, and how far."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stillhouse.data.batching import plan_batches
from stillhouse.data.lexicon import Lexicon
from stillhouse.data.word_batches import collate_words, encode_words
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.cross_view import (
    CrossViewRule,
    Movement,
    Targets,
    TrainingPlace,
    cross_view_loss,
    drawn_sentences,
    smoothed,
    train_cross_view,
    view_loss,
)
from stillhouse.distill.steps import Evaluations, Watch
from stillhouse.errors import SettingsError
from stillhouse.model.word_tagger import PUBLISHED, CrossViewTagger, TaggerSizes, word_logits

TINY = TaggerSizes(
    word=6, character=4, filters=3, windows=(2, 3), first_units=8, first=5, second=4, module=6
)
WORDS = tuple("abcdefgh")
LEXICON = Lexicon(words=WORDS, characters=WORDS)
STILL = CrossViewRule(dropout=0.0, unlabelled_dropout=0.0, batch_size=4, unlabelled_batch_size=4)
FAST = Movement(steps=6, learning_rate=0.3, warmup_steps=2, average=0.9)


def sentences(count, seed):
    draw = np.random.default_rng(seed)
    return [list(draw.choice(WORDS, draw.integers(1, 7))) for _ in range(count)]


def tags_of(rows):
    """A word's tag is told by the word itself."""
    return [[WORDS.index(word) % 3 for word in row] for row in rows]


@pytest.fixture(scope="module")
def labelled():
    rows = sentences(24, seed=0)
    return encode_words(rows, LEXICON, tags=tags_of(rows))


@pytest.fixture(scope="module")
def unlabelled():
    return encode_words(sentences(20, seed=1), LEXICON)


def build(seed=0):
    count = len(WORDS) + 2
    return CrossViewTagger(TINY, words=count, characters=count, tags=3, seed=seed)


@pytest.fixture
def train(accelerator, labelled, unlabelled):
    """Trains a model on the tiny sets."""

    def run(model, rule=STILL, movement=FAST, teacher=None, watch=lambda _: Watch()):
        place = TrainingPlace(accelerator=accelerator, watch=watch, teacher=teacher)
        return train_cross_view(model, labelled, unlabelled, rule, movement, setting=place)

    return run


def weights(model):
    return torch.cat([one.detach().flatten() for one in model.state_dict().values()])


# Losses.


def test_smoothing_spreads_a_share_over_all_tags():
    one = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    torch.testing.assert_close(smoothed(one, 0.1), torch.tensor([[[0.925, 0.025, 0.025, 0.025]]]))


@pytest.mark.parametrize("shift", [0, 1, -1])
def test_a_shifted_loss_is_the_mean_over_words_with_a_neighbour(shift):
    torch.manual_seed(0)
    lengths = [5, 1, 3]
    logits, targets = torch.randn(3, 5, 4), torch.randn(3, 5, 4).softmax(-1)
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    told, wanted = [], []
    for row, length in enumerate(lengths):
        for place in range(length):
            if 0 <= place + shift < length:
                told.append(logits[row, place])
                wanted.append(targets[row, place + shift])
    expected = functional.cross_entropy(torch.stack(told), torch.stack(wanted))
    found = view_loss(logits, Targets(targets, mask), mask, shift=shift)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shift", [0, 1, -1])
def test_a_word_without_a_target_tells_of_its_neighbours(shift):
    """Of three words the middle one has none, and is what tells of either neighbour."""
    torch.manual_seed(0)
    logits, targets = torch.randn(1, 5, 4), torch.randn(1, 5, 4).softmax(-1)
    words = torch.tensor([[True, True, True, False, False]])
    known = torch.tensor([[True, False, True, False, False]])
    wanted = [place for place in (0, 2) if 0 <= place - shift <= 2]
    told = [place - shift for place in wanted]
    expected = functional.cross_entropy(logits[0, told], targets[0, wanted])
    found = view_loss(logits, Targets(targets, known), words, shift=shift)
    torch.testing.assert_close(found, expected)


def test_padding_and_unknown_words_do_not_count_and_nothing_at_all_is_zero():
    logits = torch.randn(1, 4, 3, requires_grad=True)
    targets = torch.full((1, 4, 3), 1 / 3)
    mask = torch.tensor([[True, True, False, False]])
    view_loss(logits, Targets(targets, mask), mask).backward()
    assert logits.grad[0, :2].abs().sum() > 0
    assert not logits.grad[0, 2:].any()
    single = torch.tensor([[True, False, False, False]])
    assert view_loss(logits, Targets(targets, single), single, shift=1) == 0.0


def test_future_is_compared_with_the_next_word_and_past_with_the_one_before():
    """Told by copies of the targets moved by a word, each view's loss is the least there is."""
    gold = torch.eye(3)[torch.tensor([[0, 1, 2, 1, 0]])]
    mask = torch.ones(1, 5, dtype=torch.bool)
    moved = {
        "full": gold,
        "forward": gold,
        "backward": gold,
        "future": gold.roll(-1, dims=1),
        "past": gold.roll(1, dims=1),
    }
    right = {view: 50.0 * part for view, part in moved.items()}
    assert cross_view_loss(right, Targets(gold, mask), mask, share=0.0) < 1e-6
    for view in ("future", "past"):
        wrong = {**right, view: 50.0 * gold}
        assert cross_view_loss(wrong, Targets(gold, mask), mask, share=0.0) > 1.0


# Steps.


def test_rates_rise_and_fall_as_published():
    told = Movement(steps=9)
    expected = {
        1: 0.5 / 5000 / 1.005,
        2500: 0.25 / (1 + 0.005 * 50),
        10_000: 0.5 / 1.5,
        40_000: 0.25,
    }
    assert {t: told.rate(t - 1) for t in expected} == pytest.approx(expected)
    assert Movement(steps=9, warmup_steps=0, decay=0.0).rate(0) == 0.5


def test_steps_on_tags_train_the_primary_module_and_others_the_views(train):
    """Step 1 is on tags, step 2 on text without: each moves what it is for, and the encoder."""
    before = build()
    parts = ("tagger.encoder", "tagger.primary", "auxiliary")
    moved = []
    for steps in (1, 2):
        model = build()
        train(model, movement=Movement(steps=steps, warmup_steps=0, average=0.0))
        moved.append(
            [
                weights(model.get_submodule(part)) - weights(before.get_submodule(part))
                for part in parts
            ]
        )
    first, both = moved
    assert [bool(part.any()) for part in first] == [True, True, False]
    assert torch.equal(both[1], first[1])  # no gradient, so not even momentum
    assert not torch.equal(both[0], first[0])
    assert both[2].any()


def test_a_training_on_tags_alone_is_plain_sgd(train, labelled):
    """Without dropout, against a loop of PyTorch's own loss and optimiser."""
    model, plain = build(), build()
    rule = replace(STILL, unlabelled_weight=0.0)
    seen = []
    train(model, rule, watch=recorder(labelled, seen, every=1))

    optimizer = torch.optim.SGD(plain.tagger.parameters(), lr=1.0, momentum=0.9)
    average, order = None, batches_of(labelled)
    for step in range(FAST.steps):
        batch = collate_words(labelled, order[step])
        loss = functional.cross_entropy(
            plain.tagger(batch).flatten(0, 1), batch.tags_BT.flatten(), label_smoothing=0.1
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        t = step + 1
        optimizer.param_groups[0]["lr"] = 0.3 * min(1, t / 2) / (1 + 0.005 * math.sqrt(t))
        optimizer.step()
        if average is None:
            average = copy.deepcopy(plain)
        else:
            kept = min(0.9, (1 + step) / (10 + step))
            for mean, weight in zip(average.parameters(), plain.parameters(), strict=True):
                mean.data = kept * mean.data + (1 - kept) * weight.data
        expected = word_logits(average.tagger, labelled)
        np.testing.assert_allclose(seen[step], expected, atol=1e-5)


def batches_of(encoded):
    return plan_batches(encoded.lengths, batch_size=4, seed=0, epoch=0)


def recorder(encoded, seen, every):
    """A watch that keeps what the averaged model tells at every evaluation."""

    def watch(averaged):
        def score(done):
            seen.append(word_logits(averaged.tagger, encoded))
            return float(done)

        return Watch(evaluations=Evaluations(score=score, every_steps=every))

    return watch


def test_own_targets_are_those_without_dropout_and_carry_no_gradient(train, monkeypatch):
    """What the views are compared with is what the tagger tells in full, at that very moment."""
    model, compared = build(), []
    original = view_loss

    def spy(logits, targets, words, *, shift=0):
        compared.append((targets, copy.deepcopy(model.tagger)))
        return original(logits, targets, words, shift=shift)

    monkeypatch.setattr("stillhouse.distill.cross_view.view_loss", spy)
    read = []
    monkeypatch.setattr(
        "stillhouse.distill.cross_view.collate_words",
        lambda encoded, indices: read.append(collate_words(encoded, indices)) or read[-1],
    )
    rule = CrossViewRule(dropout=0.5, unlabelled_dropout=0.9, batch_size=4, unlabelled_batch_size=4)
    train(model, rule, movement=Movement(steps=2, warmup_steps=0))
    assert len(compared) == 1 + 5
    for targets, tagger in compared[1:]:
        told = tagger(read[1]).softmax(dim=-1) * 0.9 + 0.1 / 3
        torch.testing.assert_close(targets.probabilities_BTC, told.detach())
        assert not targets.probabilities_BTC.requires_grad
        assert torch.equal(targets.known_BT, read[1].mask_BT)


def test_a_teacher_tells_the_primary_module_too(train, unlabelled):
    asked = []

    def teacher(indices, words):
        asked.append(indices)
        known = torch.arange(words) < torch.from_numpy(unlabelled.lengths[indices])[:, None]
        return Targets(torch.eye(3)[torch.zeros(known.shape, dtype=torch.long)], known)

    one, two = build(), build()
    only_tags = replace(STILL, unlabelled_weight=0.0)
    train(one, only_tags, movement=Movement(steps=1, warmup_steps=0, average=0.0))
    train(two, movement=Movement(steps=2, warmup_steps=0, average=0.0), teacher=teacher)
    assert not torch.equal(weights(one.tagger.primary), weights(two.tagger.primary))
    assert [row.tolist() for row in asked] == [
        row.tolist() for row in drawn_sentences(unlabelled, STILL, steps=2)
    ]


def test_pupils_learn_tags_that_only_the_teacher_tells(accelerator, unlabelled):
    """Sentences with tags hold one word alone; the teacher knows all eight."""
    rows = sentences(20, seed=1)
    gold_W = np.array([tag for row in tags_of(rows) for tag in row])
    single = encode_words([["a"], ["a", "a"]], LEXICON, tags=[[0], [0, 0]])

    def teacher(indices, words):
        tags = torch.zeros(len(indices), words, dtype=torch.long)
        for row, number in enumerate(indices):
            start, end = unlabelled.offsets[number : number + 2]
            tags[row, : end - start] = torch.from_numpy(gold_W[start:end])
        known = torch.arange(words) < torch.from_numpy(unlabelled.lengths[indices])[:, None]
        return Targets(torch.eye(3)[tags], known)

    place = TrainingPlace(accelerator=accelerator, watch=lambda _: Watch(), teacher=teacher)
    model, movement = build(), Movement(steps=200, warmup_steps=5, average=0.9)
    train_cross_view(model, single, unlabelled, STILL, movement, setting=place)
    assert (word_logits(model.tagger, unlabelled).argmax(axis=1) == gold_W).mean() > 0.8


def test_views_learn_from_text_without_tags(train, unlabelled):
    """Of two trainings that see as many tags, the one with text has views that agree."""
    agreement = []
    for weight in (1e-9, 1.0):
        model = build()
        rule = replace(STILL, unlabelled_weight=weight)
        train(model, rule, Movement(steps=60, learning_rate=0.5, warmup_steps=5, average=0.5))
        batch = collate_words(unlabelled, np.arange(len(unlabelled)))
        views = model.tagger.encoder(batch)
        told = model.tagger.primary(views.full_BTD).argmax(-1)
        same = model.auxiliary(views)["forward"].argmax(-1) == told
        agreement.append(same[batch.mask_BT].float().mean().item())
    assert agreement[1] > agreement[0]
    assert agreement[1] > 0.7


def test_a_resumed_training_ends_as_an_unbroken_one(train, labelled, tmp_path):
    """Stopped after an odd step, before a step on text without tags."""
    rule = CrossViewRule(batch_size=4, unlabelled_batch_size=4)
    movement = Movement(steps=9, learning_rate=0.3, warmup_steps=2, average=0.9)

    class Stop(Exception):  # noqa: N818
        pass

    def watching(folder, stop=None):
        def watch(averaged):
            def score(done):
                return float(-word_logits(averaged.tagger, labelled).var())

            def on_step(progress):
                if progress.step == stop:
                    raise Stop

            place = CheckpointFolder(path=tmp_path / folder, fingerprint="x", every_s=0.0)
            evaluations = Evaluations(score=score, every_steps=2)
            return Watch(on_step=on_step, checkpoint=place, evaluations=evaluations)

        return watch

    whole, broken = build(), build()
    report = train(whole, rule, movement, watch=watching("whole"))
    with pytest.raises(Stop):
        train(broken, rule, movement, watch=watching("broken", stop=6))
    broken = build(seed=5)
    again = train(broken, rule, movement, watch=watching("broken"))
    assert again.scores == report.scores
    assert torch.equal(weights(broken), weights(whole))


def test_the_first_average_is_no_average_of_first_weights(train):
    """A short training with a long average: first weights would be 0.998^6 of it."""
    model, start = build(), build()
    train(model, movement=Movement(steps=6, learning_rate=0.3, warmup_steps=0, average=0.998))
    last = build()
    train(last, movement=Movement(steps=6, learning_rate=0.3, warmup_steps=0, average=0.0))
    way, whole = (weights(one) - weights(start) for one in (model, last))
    assert way.norm() > 0.4 * whole.norm()


def test_text_without_tags_is_asked_for(accelerator, labelled):
    place = TrainingPlace(accelerator=accelerator, watch=lambda _: Watch())
    with pytest.raises(SettingsError, match="needs text without tags"):
        train_cross_view(build(), labelled, None, STILL, FAST, setting=place)


def test_the_published_sizes_step_on_tags_and_on_text(train):
    count = len(WORDS) + 2
    model = CrossViewTagger(PUBLISHED, words=count, characters=count, tags=3, seed=0)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    report = train(model, movement=replace(FAST, steps=2, warmup_steps=1))
    assert report.steps == 2
    assert math.isfinite(report.loss)
    still = [name for name, one in model.named_parameters() if torch.equal(one, before[name])]
    assert not [name for name in still if "encoder" in name or "primary" in name]
    moved = {name.split(".")[1] for name in before if name not in still and "auxiliary" in name}
    assert moved == {name.split(".")[1] for name in before if "auxiliary" in name}
