import copy

import pytest
import torch
from torch import nn

from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.anatomy import layered_anatomy_of
from stillhouse.model.lsq import (
    ATTENTION,
    CONFIG_KEY,
    QuantisedEmbedding,
    QuantisedLinear,
    activation_clips,
    is_quantised,
    levels_of,
    load_quantised,
    lsq_attention,
    observed,
    quantise,
    quantise_model,
    quantised_parts,
    settle,
    told_bits,
    weight_clips,
)
from stillhouse.model.lsq_ranges import set_activation_clips, set_weight_clips
from stillhouse.model.teachers import load_model


def in_few_bits(model, tokens, *, bits=8, rule="quantile"):
    quantise_model(model, weight_bits=bits)
    set_weight_clips(model, rule)
    set_activation_clips(model, tokens, rule)
    return model


@torch.no_grad()
def outputs(model, tokens):
    found = model(**tokens).to_tuple()
    real = tokens["attention_mask"].bool()
    return [one[real] if one.shape[:2] == real.shape else one for one in found]


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


def expected_parts(model, head):
    anatomy = layered_anatomy_of(model.config)
    tables = [f"{anatomy.embeddings}.{name}_embeddings" for name in ("word", "position")]
    paths = (
        anatomy.query, anatomy.key, anatomy.value, anatomy.attention_output, anatomy.ffn_input,
        anatomy.ffn_output,
    )  # fmt: skip
    layers = [f"{anatomy.layers}.{layer}.{path}" for layer in range(2) for path in paths]
    return {*tables, *layers, *([anatomy.head_projection] if head == "classes" else [])}


def test_what_is_quantised(make_model, family, head):
    model = make_model(family, head=head)
    before = dict(model.named_parameters())
    quantise_model(model, weight_bits=4)
    assert set(quantised_parts(model)) == expected_parts(model, head)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    added = {name.rpartition(".")[2] for name in after.keys() - before.keys()}
    assert added == {"weight_clip", "input_clip", "output_clip", "probability_clip"}
    # Each layer: six weights, their inputs, queries, keys, values and probabilities.
    linears = 12 + (head == "classes")
    assert len(weight_clips(model)) == linears + 2
    assert len(activation_clips(model)) == linears + 2 * 4
    assert is_quantised(model)
    assert told_bits(model.config) == 4


def test_every_weight_and_activation_is_on_its_steps(make_model, family, family_tokens):
    model = in_few_bits(make_model(family), family_tokens, bits=2)
    for name, part in quantised_parts(model).items():
        values = part.quantised_weight().detach()
        clip = part.weight_clip.item()
        assert set(values.unique().tolist()) <= {-clip, 0.0, clip}, name
    seen = {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = (module, output.detach())

        return hook

    handles = [
        part.register_forward_hook(keep(name))
        for name, part in quantised_parts(model).items()
        if isinstance(part, QuantisedLinear) and part.output_clip is not None
    ]
    outputs(model, family_tokens)
    for handle in handles:
        handle.remove()
    assert len(seen) == 2 * 3
    for part, output in seen.values():
        codes = output / part.output_clip.detach() * 127
        torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
        assert codes.abs().max() <= 127.001


def test_eight_bits_are_near_full_precision_and_two_are_not(make_model, family, family_tokens):
    model = make_model(family)
    [exact] = outputs(model, family_tokens)
    gaps = {}
    for bits in (2, 8):
        few = in_few_bits(copy.deepcopy(model), family_tokens, bits=bits, rule="kl")
        [found] = outputs(few, family_tokens)
        gaps[bits] = ((found - exact).norm() / exact.norm()).item()
    assert 0 < gaps[8] < 0.25
    assert gaps[2] > 2 * gaps[8]


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


def test_rounding_for_good_changes_no_output(make_bert, tokens):
    model = in_few_bits(make_bert(), tokens, bits=4)
    with torch.no_grad():
        for clip in weight_clips(model).values():
            clip.neg_()
    before = outputs(model, tokens)
    settle(model)
    assert all(map(torch.equal, outputs(model, tokens), before))
    clips = [*weight_clips(model).values(), *activation_clips(model).values()]
    assert all(clip > 0 for clip in clips)
    for part in quantised_parts(model).values():
        assert torch.equal(part.weight, part.quantised_weight())


def test_a_saved_model_comes_back(make_model, family, family_tokens, head, tmp_path):
    model = in_few_bits(make_model(family, head=head), family_tokens, bits=3)
    settle(model)
    expected = outputs(model, family_tokens)
    model.save_pretrained(tmp_path)
    written = (tmp_path / "config.json").read_text()
    assert CONFIG_KEY in written
    assert f'"{ATTENTION}"' not in written  # transformers alone would not know it
    loaded = load_quantised(tmp_path)
    assert all(map(torch.equal, outputs(loaded, family_tokens), expected))
    kinds = {type(part) for part in quantised_parts(loaded).values()}
    assert kinds == {QuantisedLinear, QuantisedEmbedding}
    # Whoever loads a checkpoint gets the same; nobody can begin a training with it.
    again, has_head = load_model(str(tmp_path), kind=head)
    assert has_head
    assert all(map(torch.equal, outputs(again, family_tokens), expected))
    with pytest.raises(TeacherError, match="is quantised and trained to the end: start from"):
        load_model(str(tmp_path), kind=head, labels=2)


def test_a_head_of_another_task_is_told(make_bert, tokens, tmp_path):
    model = in_few_bits(make_bert(), tokens)
    model.save_pretrained(tmp_path)
    assert load_model(str(tmp_path), kind="tags")[1] is False


@pytest.mark.parametrize("bits", [1, 0, 9, 32])
def test_other_bits_are_refused(make_bert, bits):
    with pytest.raises(SettingsError, match=f"quantised to 2 to 8 bits, got {bits}"):
        quantise_model(make_bert(), weight_bits=bits)


def test_other_families_are_refused(make_own, own_family):
    model = make_own(own_family)
    with pytest.raises(TeacherError, match=r"cannot be trained in few bits.*: bert, camembert"):
        quantise_model(model, weight_bits=8)
    assert not is_quantised(model)


def test_a_quantised_model_is_not_quantised_again(make_bert, tokens):
    model = in_few_bits(make_bert(), tokens)
    with pytest.raises(TeacherError, match="is quantised already"):
        quantise_model(model, weight_bits=8)


def test_a_plain_checkpoint_is_no_quantised_one(make_bert, tmp_path):
    make_bert().save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match=f"its config.json has no '{CONFIG_KEY}'"):
        load_quantised(tmp_path)


def test_a_checkpoint_without_weights(make_bert, tokens, tmp_path):
    in_few_bits(make_bert(), tokens).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(TeacherError, match="no weights in"):
        load_quantised(tmp_path)


def test_no_folder():
    with pytest.raises(TeacherError, match="no quantised model in '/no/such/folder'"):
        load_quantised("/no/such/folder")


def test_an_observer_sees_every_activation_before_it_is_rounded(make_bert, tokens):
    model = in_few_bits(make_bert(), tokens)
    seen = []
    with observed(model, lambda module, name, values: seen.append((module, name, values))):
        outputs(model, tokens)
    assert len(seen) == len(activation_clips(model))
    inputs = [values for _, name, values in seen if name == "input_clip"]
    assert all(len(values.unique()) > 20 for values in inputs)
    outputs(model, tokens)
    assert len(seen) == len(activation_clips(model))
