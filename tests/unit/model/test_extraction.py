import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import SettingsError
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.extraction import (
    Importance,
    check_extract,
    chosen_cut,
    chosen_head_rows,
    extract,
    most_important,
    random_importance,
)
from stillhouse.model.slicing import NO_SOURCE, copy_slices
from stillhouse.model.students import build_student, student_config
from stillhouse.space.architecture import BertArchitecture

TEACHER = BertArchitecture(layers=3, hidden_size=16, heads=4, ffn_size=32)
"""That of `make_bert` with three layers."""


def shape(layers=3, hidden_size=16, heads=4, ffn_size=32, head_size=None):
    return BertArchitecture(
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        ffn_size=ffn_size,
        head_size=head_size,
    )


def fresh(teacher, **sizes):
    """A student of other weights than the teacher's."""
    return build_student(student_config(shape(**sizes), teacher.config), seed=9).eval()


def scored(**given):
    """Scores that are equal but where they are given."""
    parts = {
        "hidden_D": torch.ones(16),
        "heads_LHK": torch.ones(3, 4, 4),
        "ffn_LF": torch.ones(3, 32),
    }
    return Importance(**(parts | given))


def drawn(seed):
    return random_importance(TEACHER, seed=seed)


def test_an_extract_of_full_shape_is_the_teacher_in_every_family(make_model, family, family_tokens):
    teacher = make_model(family, seed=1)
    student = make_model(family, seed=9)
    importance = random_importance(architecture_of(teacher.config), seed=3)
    with torch.no_grad():
        expected = teacher(**family_tokens).logits
        assert not torch.allclose(student(**family_tokens).logits, expected)
        cut = extract(student, teacher, importance)
        assert torch.equal(student(**family_tokens).logits, expected)
    assert cut.layers == (0, 1)


def hidden_axes(name):
    """Which axes of a BERT's parameter run over the neurons of its residual stream."""
    if name.startswith("classifier"):
        return (1,) if name.endswith("weight") else ()
    if "embeddings" in name:
        return (0,) if "LayerNorm" in name else (1,)
    if "LayerNorm" in name:
        return (0,)
    if "pooler" in name:
        return (0, 1) if name.endswith("weight") else (0,)
    writes = name.rpartition(".")[0].endswith("output.dense")
    if writes:
        return (0,)
    return (1,) if name.endswith("weight") else ()


def test_one_draw_of_hidden_neurons_cuts_everything(make_bert, tokens):
    """A teacher with its neurons in another order says the same; its first ones are the extract.

    That order is right only if embeddings, layers, norms, biases and the head all have it.
    """
    teacher = make_bert(seed=1, num_hidden_layers=3)
    kept = [1, 2, 5, 8, 9, 12, 13, 15]
    scores_D = torch.zeros(16)
    scores_D[kept] = torch.rand(8, generator=torch.Generator().manual_seed(0)) + 1
    order = torch.tensor([*kept, *sorted(set(range(16)) - set(kept))])
    turned = copy.deepcopy(teacher)
    with torch.no_grad():
        for name, weight in turned.named_parameters():
            for axis in hidden_axes(name):
                weight.copy_(weight.index_select(axis, order))
        torch.testing.assert_close(
            turned(**tokens).logits, teacher(**tokens).logits, rtol=1e-4, atol=1e-4
        )
    student = fresh(teacher, hidden_size=8, head_size=4)
    expected = copy.deepcopy(student)
    extract(student, teacher, scored(hidden_D=scores_D))
    copy_slices(expected, turned, (0, 1, 2))
    for name, weight in expected.state_dict().items():
        assert torch.equal(student.state_dict()[name], weight), name


def test_feed_forward_neurons_that_say_nothing_can_go(make_bert, tokens):
    """Each layer has its own silent ones; without them a student says what its teacher does."""
    teacher = make_bert(seed=1, num_hidden_layers=3)
    scores_LF = torch.rand(3, 32, generator=torch.Generator().manual_seed(0)) + 1
    for layer, block in enumerate(teacher.bert.encoder.layer):
        silent = torch.randperm(32, generator=torch.Generator().manual_seed(layer))[:12]
        scores_LF[layer, silent] = 0
        with torch.no_grad():
            block.output.dense.weight[:, silent] = 0
    student = fresh(teacher, ffn_size=20)
    extract(student, teacher, scored(ffn_LF=scores_LF))
    with torch.no_grad():
        found, expected = (model(**tokens).logits for model in (student, teacher))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        extract(student, teacher, scored())
        assert not torch.allclose(student(**tokens).logits, expected, rtol=1e-2, atol=1e-2)


def test_heads_that_say_nothing_can_go(make_bert, tokens):
    """Another head of each layer; the student has the other three, whole."""
    teacher = make_bert(seed=1, num_hidden_layers=3)
    scores_LHK = torch.ones(3, 4, 4)
    for layer, block in enumerate(teacher.bert.encoder.layer):
        scores_LHK[layer, layer] = 0.5
        with torch.no_grad():
            block.attention.output.dense.weight[:, 4 * layer : 4 * layer + 4] = 0
    student = fresh(teacher, heads=3, head_size=4)
    extract(student, teacher, scored(heads_LHK=scores_LHK))
    with torch.no_grad():
        found, expected = (model(**tokens).logits for model in (student, teacher))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        extract(student, teacher, scored())  # the first three
        assert not torch.allclose(student(**tokens).logits, expected, rtol=1e-2, atol=1e-2)


def test_smaller_heads_keep_their_strongest_dimensions_and_are_rescaled(make_bert):
    """Two of four dimensions of each head; a product grows by √2, as for leading ones."""
    teacher = make_bert(seed=1, num_hidden_layers=3)
    strong = torch.tensor([[0, 3], [1, 2], [2, 3], [0, 1]])
    scores_LHK = torch.zeros(3, 4, 4)
    scores_LHK[:, torch.arange(4)[:, None], strong] = 1.0
    student = fresh(teacher, layers=1, hidden_size=8, heads=4)
    extract(student, teacher, scored(heads_LHK=scores_LHK))
    rows = [0, 3, 5, 6, 10, 11, 12, 13]
    ours = student.bert.encoder.layer[0].attention
    theirs = teacher.bert.encoder.layer[2].attention
    for name, scale in (("query", 2**0.25), ("key", 2**0.25), ("value", 1.0)):
        found, source = getattr(ours.self, name), getattr(theirs.self, name)
        torch.testing.assert_close(found.weight, scale * source.weight[rows][:, :8])
        torch.testing.assert_close(found.bias, scale * source.bias[rows])
    assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight[:8][:, rows])


@pytest.mark.parametrize("teacher_width", [64, 32])
def test_a_student_as_wide_as_its_embeddings_folds_the_chosen_neurons(make_model, teacher_width):
    """The first layer reads nearly what the teacher's does at the neurons that were chosen."""
    family = "electra" if teacher_width == 32 else "factored electra"
    sizes = {"embedding_size": 32, "num_attention_heads": 4}
    teacher = make_model(family, seed=1, hidden_size=teacher_width, **sizes)
    student = make_model(family, seed=9, hidden_size=32, **sizes)
    cut = extract(student, teacher, random_importance(architecture_of(teacher.config), seed=2))
    if teacher_width == 64:
        assert cut.hidden.tolist() != list(range(32))
    ids = torch.randint(1, 50, (8, 20), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = teacher.electra.embeddings(ids)
        if teacher_width != 32:
            wanted = teacher.electra.embeddings_project(wanted)
        got = student.electra.embeddings(ids)
    assert torch.cosine_similarity(got, wanted[..., cut.hidden], dim=-1).mean() > 0.95


def test_layers_are_those_of_the_uniform_map(make_bert):
    """The last of 6 layers meets the last of 2, the third the first."""
    teacher = make_bert(seed=1, num_hidden_layers=6)
    student = fresh(teacher, layers=2)
    importance = random_importance(architecture_of(teacher.config), seed=0)
    assert extract(student, teacher, importance).layers == (2, 5)
    for layer, source in zip(student.bert.encoder.layer, (2, 5), strict=True):
        theirs = teacher.bert.encoder.layer[source].state_dict()
        assert all(torch.equal(one, theirs[name]) for name, one in layer.state_dict().items())


def test_surplus_heads_and_neurons_keep_fresh_weights(make_bert):
    teacher = make_bert(seed=1, num_hidden_layers=3)
    student = fresh(teacher, heads=6, head_size=4, ffn_size=40)
    before = copy.deepcopy(student)
    cut = extract(student, teacher, drawn(0))
    ours, were = (model.bert.encoder.layer[1] for model in (student, before))
    theirs = teacher.bert.encoder.layer[1]
    assert torch.equal(ours.attention.self.value.weight[:16], theirs.attention.self.value.weight)
    assert torch.equal(ours.attention.self.value.weight[16:], were.attention.self.value.weight[16:])
    assert torch.equal(ours.intermediate.dense.weight[32:], were.intermediate.dense.weight[32:])
    assert cut.ffn[0].tolist() == [*range(32), *[NO_SOURCE] * 8]


def test_a_student_of_the_teachers_depth_and_width_may_be_an_extract():
    check_extract(TEACHER, TEACHER)
    check_extract(shape(heads=8, ffn_size=128), TEACHER)  # fresh beyond the teacher's
    with pytest.raises(SettingsError, match=r"layers is 3, but the student's is 4"):
        check_extract(shape(layers=4), TEACHER)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 4}, r"layers is 3, but the student's is 4: take a smaller student"),
        ({"hidden_size": 24, "heads": 6}, r"hidden_size is 16, but the student's is 24"),
    ],
)
def test_a_deeper_or_wider_student_is_refused(make_bert, sizes, message):
    teacher = make_bert(num_hidden_layers=3)
    student = fresh(teacher, **sizes)
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(SettingsError, match=message):
        extract(student, teacher, drawn(0))
    assert all(torch.equal(one, before[name]) for name, one in student.state_dict().items())


def test_the_highest_scores_in_order_and_of_equal_ones_the_first():
    assert most_important(torch.tensor([1.0, 3.0, 2.0, 3.0, 0.0]), 3).tolist() == [1, 2, 3]
    assert most_important(torch.tensor([2.0, 1.0, 1.0, 1.0]), 2).tolist() == [0, 1]
    assert most_important(torch.tensor([1.0, 2.0]), 4).tolist() == [0, 1, NO_SOURCE, NO_SOURCE]


def test_more_heads_share_out_the_dimensions_of_the_teachers():
    """Two heads of four: the stronger half of each, then the weaker half of each."""
    scores_HK = torch.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    four = shape(hidden_size=8, heads=4, head_size=2)
    assert chosen_head_rows(scores_HK, four).tolist() == [0, 2, 6, 7, 1, 3, 4, 5]
    three = shape(hidden_size=8, heads=3, head_size=3)
    assert chosen_head_rows(scores_HK, three).tolist() == [0, 2, 3, 5, 6, 7, 1, -1, -1]


@given(
    seed=st.integers(0, 1000),
    layers=st.integers(1, 3),
    heads=st.integers(1, 4),
    head_size=st.integers(1, 4),
    hidden_size=st.integers(1, 16),
    ffn_size=st.integers(1, 32),
)
@settings(deadline=None, max_examples=60)
def test_a_cut_takes_each_neuron_once_and_the_same_number_of_each_head(
    seed, layers, heads, head_size, hidden_size, ffn_size
):
    student = shape(
        layers=layers,
        heads=heads,
        head_size=head_size,
        hidden_size=hidden_size,
        ffn_size=ffn_size,
    )
    cut = chosen_cut(student, TEACHER, drawn(seed))
    assert len(cut.layers) == len(cut.heads) == len(cut.ffn) == layers
    for vector, count, size in (
        (cut.hidden, hidden_size, 16),
        *((one, heads * head_size, 16) for one in cut.heads),
        *((one, ffn_size, 32) for one in cut.ffn),
    ):
        chosen = vector.tolist()
        assert chosen == sorted(set(chosen))
        assert len(chosen) == count
        assert chosen[0] >= 0
        assert chosen[-1] < size
    for one in cut.heads:
        counts = torch.bincount(one // 4, minlength=4)
        assert sorted(counts.tolist(), reverse=True)[:heads] == [head_size] * heads


def test_chance_takes_every_neuron_alike_and_layers_apart():
    """Of 400 draws half of the neurons: each 200 times, give or take four standard errors."""
    half = shape(hidden_size=8, heads=2, head_size=2, ffn_size=16)
    hidden, ffn, heads = torch.zeros(16), torch.zeros(2, 32), torch.zeros(16)
    for seed in range(400):
        cut = chosen_cut(half, TEACHER, drawn(seed))
        hidden[cut.hidden] += 1
        heads[cut.heads[0]] += 1
        ffn[0, cut.ffn[0]] += 1
        ffn[1, cut.ffn[1]] += 1
        assert cut.ffn[0].tolist() != cut.ffn[1].tolist()
    assert ((hidden - 200).abs() < 40).all()
    assert ((ffn - 200).abs() < 40).all()
    assert ((heads - 100).abs() < 35).all()  # two of four heads, two of four dimensions
    again = chosen_cut(half, TEACHER, drawn(7))
    assert torch.equal(again.hidden, chosen_cut(half, TEACHER, drawn(7)).hidden)
