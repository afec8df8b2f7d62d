"""Relation losses against their definition, written out in float64 one matrix at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.distill import relations
from stillhouse.distill.relations import (
    QueryKeyValue,
    check_relation_heads,
    relation_loss,
    relations_loss,
)
from stillhouse.errors import SettingsError

TARGETS = ("scores", "probabilities", "kl")
EVERY_TARGET = pytest.mark.parametrize("target", TARGETS)


def relation_by_definition(tokens_TW, heads, head):
    """One relation matrix of one head."""
    width = tokens_TW.shape[1] // heads
    vectors_TK = tokens_TW[:, head * width : (head + 1) * width]
    return torch.einsum("tk,sk->ts", vectors_TK, vectors_TK) / math.sqrt(width)


def softmax_by_definition(matrix):
    return matrix.exp() / matrix.exp().sum(dim=1, keepdim=True)


def loss_by_definition(student, teacher, mask, *, heads, target):
    """The loss in float64, only ever of the real tokens of one example and one head."""
    total, pairs, examples = torch.zeros((), dtype=torch.float64), 0, 0
    for ours, theirs, real in zip(student, teacher, mask.bool(), strict=True):
        tokens = int(real.sum())
        if not tokens:
            continue
        examples += 1
        pairs += heads * tokens**2
        for head in range(heads):
            s = relation_by_definition(ours[real], heads, head)
            t = relation_by_definition(theirs[real], heads, head)
            if target == "scores":
                total = total + ((s - t) ** 2).sum()
                continue
            p, q = softmax_by_definition(s), softmax_by_definition(t)
            if target == "probabilities":
                total = total + ((p - q) ** 2).sum()
            else:
                total = total + (q * (q / p).log()).sum() / (heads * tokens)
    return total / max(examples if target == "kl" else pairs, 1)


def gradient_by_definition(student, teacher, mask, *, heads, target):
    exact = student.detach().double().nan_to_num().requires_grad_()
    loss = loss_by_definition(
        exact, teacher.double().nan_to_num(), mask, heads=heads, target=target
    )
    (gradient,) = torch.autograd.grad(loss, exact)
    return loss.item(), gradient


def loss_and_gradient(student, teacher, mask, **how):
    student = student.detach().clone().requires_grad_()
    loss = relation_loss(student, teacher, mask, **how)
    loss.backward()
    return loss.item(), student.grad


def draw(batch, tokens, student_width, teacher_width, *, seed=0, padded=True):
    """Projections and a mask with holes, of lengths that differ; the first example is full."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(batch, tokens, student_width, generator=generator)
    teacher = torch.randn(batch, tokens, teacher_width, generator=generator)
    mask = torch.ones(batch, tokens, dtype=torch.long)
    if padded:
        mask[1:] = torch.rand(batch - 1, tokens, generator=generator) < 0.6
    return student, teacher, mask


def assert_follows_definition(student, teacher, mask, *, heads, target, **more):
    loss, gradient = loss_and_gradient(student, teacher, mask, heads=heads, target=target, **more)
    everything = torch.ones(student.shape[:2]) if mask is None else mask
    expected_loss, expected_gradient = gradient_by_definition(
        student, teacher, everything, heads=heads, target=target
    )
    assert loss == pytest.approx(expected_loss, rel=2e-5, abs=1e-9)
    scale = expected_gradient.abs().max().item()
    torch.testing.assert_close(
        gradient.double(), expected_gradient, rtol=1e-4, atol=max(1e-5 * scale, 1e-9)
    )


def test_scores_by_hand():
    """Student products 1, 2, 2, 4, teacher products all 1; halved by the root of 4 dimensions."""
    student = torch.tensor([[[1.0], [2.0]]])
    teacher = torch.ones(1, 2, 1)
    assert relation_loss(student, teacher, None, heads=1, target="scores").item() == 11 / 4
    padded = [torch.nn.functional.pad(side, (0, 3)) for side in (student, teacher)]
    assert relation_loss(*padded, None, heads=1, target="scores").item() == pytest.approx(11 / 16)


def test_softmaxes_by_hand():
    """Teacher rows (3/4, 1/4) and (1/2, 1/2), student rows (1/2, 1/2)."""
    student = torch.zeros(1, 2, 1)
    teacher = torch.tensor([[[math.sqrt(math.log(3))], [0.0]]])
    squared = relation_loss(student, teacher, None, heads=1, target="probabilities")
    assert squared.item() == pytest.approx(2 / 16 / 4)
    divergence = relation_loss(student, teacher, None, heads=1, target="kl")
    assert divergence.item() == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2)
    # The other direction is another number: 1/2·ln(2/3) + 1/2·ln(2).
    backwards = relation_loss(teacher, student, None, heads=1, target="kl")
    assert backwards.item() == pytest.approx((0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2)


@EVERY_TARGET
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("tokens", "student_width", "teacher_width", "heads"),
    [(6, 7 * 64, 12 * 64, 12), (5, 12, 8, 4), (24, 11, 8, 4), (3, 2, 2, 1)],
    ids=["a remainder of 4", "the wider student", "longer than wide, a remainder of 3", "one head"],
)
def test_loss_and_gradient_follow_the_definition(
    target, padded, tokens, student_width, teacher_width, heads
):
    student, teacher, mask = draw(3, tokens, student_width, teacher_width, padded=padded)
    assert_follows_definition(student, teacher, mask, heads=heads, target=target)
    if not padded:
        assert_follows_definition(student, teacher, None, heads=heads, target=target)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(1, 12),
    heads=st.integers(1, 4),
    head_width=st.integers(1, 3),
    student_width=st.integers(4, 14),
    target=st.sampled_from(TARGETS),
    chunk_floats=st.integers(1, 1500),
    seed=st.integers(0, 1000),
)
def test_any_shape_in_any_chunks_follows_the_definition(
    batch, tokens, heads, head_width, student_width, target, chunk_floats, seed
):
    student, teacher, mask = draw(batch, tokens, student_width, heads * head_width, seed=seed)
    assert_follows_definition(
        student, teacher, mask, heads=heads, target=target, chunk_floats=chunk_floats
    )


@EVERY_TARGET
@pytest.mark.parametrize("chunk_floats", [1, 36, 36 * 3, 36 * 5, 36 * 8, 36 * 9, 10**6])
def test_chunks_hold_what_they_may_and_change_nothing(monkeypatch, target, chunk_floats):
    """Matrices of 36 entries, four for each of three examples: by heads, then by examples."""
    student, teacher, mask = draw(3, 6, 64, 64)
    whole = loss_and_gradient(student, teacher, mask, heads=4, target=target)
    held = []
    compare = relations._compare

    def compare_and_count(student_NTK, *rest, **more):
        held.append(len(student_NTK))
        return compare(student_NTK, *rest, **more)

    monkeypatch.setattr(relations, "_compare", compare_and_count)
    loss, gradient = loss_and_gradient(
        student, teacher, mask, heads=4, target=target, chunk_floats=chunk_floats
    )
    assert loss == pytest.approx(whole[0], rel=1e-6)
    torch.testing.assert_close(gradient, whole[1])
    assert sum(held) == 12
    assert 36 * max(held) <= max(chunk_floats, 36)


@pytest.mark.parametrize("length_for_grams", [0, 10**9], ids=["Gram matrices", "relations"])
@pytest.mark.parametrize("noise", [1.0, 1e-1, 1e-2])
def test_scores_near_the_teacher_keep_their_digits(monkeypatch, length_for_grams, noise):
    """Where the loss is a small difference of large squares; a shared mean makes them larger."""
    monkeypatch.setattr(relations, "LENGTH_FOR_GRAMS", length_for_grams)
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(1, 48, 16, generator=generator) + torch.randn(16, generator=generator)
    student = teacher + noise * torch.randn(1, 48, 16, generator=generator)
    mask = torch.ones(1, 48)
    loss, gradient = loss_and_gradient(student, teacher, mask, heads=2, target="scores")
    exact, exact_gradient = gradient_by_definition(student, teacher, mask, heads=2, target="scores")
    assert loss == pytest.approx(exact, rel=1e-5)
    error = (gradient - exact_gradient).norm() / exact_gradient.norm()
    assert error < 2e-4


def test_a_small_divergence_keeps_its_digits():
    """Rows that differ by 1e-3: without care, the rounding of their norms is all that is seen."""
    generator = torch.Generator().manual_seed(0)
    teacher = 0.3 * torch.randn(1, 32, 16, generator=generator)
    student = teacher + 1e-2 * torch.randn(1, 32, 16, generator=generator)
    loss = relation_loss(student, teacher, None, heads=2, target="kl")
    exact = loss_by_definition(
        student.double(), teacher.double(), torch.ones(1, 32), heads=2, target="kl"
    )
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)


@EVERY_TARGET
@pytest.mark.parametrize("tokens", [7, 40])
def test_what_padding_holds_does_not_matter(target, tokens):
    student, teacher, mask = draw(4, tokens, 11, 8)
    mask[2] = 0
    loss, gradient = loss_and_gradient(student, teacher, mask, heads=4, target=target)
    for filling in (float("nan"), float("inf"), 1e30):
        spoilt = [
            torch.where(mask[..., None] > 0, side, torch.tensor(filling))
            for side in (student, teacher)
        ]
        spoilt[0][..., 8:] = filling  # of the student's 11 dimensions the last 3 are dropped
        again, spoilt_gradient = loss_and_gradient(*spoilt, mask, heads=4, target=target)
        assert again == loss
        assert torch.equal(spoilt_gradient, gradient)
    assert not gradient[mask == 0].any()
    assert not gradient[..., 8:].any()


@EVERY_TARGET
def test_longer_padding_and_empty_examples_change_nothing(target):
    student, teacher, mask = draw(2, 5, 8, 8)
    loss = relation_loss(student, teacher, mask, heads=2, target=target)
    longer = [torch.nn.functional.pad(side, (0, 0, 0, 4, 0, 1)) for side in (student, teacher)]
    longer_mask = torch.nn.functional.pad(mask, (0, 4, 0, 1))
    again = relation_loss(*longer, longer_mask, heads=2, target=target)
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)


@EVERY_TARGET
@pytest.mark.parametrize("shape", [(2, 5), (0, 5), (2, 0)], ids=["padding", "batch", "length"])
def test_without_a_token_the_loss_is_zero(target, shape):
    student, teacher = torch.full((*shape, 8), float("nan")), torch.ones(*shape, 8)
    loss, gradient = loss_and_gradient(student, teacher, torch.zeros(shape), heads=2, target=target)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros(*shape, 8))


def test_masks_of_any_kind_mean_the_same():
    student, teacher, mask = draw(3, 5, 8, 8)
    losses = {
        relation_loss(student, teacher, kind, heads=2, target="kl").item()
        for kind in (mask, mask.bool(), mask.float())
    }
    assert len(losses) == 1


def test_pairs_count_alike_in_squares_and_examples_alike_in_divergences():
    """An example of 6 tokens has 9 times the pairs of one of 2; a divergence averages over both."""
    student, teacher, mask = draw(2, 6, 8, 8, padded=False)
    mask[1, 2:] = 0
    for target in TARGETS:
        together = relation_loss(student, teacher, mask, heads=2, target=target).item()
        long, short = (
            relation_loss(
                student[i : i + 1], teacher[i : i + 1], mask[i : i + 1], heads=2, target=target
            )
            for i in range(2)
        )
        share = 0.5 if target == "kl" else 0.9
        expected = share * long.item() + (1 - share) * short.item()
        assert together == pytest.approx(expected, rel=1e-5)


@EVERY_TARGET
@pytest.mark.parametrize("tokens", [6, 40])
def test_agreement_gives_zero(target, tokens):
    _, teacher, mask = draw(3, tokens, 8, 8)
    loss, gradient = loss_and_gradient(teacher, teacher, mask, heads=2, target=target)
    assert loss == 0
    torch.testing.assert_close(gradient, torch.zeros(3, tokens, 8), rtol=0, atol=1e-8)


@EVERY_TARGET
def test_relations_agree_across_widths_and_rotations(target):
    """Each vector twice doubles the products, over √(2K): a factor √2, which 2^(1/4) takes back."""
    _, teacher, mask = draw(3, 6, 8, 8)
    by_head = teacher.unflatten(-1, (2, 4))
    twice = (torch.cat([by_head, by_head], dim=-1) / 2**0.25).flatten(-2)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    rotated = (by_head @ rotation).flatten(-2)
    for student in (twice, rotated):
        loss = relation_loss(student, teacher, mask, heads=2, target=target)
        assert loss.item() == pytest.approx(0, abs=1e-8)
    mixed = teacher[..., [4, 1, 2, 3, 0, 5, 6, 7]]
    assert relation_loss(mixed, teacher, mask, heads=2, target=target).item() > 1e-3


@EVERY_TARGET
def test_order_of_heads_and_tokens_does_not_matter(target):
    student, teacher, mask = draw(3, 6, 12, 8)
    loss = relation_loss(student, teacher, mask, heads=4, target=target).item()
    order = torch.tensor([2, 0, 3, 1])
    heads = [side.unflatten(-1, (4, -1))[:, :, order].flatten(-2) for side in (student, teacher)]
    assert relation_loss(*heads, mask, heads=4, target=target).item() == pytest.approx(
        loss, rel=1e-5
    )
    tokens = torch.tensor([5, 3, 1, 0, 2, 4])
    moved = [side[:, tokens] for side in (student, teacher, mask)]
    assert relation_loss(*moved, heads=4, target=target).item() == pytest.approx(loss, rel=1e-5)
    only_one_side = relation_loss(heads[0], teacher, mask, heads=4, target=target).item()
    assert only_one_side != pytest.approx(loss, rel=1e-3)


@EVERY_TARGET
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_in_and_float32_is_computed(target, dtype):
    student, teacher, mask = draw(3, 6, 11, 8)
    student, teacher = student.to(dtype), teacher.to(dtype)
    exact = loss_and_gradient(student.float(), teacher.float(), mask, heads=4, target=target)
    with torch.autocast("cpu", torch.bfloat16):
        ours = student.clone().requires_grad_()
        loss = relation_loss(ours, teacher, mask, heads=4, target=target)
        unrecorded = relation_loss(student, teacher, mask, heads=4, target=target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == exact[0] == unrecorded.item()
    assert ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad, exact[1].to(dtype))


@EVERY_TARGET
def test_a_factor_on_the_loss_scales_the_gradient(target):
    student, teacher, mask = draw(2, 5, 8, 8)
    _, gradient = loss_and_gradient(student, teacher, mask, heads=2, target=target)
    student.requires_grad_()
    doubled = 2 * student
    (-3 * relation_loss(doubled / 2, teacher, mask, heads=2, target=target)).backward()
    torch.testing.assert_close(student.grad, -3 * gradient)


@EVERY_TARGET
def test_only_the_student_learns(target):
    student, teacher, mask = draw(2, 5, 8, 8)
    teacher.requires_grad_()
    assert not relation_loss(student, teacher, mask, heads=2, target=target).requires_grad
    relation_loss(student.requires_grad_(), teacher, mask, heads=2, target=target).backward()
    assert student.grad.any()
    assert teacher.grad is None


@EVERY_TARGET
def test_without_gradients_the_loss_is_the_same_and_none_is_computed(monkeypatch, target):
    student, teacher, mask = draw(2, 5, 8, 8)
    loss, _ = loss_and_gradient(student, teacher, mask, heads=2, target=target)
    monkeypatch.delattr(relations, "_RelationLoss")
    with torch.no_grad():
        alone = relation_loss(student.requires_grad_(), teacher, mask, heads=2, target=target)
    assert alone.item() == loss
    assert not alone.requires_grad


@EVERY_TARGET
def test_a_backward_pass_keeps_a_gradient_and_no_relation(target):
    student, teacher, mask = draw(2, 30, 8, 8)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor
    ):
        relation_loss(student.requires_grad_(), teacher, mask, heads=2, target=target)
    assert kept == [student.shape]


def test_a_second_derivative_is_refused():
    student, teacher, mask = draw(2, 5, 8, 8)
    loss = relation_loss(student.requires_grad_(), teacher, mask, heads=2, target="scores")
    (gradient,) = torch.autograd.grad(loss.square(), student, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def three(seed, width):
    generator = torch.Generator().manual_seed(seed)
    return QueryKeyValue(*torch.randn(3, 2, 5, width, generator=generator))


@EVERY_TARGET
def test_queries_keys_and_values_add_up_by_their_weights(target):
    student, teacher, mask = three(0, 11), three(1, 8), draw(2, 5, 8, 8)[2]
    query, key, value = (
        relation_loss(s, t, mask, heads=4, target=target).item()
        for s, t in zip(student, teacher, strict=True)
    )
    plain = relations_loss(student, teacher, mask, heads=4, target=target)
    assert plain.item() == pytest.approx(query + key + value, rel=1e-6)
    weighted = relations_loss(
        student, teacher, mask, heads=4, target=target, weights=(2.0, 0.5, 3.0)
    )
    assert weighted.item() == pytest.approx(2 * query + key / 2 + 3 * value, rel=1e-6)


def test_what_has_no_weight_is_not_looked_at():
    student, teacher = three(0, 8), three(1, 8)
    broken = student._replace(key=torch.full_like(student.key, float("nan")))
    weights = (1.0, 0.0, 1.0)
    loss = relations_loss(broken, teacher, None, heads=4, target="kl", weights=weights)
    whole = relations_loss(student, teacher, None, heads=4, target="kl", weights=weights)
    assert loss.item() == whole.item()


@pytest.mark.parametrize("weights", [(0, 0, 0), (1, -1, 1), (1, float("nan"), 1), (1, math.inf, 1)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(SettingsError, match="relation weights must be finite"):
        relations_loss(three(0, 8), three(1, 8), None, heads=4, target="kl", weights=weights)


@pytest.mark.parametrize(
    ("heads", "width", "whose", "advice"),
    [
        (0, 8, "student", "at least 1 relation head"),
        (9, 8, "student", "the student has 8 for 9 heads: set relation heads to 8 at most"),
        (9, 8, "teacher", "the teacher has 8 for 9 heads"),
        (12, 320, "teacher", "width 320, but 12 does not: set relation heads to 10 or 16"),
        (5, 7, "teacher", "set relation heads to 1 or 7"),
    ],
)
def test_heads_that_do_not_fit_are_refused_with_what_would(heads, width, whose, advice):
    with pytest.raises(SettingsError, match=advice):
        check_relation_heads(heads, width, whose=whose)


def test_heads_that_fit_pass():
    check_relation_heads(12, 768, whose="teacher")
    check_relation_heads(12, 448, whose="student")
    check_relation_heads(8, 8, whose="student")


def test_the_loss_itself_refuses_heads_that_do_not_fit():
    student, teacher, mask = draw(2, 5, 3, 8)
    with pytest.raises(SettingsError, match="the student has 3 for 4 heads"):
        relation_loss(student, teacher, mask, heads=4, target="scores")
    with pytest.raises(SettingsError, match="the teacher's width 8"):
        relation_loss(student, teacher, mask, heads=3, target="scores")
