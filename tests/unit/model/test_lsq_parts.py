"""The quantiser, its gradients, and attention of quantised probabilities, beside PyTorch's own."""

import pytest
import torch
from torch import nn

from stillhouse.model.lsq_parts import levels_of, lsq_attention, quantise


@pytest.mark.parametrize(
    ("bits", "values", "expected"),
    [
        # Worked out by hand for a clip of 2: steps of 2, 2/3 and 2/127.
        (2, [-5.0, -1.1, -0.9, 0.0, 0.9, 1.1, 5.0], [-2.0, -2.0, 0.0, 0.0, 0.0, 2.0, 2.0]),
        (3, [-5.0, -0.4, 0.3, 0.9, 1.4, 2.0], [-2.0, -2 / 3, 0.0, 2 / 3, 4 / 3, 2.0]),
        (8, [0.1, -0.1, 1.999], [6 * 2 / 127, -6 * 2 / 127, 2.0]),
    ],
)
def test_values_are_rounded_to_the_steps_below_the_clip(bits, values, expected):
    found = quantise(torch.tensor(values), torch.tensor(2.0), bits, passes_outside=True)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(("bits", "steps"), [(2, 1), (3, 3), (4, 7), (8, 127)])
def test_steps_on_either_side(bits, steps):
    assert levels_of(bits) == steps
    values = torch.linspace(-1.2, 1.2, 20_001)
    found = quantise(values, torch.tensor(1.0), bits, passes_outside=True)
    assert len(found.unique()) == 2 * steps + 1


def straight_through(values, clip, bits):
    """The quantiser out of PyTorch's own operations; the rounding alone has another gradient."""
    scaled = (values / clip).clamp(-1, 1) * (2 ** (bits - 1) - 1)
    rounded = scaled + (scaled.round() - scaled).detach()
    return clip * rounded / (2 ** (bits - 1) - 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gradients_of_an_activation_are_those_of_straight_through_rounding(bits):
    generator = torch.Generator().manual_seed(0)
    values, grad = torch.randn(2, 500, generator=generator)
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    clip, their_clip = (torch.tensor(1.3, requires_grad=True) for _ in range(2))
    quantise(ours, clip, bits, passes_outside=False).backward(grad)
    straight_through(theirs, their_clip, bits).backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(clip.grad, their_clip.grad, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_clip_by_hand():
    # Clip 2 in 2 bits: 3 is outside (slope 1), −3 too (−1), 0.5 → 0 (−0.25), 1.5 → 1 (0.25).
    values = torch.tensor([3.0, -3.0, 0.5, 1.5])
    clip = torch.tensor(2.0, requires_grad=True)
    grad = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    quantise(values, clip, 2, passes_outside=True).backward(grad)
    assert clip.grad.item() == pytest.approx(1 - 10 - 25 + 250)


def test_a_weight_keeps_its_gradient_outside_and_an_activation_does_not():
    for passes_outside, expected in ((True, [1.0, 1.0, 1.0]), (False, [0.0, 1.0, 0.0])):
        values = torch.tensor([-3.0, 0.2, 2.5], requires_grad=True)
        clip = torch.tensor(2.0)
        quantise(values, clip, 4, passes_outside=passes_outside).sum().backward()
        assert values.grad.tolist() == expected


def test_a_clip_below_zero_acts_as_one_above():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200, generator=generator)
    above, below = (torch.tensor(sign * 0.7, requires_grad=True) for sign in (1, -1))
    found = [quantise(values, clip, 4, passes_outside=False) for clip in (above, below)]
    assert torch.equal(*found)
    for one in found:
        one.square().sum().backward()
    assert above.grad.item() == -below.grad.item() != 0


def test_a_clip_of_zero_gives_numbers():
    values, clip = torch.randn(10, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    found = quantise(values, clip, 8, passes_outside=False)
    found.sum().backward()
    assert found.isfinite().all()
    assert clip.grad.isfinite()


def test_bfloat16_is_quantised_in_float32():
    values = torch.linspace(-1, 1, 300).bfloat16()
    found = quantise(values, torch.tensor(1.0), 8, passes_outside=False)
    assert found.dtype == torch.bfloat16
    exact = quantise(values.float(), torch.tensor(1.0), 8, passes_outside=False)
    assert torch.equal(found, exact.bfloat16())


def test_attention_is_that_of_torch_with_rounded_probabilities():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 4, generator=generator)
    mask = torch.zeros(2, 1, 1, 5)
    mask[1, ..., 3:] = torch.finfo(torch.float32).min
    module = nn.Module()
    module.probability_clip = nn.Parameter(torch.tensor(1.0))
    found, probabilities = lsq_attention(module, query, key, value, mask)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # Each probability is off by half a step of 1/127 at most, and five values are added up.
    assert (found.transpose(1, 2) - expected).abs().max() <= 5 * value.abs().max() / 254
    codes = probabilities * 127
    torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)
    assert (probabilities[1, ..., 3:] == 0).all()
