import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.data.batching import collate, plan_batches
from stillhouse.distill.signals import EMBEDDINGS
from stillhouse.distill.teacher import (
    CachedTeacher,
    LiveTeacher,
    cache_bytes,
    cache_key,
    cached_teacher,
)

LAYERS = frozenset({0, 2})


@pytest.fixture(scope="module")
def encoded(make_set):
    return make_set(90, longest=20)


@pytest.fixture(scope="module")
def teacher(make_bert):
    return make_bert(seed=4, layers=3, labels=3)


@pytest.fixture(scope="module")
def cached(teacher, encoded, tmp_path_factory):
    return open_cache(teacher, encoded, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def live(teacher):
    return LiveTeacher(teacher, LAYERS, "float32")


def open_cache(teacher, encoded, directory, *, layers=LAYERS, limit_gb=1.0, **more):
    return cached_teacher(
        teacher,
        encoded,
        layers,
        directory=directory,
        teacher_hash="hash",
        precision="float32",
        limit_gb=limit_gb,
        **more,
    )


@pytest.fixture
def silent_teacher(make_bert, monkeypatch):
    """The same teacher, but asking it is an error."""

    def refuse(*args, **kwargs):
        raise RuntimeError("the teacher was asked")

    model = make_bert(seed=4, layers=3, labels=3)
    monkeypatch.setattr(model, "forward", refuse)
    return model


@settings(deadline=None, max_examples=40)
@given(indices=st.lists(st.integers(0, 89), min_size=1, max_size=12))
def test_cached_signals_equal_live_ones(cached, live, encoded, indices):
    """Padding of the batch differs from the padding under which the cache was written."""
    batch = collate(encoded, indices)
    ours, theirs = cached(batch), live(batch)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-5, rtol=0)
    assert ours.logits.dtype == torch.float32
    assert set(ours.hidden_BTD) == set(theirs.hidden_BTD) == LAYERS
    for layer in LAYERS:
        state, expected = ours.hidden_BTD[layer], theirs.hidden_BTD[layer]
        assert state.shape == expected.shape
        # float16 has 11 bits: half a unit in the last place is 2⁻¹¹ of the value.
        torch.testing.assert_close(state[real].float(), expected[real], rtol=6e-4, atol=1e-5)
        assert not state[~real].any()


def test_signals_need_no_gradient(cached, live, encoded):
    batch = collate(encoded, [5, 6])
    for signals in (cached(batch), live(batch)):
        assert not signals.logits.requires_grad
        assert not any(state.requires_grad for state in signals.hidden_BTD.values())


def test_training_batches_are_served(cached, live, encoded):
    for plan in plan_batches(encoded.lengths, batch_size=16, seed=3, epoch=1):
        batch = collate(encoded, plan)
        torch.testing.assert_close(cached(batch).logits, live(batch).logits, atol=1e-5, rtol=0)


def test_without_layers_only_logits_are_kept(teacher, live, encoded, tmp_path):
    logits_only = open_cache(teacher, encoded, tmp_path, layers=frozenset())
    batch = collate(encoded, [7, 7, 0])
    assert not logits_only(batch).hidden_BTD
    torch.testing.assert_close(logits_only(batch).logits, live(batch).logits, atol=1e-5, rtol=0)
    assert not list(tmp_path.rglob("hidden-*.npy"))


def test_the_second_time_the_teacher_is_not_asked(teacher, silent_teacher, encoded, tmp_path):
    first = open_cache(teacher, encoded, tmp_path)
    second = open_cache(silent_teacher, encoded, tmp_path)
    batch = collate(encoded, [1, 2, 3])
    assert torch.equal(first(batch).logits, second(batch).logits)
    for layer in LAYERS:
        assert torch.equal(first(batch).hidden_BTD[layer], second(batch).hidden_BTD[layer])


def test_a_cache_that_was_not_finished_is_written_again(teacher, silent_teacher, encoded, tmp_path):
    with pytest.raises(RuntimeError, match="the teacher was asked"):
        open_cache(silent_teacher, encoded, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(open_cache(teacher, encoded, tmp_path), CachedTeacher)


def test_a_cache_over_its_limit_is_not_written(teacher, live, encoded, tmp_path, caplog):
    size_gb = cache_bytes(encoded, LAYERS, 16, 3) / 1e9
    with caplog.at_level(logging.WARNING):
        over = open_cache(teacher, encoded, tmp_path, limit_gb=size_gb * 0.99)
    assert isinstance(over, LiveTeacher)
    assert "over its limit" in caplog.text
    assert list(tmp_path.iterdir()) == []
    batch = collate(encoded, [3, 4])
    assert torch.equal(over(batch).hidden_BTD[2], live(batch).hidden_BTD[2])
    assert isinstance(
        open_cache(teacher, encoded, tmp_path, limit_gb=size_gb * 1.01), CachedTeacher
    )


def test_a_cache_that_fills_the_disk_is_not_written(teacher, encoded, tmp_path, monkeypatch):
    size = cache_bytes(encoded, LAYERS, 16, 3)
    for free, kind in ((size, LiveTeacher), (2 * size, CachedTeacher)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        assert isinstance(open_cache(teacher, encoded, tmp_path), kind)


def test_the_size_told_is_the_size_on_the_disk(teacher, encoded, tmp_path):
    open_cache(teacher, encoded, tmp_path)
    arrays = [np.load(path, mmap_mode="r") for path in tmp_path.rglob("*.npy")]
    assert sum(array.nbytes for array in arrays) == cache_bytes(encoded, LAYERS, 16, 3)
    tokens = len(encoded.input_ids)
    assert cache_bytes(encoded, LAYERS, 16, 3) == tokens * 2 * 16 * 2 + 90 * 3 * 4


def test_the_key_sees_all_that_the_cache_depends_on(encoded, make_set):
    keys = [
        cache_key("hash", encoded, "float32"),
        cache_key("other", encoded, "float32"),
        cache_key("hash", make_set(90, longest=20, seed=1), "float32"),
        cache_key("hash", encoded, "bfloat16"),
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key("hash", encoded.select(range(90)), "float32") == keys[0]


def test_layers_that_are_there_serve_every_student(
    teacher, silent_teacher, live, encoded, tmp_path
):
    open_cache(teacher, encoded, tmp_path, layers=frozenset({2}))
    with pytest.raises(RuntimeError, match="the teacher was asked"):
        open_cache(silent_teacher, encoded, tmp_path, layers=frozenset({0, 2}))
    open_cache(teacher, encoded, tmp_path, layers=frozenset({0, 2}))
    batch = collate(encoded, [4, 1])
    for layers in ({0}, {2}, {0, 2}):
        states = open_cache(silent_teacher, encoded, tmp_path, layers=frozenset(layers))(batch)
        assert states.hidden_BTD.keys() == layers
        real = batch.attention_mask.bool()
        for layer in layers:
            expected = live(batch).hidden_BTD[layer][real]
            got = states.hidden_BTD[layer][real].float()
            torch.testing.assert_close(got, expected, rtol=6e-4, atol=1e-5)
    assert len(list(tmp_path.rglob("hidden-*.npy"))) == 2


def test_the_limit_counts_the_layers_that_are_there(teacher, encoded, tmp_path):
    both_gb = cache_bytes(encoded, LAYERS, 16, 3) / 1e9
    open_cache(teacher, encoded, tmp_path, layers=frozenset({2}))
    over = open_cache(teacher, encoded, tmp_path, layers=frozenset({0}), limit_gb=both_gb * 0.99)
    assert isinstance(over, LiveTeacher)


def test_progress_rises_to_one(teacher, encoded, tmp_path):
    told = []
    open_cache(teacher, encoded, tmp_path, on_progress=told.append)
    assert told == sorted(told)
    assert len(told) == 2
    assert told[-1] == 1.0


def test_states_beyond_float16_stay_finite(make_bert, encoded, tmp_path):
    teacher = make_bert(layers=3)
    with torch.no_grad():
        teacher.bert.encoder.layer[2].output.LayerNorm.weight.fill_(1e6)
    batch = collate(encoded, [0, 1])
    state = open_cache(teacher, encoded, tmp_path)(batch).hidden_BTD[2]
    assert state.isfinite().all()
    assert state.abs().max() == torch.finfo(torch.float16).max


def test_only_arrays_are_written(teacher, encoded, tmp_path):
    open_cache(teacher, encoded, tmp_path)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"logits.npy", "hidden-000.npy", "hidden-002.npy"}


def test_bfloat16_signals_are_near(teacher, live, encoded):
    batch = collate(encoded, [3, 4, 5])
    half = LiveTeacher(teacher, LAYERS, "bfloat16")(batch)
    torch.testing.assert_close(half.logits.float(), live(batch).logits, atol=0.02, rtol=0.05)


def test_cached_signals_of_tokens_equal_live_ones(token_task, tmp_path):
    encoded, live = token_task.encoded(90), token_task.teacher()
    cached = open_cache(live._teacher, encoded, tmp_path, layers=frozenset({1, 3}))
    assert isinstance(cached, CachedTeacher)
    for plan in [[7], [3, 3, 0], *plan_batches(encoded.lengths, batch_size=16, seed=3, epoch=1)]:
        batch = collate(encoded, plan)
        ours, theirs = cached(batch), live(batch)
        real = batch.attention_mask.bool()
        assert ours.logits.shape == theirs.logits.shape == (*real.shape, token_task.outputs)
        assert ours.logits.dtype == torch.float32
        assert not ours.logits.requires_grad
        torch.testing.assert_close(ours.logits[real], theirs.logits[real], atol=1e-4, rtol=1e-4)
        assert not ours.logits[~real].any()
        for layer in (1, 3):
            found = ours.hidden_BTD[layer][real].float()
            expected = theirs.hidden_BTD[layer][real]
            torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3)


def test_the_size_of_a_cache_of_tokens_is_that_on_the_disk(token_task, tmp_path):
    encoded, live = token_task.encoded(90), token_task.teacher()
    size = cache_bytes(encoded, frozenset({1}), 24, token_task.outputs, per_token=True)
    tokens = len(encoded.input_ids)
    assert size == tokens * 24 * 2 + tokens * token_task.outputs * 4
    for limit_gb, kind in ((size * 0.99 / 1e9, LiveTeacher), (size * 1.01 / 1e9, CachedTeacher)):
        opened = open_cache(
            live._teacher, encoded, tmp_path, layers=frozenset({1}), limit_gb=limit_gb
        )
        assert isinstance(opened, kind)
    arrays = [np.load(path, mmap_mode="r") for path in tmp_path.rglob("*.npy")]
    assert sum(array.nbytes for array in arrays) == size


def test_a_second_cache_of_tokens_is_read(token_task, tmp_path, monkeypatch):
    encoded, live = token_task.encoded(20), token_task.teacher()
    model = live._teacher
    first = open_cache(model, encoded, tmp_path, layers=frozenset())
    monkeypatch.setattr(model, "forward", None)
    second = open_cache(model, encoded, tmp_path, layers=frozenset())
    batch = collate(encoded, [1, 19, 4])
    assert torch.equal(first(batch).logits, second(batch).logits)


def test_cached_attention_and_embeddings_equal_live_ones(teacher, encoded, tmp_path):
    layers, attended = frozenset({EMBEDDINGS, 1}), frozenset({0, 2})
    cached = open_cache(teacher, encoded, tmp_path, layers=layers, attention=attended)
    live = LiveTeacher(teacher, layers, "float32", attention=attended)
    batch = collate(encoded, [3, 17, 4])
    ours, theirs = cached(batch), live(batch)
    real_BT = batch.attention_mask.bool()
    real_BTS = real_BT[:, :, None] & real_BT[:, None, :]
    assert set(ours.attention) == attended
    for layer in attended:
        pairs = (one.attention[layer].scores().mean(dim=1)[real_BTS] for one in (ours, theirs))
        torch.testing.assert_close(*pairs, rtol=5e-3, atol=1e-3)
    found, expected = (one.hidden_BTD[EMBEDDINGS][real_BT].float() for one in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=6e-4, atol=1e-5)


def test_attention_joins_a_cache_of_states_and_counts_in_its_size(teacher, encoded, tmp_path):
    open_cache(teacher, encoded, tmp_path)
    attended = frozenset({0})
    size = cache_bytes(encoded, LAYERS, 16, 3, attention=1)
    small = open_cache(teacher, encoded, tmp_path, attention=attended, limit_gb=0.99 * size / 1e9)
    assert isinstance(small, LiveTeacher)
    whole = open_cache(teacher, encoded, tmp_path, attention=attended, limit_gb=1.01 * size / 1e9)
    assert isinstance(whole, CachedTeacher)
    arrays = [np.load(path) for path in tmp_path.rglob("*.npy")]
    assert sum(array.nbytes for array in arrays) == size


def test_a_live_teacher_leaves_no_hooks_behind(make_bert, encoded):
    model = make_bert(seed=4, layers=3, labels=3)

    def hooks():
        return sum(len(module._forward_hooks) for module in model.modules())

    model.register_forward_hook(lambda *_: None)
    teachers = [LiveTeacher(model, LAYERS, "float32", attention=LAYERS) for _ in range(3)]
    for call in range(10):
        signals = teachers[call % 3](collate(encoded, [call]))
        assert (signals.hidden_BTD.keys(), signals.attention.keys()) == (LAYERS, LAYERS)
    assert hooks() == 1
