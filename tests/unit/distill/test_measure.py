import pytest
import torch

from stillhouse.data.batching import collate
from stillhouse.distill.layer_maps import layer_links
from stillhouse.distill.measure import mean_loss
from stillhouse.distill.teacher import LiveTeacher
from stillhouse.distill.terms import HiddenTerm

SEED = 3


def term_of(name, layers, width):
    return HiddenTerm(
        links=layer_links(name, layers, 3),
        student_hidden=width,
        teacher_hidden=16,
        weight=0.1,
        seed=SEED,
    )


def test_a_copy_of_the_teacher_has_no_loss(make_bert, make_set):
    teacher = make_bert(layers=3)
    term = term_of("uniform", 3, 16)
    signals = LiveTeacher(teacher, term.teacher_layers, "float32")
    loss = mean_loss(make_bert(layers=3), make_set(), term, signals)
    assert loss == pytest.approx(0, abs=1e-10)


def test_every_real_token_counts_alike_whatever_the_batches(make_bert, make_set):
    """By hand, one example at a time: sum of squared differences over all real tokens."""
    student, teacher, encoded = make_bert(seed=1, hidden=8), make_bert(layers=3), make_set(100)
    term = term_of(
        "uniform_last", 2, 8
    )  # layer 1 of 2: teacher layers 2 and 2 (1-based), then 3, 3
    loss = mean_loss(student, encoded, term, LiveTeacher(teacher, term.teacher_layers, "float32"))
    total, tokens = 0.0, 0
    with torch.no_grad():
        for example in range(len(encoded)):
            batch = collate(encoded, [example])
            length = int(encoded.lengths[example])  # without the padding
            inputs = {
                "input_ids": batch.input_ids[:, :length],
                "token_type_ids": batch.token_type_ids[:, :length],
                "output_hidden_states": True,
            }
            ours = student.bert(**inputs).hidden_states[1:]
            theirs = teacher.bert(**inputs).hidden_states[1:]
            for ours_BTD, (first, second) in zip(ours, ((1, 1), (2, 2)), strict=True):
                target = torch.cat([theirs[first], theirs[second]], dim=-1)
                squared = (term.projection(ours_BTD) - target).square().mean(dim=-1)
                total += float(squared.sum()) / 2
            tokens += length
    assert loss == pytest.approx(total / tokens, rel=1e-5)
