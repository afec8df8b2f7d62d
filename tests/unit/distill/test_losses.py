"""Cases by hand; what every loss must keep is in tests/conformance/test_losses.py."""

import math

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch.nn import functional as F  # noqa: N812  the name that everybody knows
from transformers.loss.loss_utils import ForQuestionAnsweringLoss

from stillhouse.distill.losses import (
    IGNORED_LABEL,
    attention_mse,
    binary_kl_teacher_student,
    hidden_mse,
    kl_teacher_student,
    label_binary_cross_entropy,
    label_cross_entropy,
    label_mse,
    output_mse,
    span_cross_entropy,
    span_kl_teacher_student,
    tag_cross_entropy,
    token_kl_teacher_student,
)


def test_divergence_of_two_coins():
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4·ln(3/2) + 1/4·ln(1/2)."""
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.tensor([[math.log(3), 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_teacher_student(student, teacher).item() == pytest.approx(expected)
    # The other direction is another number: 1/2·ln(2/3) + 1/2·ln(2).
    backwards = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert kl_teacher_student(teacher, student).item() == pytest.approx(backwards)


def test_temperature_divides_the_logits_and_multiplies_the_loss_by_its_square():
    """At temperature 2 logits 2·ln 3 soften to ln 3; the factor is 4."""
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kl_teacher_student(student, teacher, temperature=2.0).item() == pytest.approx(expected)


def test_a_high_temperature_has_the_gradient_of_matched_logits():
    """Hinton et al. 2015, equation 4: (z − v)/C for logits of mean zero, here per example."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 4, generator=generator, requires_grad=True)
    teacher = torch.randn(5, 4, generator=generator)
    kl_teacher_student(student, teacher, temperature=300.0).backward()
    gap = (student - student.mean(dim=1, keepdim=True)) - (
        teacher - teacher.mean(dim=1, keepdim=True)
    )
    torch.testing.assert_close(student.grad, gap.detach() / 4 / 5, atol=1e-3, rtol=0.02)


def test_a_constant_added_to_all_logits_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 3, generator=generator)
    loss = kl_teacher_student(student, teacher)
    torch.testing.assert_close(kl_teacher_student(student + 7, teacher - 3), loss)


def test_extreme_logits_stay_finite():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = kl_teacher_student(student, torch.tensor([[-1e4, 1e4]]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad.isfinite().all()


def test_outputs_by_hand():
    assert output_mse(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [5.0]])).item() == 2.5


def test_hidden_states_by_hand():
    """Two real tokens with squared gaps 1, 9 and 4, 0: the mean over token and feature is 3.5."""
    student = torch.tensor([[[1.0, 3.0], [2.0, 0.0], [50.0, 50.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert hidden_mse(student, torch.zeros(1, 3, 2), mask).item() == 3.5


def test_long_examples_weigh_more_than_short_ones():
    """Tokens count, not examples: 3 of 4 real tokens are off by 1."""
    teacher = torch.zeros(2, 3, 2)
    student = teacher.clone()
    student[0] += 1
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert hidden_mse(student, teacher, mask).item() == 0.75


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [9.0, 0.0]])
    labels = torch.tensor([1, 0, IGNORED_LABEL])
    expected = (math.log(4 / 3) + math.log(4)) / 2
    assert label_cross_entropy(logits, labels).item() == pytest.approx(expected)


def test_score_error_by_hand():
    labels = torch.tensor([1.0, float("nan"), 4.0])
    assert label_mse(torch.tensor([[2.0], [100.0], [1.0]]), labels).item() == 5.0


def test_class_by_class_divergence_by_hand():
    """Teacher 3/4, student 1/2 for one class of two, agreed on the other: half of two coins'."""
    student = torch.tensor([[0.0, 1.0]])
    teacher = torch.tensor([[math.log(3), 1.0]])
    coins = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert binary_kl_teacher_student(student, teacher).item() == pytest.approx(coins / 2)
    softened = binary_kl_teacher_student(2 * student, 2 * teacher, temperature=2.0)
    assert softened.item() == pytest.approx(4 * coins / 2)


def test_one_class_of_two_is_the_divergence_of_two_logits():
    """A sigmoid is a softmax over the logit and 0."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 1, generator=generator)
    padded = [torch.cat([logits, torch.zeros(6, 1)], dim=1) for logits in (student, teacher)]
    for temperature in (1.0, 3.0):
        torch.testing.assert_close(
            binary_kl_teacher_student(student, teacher, temperature=temperature),
            kl_teacher_student(*padded, temperature=temperature),
        )


def test_extreme_logits_of_single_classes_stay_finite():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = binary_kl_teacher_student(student, torch.tensor([[-1e4, 1e4]]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert student.grad.isfinite().all()


def test_class_by_class_cross_entropy_by_hand():
    """Example 0 is 3/4 and 1/2 sure of what is true; example 1 has no labels."""
    logits = torch.tensor([[math.log(3), 0.0], [50.0, float("inf")]])
    labels = torch.tensor([[1.0, 0.0], [float("nan")] * 2])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert label_binary_cross_entropy(logits, labels).item() == pytest.approx(expected)


NAN, INFINITE = float("nan"), float("inf")


def test_tags_by_hand():
    """Two known tags, 3/4 and 1/4 sure; one that nobody knows, one of padding."""
    sure = [0.0, math.log(3)]
    logits = torch.tensor([[sure, sure], [sure, [NAN, INFINITE]]], requires_grad=True)
    loss = tag_cross_entropy(logits, torch.tensor([[1, 0], [-1, IGNORED_LABEL]]))
    loss.backward()
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    # The gradient of cross-entropy: probabilities less the truth, over two tokens.
    expected = torch.tensor([[[0.125, -0.125], [-0.375, 0.375]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(logits.grad, expected)


def test_divergence_of_tokens_is_that_of_two_coins():
    """One token of three counts; the others may hold anything."""
    student = torch.tensor([[[0.0, 0.0], [NAN, 1.0], [9.0, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[math.log(3), 0.0], [5.0, INFINITE], [0.0, 9.0]]], requires_grad=True)
    loss = token_kl_teacher_student(student, teacher, torch.tensor([[1, 0, 0]]))
    loss.backward()
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert teacher.grad is None
    torch.testing.assert_close(
        student.grad, torch.tensor([[[-0.25, 0.25], [0.0, 0.0], [0.0, 0.0]]])
    )


def test_long_sentences_weigh_more_than_short_ones():
    """Three tokens of one sentence and one of the other: each is a quarter of the mean."""
    student = torch.zeros(2, 3, 2)
    teacher = torch.zeros(2, 3, 2)
    teacher[1, 0, 0] = math.log(3)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    coins = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert token_kl_teacher_student(student, teacher, mask).item() == pytest.approx(coins / 4)


def test_spans_by_hand():
    """Of three real tokens the first start is 1/2 sure, the end 1/4; padding has no share in it.

    Of the second example nobody knows the answer, and the third holds padding alone.
    """
    start, end = [0.0, math.log(2), 0.0, 50.0], [0.0, 0.0, math.log(2), NAN]
    one = torch.tensor([start, end]).T
    logits = torch.stack([one, one, torch.full((4, 2), NAN)]).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    places = torch.tensor([[1, 0], [IGNORED_LABEL] * 2, [IGNORED_LABEL] * 2])
    loss = span_cross_entropy(logits, places, mask)
    loss.backward()
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    expected = torch.zeros(3, 4, 2)
    expected[0, :, 0] = torch.tensor([0.25, 0.5 - 1, 0.25, 0.0]) / 2
    expected[0, :, 1] = torch.tensor([0.25 - 1, 0.25, 0.5, 0.0]) / 2
    torch.testing.assert_close(logits.grad, expected)


def test_spans_are_what_transformers_trains_on():
    """Its loss counts padding as tokens, so none is here."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, 2, generator=generator)
    places = torch.randint(0, 7, (5, 2), generator=generator)
    expected = ForQuestionAnsweringLoss(
        logits[..., 0], logits[..., 1], start_positions=places[:, 0], end_positions=places[:, 1]
    )
    found = span_cross_entropy(logits, places, torch.ones(5, 7))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_of_spans_against_each_example_alone(temperature):
    """Without padding, by SciPy; the gradient is that of Hinton et al. 2015, equation 2."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 3, 6, 2, generator=generator)
    lengths = (6, 2, 4)
    mask = torch.stack([torch.arange(6) < length for length in lengths])
    for logits in (student, teacher):
        logits[~mask] = NAN
    student.requires_grad_()
    teacher.requires_grad_()
    loss = span_kl_teacher_student(student, teacher, mask, temperature=temperature)
    loss.backward()
    total, gradient = 0.0, torch.zeros_like(student)
    for row, length in enumerate(lengths):
        for output in range(2):
            ours, theirs = (
                softmax(logits[row, :length, output].detach().double().numpy() / temperature)
                for logits in (student, teacher)
            )
            total += entropy(theirs, ours) * temperature**2 / (3 * 2)
            gap = torch.from_numpy(ours - theirs).float()
            gradient[row, :length, output] = gap * temperature / (3 * 2)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(student.grad, gradient, atol=1e-6, rtol=1e-4)
    assert teacher.grad is None


def test_an_example_of_padding_alone_is_no_example():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 2, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    both = span_kl_teacher_student(student, teacher, mask)
    torch.testing.assert_close(both, span_kl_teacher_student(student[:1], teacher[:1], mask[:1]))


def test_extreme_logits_of_spans_stay_finite():
    student = torch.tensor([[[1e4, -1e4], [-1e4, 1e4], [1e4, 0.0]]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0]])
    loss = span_kl_teacher_student(student, -student.detach(), mask)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad.isfinite().all()


def test_attention_mse_is_torchs_over_real_tokens():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 2, 4, 4, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 0]])
    student[..., 3] = torch.nan  # padding may hold anything
    real = (slice(None), slice(None), slice(3), slice(3))
    expected = F.mse_loss(student[real], teacher[real])
    torch.testing.assert_close(attention_mse(student, teacher, mask), expected)
    assert attention_mse(teacher, teacher, mask) == 0
    assert attention_mse(teacher, teacher, torch.zeros(1, 4)) == 0


def test_attention_of_other_heads_is_compared_by_its_mean():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, heads, 3, 3, generator=generator) for heads in (2, 4))
    expected = F.mse_loss(student.mean(dim=1), teacher.mean(dim=1))
    found = attention_mse(student, teacher, torch.ones(2, 3))
    torch.testing.assert_close(found, expected)


def test_attention_mse_moves_the_student_alone():
    student, teacher = (torch.randn(1, 2, 3, 3, requires_grad=True) for _ in range(2))
    attention_mse(student, teacher, torch.ones(1, 3)).backward()
    assert student.grad is not None
    assert teacher.grad is None
