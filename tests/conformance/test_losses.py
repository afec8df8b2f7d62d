"""What every loss must keep: a fair mean over what counts, and nothing of what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import entropy
from sklearn.metrics import log_loss, mean_squared_error
from torch import Tensor

from stillhouse.distill import losses
from stillhouse.distill.losses import (
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

ITEMS, CLASSES, TOKENS = 12, 5, 6
"""Items are examples; for hidden states and tags they are the tokens of two examples of six."""


def draw_logits(generator):
    return 2 * torch.randn(2, ITEMS, CLASSES, generator=generator)


def draw_hidden(generator):
    return torch.randn(2, 2, ITEMS // 2, 7, generator=generator)


def draw_attention(generator):
    """Scores of two heads on three tokens, flat, so that examples are the items."""
    return 2 * torch.randn(2, ITEMS, 2 * 3 * 3, generator=generator)


def draw_classes(generator):
    student, _ = draw_logits(generator)
    return student, torch.randint(0, CLASSES, (ITEMS,), generator=generator)


def draw_class_sets(generator):
    student, other = draw_logits(generator)
    return student, (other > 0).float()


def draw_token_logits(generator):
    return draw_logits(generator).unflatten(1, (2, TOKENS))


def draw_spans(generator):
    """Starts and ends of examples of six tokens, flat, so that examples are the items."""
    return 2 * torch.randn(2, ITEMS, TOKENS * 2, generator=generator)


def draw_places(generator):
    student, _ = draw_spans(generator)
    return student, torch.randint(0, TOKENS, (ITEMS, 2), generator=generator)


def draw_scores(generator):
    scores = torch.randn(2, ITEMS, generator=generator)
    return scores[0][:, None], scores[1]


def cross_entropy_of_kept(student, labels, kept):
    return label_cross_entropy(student, torch.where(kept, labels, -100))


def binary_cross_entropy_of_kept(student, labels, kept):
    return label_binary_cross_entropy(student, torch.where(kept[:, None], labels, torch.nan))


def score_error_of_kept(student, scores, kept):
    return label_mse(student, torch.where(kept, scores, float("nan")))


def hidden_of_kept(student, teacher, kept):
    return hidden_mse(student, teacher, kept.view(student.shape[:2]).long())


def attention_of_kept(student, teacher, kept):
    scores = (one.unflatten(1, (2, 3, 3)) for one in (student, teacher))
    return attention_mse(*scores, kept[:, None].expand(-1, 3).long())


def tags_of_kept(student, tags, kept):
    tags = torch.where(kept, tags, -1)
    return tag_cross_entropy(*(one.unflatten(0, (2, TOKENS)) for one in (student, tags)))


def token_kl_of_kept(student, teacher, kept, *, temperature):
    mask = kept.view(student.shape[:2]).long()
    return token_kl_teacher_student(student, teacher, mask, temperature=temperature)


def span_mask(kept):
    """All tokens of the kept examples are real."""
    return kept[:, None].expand(-1, TOKENS).long()


def spans_of_kept(student, places, kept):
    places = torch.where(kept[:, None], places, -100)
    return span_cross_entropy(student.unflatten(1, (TOKENS, 2)), places, span_mask(kept))


def span_kl_of_kept(student, teacher, kept, *, temperature):
    spans = (one.unflatten(1, (TOKENS, 2)) for one in (student, teacher))
    return span_kl_teacher_student(*spans, span_mask(kept), temperature=temperature)


def scipy_kl(student, teacher, temperature):
    divergence = entropy(
        softmax(teacher / temperature, -1), softmax(student / temperature, -1), axis=-1
    )
    return divergence.mean() * temperature**2


def scipy_span_kl(student, teacher, temperature):
    divergence = entropy(
        softmax(teacher.reshape(-1, TOKENS, 2) / temperature, 1),
        softmax(student.reshape(-1, TOKENS, 2) / temperature, 1),
        axis=1,
    )
    return divergence.mean() * temperature**2


def log_loss_of_spans(student, places):
    odds = softmax(student.reshape(-1, TOKENS, 2), 1)
    return np.mean(
        [
            log_loss(places[:, output].astype(int), odds[..., output], labels=range(TOKENS))
            for output in range(2)
        ]
    )


def coins(logits):
    """Yes and no of every example and class, with their probabilities side by side."""
    return np.stack([expit(logits), expit(-logits)], axis=-1)


def scipy_binary_kl(student, teacher, temperature):
    divergence = entropy(coins(teacher / temperature), coins(student / temperature), axis=-1)
    return divergence.mean() * temperature**2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss with random inputs and another library's word on it.

    Attributes:
        name: Function of `stillhouse.distill.losses`, perhaps with a setting.
        draw: Makes student and target.
        loss: Takes student, target and, where `masks`, which of the items count.
        reference: The mean over items in float64 by SciPy or scikit-learn; items lie on axis 0.
        masks: Whether items can be left out.
        is_difference: Whether it compares like with like and so is 0 at equality.
    """

    name: str
    draw: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    loss: Callable[..., Tensor]
    reference: Callable[[np.ndarray, np.ndarray], float]
    masks: bool
    is_difference: bool = True

    def __call__(self, student, target, kept=None):
        if not self.masks:
            return self.loss(student, target)
        everything = torch.ones(ITEMS, dtype=torch.bool)
        return self.loss(student, target, everything if kept is None else kept)

    def items(self, tensor):
        """Flattens an input so that items lie on axis 0."""
        return tensor.detach().double().reshape(ITEMS, -1).numpy()


CASES = (
    [
        Case(
            name=f"kl_teacher_student-{temperature:g}",
            draw=draw_logits,
            loss=partial(kl_teacher_student, temperature=temperature),
            reference=partial(scipy_kl, temperature=temperature),
            masks=False,
        )
        for temperature in (0.5, 1.0, 4.0)
    ]
    + [
        Case(
            name=f"binary_kl_teacher_student-{temperature:g}",
            draw=draw_logits,
            loss=partial(binary_kl_teacher_student, temperature=temperature),
            reference=partial(scipy_binary_kl, temperature=temperature),
            masks=False,
        )
        for temperature in (0.5, 1.0, 4.0)
    ]
    + [
        Case(
            name=f"token_kl_teacher_student-{temperature:g}",
            draw=draw_token_logits,
            loss=partial(token_kl_of_kept, temperature=temperature),
            reference=partial(scipy_kl, temperature=temperature),
            masks=True,
        )
        for temperature in (0.5, 1.0, 4.0)
    ]
    + [
        Case(
            name=f"span_kl_teacher_student-{temperature:g}",
            draw=draw_spans,
            loss=partial(span_kl_of_kept, temperature=temperature),
            reference=partial(scipy_span_kl, temperature=temperature),
            masks=True,
        )
        for temperature in (0.5, 1.0, 4.0)
    ]
    + [
        Case(
            name="output_mse",
            draw=draw_logits,
            loss=output_mse,
            reference=mean_squared_error,
            masks=False,
        ),
        Case(
            name="hidden_mse",
            draw=draw_hidden,
            loss=hidden_of_kept,
            reference=mean_squared_error,
            masks=True,
        ),
        Case(
            name="attention_mse",
            draw=draw_attention,
            loss=attention_of_kept,
            reference=mean_squared_error,
            masks=True,
        ),
        Case(
            name="label_cross_entropy",
            draw=draw_classes,
            loss=cross_entropy_of_kept,
            reference=lambda student, labels: log_loss(
                labels[:, 0].astype(int), softmax(student, -1), labels=range(CLASSES)
            ),
            masks=True,
            is_difference=False,
        ),
        Case(
            name="tag_cross_entropy",
            draw=draw_classes,
            loss=tags_of_kept,
            reference=lambda student, tags: log_loss(
                tags[:, 0].astype(int), softmax(student, -1), labels=range(CLASSES)
            ),
            masks=True,
            is_difference=False,
        ),
        Case(
            name="span_cross_entropy",
            draw=draw_places,
            loss=spans_of_kept,
            reference=log_loss_of_spans,
            masks=True,
            is_difference=False,
        ),
        Case(
            name="label_binary_cross_entropy",
            draw=draw_class_sets,
            loss=binary_cross_entropy_of_kept,
            reference=lambda student, labels: log_loss(
                labels.ravel().astype(int), coins(student)[..., ::-1].reshape(-1, 2)
            ),
            masks=True,
            is_difference=False,
        ),
        Case(
            name="label_mse",
            draw=draw_scores,
            loss=score_error_of_kept,
            reference=mean_squared_error,
            masks=True,
        ),
    ]
)

every_loss = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
masked_losses = pytest.mark.parametrize(
    "case", [case for case in CASES if case.masks], ids=lambda case: case.name
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def kept():
    """Eight of the items count; both examples of hidden states end in padding."""
    return torch.tensor([1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0]).bool()


def test_every_public_loss_is_here():
    public = {
        name
        for name, value in vars(losses).items()
        if callable(value)
        and getattr(value, "__module__", "") == losses.__name__
        and not name.startswith("_")
    }
    assert public == {case.name.split("-")[0] for case in CASES}


@every_loss
def test_agrees_with_another_library(case, generator):
    for _ in range(5):
        student, target = case.draw(generator)
        expected = case.reference(case.items(student), case.items(target))
        assert case(student, target).item() == pytest.approx(expected, rel=1e-5)


@every_loss
def test_is_a_float32_scalar_above_zero(case, generator):
    loss = case(*case.draw(generator))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() > 0


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.is_difference], ids=lambda case: case.name
)
def test_is_zero_at_equality(case, generator):
    student, target = case.draw(generator)
    equal = target.reshape(student.shape).clone().requires_grad_()
    loss = case(equal, target)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert equal.grad.abs().max() < 1e-6


@masked_losses
def test_an_empty_mask_costs_nothing(case, generator):
    student, target = case.draw(generator)
    student.requires_grad_()
    loss = case(student, target, torch.zeros(ITEMS, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.masks], ids=lambda case: case.name
)
def test_an_empty_batch_costs_nothing(case, generator):
    student, target = case.draw(generator)
    assert case(student[:0], target[:0]).item() == 0


@masked_losses
def test_what_is_left_out_does_not_count(case, generator, kept):
    """Only the kept items are in the mean, and nothing in the others is felt."""
    student, target = case.draw(generator)
    expected = case.reference(case.items(student)[kept.numpy()], case.items(target)[kept.numpy()])
    outside = (~kept).view(student.shape[:-1])
    student[outside] = 1e4
    student.requires_grad_()
    if target.is_floating_point():
        target[outside if target.ndim > 1 else ~kept] = -1e4
    loss = case(student, target, kept)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert not student.grad[outside].any()
    assert student.grad[~outside].abs().sum() > 0


@every_loss
def test_the_gradient_goes_to_the_student_only(case, generator):
    student, target = case.draw(generator)
    student.requires_grad_()
    if target.is_floating_point() and not case.name.startswith("label_"):
        target.requires_grad_()
    case(student, target).backward()
    assert student.grad.abs().sum() > 0
    assert target.grad is None


@every_loss
def test_the_gradient_points_downhill(case, generator):
    """A finite difference along the gradient, in the loss's own arithmetic."""
    student, target = case.draw(generator)
    student.requires_grad_()
    case(student, target).backward()
    slope = student.grad.square().sum().item()
    step = 1e-2 / slope**0.5
    with torch.no_grad():
        ahead = case(student + step * student.grad, target).item()
        behind = case(student - step * student.grad, target).item()
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-2)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_near(case, generator, dtype):
    student, target = case.draw(generator)
    halved = target.to(dtype) if target.is_floating_point() else target
    loss = case(student.to(dtype), halved)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(case(student, target).item(), rel=0.02)
    # Rounding is of the inputs alone: the arithmetic is that of float32.
    restored = halved.float() if target.is_floating_point() else target
    assert loss.item() == pytest.approx(case(student.to(dtype).float(), restored).item(), rel=1e-6)


@every_loss
def test_autocast_does_not_change_the_arithmetic(case, generator):
    student, target = case.draw(generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = case(student, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(case(student, target).item(), rel=1e-6)


@every_loss
def test_the_order_of_items_does_not_matter(case, generator):
    student, target = case.draw(generator)
    turned = case(student.flip(0), target.flip(0))
    assert turned.item() == pytest.approx(case(student, target).item(), rel=1e-6)
