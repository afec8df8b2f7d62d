import copy
import dataclasses
import gc
import math
import time
import weakref
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812  the name that everybody knows

from stillhouse.data.batching import collate, plan_batches
from stillhouse.distill import loop
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.layer_maps import layer_links
from stillhouse.distill.loop import (
    TrainSettings,
    steps_in,
    train,
    training_attention,
)
from stillhouse.distill.steps import Evaluations, Watch
from stillhouse.distill.teacher import cached_teacher
from stillhouse.distill.terms import HiddenTerm, LabelTerm, LogitTerm
from stillhouse.errors import SettingsError, TrainingError
from stillhouse.model.predict import predict

SHORT = TrainSettings(epochs=1, learning_rate=1e-3, batch_size=16)
"""Four steps over the 64 examples."""

BROKEN = TrainSettings(epochs=2.5, learning_rate=2e-3, batch_size=16, seed=3)
"""Ten steps, a half epoch at the end."""


def every_term():
    links = layer_links("uniform", 2, 4)
    hidden = HiddenTerm(links=links, student_hidden=16, teacher_hidden=24, weight=0.5, seed=0)
    return [LabelTerm(weight=0.3), LogitTerm(), hidden]


def equal_weights(one, other):
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())


class Failing:
    """A term whose loss is not a number from a given call on."""

    weight = 1.0
    student_layers = teacher_layers = frozenset()
    student_attention = teacher_attention = frozenset()
    reads_teacher = False
    projection = None

    def __init__(self, from_call):
        self.calls_left = from_call

    def __call__(self, student, teacher, batch):
        self.calls_left -= 1
        return student.logits.sum() * (1.0 if self.calls_left > 0 else math.nan)


@pytest.fixture
def fit(make_set, accelerator, live_teacher):
    """Trains a model on the 64 examples; returns the report."""

    def run(model, terms=None, settings=SHORT, encoded=None, **watch):
        return train(
            model,
            make_set() if encoded is None else encoded,
            [LabelTerm()] if terms is None else terms,
            settings,
            accelerator=accelerator,
            teacher=live_teacher,
            watch=Watch(**watch),
        )

    return run


def test_an_easy_task_is_learnt(make_bert, make_set, fit):
    told = []
    model = make_bert()
    settings = TrainSettings(epochs=15, learning_rate=1e-2, batch_size=16)
    report = fit(model, settings=settings, on_step=told.append)
    assert told[0].losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert report.loss < 0.1
    assert report.steps == told[-1].step == 60
    encoded = make_set()
    batch = collate(encoded, range(64))
    with torch.no_grad():
        logits = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
        ).logits
    assert (logits.argmax(dim=1) == batch.labels).float().mean() > 0.95


def test_a_student_comes_near_its_teacher(make_bert, fit):
    settings = TrainSettings(epochs=15, learning_rate=1e-2, batch_size=16)
    told = []
    fit(make_bert(), every_term(), settings, on_step=told.append)
    first, last = told[0].losses, told[-1].losses
    assert last[1] < 0.2 * first[1]
    assert last[2] < 0.7 * first[2]


def plain_training(model, projection, encoded, live_teacher, settings, steps):
    """What `train` promises, written out by hand: no cut table, no accelerate, no fused kernel.

    The rates of the ten steps are typed in: two tenths up, then down to one eighth.
    """
    modules = torch.nn.ModuleList([model, projection])
    names = dict(modules.named_parameters())
    decayed = [w for name, w in names.items() if w.ndim == 2 and "embeddings" not in name]
    others = [w for name, w in names.items() if w.ndim < 2 or "embeddings" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0}]
    )
    rates = [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    order = [
        batch
        for epoch in range(3)
        for batch in plan_batches(encoded.lengths, batch_size=16, seed=3, epoch=epoch)
    ]
    model.train()
    for step in range(steps):
        batch = collate(encoded, order[step])
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
            output_hidden_states=True,
        )
        teacher = live_teacher(batch)
        real = batch.attention_mask.bool()
        log_student = F.log_softmax(output.logits, dim=-1)
        log_teacher = F.log_softmax(teacher.logits, dim=-1)
        hidden = [
            F.mse_loss(projection(output.hidden_states[i + 1])[real], teacher.hidden_BTD[t][real])
            for i, t in ((0, 1), (1, 3))
        ]
        loss = (
            0.3 * F.cross_entropy(output.logits, batch.labels)
            + F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
            + 0.5 * (hidden[0] + hidden[1]) / 2
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rates[step]
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_training_equals_a_plain_loop(make_bert, make_set, fit, live_teacher):
    settings = TrainSettings(
        epochs=2.5,
        learning_rate=2e-3,
        batch_size=16,
        seed=3,
        warmup_fraction=0.2,
        weight_decay=0.1,
        clip_norm=0.5,
    )
    terms, plain_terms = every_term(), every_term()
    encoded = make_set(tokens=range(20, 35))
    model = make_bert()
    fit(model, terms, settings, encoded)
    plain = plain_training(
        make_bert(), plain_terms[2].projection, encoded, live_teacher, settings, steps=10
    )
    start = make_bert().state_dict()
    for name, weight in plain.state_dict().items():
        if name.endswith("key.bias"):
            continue  # a softmax does not see it: its gradient is rounding, which Adam enlarges
        torch.testing.assert_close(model.state_dict()[name], weight, atol=2e-5, rtol=0, msg=name)
        assert not torch.equal(weight, start[name]), name  # so that the comparison says something
    torch.testing.assert_close(
        terms[2].projection.weight, plain_terms[2].projection.weight, atol=2e-5, rtol=0
    )


def test_losses_are_told_unweighted_and_reported_weighted(make_bert, make_set, fit, live_teacher):
    """One step over all examples, too small to change the weights."""
    model, told = make_bert(), []
    settings = TrainSettings(epochs=1, learning_rate=1e-12, batch_size=64)
    report = fit(model, [LabelTerm(weight=0.5), LogitTerm(weight=3)], settings, on_step=told.append)
    batch = collate(make_set(), range(64))
    with torch.no_grad():
        logits = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
        ).logits
    label = F.cross_entropy(logits, batch.labels).item()
    soft = F.kl_div(
        F.log_softmax(logits, -1), F.softmax(live_teacher(batch).logits, -1), reduction="sum"
    )
    kl = soft.item() / 64
    [progress] = told
    assert (progress.step, progress.steps) == (1, 1)
    assert progress.losses == pytest.approx((label, kl), rel=1e-4)
    assert report.loss == pytest.approx(0.5 * label + 3 * kl, rel=1e-4)


def test_every_step_is_told_and_every_twentieth_with_losses(make_bert, fit):
    told = []
    fit(
        make_bert(),
        settings=TrainSettings(epochs=1, learning_rate=1e-3, batch_size=2),
        on_step=told.append,
    )
    assert [progress.step for progress in told] == list(range(1, 33))
    assert [progress.step for progress in told if progress.losses] == [1, 21, 32]


def test_one_seed_is_one_training(make_bert, fit):
    first, same, other = (make_bert(dropout=0.1) for _ in range(3))
    fit(first, settings=BROKEN)
    torch.manual_seed(99)
    fit(same, settings=BROKEN)
    fit(other, settings=TrainSettings(epochs=2.5, learning_rate=2e-3, batch_size=16, seed=4))
    assert equal_weights(first, same)
    assert not equal_weights(first, other)


def test_the_global_random_state_is_left(make_bert, fit):
    model = make_bert(dropout=0.1)
    before = torch.get_rng_state()
    fit(model)
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def interrupted(make_bert, fit, tmp_path):
    """A training stopped in its 7th of 10 steps, checkpoints at every step; gives the folder."""

    def stop(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    folder = CheckpointFolder(path=tmp_path / "training", fingerprint="mine", every_s=0)
    model = make_bert(dropout=0.1)
    full = model.bert.embeddings.word_embeddings
    with pytest.raises(KeyboardInterrupt):
        fit(model, every_term(), BROKEN, on_step=stop, checkpoint=folder)
    assert model.bert.embeddings.word_embeddings is full
    assert not model.training
    return folder


def test_a_resumed_training_ends_with_the_numbers_of_an_unbroken_one(make_bert, fit, interrupted):
    unbroken, unbroken_terms = make_bert(dropout=0.1), every_term()
    expected = fit(unbroken, unbroken_terms, BROKEN)
    torch.manual_seed(1234)
    resumed, resumed_terms, told = make_bert(dropout=0.1), every_term(), []
    report = fit(resumed, resumed_terms, BROKEN, on_step=told.append, checkpoint=interrupted)
    assert [progress.step for progress in told] == [7, 8, 9, 10]
    assert equal_weights(resumed, unbroken)
    assert equal_weights(resumed_terms[2].projection, unbroken_terms[2].projection)
    assert (report.steps, report.loss) == (expected.steps, expected.loss)


def test_a_finished_training_is_not_repeated(make_bert, fit, interrupted):
    first, again, told = make_bert(dropout=0.1), make_bert(dropout=0.1), []
    fit(first, every_term(), BROKEN, checkpoint=interrupted)
    report = fit(again, every_term(), BROKEN, on_step=told.append, checkpoint=interrupted)
    assert told == []
    assert equal_weights(first, again)
    assert report.steps == 10
    assert math.isnan(report.loss)


def test_a_checkpoint_of_another_training_is_ignored(make_bert, fit, interrupted):
    told = []
    other = CheckpointFolder(path=interrupted.path, fingerprint="other")
    fit(make_bert(dropout=0.1), every_term(), BROKEN, on_step=told.append, checkpoint=other)
    assert told[0].step == 1


def test_an_incomplete_checkpoint_is_ignored(make_bert, fit, interrupted):
    [marker] = interrupted.path.rglob("complete.json")
    assert marker.parent.name == "step-6"
    marker.unlink()
    unbroken, restarted, told = make_bert(dropout=0.1), make_bert(dropout=0.1), []
    fit(unbroken, every_term(), BROKEN)
    fit(restarted, every_term(), BROKEN, on_step=told.append, checkpoint=interrupted)
    assert told[0].step == 1
    assert equal_weights(restarted, unbroken)


def test_checkpoints_hold_no_pickles(interrupted):
    names = {path.suffix for path in interrupted.path.rglob("*") if path.is_file()}
    assert names == {".safetensors", ".json"}


def test_checkpoints_wait_for_their_time(make_bert, fit, tmp_path):
    folder = CheckpointFolder(path=tmp_path / "training", fingerprint="", every_s=60)
    fit(make_bert(), checkpoint=folder)
    assert not folder.path.exists()


def test_a_loss_that_is_not_a_number_ends_the_training(make_bert, fit):
    model = make_bert()
    full = model.bert.embeddings.word_embeddings
    with pytest.raises(TrainingError, match=r"not finite at step 3 of 4 \(learning rate 0\.001\)"):
        fit(model, [Failing(from_call=3)])
    assert model.bert.embeddings.word_embeddings is full
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_training_stops_at_its_deadline(make_bert, fit):
    told = []
    with pytest.raises(TrainingError, match="out of time after 1 of 4 steps"):
        fit(make_bert(), on_step=told.append, deadline=time.monotonic() - 1)
    assert len(told) == 1
    fit(make_bert(), deadline=time.monotonic() + 60)


def test_a_training_done_at_its_deadline_is_done(make_bert, fit):
    settings = TrainSettings(epochs=1, learning_rate=1e-3, batch_size=64)
    assert fit(make_bert(), settings=settings, deadline=time.monotonic() - 1).steps == 1


def test_a_term_that_reads_the_teacher_needs_one(make_bert, make_set, accelerator):
    with pytest.raises(SettingsError, match="no teacher was given"):
        train(make_bert(), make_set(), [LogitTerm()], SHORT, accelerator=accelerator)


def test_the_teacher_is_not_asked_for_nothing(make_bert, make_set, accelerator):
    def refuse(batch):
        raise RuntimeError("the teacher was asked")

    train(make_bert(), make_set(), [LabelTerm()], SHORT, accelerator=accelerator, teacher=refuse)


def test_the_teacher_reads_the_ids_of_the_full_vocabulary(
    make_bert, make_set, accelerator, live_teacher
):
    """The student trains on a cut table, whose ids mean other words to the teacher."""
    encoded = make_set(tokens=(20, 31, 49))
    seen = []

    def listen(batch):
        seen.append(batch)
        return live_teacher(batch)

    train(make_bert(), encoded, [LogitTerm()], SHORT, accelerator=accelerator, teacher=listen)
    assert len(seen) == 4
    for batch in seen:
        expected = collate(encoded, batch.indices.numpy())
        assert torch.equal(batch.input_ids, expected.input_ids)
        assert torch.equal(batch.attention_mask, expected.attention_mask)
    assert {*torch.cat([batch.input_ids.flatten() for batch in seen]).tolist()} == {0, 20, 31, 49}


def cache(live_teacher, encoded, directory, layers):
    return cached_teacher(
        live_teacher._teacher,
        encoded,
        frozenset(layers),
        directory=directory,
        teacher_hash="",
        precision="float32",
        limit_gb=1.0,
    )


def test_a_cached_teacher_teaches_what_a_live_one_does(
    make_bert, make_set, fit, accelerator, live_teacher, tmp_path
):
    encoded = make_set(tokens=(20, 31, 49))
    of_live, of_cached = make_bert(), make_bert()
    fit(of_live, every_term(), encoded=encoded)
    cached = cache(live_teacher, encoded, tmp_path, {1, 3})
    train(of_cached, encoded, every_term(), SHORT, accelerator=accelerator, teacher=cached)
    gaps = [
        (weight - of_live.state_dict()[name]).abs().max().item()
        for name, weight in of_cached.state_dict().items()
    ]
    # Four steps move a weight by up to 0.0025; states rounded to float16 move some a little less.
    assert max(gaps) < 5e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer_map", ["uniform", "last", "uniform_last"])
def test_every_layer_map_trains_on_cached_states_in_every_precision(
    make_bert, make_set, accelerator, live_teacher, tmp_path, layer_map, precision
):
    encoded, told = make_set(), []
    links = layer_links(layer_map, 2, 4)
    term = HiddenTerm(links=links, student_hidden=16, teacher_hidden=24, weight=1.0, seed=0)
    train(
        make_bert(),
        encoded,
        [term],
        TrainSettings(epochs=10, learning_rate=1e-2, batch_size=16, precision=precision),
        accelerator=accelerator,
        teacher=cache(live_teacher, encoded, tmp_path, term.teacher_layers),
        watch=Watch(on_step=told.append),
    )
    assert told[-1].losses < told[0].losses


def test_the_teacher_is_not_trained(make_bert, fit, live_teacher):
    teacher = live_teacher._teacher
    before = copy.deepcopy(teacher.state_dict())
    fit(make_bert(), every_term())
    assert all(torch.equal(before[name], weight) for name, weight in teacher.state_dict().items())
    assert all(weight.grad is None for weight in teacher.parameters())


def test_examples_without_labels_do_not_teach_classes(make_bert, make_set, fit):
    """All classes unknown: the loss is 0 and nothing but weight decay moves."""
    encoded = make_set()
    encoded.labels[:] = -100
    model, before = make_bert(), make_bert().state_dict()
    report = fit(model, encoded=encoded)
    assert report.loss == 0
    assert torch.equal(model.classifier.bias, before["classifier.bias"])


def test_decay_is_on_weight_matrices_alone(make_bert, fit):
    """A term of weight 0 has no gradient, so that what moves is decay: rates 1, 3/4, 2/4, 1/4."""
    settings = TrainSettings(
        epochs=1, learning_rate=0.1, batch_size=16, warmup_fraction=0, weight_decay=0.5
    )
    model, before = make_bert(), make_bert().state_dict()
    fit(model, [LabelTerm(weight=0)], settings)
    shrunk = (1 - 0.05) * (1 - 0.0375) * (1 - 0.025) * (1 - 0.0125)
    for name, weight in model.state_dict().items():
        is_matrix = weight.ndim == 2 and "embeddings" not in name
        expected = before[name] * (shrunk if is_matrix else 1)
        torch.testing.assert_close(weight, expected, msg=name)


def test_steps_get_clipped_gradients_and_scheduled_rates(make_bert, fit, monkeypatch):
    norms, rates = [], []
    take_step = torch.optim.AdamW.step

    def watched_step(optimizer, *args, **kwargs):
        gradients = [w.grad for group in optimizer.param_groups for w in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients if g is not None]).norm().item())
        rates.append({group["lr"] for group in optimizer.param_groups})
        return take_step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched_step)
    settings = TrainSettings(
        epochs=1, learning_rate=0.4, batch_size=16, warmup_fraction=0.25, clip_norm=0.01
    )
    fit(make_bert(), settings=settings)
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)
    assert [rate for [rate] in rates] == pytest.approx([0.4, 0.4, 0.8 / 3, 0.4 / 3])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_kernel_is_put_back(make_bert, fit, attention):
    model, seen = make_bert(), set()
    model.set_attn_implementation(attention)

    def look(progress):
        seen.add(model.config._attn_implementation)

    fit(model, on_step=look)
    with pytest.raises(TrainingError):
        fit(model, [Failing(from_call=1)])
    assert model.config._attn_implementation == attention
    assert seen == {"sdpa"}


def test_bfloat16_training_on_a_processor_takes_plain_products(make_bert, fit):
    told, seen = [], set()
    model = make_bert()

    def look(progress):
        told.append(progress)
        seen.add(model.config._attn_implementation)

    settings = TrainSettings(epochs=15, learning_rate=1e-2, batch_size=16, precision="bfloat16")
    report = fit(model, settings=settings, on_step=look)
    assert seen == {"eager"}
    assert report.loss < 0.2
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_fused_kernel_is_left_to_all_but_bfloat16_on_processors():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert training_attention(cpu, "bfloat16") == "eager"
    assert training_attention(cpu, "float32") == "sdpa"
    assert training_attention(cuda, "bfloat16") == training_attention(cuda, "float32") == "sdpa"


def test_trained_models_can_be_forgotten(make_bert, fit):
    """A search trains hundreds of students with one accelerator."""
    model = make_bert()
    fit(model)
    kept = weakref.ref(model.classifier.weight)
    del model
    gc.collect()
    assert kept() is None


class Judge:
    """Gives one score after the other, and remembers the weights that it was shown."""

    def __init__(self, model, scores):
        self._model = model
        self._scores = scores
        self.seen = {}

    def __call__(self, done):
        assert not self._model.training
        torch.rand(3)  # a judge that draws by chance must not change the training
        self.seen[done] = copy.deepcopy(self._model.state_dict())
        return self._scores[done]

    def evaluations(self, every_steps=2, patience=None):
        return Evaluations(score=self, every_steps=every_steps, patience=patience)


def is_as(model, weights):
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[n], weights[n]) for n in own)


SCORES = {2: 0.1, 4: 0.6, 6: 0.5, 8: 0.6, 10: 0.2}
"""Of the ten steps of `BROKEN`, by twos; the best comes twice."""


def test_the_best_weights_are_kept_and_of_equals_the_first(make_bert, fit):
    model = make_bert(dropout=0.1)
    judge = Judge(model, SCORES)
    report = fit(model, settings=BROKEN, evaluations=judge.evaluations())
    assert (report.scores, report.best_step, report.steps) == (SCORES, 4, 10)
    assert is_as(model, judge.seen[4])
    assert not is_as(model, judge.seen[8])


def test_evaluations_do_not_change_what_they_look_at(make_bert, fit):
    model, alone = make_bert(dropout=0.1), make_bert(dropout=0.1)
    judge = Judge(model, {step: step for step in SCORES})
    report = fit(model, settings=BROKEN, evaluations=judge.evaluations())
    assert fit(alone, settings=BROKEN).loss == report.loss
    assert equal_weights(model, alone)


def test_the_last_step_is_evaluated_whatever_the_stride(make_bert, fit):
    model = make_bert()
    judge = Judge(model, {4: 0.0, 8: 0.0, 10: 0.1})
    report = fit(model, settings=BROKEN, evaluations=judge.evaluations(every_steps=4))
    assert report.best_step == 10


@pytest.mark.parametrize(("patience", "steps"), [(1, 6), (2, 8), (3, 10), (None, 10)])
def test_training_ends_with_the_patience(make_bert, fit, patience, steps):
    model = make_bert(dropout=0.1)
    judge = Judge(model, SCORES)
    report = fit(model, settings=BROKEN, evaluations=judge.evaluations(patience=patience))
    assert (report.steps, report.best_step) == (steps, 4)
    assert list(report.scores) == list(range(2, steps + 1, 2))
    assert is_as(model, judge.seen[4])


def test_a_training_out_of_patience_is_not_out_of_time(make_bert, fit, monkeypatch):
    """The clock passes the deadline in the step that is the last one for want of patience."""
    model, clock = make_bert(), [0.0]
    monkeypatch.setattr("stillhouse.distill.steps.time.monotonic", lambda: clock[0])

    def judge(done):
        clock[0] += 10
        return -done

    evaluations = Evaluations(score=judge, every_steps=1, patience=2)
    report = fit(model, settings=BROKEN, evaluations=evaluations, deadline=25)
    assert (report.steps, report.best_step) == (3, 1)


@pytest.mark.parametrize("stopped_at", [3, 5, 9])
@pytest.mark.parametrize("patience", [2, None])
def test_a_resumed_training_keeps_what_was_best_before(
    make_bert, fit, tmp_path, stopped_at, patience
):
    """The best weights are those after 4 steps; they outlive the process that made them."""

    def stop(progress):
        if progress.step == stopped_at:
            raise KeyboardInterrupt

    unbroken, broken, resumed = (make_bert(dropout=0.1) for _ in range(3))
    judge = Judge(unbroken, SCORES)
    expected = fit(unbroken, settings=BROKEN, evaluations=judge.evaluations(patience=patience))
    folder = CheckpointFolder(path=tmp_path / "training", fingerprint="mine", every_s=0)
    judge = Judge(broken, SCORES)
    evaluations = judge.evaluations(patience=patience)
    if stopped_at <= expected.steps:
        with pytest.raises(KeyboardInterrupt):
            fit(broken, settings=BROKEN, on_step=stop, checkpoint=folder, evaluations=evaluations)
    else:
        fit(broken, settings=BROKEN, on_step=stop, checkpoint=folder, evaluations=evaluations)
    torch.manual_seed(1234)
    judge = Judge(resumed, SCORES)
    report = fit(
        resumed,
        settings=BROKEN,
        checkpoint=folder,
        evaluations=judge.evaluations(patience=patience),
    )
    assert min(judge.seen, default=10) >= stopped_at
    assert (report.steps, report.scores) == (expected.steps, expected.scores)
    assert report.best_step == expected.best_step == 4
    assert equal_weights(resumed, unbroken)


def test_an_evaluation_reads_words_that_training_has_not(make_set, make_model, accelerator):
    """Training cuts the vocabulary to its own words; a dev set has others."""
    model = make_model(dropout=0.1)
    padding = model.config.pad_token_id
    learnt = dataclasses.replace(make_set(tokens=(20, 31, 49)), pad_id=padding)
    other = dataclasses.replace(make_set(24, tokens=(7, 20, 33, 48)), pad_id=padding)
    seen = []

    def judge(done):
        seen.append(predict(model, other))
        return done

    evaluations = Evaluations(score=judge, every_steps=1)
    watch = Watch(evaluations=evaluations)
    train(model, learnt, [LabelTerm()], SHORT, accelerator=accelerator, watch=watch)
    assert len(seen) == 4
    np.testing.assert_allclose(seen[-1], predict(model, other), atol=1e-6)
    assert not np.allclose(seen[0], seen[-1], atol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("every_steps", 0), ("patience", 0)])
def test_impossible_evaluations_are_refused(name, value):
    with pytest.raises(SettingsError, match=f"{name} must be above 0, got 0"):
        Evaluations(**{"score": float, "every_steps": 1, name: value})


@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs", "steps"),
    [(64, 16, 1, 4), (65, 16, 1, 5), (64, 16, 2.5, 10), (64, 16, 0.01, 1), (3, 32, 4, 4)],
)
def test_steps_are_counted(examples, batch_size, epochs, steps):
    settings = TrainSettings(epochs=epochs, learning_rate=1.0, batch_size=batch_size)
    assert steps_in(examples, settings) == steps


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (10, 0.2, [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (4, 0.0, [1, 0.75, 0.5, 0.25]),
        (4, 1.0, [0.25, 0.5, 0.75, 1]),
        (1, 0.06, [1]),
    ],
)
def test_the_rate_rises_and_falls_in_lines(steps, warmup, expected):
    settings = TrainSettings(epochs=1, learning_rate=2.0, warmup_fraction=warmup, batch_size=16)
    schedule = settings.schedule(16 * steps)
    rates = [schedule.learning_rate_at(step) for step in range(steps)]
    assert rates == pytest.approx([2 * rate for rate in expected])


def test_no_step_has_a_rate_of_zero_or_above_the_peak():
    for steps in range(1, 120):
        schedule = SHORT.schedule(SHORT.batch_size * steps)
        rates = [schedule.learning_rate_at(step) for step in range(steps)]
        assert min(rates) > 0
        assert max(rates) == pytest.approx(SHORT.learning_rate)
        peak = rates.index(max(rates))
        assert all(after <= before for before, after in pairwise(rates[peak:]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("learning_rate", -1e-3),
        ("batch_size", 0),
        ("clip_norm", 0),
        ("warmup_fraction", 1.1),
        ("weight_decay", -0.1),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(SettingsError, match=f"{name} must be .* got {value}"):
        TrainSettings(**{"epochs": 1.0, "learning_rate": 1e-3, name: value})


def right_fraction(kind, model, encoded):
    """Tells how many known tags, or whole answers, a model gets right."""
    logits = predict(model, encoded)
    if kind == "tags":
        known = encoded.tags >= 0
        return (logits.argmax(axis=1) == encoded.tags)[known].mean()
    answers = np.array(
        [
            logits[start:end].argmax(axis=0)
            for start, end in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
        ]
    )
    known = encoded.labels[:, 0] >= 0
    return (answers == encoded.labels).all(axis=1)[known].mean()


def token_terms(kind):
    links = layer_links("uniform", 2, 4)
    hidden = HiddenTerm(links=links, student_hidden=16, teacher_hidden=24, weight=0.5, seed=0)
    return [LabelTerm(weight=0.3, kind=kind), LogitTerm(kind=kind, temperature=2.0), hidden]


@pytest.fixture
def fit_tokens(token_task, accelerator):
    """Trains a model that answers tokens on the 64 examples of its task."""

    def run(model, settings=BROKEN, encoded=None, terms=None, **watch):
        return train(
            model,
            token_task.encoded() if encoded is None else encoded,
            token_terms(token_task.kind) if terms is None else terms,
            settings,
            accelerator=accelerator,
            teacher=token_task.teacher(),
            watch=Watch(**watch),
        )

    return run


def test_an_easy_task_of_tokens_is_learnt(token_task, fit_tokens):
    told, model = [], token_task.model()
    assert right_fraction(token_task.kind, model, token_task.encoded()) < 0.6
    settings = TrainSettings(epochs=25, learning_rate=1e-2, batch_size=16)
    terms = [LabelTerm(kind=token_task.kind)]
    report = fit_tokens(model, settings, terms=terms, on_step=told.append)
    assert told[0].losses[0] > 1
    assert report.loss < 0.1
    assert right_fraction(token_task.kind, model, token_task.encoded()) > 0.95
    # Examples that it has not seen, of the same words.
    assert right_fraction(token_task.kind, model, token_task.encoded(64, seed=1)) > 0.8


def test_a_student_that_answers_tokens_comes_near_its_teacher(token_task, fit_tokens):
    told = []
    settings = TrainSettings(epochs=25, learning_rate=1e-2, batch_size=16)
    fit_tokens(
        token_task.model(), settings, terms=[LogitTerm(kind=token_task.kind)], on_step=told.append
    )
    assert told[-1].losses[0] < 0.5 * told[0].losses[0]


def test_what_nobody_knows_teaches_by_the_teacher_alone(token_task, fit_tokens):
    encoded = token_task.encoded()
    if token_task.kind == "tags":
        encoded.tags[encoded.tags >= 0] = -1
    else:
        encoded.labels[:] = -100
    told = []
    fit_tokens(token_task.model(), encoded=encoded, on_step=told.append)
    assert told[0].losses[0] == told[-1].losses[0] == 0
    assert 0 < told[-1].losses[1] < told[0].losses[1]


def test_a_resumed_training_of_tokens_ends_with_the_numbers_of_an_unbroken_one(
    token_task, fit_tokens, tmp_path
):
    def stop(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    folder = CheckpointFolder(path=tmp_path / "training", fingerprint="mine", every_s=0)
    unbroken, broken, resumed = (token_task.model(dropout=0.1) for _ in range(3))
    expected = fit_tokens(unbroken)
    with pytest.raises(KeyboardInterrupt):
        fit_tokens(broken, on_step=stop, checkpoint=folder)
    torch.manual_seed(1234)
    told = []
    report = fit_tokens(resumed, on_step=told.append, checkpoint=folder)
    assert [progress.step for progress in told] == [7, 8, 9, 10]
    assert equal_weights(resumed, unbroken)
    assert (report.steps, report.loss) == (expected.steps, expected.loss)


def test_tokens_are_learnt_on_a_cut_vocabulary_as_on_the_whole(token_task, fit_tokens, monkeypatch):
    encoded = token_task.encoded(40, tokens=(7, 9, 20, 33))
    cut, full = token_task.model(dropout=0.1), token_task.model(dropout=0.1)
    fit_tokens(cut, encoded=encoded)
    monkeypatch.setattr(loop, "compact_vocabulary", lambda _, whole: nullcontext(whole))
    fit_tokens(full, encoded=encoded)
    for name, weight in full.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], weight, atol=1e-6, rtol=0, msg=name)
    assert not equal_weights(cut, token_task.model())


def test_a_cached_teacher_of_tokens_teaches_what_a_live_one_does(
    token_task, fit_tokens, accelerator, tmp_path
):
    encoded, live = token_task.encoded(), token_task.teacher()
    of_live, of_cached = token_task.model(), token_task.model()
    fit_tokens(of_live, SHORT)
    cached = cache(live, encoded, tmp_path, {1, 3})
    terms = token_terms(token_task.kind)
    train(of_cached, encoded, terms, SHORT, accelerator=accelerator, teacher=cached)
    gaps = [
        (weight - of_live.state_dict()[name]).abs().max().item()
        for name, weight in of_cached.state_dict().items()
    ]
    assert max(gaps) < 5e-4
