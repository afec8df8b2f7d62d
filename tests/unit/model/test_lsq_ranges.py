import numpy as np
import pytest
import torch
from scipy.stats import norm

from stillhouse.errors import TrainingError
from stillhouse.model.lsq import (
    activation_clips,
    observed,
    quantise_model,
    quantised_parts,
    weight_clips,
)
from stillhouse.model.lsq_parts import quantise
from stillhouse.model.lsq_ranges import (
    error_clip,
    first_clip,
    kl_clip,
    quantile_clip,
    set_activation_clips,
    set_weight_clips,
)


def normal(count=40_000, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_a_quantile_by_hand():
    # 40 values 1 to 40, of which 0.05 · 40 / 2 = 1 is left out on either side.
    values = torch.arange(1.0, 41.0)[torch.randperm(40)]
    assert quantile_clip(values) == 39
    assert quantile_clip(-values) == 39
    # −50 is left out below, and 40 above.
    assert quantile_clip(torch.cat([values[1:], torch.tensor([-50.0])])) <= 40


def test_the_quantile_of_normal_values():
    assert quantile_clip(normal()) == pytest.approx(norm.ppf(0.975), abs=0.03)


def test_few_values_lose_none():
    assert quantile_clip(torch.tensor([0.5, -3.0, 1.0])) == 3
    assert quantile_clip(torch.tensor([0.25])) == 0.25


def test_the_rule_does_not_change_the_values():
    values = normal(1000)
    before = values.clone()
    first_clip(values, 4, "quantile")
    first_clip(values, 4, "kl")
    assert torch.equal(values, before)


@pytest.mark.parametrize("bits", [3, 4])
def test_the_divergence_finds_nearly_the_least_squared_error(bits):
    values = normal()

    def error(clip):
        rounded = quantise(values, torch.tensor(clip), bits, passes_outside=True)
        return (rounded - values).square().mean().item()

    best = min(error(float(clip)) for clip in np.linspace(0.3, 5, 200))
    assert best <= error(kl_clip(values, bits)) < 1.15 * best


def relative_error(values, clip, bits):
    rounded = quantise(values, torch.tensor(clip), bits, passes_outside=True)
    return ((rounded - values).square().sum() / values.square().sum()).sqrt().item()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "gelu", "softmax"])
def test_the_error_rule_finds_nearly_the_least_squared_error(bits, kind):
    values = 3 * normal(2**17)
    if kind == "gelu":
        values = torch.nn.functional.gelu(values)
    if kind == "softmax":
        values = values.view(-1, 128).softmax(dim=-1)
    found = relative_error(values, error_clip(values, bits), bits)
    largest = values.abs().max().item()
    tried = np.linspace(0.01, 1, 100) * largest
    best = min(relative_error(values, float(clip), bits) for clip in tried)
    assert found < 1.05 * best
    if bits == 8:
        assert found < 0.1


def test_values_without_a_range_have_none():
    assert error_clip(torch.zeros(4), 8) == 0
    assert np.isinf(error_clip(torch.tensor([1.0, torch.inf]), 8))


def test_two_bits_leave_the_tails_outside():
    values = normal()
    assert 1.0 < kl_clip(values, 2) < 2.0
    assert values.abs().max() > 3.5


def test_eight_bits_keep_nearly_everything():
    values = normal()
    assert kl_clip(values, 8) > 0.85 * values.abs().max().item()


def test_the_divergence_is_that_of_its_definition():
    """The same in plain loops, for a histogram of 10 bins of 100 values."""
    values = normal(100, seed=3)
    magnitude = values.abs().numpy()
    width = magnitude.max() / 10
    counts = [
        int(((magnitude > width * j) & (magnitude <= width * (j + 1))).sum()) for j in range(10)
    ]
    found = {}
    for edge in range(3, 11):
        kept = counts[:edge]
        before = [*kept[:-1], kept[-1] + sum(counts[edge:])]
        after = [0.0] * edge
        for group in range(2):
            members = [j for j in range(edge) if j * 2 // edge == group]
            filled = [j for j in members if kept[j]]
            for j in filled:
                after[j] = sum(kept[m] for m in members) / len(filled)
        one, other = np.cumsum(before), np.cumsum(after)
        one, other = one / one.sum(), other / other.sum()
        found[edge] = sum(p * np.log(p / q) for p, q in zip(one, other, strict=True) if p)
    best = min(found, key=found.get)
    assert kl_clip(values, 2) == pytest.approx(best * width, rel=1e-6)


def test_fewer_bins_than_codes_keep_the_largest():
    values = normal(100)
    assert kl_clip(values, 8) == pytest.approx(values.abs().max().item())


@pytest.mark.parametrize("rule", ["quantile", "kl"])
def test_every_clip_of_a_model_is_set(make_bert, tokens, rule):
    model = make_bert()
    quantise_model(model, weight_bits=4)
    clips = [*weight_clips(model).values(), *activation_clips(model).values()]
    assert all(clip.isnan() for clip in clips)
    set_weight_clips(model, rule)
    for part in quantised_parts(model).values():
        assert part.weight_clip.item() == pytest.approx(first_clip(part.weight, 4, rule))
    set_activation_clips(model, tokens, rule)
    assert all(clip > 0 for clip in clips)
    assert all(clip.requires_grad for clip in clips)


def test_an_activation_has_the_range_of_what_it_will_be(make_bert, tokens):
    """What comes before is quantised already when a range is taken."""
    model = make_bert()
    quantise_model(model, weight_bits=2)
    set_weight_clips(model, "quantile")
    set_activation_clips(model, tokens, "quantile")
    found = {}
    with observed(
        model, lambda module, name, values: found.__setitem__((module, name), quantile_clip(values))
    ):
        model(**tokens)
    for (module, name), expected in found.items():
        assert getattr(module, name).item() == pytest.approx(expected, rel=1e-6)
    assert len(found) == len(activation_clips(model))


def test_a_weight_of_zeros_is_refused(make_bert):
    model = make_bert()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.zero_()
    quantise_model(model, weight_bits=4)
    message = r"bert.encoder.layer.1.output.dense.weight give a range of 0"
    for rule in ("quantile", "kl"):
        with pytest.raises(TrainingError, match=message):
            set_weight_clips(model, rule)


def test_an_activation_that_is_not_finite_is_refused(make_bert, tokens):
    model = make_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.bias.fill_(torch.nan)
    quantise_model(model, weight_bits=4)
    set_weight_clips(model, "quantile")
    with pytest.raises(TrainingError, match=r"layer.0.output.dense.input give a range of nan"):
        set_activation_clips(model, tokens, "quantile")


def test_a_part_that_no_batch_came_to_is_told(make_bert, tokens, monkeypatch):
    model = make_bert()
    quantise_model(model, weight_bits=4)
    set_weight_clips(model, "quantile")
    encoder = model.bert.encoder
    monkeypatch.setattr(encoder, "layer", encoder.layer[:1])
    stray = torch.nn.ModuleDict({"model": model, "other": make_other(make_bert)})
    with pytest.raises(TrainingError, match="never came to"):
        set_activation_clips(Calling(stray), tokens, "quantile")


def make_other(make_bert):
    other = make_bert()
    quantise_model(other, weight_bits=4)
    return other


class Calling(torch.nn.Module):
    """Two models, of which one alone is run."""

    def __init__(self, models):
        super().__init__()
        self.models = models

    def forward(self, **tokens):
        return self.models["model"](**tokens)
