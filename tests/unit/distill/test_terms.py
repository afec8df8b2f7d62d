from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F  # noqa: N812  the name that everybody knows

from stillhouse.data.batching import Batch, collate
from stillhouse.distill.attention import Attention
from stillhouse.distill.layer_maps import gene_links, layer_links
from stillhouse.distill.losses import attention_mse
from stillhouse.distill.signals import Signals
from stillhouse.distill.terms import AttentionTerm, HiddenTerm, LabelTerm, LogitTerm


@pytest.fixture
def batch(make_set):
    return collate(make_set(), [2, 9, 4, 30])


def signals(batch, *, seed, width=16, layers=(), labels=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch.input_ids.shape, width)
    return Signals(
        logits=torch.randn(len(batch.indices), labels, generator=generator, requires_grad=True),
        hidden_BTD={
            layer: torch.randn(shape, generator=generator, requires_grad=True) for layer in layers
        },
    )


def hidden_term(name="uniform", *, student=(2, 16), teacher=(4, 24), seed=0):
    return HiddenTerm(
        links=layer_links(name, student[0], teacher[0]),
        student_hidden=student[1],
        teacher_hidden=teacher[1],
        weight=0.5,
        seed=seed,
    )


def test_the_label_term_reads_labels_alone(batch):
    term = LabelTerm(weight=0.3)
    student = signals(batch, seed=0)
    expected = F.cross_entropy(student.logits, batch.labels)
    torch.testing.assert_close(term(student, None, batch), expected)
    assert (term.weight, term.reads_teacher, term.projection) == (0.3, False, None)
    assert term.student_layers == term.teacher_layers == frozenset()


def test_the_label_term_of_a_regression_is_squared_error(make_set):
    batch = collate(make_set(scores=True), [2, 9, 4, 30])
    student = signals(batch, seed=0, labels=1)
    expected = F.mse_loss(student.logits[:, 0], batch.labels)
    torch.testing.assert_close(LabelTerm(kind="scores")(student, None, batch), expected)


def test_the_logit_term_of_classes_is_a_divergence_of_the_teacher(batch):
    student, teacher = signals(batch, seed=0), signals(batch, seed=1)
    for temperature in (1.0, 3.0):
        expected = F.kl_div(
            F.log_softmax(student.logits / temperature, dim=-1),
            F.softmax(teacher.logits / temperature, dim=-1),
            reduction="batchmean",
        )
        loss = LogitTerm(temperature=temperature)(student, teacher, batch)
        torch.testing.assert_close(loss, expected * temperature**2)
    assert LogitTerm().reads_teacher


def test_the_logit_term_of_a_regression_is_squared_difference(batch):
    student, teacher = (signals(batch, seed=seed, labels=1) for seed in (0, 1))
    loss = LogitTerm(kind="scores")(student, teacher, batch)
    torch.testing.assert_close(loss, F.mse_loss(student.logits, teacher.logits))


@pytest.fixture
def multi_label_batch(batch):
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [torch.nan] * 3, [0, 1, 1]])
    return replace(batch, labels=labels)


def test_the_terms_of_a_multi_label_task_take_class_by_class(multi_label_batch):
    student, teacher = (signals(multi_label_batch, seed=seed, labels=3) for seed in (0, 1))
    kept, gold = [0, 1, 3], multi_label_batch.labels
    loss = LabelTerm(kind="multi_label")(student, None, multi_label_batch)
    expected = F.binary_cross_entropy_with_logits(student.logits[kept], gold[kept])
    torch.testing.assert_close(loss, expected)
    yes, no = (torch.sigmoid(sign * teacher.logits.detach() / 2) for sign in (1, -1))
    # Cross-entropy with the teacher's probabilities less their own entropy.
    crossed = F.binary_cross_entropy_with_logits(student.logits / 2, yes)
    entropy = -(yes * yes.log() + no * no.log()).mean()
    loss = LogitTerm(kind="multi_label", temperature=2.0)(student, teacher, multi_label_batch)
    torch.testing.assert_close(loss, 4 * (crossed - entropy))


def answers(encoded, indices, *, seed, outputs):
    """A padded batch, and random logits of all its tokens, padding included."""
    batch = collate(encoded, indices)
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch.input_ids.shape, outputs)
    return batch, Signals(logits=torch.randn(shape, generator=generator, requires_grad=True))


def rows(encoded, indices, signals):
    """Logits of every example alone, without padding, and its first token."""
    for row, example in enumerate(indices):
        start, end = encoded.offsets[example : example + 2]
        yield start, signals.logits[row, : end - start]


INDICES = [2, 9, 4, 30, 20]


def test_the_label_term_of_tags_takes_those_that_are_known(make_tagged_set):
    encoded = make_tagged_set()
    batch, student = answers(encoded, INDICES, seed=0, outputs=3)
    losses = [
        F.cross_entropy(logits, torch.tensor(encoded.tags[start + place]))
        for start, logits_TC in rows(encoded, INDICES, student)
        for place, logits in enumerate(logits_TC)
        if encoded.tags[start + place] >= 0
    ]
    loss = LabelTerm(kind="tags")(student, None, batch)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert not student.logits.grad[batch.labels < 0].any()


def test_the_logit_term_of_tags_takes_unknown_ones_too(make_tagged_set):
    encoded = make_tagged_set()
    batch, student = answers(encoded, INDICES, seed=0, outputs=3)
    _, teacher = answers(encoded, INDICES, seed=1, outputs=3)
    ours, theirs = [], []
    for signals, kept in ((student, ours), (teacher, theirs)):
        for start, logits_TC in rows(encoded, INDICES, signals):
            asked = encoded.tags[start : start + len(logits_TC)] != -100
            kept.extend(logits_TC[torch.from_numpy(asked)])
    expected = F.kl_div(
        F.log_softmax(torch.stack(ours) / 2, dim=-1),
        F.softmax(torch.stack(theirs) / 2, dim=-1),
        reduction="batchmean",
    )
    loss = LogitTerm(kind="tags", temperature=2.0)(student, teacher, batch)
    torch.testing.assert_close(loss, 4 * expected)
    assert len(ours) > (batch.labels >= 0).sum()
    loss.backward()
    assert not student.logits.grad[batch.labels == -100].any()
    assert student.logits.grad[batch.labels == -1].abs().sum() > 0
    assert teacher.logits.grad is None


def test_the_label_term_of_spans_takes_answers_that_are_known(make_span_set):
    encoded = make_span_set()
    assert (encoded.labels[INDICES] == -100).all(axis=1).sum() == 2
    batch, student = answers(encoded, INDICES, seed=0, outputs=2)
    losses = [
        F.cross_entropy(logits_T2[:, output], torch.tensor(encoded.labels[example, output]))
        for example, (_, logits_T2) in zip(INDICES, rows(encoded, INDICES, student), strict=True)
        for output in range(2)
        if encoded.labels[example, output] != -100
    ]
    assert len(losses) == 6
    loss = LabelTerm(kind="spans")(student, None, batch)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert not student.logits.grad[batch.attention_mask == 0].any()


def test_the_logit_term_of_spans_takes_every_example(make_span_set):
    encoded = make_span_set()
    batch, student = answers(encoded, INDICES, seed=0, outputs=2)
    _, teacher = answers(encoded, INDICES, seed=1, outputs=2)
    pairs = zip(rows(encoded, INDICES, student), rows(encoded, INDICES, teacher), strict=True)
    losses = [
        F.kl_div(
            F.log_softmax(ours[:, output] / 2, dim=0),
            F.softmax(theirs[:, output] / 2, dim=0),
            reduction="sum",
        )
        for (_, ours), (_, theirs) in pairs
        for output in range(2)
    ]
    loss = LogitTerm(kind="spans", temperature=2.0)(student, teacher, batch)
    torch.testing.assert_close(loss, 4 * torch.stack(losses).mean())
    loss.backward()
    assert not student.logits.grad[batch.attention_mask == 0].any()
    assert teacher.logits.grad is None


def test_equal_widths_need_no_projection(batch):
    term = hidden_term(student=(2, 16), teacher=(4, 16))
    assert term.projection is None
    student = signals(batch, seed=0, layers=(0, 1))
    teacher = signals(batch, seed=1, layers=(1, 3))
    real = batch.attention_mask.bool()
    pairs = [(student.hidden_BTD[i], teacher.hidden_BTD[t]) for i, t in ((0, 1), (1, 3))]
    expected = sum(F.mse_loss(ours[real], theirs[real]) for ours, theirs in pairs) / 2
    torch.testing.assert_close(term(student, teacher, batch), expected)


def test_the_term_names_the_layers_that_it_reads():
    term = hidden_term("uniform_last", student=(3, 16), teacher=(6, 24))
    assert term.student_layers == {0, 1, 2}
    assert term.teacher_layers == {1, 3, 4, 5}
    assert hidden_term("last", student=(3, 16), teacher=(6, 24)).student_layers == {2}
    assert term.reads_teacher
    assert term.weight == 0.5


@pytest.mark.parametrize(("name", "width"), [("uniform", 24), ("last", 24), ("uniform_last", 48)])
def test_the_projection_reaches_the_linked_states_side_by_side(name, width):
    projection = hidden_term(name).projection
    assert (projection.in_features, projection.out_features) == (16, width)


def test_two_linked_layers_of_half_the_width_need_no_projection():
    assert hidden_term("uniform_last", student=(2, 32), teacher=(4, 16)).projection is None
    assert hidden_term("uniform_last", student=(2, 16), teacher=(4, 16)).projection is not None


def test_linked_states_are_joined_in_the_order_of_the_map(batch):
    """Layer 0 of 2 in a teacher of 4 learns layers 1 and 2; a projection of ones adds features."""
    term = hidden_term("uniform_last")
    with torch.no_grad():
        term.projection.weight.zero_()
        term.projection.bias.copy_(torch.cat([torch.ones(24), torch.full((24,), 2.0)]))
    student = signals(batch, seed=0, layers=(0, 1))
    shape = (*batch.input_ids.shape, 24)
    ones, twos = torch.ones(shape), torch.full(shape, 2.0)
    teacher = Signals(logits=torch.zeros(4, 2), hidden_BTD={1: ones, 2: twos, 3: twos})
    # The second link, (3, 3), misses its first half by 1.
    assert term(student, teacher, batch).item() == pytest.approx((0 + 0.5) / 2)


def test_gradients_reach_projection_and_student_only(batch):
    term = hidden_term("uniform_last")
    student = signals(batch, seed=0, layers=(0, 1))
    teacher = signals(batch, seed=1, width=24, layers=(1, 2, 3))
    term(student, teacher, batch).backward()
    assert term.projection.weight.grad.abs().sum() > 0
    assert term.projection.bias.grad.abs().sum() > 0
    for state in student.hidden_BTD.values():
        assert state.grad.abs().sum() > 0
        assert not state.grad[batch.attention_mask == 0].any()
    assert all(state.grad is None for state in teacher.hidden_BTD.values())


def test_the_projection_is_seeded_and_leaves_the_global_state():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (hidden_term(seed=seed).projection.weight for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_states_of_half_precision_give_a_float32_loss(batch):
    term = hidden_term()
    student = signals(batch, seed=0, layers=(0, 1))
    teacher = signals(batch, seed=1, width=24, layers=(1, 3))
    halved = Signals(
        logits=teacher.logits,
        hidden_BTD={layer: state.half() for layer, state in teacher.hidden_BTD.items()},
    )
    loss = term(student, halved, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, term(student, teacher, batch), rtol=1e-3, atol=0)


def test_a_batch_of_padding_alone_costs_nothing(batch):
    empty = Batch(
        indices=batch.indices,
        input_ids=batch.input_ids,
        attention_mask=torch.zeros_like(batch.attention_mask),
        token_type_ids=batch.token_type_ids,
        labels=None,
    )
    student = signals(batch, seed=0, layers=(0, 1))
    teacher = signals(batch, seed=1, width=24, layers=(1, 3))
    assert hidden_term()(student, teacher, empty).item() == 0


def attending(batch, *, seed, heads, width, layers):
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch.input_ids.shape, width)
    return Signals(
        logits=torch.zeros(len(batch.indices), 2),
        attention={
            layer: Attention(
                query_BTW=torch.randn(shape, generator=generator),
                key_BTW=torch.randn(shape, generator=generator),
                heads=heads,
            )
            for layer in layers
        },
    )


def test_the_attention_term_compares_linked_layers_head_by_head(batch):
    links = gene_links((2, 0, 5), 3, 6)
    term = AttentionTerm(links=links, weight=2.0)
    assert (term.student_attention, term.teacher_attention) == ({0, 2}, {1, 4})
    student = attending(batch, seed=0, heads=2, width=8, layers=(0, 2))
    teacher = attending(batch, seed=1, heads=2, width=12, layers=(1, 4))
    mask = batch.attention_mask
    pairs = [
        attention_mse(student.attention[ours].scores(), teacher.attention[theirs].scores(), mask)
        for ours, theirs in ((0, 1), (2, 4))
    ]
    torch.testing.assert_close(term(student, teacher, batch), sum(pairs) / 2)
    summed = AttentionTerm(links=links, weight=2.0, summed=True)
    torch.testing.assert_close(summed(student, teacher, batch), sum(pairs))
