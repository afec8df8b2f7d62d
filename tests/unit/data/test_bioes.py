"""Tags of chunks with marks for their ends, and back, in every scheme."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from stillhouse.data.bioes import TagCode, tag_code
from stillhouse.errors import DataError

WRITTEN = {
    "IOB2": "O B-NP I-NP I-NP B-NP O B-VP",
    "IOB1": "O I-NP I-NP I-NP B-NP O I-VP",
    "IOBES": "O B-NP I-NP E-NP S-NP O S-VP",
    "BILOU": "O B-NP I-NP L-NP U-NP O U-VP",
    "BMES": "O B-NP M-NP E-NP S-NP O S-VP",
}
"""One sentence: a chunk of three words, two of one word."""
BIOES = "O B-NP I-NP E-NP S-NP O S-VP"
MARKS = {"IOB2": "BI", "IOB1": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}


def code_of(scheme):
    kinds = ("NP", "VP")
    names = ("O", *(f"{mark}-{kind}" for kind in kinds for mark in MARKS[scheme]))
    return TagCode(task_names=names, scheme=scheme)


def numbers(text, names):
    return [names.index(name) for name in text.split()]


def spelt(tags, names):
    return " ".join(names[tag] for tag in tags)


@pytest.mark.parametrize("scheme", WRITTEN)
def test_every_scheme_is_written_with_ends_and_back(scheme):
    code = code_of(scheme)
    task = numbers(WRITTEN[scheme], code.task_names)
    encoded = code.encode(task)
    assert spelt(encoded, code.names) == BIOES
    assert code.decode(encoded) == task


@pytest.mark.parametrize("scheme", WRITTEN)
def test_a_certain_teacher_says_what_the_tags_say(scheme):
    code = code_of(scheme)
    task = numbers(WRITTEN[scheme], code.task_names)
    certain = np.eye(len(code.task_names), dtype=np.float32)[task][None]
    expected = np.eye(len(code.names))[code.encode(task)][None]
    np.testing.assert_allclose(code.spread(certain), expected, atol=1e-6)


def test_a_doubtful_teacher_ends_a_chunk_as_often_as_the_next_word_leaves_it():
    """Of 0.8 B-NP the next word goes on with 0.2 of it: a quarter."""
    code = TagCode(task_names=("O", "B-NP", "I-NP"), scheme="IOB2")
    told = np.array([[[0.2, 0.8, 0.0], [0.5, 0.3, 0.2], [0, 0, 0]]], dtype=np.float32)
    found = code.spread(told)
    assert code.names == ("O", "B-NP", "I-NP", "E-NP", "S-NP")
    expected = [[0.2, 0.2, 0, 0, 0.6], [0.5, 0, 0, 0.2, 0.3], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@given(st.data())
def test_spreading_keeps_the_mass_of_every_word(data):
    scheme = data.draw(st.sampled_from(sorted(WRITTEN)))
    code = code_of(scheme)
    draw = np.random.default_rng(data.draw(st.integers(0, 999)))
    told = draw.dirichlet(np.ones(len(code.task_names)), size=(2, 5)).astype(np.float32)
    found = code.spread(told)
    assert (found >= -1e-6).all()
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


@given(st.lists(st.sampled_from(["O", "B-NP", "I-NP", "B-VP", "I-VP"]), min_size=1, max_size=9))
def test_any_tags_have_the_chunks_that_seqeval_sees_in_them(names):
    code = code_of("IOB2")
    encoded = code.encode([code.task_names.index(name) for name in names])
    assert get_entities([code.names[tag] for tag in encoded]) == get_entities(names)


def test_predicted_tags_that_do_not_fit_become_tags_of_the_task():
    code = TagCode(task_names=("O", "I-NP", "B-VP"), scheme="IOB1")
    predicted = numbers("E-NP S-NP B-VP E-VP O", code.names)
    assert spelt(code.decode(predicted), code.task_names) == "I-NP I-NP B-VP B-VP O"


def test_tags_without_chunks_stay_as_they_are():
    code = tag_code([[0, 1], [2]], ("NOUN", "VERB", "X"), where="here")
    told = np.full((1, 2, 3), 1 / 3, dtype=np.float32)
    assert (code.names, code.encode([2, 0]), code.decode([2, 0])) == (
        code.task_names,
        [2, 0],
        [2, 0],
    )
    assert code.spread(told) is told


def test_the_scheme_is_found_and_nonsense_is_refused():
    names = ("O", "B-NP", "E-NP", "S-NP", "I-NP")
    assert tag_code([[1, 2], [0, 3]], names, where="here").scheme == "IOBES"
    with pytest.raises(DataError, match="here: the tags follow none of the schemes"):
        tag_code([[2, 4, 1, 3, 2]] * 3, names, where="here")
