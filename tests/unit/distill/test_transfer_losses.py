"""Transfer losses against their definitions, in float64 over the real tokens alone, and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import entropy
from torch.nn import functional as F  # noqa: N812

from stillhouse.distill.attention import attention_rule, attention_scores
from stillhouse.distill.losses import hidden_mse, kl_teacher_student, label_cross_entropy
from stillhouse.distill.transfer_losses import (
    EVEN_MIX,
    MOBILEBERT_MIX,
    LayerSignals,
    TransferMix,
    attention_kl_teacher_student,
    normalised_mse,
    token_mean_mse,
    token_variance_gap,
    transfer_losses,
)
from stillhouse.errors import SettingsError

LENGTHS = (5, 3, 0)
MASK = torch.tensor([[1] * length + [0] * (5 - length) for length in LENGTHS])
EVERYTHING = torch.ones_like(MASK)


def drawn(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def states(seed, *, width=6):
    """Three examples of five tokens, of which padding is NaN."""
    made = 0.7 + drawn(seed, 3, 5, width, scale=2.0)
    return made.masked_fill(MASK[:, :, None] == 0, math.nan)


def tokens(states_BTD):
    """Real tokens in float64, `[N, D]`."""
    return np.concatenate(
        [one[:length].double().numpy() for one, length in zip(states_BTD, LENGTHS, strict=True)]
    )


def standardised(tokens_ND):
    centred = tokens_ND - tokens_ND.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True))


DEFINITIONS = {
    normalised_mse: lambda s, t: ((standardised(s) - standardised(t)) ** 2).mean(),
    token_mean_mse: lambda s, t: ((s.mean(axis=1) - t.mean(axis=1)) ** 2).mean(),
    token_variance_gap: lambda s, t: abs(np.var(s, axis=1) - np.var(t, axis=1)).mean(),
}
EVERY_LOSS = pytest.mark.parametrize("loss", DEFINITIONS, ids=lambda loss: loss.__name__)


@EVERY_LOSS
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_losses_on_states_are_means_over_real_tokens(loss, kind):
    student, teacher = states(0).to(kind).requires_grad_(), states(1).to(kind).requires_grad_()
    found = loss(student, teacher, MASK)
    assert found.dtype == torch.float32
    expected = DEFINITIONS[loss](tokens(student.detach()), tokens(teacher.detach()))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert teacher.grad is None
    assert student.grad.isfinite().all()
    assert student.grad[MASK == 1].any(dim=-1).all()
    assert not student.grad[MASK == 0].any()


@EVERY_LOSS
def test_losses_on_states_are_nothing_at_equality_and_without_tokens(loss):
    assert loss(states(0), states(0), MASK).item() == 0
    assert loss(states(0), states(1), 0 * MASK).item() == 0


def test_mean_and_variance_of_two_features_by_hand():
    """(1, 3) and (2, 6): means 2 and 4, variances 1 and 4; beside a token that is equal."""
    student = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    teacher = torch.tensor([[[2.0, 6.0], [5.0, 5.0]]])
    both = torch.ones(1, 2)
    assert token_mean_mse(student, teacher, both).item() == pytest.approx(4 / 2)
    assert token_variance_gap(student, teacher, both).item() == pytest.approx(3 / 2)
    # Normalised, both are (-1, 1).
    assert normalised_mse(student, teacher, both).item() == pytest.approx(0, abs=1e-10)


def test_normalised_states_have_neither_place_nor_size():
    teacher = drawn(0, 3, 5, 6)
    moved = 3.0 * teacher - 7.0
    assert normalised_mse(moved, teacher, EVERYTHING).item() == pytest.approx(0, abs=1e-9)
    assert hidden_mse(moved, teacher, EVERYTHING).item() > 10


def scores(seed, heads):
    """Attention before its softmax; NaN wherever padding asks or is asked."""
    real = (MASK[:, :, None] * MASK[:, None, :])[:, None]
    return drawn(seed, 3, heads, 5, 5, scale=2.0).masked_fill(real == 0, math.nan)


def divergence_by_definition(student, teacher):
    """KL of every real query, in the mean over heads where their numbers agree."""
    found = []
    for ours, theirs, length in zip(student[:2], teacher[:2], LENGTHS[:2], strict=True):
        q, p = (
            softmax(one[:, :length, :length].detach().double().numpy(), axis=-1)
            for one in (ours, theirs)
        )
        if len(q) != len(p):
            q, p = q.mean(axis=0, keepdims=True), p.mean(axis=0, keepdims=True)
        found.extend(rel_entr(p, q).sum(axis=-1).mean(axis=0))
    return np.mean(found)


@pytest.mark.parametrize("heads", [(4, 4), (1, 1), (2, 4), (4, 1)])
def test_attention_is_compared_at_real_queries_and_keys(heads):
    student, teacher = scores(0, heads[0]).requires_grad_(), scores(1, heads[1]).requires_grad_()
    found = attention_kl_teacher_student(student, teacher, MASK)
    assert found.item() == pytest.approx(divergence_by_definition(student, teacher), rel=1e-5)
    found.backward()
    assert teacher.grad is None
    assert student.grad.isfinite().all()
    real = (MASK[:, :, None] * MASK[:, None, :])[:, None].expand_as(student) > 0
    assert student.grad[real].all()
    assert not student.grad[~real].any()


@pytest.mark.parametrize("heads", [3, 1])
def test_equal_attention_teaches_nothing(heads):
    student = scores(0, heads).requires_grad_()
    found = attention_kl_teacher_student(student, scores(0, heads), MASK)
    assert found.item() == 0
    found.backward()
    assert student.grad.abs().max().item() < 1e-7  # of probabilities, up to 1
    assert attention_kl_teacher_student(student, scores(1, heads), 0 * MASK).item() == 0


def test_heads_in_another_order_are_equal_only_in_the_mean():
    teacher = drawn(0, 2, 4, 5, 5, scale=2.0)
    mask = torch.ones(2, 5)
    turned = teacher.roll(1, dims=1)
    assert attention_kl_teacher_student(turned, teacher, mask).item() > 0.1
    assert attention_rule(4, 4) == "each_head"
    twice = turned.repeat(1, 2, 1, 1)  # eight heads, with the same mean
    found = attention_kl_teacher_student(twice, teacher, mask).item()
    assert found == pytest.approx(0, abs=1e-6)
    assert attention_rule(8, 4) == "mean_over_heads"


def test_cross_entropy_of_attention_is_greater_by_a_constant():
    teacher, mask = drawn(0, 2, 4, 5, 5), torch.ones(2, 5)
    constant = entropy(softmax(teacher.numpy(), axis=-1), axis=-1).mean()
    for seed in (1, 2):
        student = drawn(seed, 2, 4, 5, 5)
        crossed = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()
        divergence = attention_kl_teacher_student(student, teacher, mask)
        assert (crossed - divergence).item() == pytest.approx(constant, rel=1e-5)


def test_scores_are_of_each_head():
    query, key = drawn(0, 2, 3, 8), drawn(1, 2, 3, 8)
    found = attention_scores(query, key, heads=2)
    assert found.shape == (2, 2, 3, 3)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        expected = np.einsum("btk,bsk->bts", query.numpy()[..., part], key.numpy()[..., part]) / 2
        np.testing.assert_allclose(found[:, head].numpy(), expected, atol=1e-6)


def layer(seed, *, heads):
    return LayerSignals(
        hidden_BTD=states(seed),
        query_BTW=drawn(seed + 10, 3, 5, 8),
        key_BTW=drawn(seed + 20, 3, 5, 8),
        heads=heads,
    )


def test_a_mix_names_its_losses_in_their_order():
    student, teacher = layer(0, heads=2), layer(1, heads=4)
    pair = student.hidden_BTD, teacher.hidden_BTD, MASK
    attention = attention_kl_teacher_student(student.scores(), teacher.scores(), MASK)
    found = transfer_losses(student, teacher, MASK, MOBILEBERT_MIX)
    expected = [normalised_mse(*pair), attention, token_mean_mse(*pair), token_variance_gap(*pair)]
    assert found.tolist() == [one.item() for one in expected]
    found = transfer_losses(student, teacher, MASK, EVEN_MIX)
    assert found.tolist() == [hidden_mse(*pair).item(), attention.item()]


def test_the_published_mixes():
    assert MOBILEBERT_MIX.weights == {
        "feature": 100.0, "attention": 1.0, "mean": 5000.0, "variance": 5.0
    }  # fmt: skip
    assert list(EVEN_MIX.weights.items()) == [("feature", 0.5), ("attention", 0.5)]
    assert (MOBILEBERT_MIX.is_layer_mean, EVEN_MIX.is_layer_mean) == (True, False)


@pytest.mark.parametrize(
    ("feature", "attention"), [(-1.0, 1.0), (0.0, 0.0), (math.nan, 1.0), (1.0, math.inf)]
)
def test_impossible_weights_are_refused(feature, attention):
    told = (
        f"not all 0, but those of feature, attention, mean, variance are {feature:g}, {attention}"
    )
    with pytest.raises(SettingsError, match=told.removesuffix(".0")):
        TransferMix(
            feature=feature, attention=attention, feature_target="plain", is_layer_mean=False
        )


def test_a_mixed_target_is_half_of_each_loss_and_a_constant():
    """What MobileBERT pre-trains on, 0.5 · softmax(teacher) + 0.5 · word, is a masked-word lesson.

    The difference is half the teacher's entropy, so that gradients are the same.
    """
    teacher_NV, words_N = drawn(0, 7, 11, scale=2.0), torch.arange(7)
    mixed_NV = 0.5 * teacher_NV.softmax(-1) + 0.5 * F.one_hot(words_N, 11)
    constant = 0.5 * entropy(softmax(teacher_NV.numpy(), axis=-1), axis=-1).mean()
    for seed in (1, 2):
        student_NV = drawn(seed, 7, 11, scale=2.0).requires_grad_()
        mixed = F.cross_entropy(student_NV, mixed_NV)
        parts = 0.5 * kl_teacher_student(student_NV, teacher_NV)
        parts = parts + 0.5 * label_cross_entropy(student_NV, words_N)
        assert (mixed - parts).item() == pytest.approx(constant, rel=1e-5)
        both = [torch.autograd.grad(one, student_NV)[0] for one in (mixed, parts)]
        torch.testing.assert_close(*both, rtol=1e-5, atol=1e-7)
