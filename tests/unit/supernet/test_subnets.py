"""Subnets beside ordinary models of the same shape, which know nothing of the shared weights.

Letters in names: B batch, T tokens.
"""

import dataclasses

import numpy as np
import pytest
import torch

from stillhouse.errors import SpaceError, TeacherError
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.encoders import bare_anatomy, build_encoder
from stillhouse.model.modeling_free_head_bert import FreeHeadBertModel
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import count_encoder_parameters
from stillhouse.supernet.skeletons import ProjectionReader, Skeleton
from stillhouse.supernet.subnets import (
    Supernet,
    bounding_architecture,
    check_cut,
    kept_layers,
)

NAMES = ("query", "key", "value")
FAMILIES = ("bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra")
FREE = BertArchitecture(layers=3, hidden_size=12, heads=3, head_size=8, ffn_size=24)
SHARED = BertArchitecture(layers=3, hidden_size=16, heads=2, ffn_size=24)


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (1, (0,)),
        (4, (0, 3, 6, 9)),
        (5, (0, 2, 4, 7, 9)),
        (6, (0, 2, 4, 6, 8, 10)),
        (7, (0, 1, 3, 5, 6, 8, 10)),
        (9, (0, 1, 2, 4, 5, 6, 8, 9, 10)),
        (10, (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)),
        (11, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
        (12, tuple(range(12))),
    ],
)
def test_layers_that_are_kept_of_twelve(layers, kept):
    assert kept_layers(layers, 12) == kept


@pytest.mark.parametrize("depth", [1, 2, 7, 24])
def test_equally_deep_subnets_keep_all_layers(depth):
    assert kept_layers(depth, depth) == tuple(range(depth))


def test_the_bounds_are_the_largest_of_every_size(free_space):
    assert bounding_architecture(free_space, 6) == BertArchitecture(
        layers=6, hidden_size=20, heads=4, head_size=8, ffn_size=40
    )


def draw(space, count):
    architectures = list(space)
    chosen = np.random.default_rng(0).permutation(len(architectures))[:count]
    return [architectures[index] for index in chosen]


def assert_equals_extracted(supernet, architectures, tokens, plain_projections):
    """Compares at real tokens; the positions of padding follow other rules in RoBERTa."""
    ids_BT, mask_BT = tokens
    words_BTD = supernet.eval().words(ids_BT)
    for architecture in architectures:
        model = supernet.extract(architecture)
        assert architecture_of(model.config) == architecture
        for mask in (mask_BT, None):
            found = supernet.projections(architecture, words_BTD, mask)
            expected = plain_projections(model, ids_BT, mask)
            real = torch.ones_like(mask_BT).bool() if mask is None else mask.bool()
            for name in NAMES:
                ours, theirs = getattr(found, name), getattr(expected, name)
                assert ours.shape == (3, 11, architecture.attention_width)
                assert (ours[real] - theirs[real]).abs().max() <= 1e-5


@pytest.mark.parametrize(("family", "count"), [("bert", 50), ("roberta", 10)])
@torch.no_grad()
def test_subnets_of_free_heads_equal_the_extracted_students(
    family, count, make_teacher, free_space, tokens, plain_projections
):
    supernet = Supernet(make_teacher(family), list(free_space))
    chosen = draw(free_space, count)
    assert len(chosen) == count
    assert_equals_extracted(supernet, chosen, tokens, plain_projections)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_subnets_whose_heads_share_the_width_equal_the_extracted_students(
    family, make_teacher, shared_space, tokens, plain_projections
):
    supernet = Supernet(make_teacher(family), list(shared_space))
    assert_equals_extracted(supernet, draw(shared_space, 4), tokens, plain_projections)
    extracted = supernet.extract(SHARED)
    assert type(extracted) is type(make_teacher(family))


@pytest.mark.parametrize("family", ["bert", "roberta"])
@torch.no_grad()
def test_a_teacher_of_free_heads_has_supernets_too(
    family, make_free_teacher, free_space, tokens, plain_projections
):
    teacher = make_free_teacher(family)
    assert type(teacher) is FreeHeadBertModel
    supernet = Supernet(teacher, list(free_space))
    assert_equals_extracted(supernet, draw(free_space, 5), tokens, plain_projections)


@torch.no_grad()
def test_a_subnet_as_large_as_the_teacher_is_the_teacher(make_teacher, tokens, plain_projections):
    teacher = make_teacher()
    whole = architecture_of(teacher.config)
    supernet = Supernet(teacher, [whole]).eval()
    ids_BT, mask_BT = tokens
    found = supernet.projections(whole, supernet.words(ids_BT), mask_BT)
    for ours, theirs in zip(found, plain_projections(teacher, ids_BT, mask_BT), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", [FREE, SHARED])
@torch.no_grad()
def test_kernels_of_attention_agree(architecture, make_teacher, tokens):
    ids_BT, mask_BT = tokens
    found = []
    for attention in ("eager", "sdpa"):
        supernet = Supernet(make_teacher(), [FREE, SHARED], attention=attention).eval()
        found.append(supernet.projections(architecture, supernet.words(ids_BT), mask_BT))
    for eager, sdpa in zip(*found, strict=True):
        torch.testing.assert_close(eager, sdpa, atol=1e-5, rtol=0)


def leading_slices(teacher, model, kept):
    """For each parameter of an encoder after BERT the teacher's slice, spelt out part by part."""
    one = architecture_of(model.config)
    width, heads, inner = one.hidden_size, one.heads * one.head_size, one.ffn_size
    theirs = dict(teacher.named_parameters())
    expected = {}
    for table in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        name = f"embeddings.{table}.weight"
        expected[name] = theirs[name][:, :width]
    for name in ("embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias", "pooler.dense.bias"):
        expected[name] = theirs[name][:width]
    expected["pooler.dense.weight"] = theirs["pooler.dense.weight"][:width, :width]
    for own, source in enumerate(kept):
        sizes = {
            "attention.self.query": (heads, width),
            "attention.self.key": (heads, width),
            "attention.self.value": (heads, width),
            "attention.output.dense": (width, heads),
            "attention.output.LayerNorm": (width,),
            "intermediate.dense": (inner, width),
            "output.dense": (width, inner),
            "output.LayerNorm": (width,),
        }
        for part, (rows, *columns) in sizes.items():
            weight = theirs[f"encoder.layer.{source}.{part}.weight"][:rows]
            weight = weight[:, : columns[0]] if columns else weight
            expected[f"encoder.layer.{own}.{part}.weight"] = weight
            bias = theirs[f"encoder.layer.{source}.{part}.bias"][:rows]
            expected[f"encoder.layer.{own}.{part}.bias"] = bias
    return expected


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_untrained_student_is_made_of_the_teachers_leading_slices(
    family, make_teacher, free_space, kept_of_six
):
    teacher = make_teacher(family)
    supernet = Supernet(teacher, list(free_space))
    for architecture in draw(free_space, 12):
        model = supernet.extract(architecture)
        expected = leading_slices(teacher, model, kept_of_six[architecture.layers])
        parameters = dict(model.named_parameters())
        assert parameters.keys() == expected.keys()
        for name, parameter in parameters.items():
            assert torch.equal(parameter, expected[name]), name
        assert not model.training


def test_a_student_shares_nothing_with_the_supernet_nor_that_with_the_teacher(make_teacher):
    teacher = make_teacher()
    supernet = Supernet(teacher, [FREE])
    model = supernet.extract(FREE)
    before = [parameter.clone() for parameter in (*teacher.parameters(), *model.parameters())]
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.zero_()
    after = (*teacher.parameters(), *model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_views_share_the_memory_of_the_supernet(make_teacher, free_space, tokens):
    supernet = Supernet(make_teacher(), list(free_space)).eval()
    model = build_encoder(student_config(FREE, make_teacher().config), seed=0)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    owned = {p.untyped_storage().data_ptr() for p in supernet.parameters()}
    views = supernet.views(FREE, shapes)
    assert {name: view.shape for name, view in views.items()} == shapes
    assert {view.untyped_storage().data_ptr() for view in views.values()} <= owned
    with torch.no_grad():
        before = supernet.projections(FREE, supernet.words(tokens[0]), None).key
        views["encoder.layer.2.attention.self.key.bias"].add_(1.0)
        after = supernet.projections(FREE, supernet.words(tokens[0]), None).key
    torch.testing.assert_close(after, before + 1.0)


def gradients(projections):
    """Some loss that no two places of the projections have the same part in."""
    generator = torch.Generator().manual_seed(3)
    weighted = (part * torch.randn(part.shape, generator=generator) for part in projections)
    sum(part.sum() for part in weighted).backward()


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("architecture", [FREE, SHARED])
def test_gradients_are_those_of_the_extracted_student_and_zero_elsewhere(
    family, architecture, make_teacher, tokens, plain_projections, kept_of_six
):
    ids_BT = tokens[0]
    supernet = Supernet(make_teacher(family), [FREE, SHARED]).eval()
    gradients(supernet.projections(architecture, supernet.words(ids_BT), None))
    model = supernet.extract(architecture)
    gradients(plain_projections(model, ids_BT, None))
    kept = kept_of_six[architecture.layers]
    expected = {name: torch.zeros_like(p) for name, p in supernet.encoder.named_parameters()}
    used = set()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts = name.split(".")
            if parts[0] == "encoder":
                parts[2] = str(kept[int(parts[2])])
            shared = ".".join(parts)
            used.add(shared)
            expected[shared][tuple(map(slice, parameter.shape))] = parameter.grad
    for name, parameter in supernet.encoder.named_parameters():
        if name in used:
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4)
        else:
            assert parameter.grad is None, name
    layers = {name.split(".")[2] for name in used if name.startswith("encoder")}
    assert layers == {str(layer) for layer in kept}


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
@pytest.mark.parametrize("depths", [(2, 3), (6,), (1, 2, 4)])
def test_reached_are_the_parameters_that_get_a_gradient(family, depths, make_teacher, tokens):
    shapes = [
        BertArchitecture(layers=layers, hidden_size=width, heads=width // 8, ffn_size=24)
        for layers in depths
        for width in (16, 24)
    ]
    supernet = Supernet(make_teacher(family), shapes)
    for architecture in shapes:
        gradients(supernet.projections(architecture, supernet.words(tokens[0]), None))
    named = {id(parameter): name for name, parameter in supernet.named_parameters()}
    reached = [named[id(parameter)] for parameter in supernet.reached()]
    assert len(set(reached)) == len(reached)
    assert set(reached) == {
        name for name, parameter in supernet.named_parameters() if parameter.grad is not None
    }


def test_subnets_go_from_the_fewest_parameters_to_the_most(make_teacher, free_space):
    supernet = Supernet(make_teacher(), list(free_space)[::-1])
    sizes = [count_encoder_parameters(one) for one in supernet.architectures]
    assert sizes == sorted(sizes)
    assert set(supernet.architectures) == set(free_space)
    assert supernet.depth == 6


def test_a_space_that_is_larger_than_the_teacher_is_refused_with_every_reason(make_teacher):
    large = BertArchitecture(
        layers=7, hidden_size=48, heads=6, head_size=16, ffn_size=99, activation="relu"
    )
    with pytest.raises(TeacherError) as refused:
        Supernet(make_teacher(), [large])
    assert str(refused.value).startswith(
        "every subnet must fit into the teacher and keep its head size and activation; got "
        "head size 16, the teacher's is 8; activation relu, the teacher's is gelu; "
        "layers 7, the teacher's is 6; hidden size 48, the teacher's is 32; "
        "heads 6, the teacher's is 4; feed-forward size 99, the teacher's is 64: choose"
    )


def test_only_what_does_not_fit_is_told(make_teacher):
    wide = BertArchitecture(layers=2, hidden_size=40, heads=2, head_size=8, ffn_size=24)
    with pytest.raises(TeacherError, match=r"got hidden size 40, the teacher's is 32: choose"):
        Supernet(make_teacher(), [FREE, wide])


def test_subnets_of_several_head_sizes_or_activations_are_refused(make_teacher):
    other = BertArchitecture(layers=2, hidden_size=8, heads=2, ffn_size=8, activation="relu")
    with pytest.raises(SpaceError, match=r"one head size and one activation, got \[\(4, 'relu"):
        Supernet(make_teacher(), [FREE, other])
    with pytest.raises(SpaceError, match="got no subnet"):
        Supernet(make_teacher(), [])


@pytest.mark.parametrize("family", ["distilbert", "electra"])
def test_other_families_have_no_subnets_of_free_heads(family, make_teacher):
    with pytest.raises(TeacherError, match=f"a student of {family} cannot have 3 heads of 8 at"):
        Supernet(make_teacher(family), [FREE])


@pytest.mark.parametrize("family", ["distilbert", "electra"])
def test_nor_have_they_subnets_of_free_heads_within_bounds_that_share_the_width(
    family, make_teacher
):
    # Together they need 16 dimensions and 2 heads of 8, which are not free.
    narrow = BertArchitecture(layers=2, hidden_size=12, heads=2, head_size=8, ffn_size=24)
    with pytest.raises(TeacherError, match=f"a student of {family} cannot have 2 heads of 8 at"):
        Supernet(make_teacher(family), [narrow, SHARED])


def test_a_teacher_with_factored_embeddings_is_refused(make_teacher):
    with pytest.raises(TeacherError, match=r"factored embeddings \(12 wide, its layers 32\)"):
        Supernet(make_teacher("factored electra"), [SHARED])


def test_a_cut_is_checked_without_the_teachers_weights(tiny_config, free_space):
    config = tiny_config("bert", num_hidden_layers=5, hidden_size=32, intermediate_size=64)
    bounds = check_cut(config, list(free_space))
    sizes = {"layers": 5, "hidden_size": 20, "heads": 4, "head_size": 8, "ffn_size": 40}
    assert bounds == BertArchitecture(**sizes)
    with pytest.raises(TeacherError, match=r"got layers 6, the teacher's is 5: choose"):
        check_cut(config, [dataclasses.replace(FREE, layers=6)])


@pytest.mark.parametrize("architecture", [FREE, SHARED])
@torch.no_grad()
def test_dropout_is_active_in_training_alone(architecture, make_teacher, tokens):
    supernet = Supernet(make_teacher(), [FREE, SHARED], dropout=0.5)

    def is_deterministic():
        words_BTD = supernet.words(tokens[0])
        runs = [supernet.projections(architecture, words_BTD, None) for _ in range(2)]
        return all(torch.equal(one, other) for one, other in zip(*runs, strict=True))

    supernet.eval()
    assert is_deterministic()
    supernet.train()
    assert not is_deterministic()
    assert supernet.extract(architecture).config.hidden_dropout_prob == 0.0


@torch.no_grad()
def test_without_dropout_training_is_deterministic(make_teacher, tokens):
    supernet = Supernet(make_teacher(hidden_dropout_prob=0.3), [FREE]).train()
    words_BTD = supernet.words(tokens[0])
    first, second = (supernet.projections(FREE, words_BTD, None) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        *((family, SHARED) for family in FAMILIES),
        ("bert", FREE),
        ("roberta", FREE),
    ],
)
def test_skeletons_have_no_weights_and_whole_buffers(family, architecture, make_teacher):
    config = make_teacher(family).config
    skeleton = Skeleton(architecture, config, attention="sdpa", dropout=0.0)
    model = skeleton._reader.model
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    ordinary = build_encoder(student_config(architecture, config), seed=0)
    theirs = dict(ordinary.named_buffers())
    ours = dict(model.named_buffers())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_skeleton_ends_at_the_projections_of_its_last_layer(make_teacher):
    skeleton = Skeleton(FREE, make_teacher().config, attention="sdpa", dropout=0.0)
    assert {name for name in skeleton.shapes if name.startswith("encoder.layer.2.")} == {
        f"encoder.layer.2.attention.self.{name}.{kind}"
        for name in NAMES
        for kind in ("weight", "bias")
    }
    assert not any(name.startswith("pooler") for name in skeleton.shapes)
    assert skeleton.shapes["encoder.layer.1.attention.self.query.weight"] == (24, 12)
    assert skeleton.shapes["encoder.layer.1.attention.output.dense.weight"] == (12, 24)


@torch.no_grad()
def test_a_reader_tells_the_projections_of_any_family(
    family, make_teacher, tokens, plain_projections
):
    ids_BT, mask_BT = tokens
    expected = plain_projections(make_teacher(family), ids_BT, mask_BT)
    reader = ProjectionReader(make_teacher(family))
    for ours, theirs in zip(reader(ids_BT, mask_BT), expected, strict=True):
        assert torch.equal(ours, theirs)
    anatomy = bare_anatomy(reader.model.config)
    assert len(reader.model.get_submodule(anatomy.layers)) == 6
    words_BTD = reader.model.get_input_embeddings()(ids_BT)
    found = reader(mask_BT=mask_BT, words_BTD=words_BTD)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[mask_BT == 1], theirs[mask_BT == 1], atol=1e-5, rtol=0)
