from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.examples import Examples
from stillhouse.data.splits import (
    hold_out,
    label_set_choice,
    split_task,
    stratified_choice,
    usual_count,
)
from stillhouse.data.tagging import to_dataset
from stillhouse.data.task import Task
from stillhouse.errors import DataError


def make_task(texts, labels, names=("no", "yes")):
    dataset = Examples(text_a=texts, labels=labels).to_dataset(names)
    return Task(name="t", metrics=("accuracy",), label_names=names, train=dataset, dev=dataset)


@pytest.mark.parametrize(
    ("total", "expected"), [(1, 1), (9, 1), (100, 10), (49_990, 4_999), (67_349, 5_000)]
)
def test_a_tenth_but_at_most_5000_is_held_out(total, expected):
    assert usual_count(total) == expected


def test_classes_keep_their_proportions():
    labels = [0] * 800 + [1] * 200
    splits = split_task(make_task([f"text {i}" for i in range(1000)], labels), seed=3)
    assert Counter(splits.validation["label"]) == {0: 80, 1: 20}
    assert Counter(splits.train["label"]) == {0: 720, 1: 180}
    held, kept = set(splits.validation["text_a"]), set(splits.train["text_a"])
    assert not held & kept
    assert len(held | kept) == 1000


def test_the_seed_decides():
    task = make_task([f"text {i}" for i in range(300)], [0, 1] * 150)
    first, again, other = (split_task(task, seed).validation["text_a"][:] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_duplicates_of_validation_leave_the_training_set():
    texts = [f"text  {i % 100}" if i % 2 else f"text {i % 100} " for i in range(1001)]
    splits = split_task(make_task(texts, [i % 2 for i in range(1001)]), seed=0)
    held = {" ".join(text.split()) for text in splits.validation["text_a"]}
    assert held
    assert not held & {" ".join(text.split()) for text in splits.train["text_a"]}


def test_pairs_are_duplicates_only_where_both_texts_agree():
    pairs = Examples(text_a=["x"] * 40, text_b=[str(i) for i in range(40)], labels=[0, 1] * 20)
    kept, held = hold_out(pairs.to_dataset(("a", "b")), count=4, stratified=True, seed=0)
    assert (len(kept), len(held)) == (36, 4)


def test_regression_is_split_by_chance():
    task = make_task([f"text {i}" for i in range(50)], [i / 7 for i in range(50)], names=())
    splits = split_task(task, seed=0)
    assert (len(splits.train), len(splits.validation)) == (45, 5)


def test_nothing_to_hold_out_is_an_error():
    with pytest.raises(DataError, match="at least two different examples"):
        split_task(make_task(["one", "two"], [0, 1]), seed=0)
    with pytest.raises(DataError, match="at least two different examples"):
        split_task(make_task(["same"] * 20, [0, 1] * 10), seed=0)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    count=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_every_class_keeps_an_example(labels, count, seed):
    labels = np.asarray(labels)
    chosen = stratified_choice(labels, count=count, generator=np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen) <= count
    rest = np.delete(labels, chosen)
    assert set(rest) == set(labels)
    for label, size in Counter(labels.tolist()).items():
        share = count * size / len(labels)
        assert abs((labels[chosen] == label).sum() - min(share, size - 1)) <= 1


def test_frequent_sets_of_classes_keep_their_proportions():
    labels = [(0,)] * 500 + [(0, 1)] * 300 + [()] * 190 + [(2,), (1, 2)] * 5
    task = make_task([f"text {i}" for i in range(1000)], labels, names=("a", "b", "c"))
    assert task.kind == "multi_label"
    splits = split_task(task, seed=1)
    counts = Counter(tuple(label) for label in splits.validation["label"])
    assert (counts[0,], counts[0, 1], counts[()]) == (50, 30, 19)
    # Of the two rare sets, due half an example each, one example in all.
    assert counts.total() == 100
    assert split_task(task, seed=1).validation[:] == splits.validation[:]
    assert split_task(task, seed=2).validation[:] != splits.validation[:]


@given(
    labels=st.lists(st.frozensets(st.integers(0, 3)), min_size=1, max_size=80),
    count=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_every_class_of_a_set_keeps_an_example(labels, count, seed):
    matrix = np.array([[float(c in each) for c in range(4)] for each in labels], np.float32)
    chosen = label_set_choice(matrix, count=count, generator=np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen) <= count
    assert chosen.tolist() == sorted(chosen.tolist())
    rest = np.delete(matrix, chosen, axis=0)
    assert (rest.any(axis=0) == matrix.any(axis=0)).all()


def test_nothing_to_hold_out_of_single_sets_is_an_error():
    with pytest.raises(DataError, match="at least two different examples"):
        split_task(make_task(["one", "two"], [(0,), (1,)]), seed=0)


def questions(contexts, count):
    columns = {
        "key": [str(number) for number in range(count)],
        "question": ["Who?"] * count,
        "context": [contexts[number % len(contexts)] for number in range(count)],
        "answers": [["a"]] * count,
        "answer_starts": [[0]] * count,
    }
    dataset = Dataset.from_dict(columns)
    return Task(name="q", metrics=("answer_f1",), label_names=(), train=dataset, dev=dataset)


def test_questions_are_held_out_by_whole_contexts():
    # Every second context differs from the one before in white space alone.
    task = questions([("a  b {}", "a b {} ")[i % 2].format(i // 2) for i in range(80)], 400)
    assert task.kind == "spans"
    splits = split_task(task, seed=1)
    sides = [
        {" ".join(text.split()) for text in part["context"]}
        for part in (splits.train, splits.validation)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 40
    assert len(splits.validation) == 40
    assert len(splits.train) == 360
    assert split_task(task, seed=1).validation["key"][:] == splits.validation["key"][:]
    assert split_task(task, seed=2).validation["key"][:] != splits.validation["key"][:]


def test_one_context_cannot_be_split():
    with pytest.raises(DataError, match="at least two contexts are needed"):
        split_task(questions(["a"], 50), seed=0)
    splits = split_task(questions(["a", "b"], 50), seed=0)
    assert (len(splits.train), len(splits.validation)) == (25, 25)


def test_sentences_are_duplicates_if_their_words_are():
    words = [["New York", "is"], ["New", "York", "is"]] * 20 + [["a", str(i)] for i in range(20)]
    dataset = to_dataset(words, tags=[[0] * len(row) for row in words], names=("x", "y"))
    task = Task(
        name="t", metrics=("tag_accuracy",), label_names=("x", "y"), train=dataset, dev=dataset
    )
    splits = split_task(task, seed=3)
    held = {tuple(row) for row in splits.validation["words"]}
    kept = {tuple(row) for row in splits.train["words"]}
    assert len(splits.validation) == 6
    assert not held & kept
    assert len(held | kept) == 22
    with pytest.raises(DataError, match="at least two different examples are needed"):
        hold_out(dataset.select([0]), count=1, stratified=False, seed=0)
