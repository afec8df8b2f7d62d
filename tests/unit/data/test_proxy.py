import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.proxy import check_proxy, choose_proxy, missing_classes
from stillhouse.errors import DataError


def choose(labels, count, seed=0):
    labels = np.asarray(labels)
    generator = np.random.default_rng(seed)
    return choose_proxy(labels, total=len(labels), count=count, generator=generator)


@given(
    labels=st.lists(st.integers(0, 5) | st.just(-100), min_size=1, max_size=120),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_every_class_is_there_in_proportion(labels, fraction, seed):
    labels = np.array(labels)
    count = round(fraction * len(labels))
    chosen = choose(labels, count, seed)
    assert len(set(chosen.tolist())) == len(chosen) == count
    classes = set(labels[labels >= 0].tolist())
    if count < len(classes):
        return
    assert missing_classes(labels, chosen) == ()
    for label in classes:
        share = count * (labels == label).mean()
        # One example of each class is sure; what these take too much is missing elsewhere.
        assert (labels[chosen] == label).sum() == pytest.approx(share, abs=1 + len(classes))


def test_large_classes_keep_their_shares():
    labels = np.repeat([0, 1, 2, -100], [600, 250, 50, 100])
    counts = np.unique(labels[choose(labels, 100)], return_counts=True)
    assert dict(zip(*(part.tolist() for part in counts), strict=True)) == {
        -100: 10, 0: 60, 1: 25, 2: 5,
    }  # fmt: skip


@given(
    labels=st.lists(st.frozensets(st.integers(0, 4)), min_size=1, max_size=60),
    extra=st.integers(0, 20),
    seed=st.integers(0, 9),
)
def test_every_class_of_sets_is_there_if_there_is_room(labels, extra, seed):
    matrix = np.array([[float(c in each) for c in range(5)] for each in labels], np.float32)
    matrix = np.concatenate([matrix, np.full((5, 5), np.nan, np.float32)])  # without labels
    chosen = choose(matrix, min(5 + extra, len(matrix)), seed)
    assert len(set(chosen.tolist())) == len(chosen)
    assert missing_classes(matrix, chosen) == ()


def test_scores_and_sets_without_labels_are_drawn_by_chance():
    scores = np.linspace(0, 1, 50, dtype=np.float32)
    plain = choose_proxy(None, total=50, count=20, generator=np.random.default_rng(3))
    assert choose(scores, 20, seed=3).tolist() == plain.tolist()
    assert missing_classes(scores, plain) == ()
    check_proxy(scores, plain, ())


def test_tags_and_answers_have_no_class_to_miss():
    chosen = choose_proxy(None, total=9, count=3, generator=np.random.default_rng(0))
    assert missing_classes(None, chosen) == ()
    check_proxy(None, chosen, ("NOUN", "VERB"))


def test_the_seed_decides():
    labels = np.arange(200) % 3
    assert choose(labels, 30, 1).tolist() == choose(labels, 30, 1).tolist()
    assert choose(labels, 30, 1).tolist() != choose(labels, 30, 2).tolist()


def test_a_missing_class_is_refused_with_its_name_and_the_size_needed():
    names = ("a", "b", "c")
    labels = np.array([0, 0, 1, 1, 2, -100])
    assert missing_classes(labels, np.array([0, 2, 5])) == (2,)
    with pytest.raises(
        DataError, match=r"proxy set of 2 examples.*class 'c': raise .*proxy_examples to at least 3"
    ):
        check_proxy(labels, np.array([0, 2]), names)
    sets = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [np.nan] * 3], np.float32)
    with pytest.raises(DataError, match=r"class 'a', 'b'.*at least 3"):
        check_proxy(sets, np.array([1, 2, 3]), names)
    check_proxy(sets, choose(sets, 2), names)


def test_a_class_that_no_example_has_is_not_missed():
    check_proxy(np.array([0, 2, 2]), np.array([0, 1]), ("a", "b", "c"))
