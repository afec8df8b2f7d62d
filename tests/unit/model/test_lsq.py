import copy
import json

import pytest
import torch

from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.anatomy import layered_anatomy_of
from stillhouse.model.lsq import (
    CONFIG_KEY,
    activation_clips,
    is_quantised,
    load_quantised,
    observed,
    quantise_model,
    quantised_parts,
    settle,
    told_bits,
    weight_clips,
)
from stillhouse.model.lsq_parts import (
    ATTENTION,
    QuantisedEmbedding,
    QuantisedLinear,
)
from stillhouse.model.lsq_ranges import set_activation_clips, set_weight_clips
from stillhouse.model.teachers import load_model


@pytest.fixture(
    params=[
        "bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra", "factored electra",
        "free heads",
    ]
)  # fmt: skip
def family(request):
    """All families that can be quantised."""
    return request.param


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


@pytest.mark.parametrize("own_family", ["chain", "mobilebert"])
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


def test_weights_of_another_shape_than_the_configuration_tells(make_bert, tokens, tmp_path):
    in_few_bits(make_bert(), tokens).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 24}))
    with pytest.raises(
        TeacherError, match=r"do not fit its config\.json: size mismatch for .*Give"
    ):
        load_quantised(tmp_path)


def test_damaged_weights(make_bert, tokens, tmp_path):
    in_few_bits(make_bert(), tokens).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half of it")
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
