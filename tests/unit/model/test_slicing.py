import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillhouse.model.anatomy import encoder_layers, head_paths
from stillhouse.model.kept_layers import spread_layers
from stillhouse.model.slicing import copy_slices


def projections(model, layer=0):
    """The matrices of a layer by a short name."""
    block = model.bert.encoder.layer[layer]
    attention = block.attention
    return {
        "query": attention.self.query,
        "key": attention.self.key,
        "value": attention.self.value,
        "attention_output": attention.output.dense,
        "ffn_input": block.intermediate.dense,
        "ffn_output": block.output.dense,
    }


def inscribe(model):
    """Writes row and column into every matrix: entry (r, c) is 1000·r + c, bias r is -r - 1."""
    with torch.no_grad():
        for part in projections(model).values():
            rows, columns = part.weight.shape
            part.weight.copy_(1000 * torch.arange(rows)[:, None] + torch.arange(columns))
            part.bias.copy_(-1 - torch.arange(rows))
    return model


def rows_of(part):
    """Teacher row of each row of an inscribed matrix, read from weights and from biases."""
    from_weight = (part.weight[:, 0] / 1000).round().int().tolist()
    assert (-1 - part.bias).int().tolist() == from_weight
    return from_weight


def columns_of(part):
    return (part.weight[0] % 1000).int().tolist()


def cut(make_bert, teacher, layers=None, **shape):
    """A student of another seed, cut out of the teacher, and its weights before the cut."""
    depth = len(layers) if layers else teacher.config.num_hidden_layers
    student = make_bert(seed=9, num_hidden_layers=depth, **shape)
    fresh = copy.deepcopy(student)
    copy_slices(student, teacher, layers or tuple(range(depth)))
    return student, fresh


def test_a_slice_of_full_shape_is_the_teacher(make_bert, tokens):
    teacher = make_bert(seed=1, num_hidden_layers=3)
    student, fresh = cut(make_bert, teacher)
    for name, weight in teacher.state_dict().items():
        assert torch.equal(student.state_dict()[name], weight), name
    with torch.no_grad():
        assert torch.equal(student(**tokens).logits, teacher(**tokens).logits)
        assert not torch.allclose(fresh(**tokens).logits, teacher(**tokens).logits)


def test_a_slice_of_full_shape_is_the_teacher_in_every_family(make_model, family, family_tokens):
    teacher = make_model(family, seed=1)
    student = make_model(family, seed=9)
    with torch.no_grad():
        expected = teacher(**family_tokens).logits
        assert not torch.allclose(student(**family_tokens).logits, expected)
        copy_slices(student, teacher, (0, 1))
        assert torch.equal(student(**family_tokens).logits, expected)


def outputs(model, inputs):
    with torch.no_grad():
        return torch.cat([part.flatten() for part in model(**inputs).to_tuple()])


def test_a_slice_of_full_shape_answers_tokens_as_the_teacher(
    make_model, family, token_head, family_tokens
):
    teacher = make_model(family, seed=1, head=token_head)
    student = make_model(family, seed=9, head=token_head)
    expected = outputs(teacher, family_tokens)
    assert not torch.allclose(outputs(student, family_tokens), expected)
    copy_slices(student, teacher, (0, 1))
    assert torch.equal(outputs(student, family_tokens), expected)


def test_a_head_of_tokens_is_cut_by_hand(make_model, family, token_head):
    """Of 16 dimensions the first 8, for every output."""
    teacher = make_model(family, seed=1, head=token_head)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    student = make_model(family, seed=9, head=token_head, **sizes)
    copy_slices(student, teacher, (1,))
    name = {"tags": "classifier", "spans": "qa_outputs"}[token_head]
    ours, theirs = getattr(student, name), getattr(teacher, name)
    assert torch.equal(ours.weight, theirs.weight[:, :8])
    assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize(
    ("taught", "learnt"), [("classes", "tags"), ("tags", "spans"), ("spans", "classes")]
)
def test_a_head_for_another_task_gives_nothing(make_model, family, taught, learnt):
    """In BERT the projections onto two classes and onto two tags have one name and one shape."""
    teacher = make_model(family, seed=1, head=taught, labels=2)
    student = make_model(family, seed=9, head=learnt, labels=2)
    fresh = copy.deepcopy(student)
    copy_slices(student, teacher, (0, 1))
    layers = zip(encoder_layers(student), encoder_layers(teacher), strict=True)
    for ours, theirs in layers:
        for weight, source in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(weight, source)
    for name in head_paths(student.config, learnt):
        kept, before = student.get_submodule(name), fresh.get_submodule(name)
        assert torch.equal(kept.weight, before.weight)
        assert torch.equal(kept.bias, before.bias)


def encoder(model):
    """The parts before, in and behind the layers by hand; `None` where a family has no such."""
    match model.config.model_type:
        case "bert":
            return model.bert.embeddings, model.bert.encoder.layer, model.bert.pooler.dense
        case "distilbert":
            inner = model.distilbert
            return inner.embeddings, inner.transformer.layer, model.pre_classifier
        case "electra":
            return model.electra.embeddings, model.electra.encoder.layer, model.classifier.dense
        case _:
            return model.roberta.embeddings, model.roberta.encoder.layer, model.classifier.dense


def test_a_narrow_student_is_cut_by_hand(make_model, family):
    """Two of four heads of 4, of 16 dimensions the first 8, of 32 inner neurons the first 20."""
    teacher = make_model(family, seed=1, num_hidden_layers=3)
    student = make_model(
        family,
        seed=9,
        num_hidden_layers=1,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=20,
    )
    copy_slices(student, teacher, (2,))
    (ours, [layer], head), (theirs, layers, their_head) = encoder(student), encoder(teacher)
    width = 12 if family == "factored electra" else 8  # factored embeddings stay whole
    for name, weight in ours.named_parameters():
        source = theirs.get_parameter(name)
        assert torch.equal(weight, source[..., :width]), name
    if family == "factored electra":
        projection = teacher.electra.embeddings_project
        assert torch.equal(student.electra.embeddings_project.weight, projection.weight[:8])
        assert torch.equal(student.electra.embeddings_project.bias, projection.bias[:8])
    assert {weight.shape for weight in layer.parameters()} == {
        (8, 8),
        (8,),
        (20, 8),
        (20,),
        (8, 20),
    }
    for name, weight in layer.named_parameters():
        corner = tuple(slice(size) for size in weight.shape)
        assert torch.equal(weight, layers[2].get_parameter(name)[corner]), name
    assert torch.equal(head.weight, their_head.weight[:8, :8])
    assert torch.equal(head.bias, their_head.bias[:8])
    outputs = getattr(student.classifier, "out_proj", student.classifier)
    their_outputs = getattr(teacher.classifier, "out_proj", teacher.classifier)
    assert torch.equal(outputs.weight, their_outputs.weight[:, :8])
    assert torch.equal(outputs.bias, their_outputs.bias)


def test_only_queries_and_keys_are_rescaled_where_heads_shrink(make_model, family):
    teacher = make_model(family, seed=1)
    student = make_model(family, seed=9, num_attention_heads=8)
    copy_slices(student, teacher, (0, 1))
    kept = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]
    (_, [ours, _], _), (_, [theirs, _], _) = encoder(student), encoder(teacher)
    if family == "distilbert":
        names = ["attention.q_lin", "attention.k_lin", "attention.v_lin"]
    else:
        names = ["attention.self.query", "attention.self.key", "attention.self.value"]
    for name, scale in zip(names, (2**0.25, 2**0.25, 1.0), strict=True):
        mine, source = ours.get_submodule(name), theirs.get_submodule(name)
        torch.testing.assert_close(mine.weight, scale * source.weight[kept])
        torch.testing.assert_close(mine.bias, scale * source.bias[kept])


@pytest.mark.parametrize(("teacher_width", "kept"), [(64, 32), (32, 32), (16, 16)])
def test_a_student_as_wide_as_its_embeddings_folds_the_projection(make_model, teacher_width, kept):
    """The first layer reads nearly what the teacher's does: in direction, and in length on average.

    Without folding the two have nothing in common.
    """
    family = "electra" if teacher_width == 32 else "factored electra"
    sizes = {"embedding_size": 32, "num_attention_heads": 4}
    teacher = make_model(family, seed=1, hidden_size=teacher_width, **sizes)
    student = make_model(family, seed=9, hidden_size=32, **sizes)
    fresh = copy.deepcopy(student)
    copy_slices(student, teacher, (0, 1))
    ids = torch.randint(1, 50, (8, 20), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = teacher.electra.embeddings(ids)
        if teacher_width != 32:
            wanted = teacher.electra.embeddings_project(wanted)
        got = student.electra.embeddings(ids)[..., :kept]
        before = fresh.electra.embeddings(ids)[..., :kept]
    alike = torch.cosine_similarity(got, wanted[..., :kept], dim=-1)
    assert alike.mean() > 0.95
    assert torch.cosine_similarity(before, wanted[..., :kept], dim=-1).abs().mean() < 0.3
    length, expected = (states.norm(dim=-1).mean().item() for states in (got, wanted[..., :kept]))
    assert length == pytest.approx(expected, rel=0.1)


def test_fewer_layers_are_the_teacher_without_the_others(make_bert, tokens):
    teacher = make_bert(seed=1, num_hidden_layers=5)
    student, _ = cut(make_bert, teacher, layers=(1, 4, 4))
    blocks = teacher.bert.encoder.layer
    teacher.bert.encoder.layer = nn.ModuleList([blocks[1], blocks[4], copy.deepcopy(blocks[4])])
    with torch.no_grad():
        assert torch.equal(student(**tokens).logits, teacher(**tokens).logits)


def test_the_teacher_is_left_alone(make_bert):
    teacher = make_bert(seed=1)
    before = copy.deepcopy(teacher.state_dict())
    student, _ = cut(make_bert, teacher, hidden_size=8, intermediate_size=20)
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()
    assert all(torch.equal(before[name], weight) for name, weight in teacher.state_dict().items())


def test_a_wrong_number_of_layers_is_refused(make_bert):
    with pytest.raises(ValueError, match="shorter"):
        copy_slices(make_bert(num_hidden_layers=3), make_bert(), (0, 1))


def test_leading_heads_are_kept_whole(make_bert):
    """Teacher: heads 0 to 3 own rows 0-3, 4-7, 8-11, 12-15. Two heads of the same size stay."""
    teacher = inscribe(make_bert())
    student, _ = cut(make_bert, teacher, hidden_size=8, num_attention_heads=2, intermediate_size=20)
    parts = projections(student)
    for name in ("query", "key", "value"):
        assert rows_of(parts[name]) == list(range(8))
        assert columns_of(parts[name]) == list(range(8))
    assert rows_of(parts["attention_output"]) == list(range(8))
    assert columns_of(parts["attention_output"]) == list(range(8))
    assert rows_of(parts["ffn_input"]) == list(range(20))
    assert columns_of(parts["ffn_input"]) == list(range(8))
    assert rows_of(parts["ffn_output"]) == list(range(8))
    assert columns_of(parts["ffn_output"]) == list(range(20))


def test_smaller_heads_come_from_the_first_dimensions_of_each_head(make_bert):
    teacher = inscribe(make_bert())
    student, _ = cut(make_bert, teacher, hidden_size=8)
    first_two_of_each = [0, 1, 4, 5, 8, 9, 12, 13]
    parts = projections(student)
    assert rows_of(parts["value"]) == first_two_of_each
    assert columns_of(parts["attention_output"]) == first_two_of_each
    assert rows_of(parts["attention_output"]) == list(range(8))


def test_products_of_smaller_heads_grow_by_the_root_of_the_ratio(make_bert):
    """Half the head size: each query·key product is √2 times the teacher's, biases included."""
    teacher = make_bert(seed=1)
    student, _ = cut(make_bert, teacher, hidden_size=8)
    ours, theirs = projections(student), projections(teacher)
    kept = [0, 1, 4, 5, 8, 9, 12, 13]
    for kind in ("weight", "bias"):
        product = getattr(ours["query"], kind) * getattr(ours["key"], kind)
        expected = getattr(theirs["query"], kind) * getattr(theirs["key"], kind)
        expected = expected[kept][:, :8] if kind == "weight" else expected[kept]
        torch.testing.assert_close(product, 2**0.5 * expected)
    # Neither side carries the whole factor.
    assert torch.allclose(ours["query"].bias / theirs["query"].bias[kept], torch.tensor(2**0.25))


def test_more_heads_take_the_next_dimensions_of_the_same_heads(make_bert):
    """Eight heads of 2 out of four of 4: every row of the teacher is used once."""
    teacher = inscribe(make_bert())
    student, _ = cut(make_bert, teacher, num_attention_heads=8)
    first_half, second_half = [0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]
    assert rows_of(projections(student)["value"]) == first_half + second_half
    assert columns_of(projections(student)["attention_output"]) == first_half + second_half


def test_heads_that_the_teacher_cannot_fill_keep_fresh_weights(make_bert):
    teacher = make_bert(seed=1)
    student, fresh = cut(make_bert, teacher, hidden_size=24, num_attention_heads=6)
    ours, before = projections(student), projections(fresh)
    theirs = projections(teacher)
    for name in ("query", "key", "value"):
        assert torch.equal(ours[name].weight[16:], before[name].weight[16:])
        assert torch.equal(ours[name].bias[16:], before[name].bias[16:])
        assert torch.equal(ours[name].weight[:16, :16], theirs[name].weight)
        assert torch.equal(ours[name].bias[:16], theirs[name].bias)
    output = ours["attention_output"].weight
    assert torch.equal(output[:, 16:], before["attention_output"].weight[:, 16:])


def test_axes_beyond_the_teacher_keep_fresh_weights(make_bert):
    teacher = make_bert(seed=1)
    student, fresh = cut(
        make_bert, teacher, hidden_size=24, num_attention_heads=6, intermediate_size=40
    )
    theirs, before = teacher.state_dict(), fresh.state_dict()
    for name, weight in student.state_dict().items():
        corner = tuple(slice(size) for size in theirs[name].shape)
        assert torch.equal(weight[corner], theirs[name]), name
        surplus = torch.ones_like(weight, dtype=torch.bool)
        surplus[corner] = False
        assert torch.equal(weight[surplus], before[name][surplus]), name


def attention_scores(model, hidden_BTD):
    """Query·key/√K of the first layer, `[B, H, T, T]`, minus each row's mean.

    A softmax does not see the mean.
    """
    attention = model.bert.encoder.layer[0].attention.self
    heads = model.config.num_attention_heads

    def split(projected_BTD):
        batch, length, width = projected_BTD.shape
        return projected_BTD.view(batch, length, heads, width // heads).transpose(1, 2)

    query, key = split(attention.query(hidden_BTD)), split(attention.key(hidden_BTD))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores - scores.mean(dim=-1, keepdim=True)


def share_one_pattern(model, generator):
    """Makes the dimensions of each head agree, as those of trained heads in part do.

    Each head asks one question of a token, all its dimensions with other strength, plus a little
    noise: the query·key product then grows with the number of dimensions, not with its root.
    """
    layer = model.bert.encoder.layer[0].attention.self
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    size = width // heads
    strength = 0.5 + torch.rand(heads, size, 1, generator=generator)
    with torch.no_grad():
        for part in (layer.query, layer.key):
            pattern = torch.randn(heads, 1, width, generator=generator) / width**0.5
            noise = 0.05 * torch.randn(heads, size, width, generator=generator) / width**0.5
            part.weight.copy_((strength * pattern + noise).flatten(0, 1))
            part.bias.zero_()


@pytest.mark.parametrize("heads", [4, 8])
def test_attention_scores_keep_their_scale_when_heads_shrink(make_bert, heads):
    """Heads of 16 cut to 8 or 4: spread of scores near the teacher's, without rescaling not."""
    generator = torch.Generator().manual_seed(0)
    teacher = make_bert(hidden_size=32, num_attention_heads=2)
    share_one_pattern(teacher, generator)
    student, _ = cut(make_bert, teacher, hidden_size=32, num_attention_heads=heads)
    plain = copy.deepcopy(student)
    theirs, ours = projections(teacher), projections(plain)
    size = 32 // heads
    kept = [16 * (head % 2) + size * (head // 2) + i for head in range(heads) for i in range(size)]
    with torch.no_grad():
        for name in ("query", "key"):
            ours[name].weight.copy_(theirs[name].weight[kept])
            ours[name].bias.copy_(theirs[name].bias[kept])
        hidden_BTD = torch.randn(16, 12, 32, generator=generator)
        expected = attention_scores(teacher, hidden_BTD).std()
        rescaled = attention_scores(student, hidden_BTD).std() / expected
        unscaled = attention_scores(plain, hidden_BTD).std() / expected
    assert 0.8 < rescaled < 1.2
    assert unscaled < 0.8


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (3, 6, (0, 2, 5)),
        (1, 12, (11,)),
        (1, 1, (0,)),
        (4, 12, (0, 4, 7, 11)),
        (6, 12, (0, 2, 4, 7, 9, 11)),
        (2, 12, (0, 11)),
        (4, 2, (0, 0, 1, 1)),
    ],
)
def test_layers_are_spread_evenly(student, teacher, expected):
    assert spread_layers(student, teacher) == expected


@given(student=st.integers(1, 40), teacher=st.integers(1, 40))
def test_spread_layers_ascend_from_the_first_to_the_last(student, teacher):
    layers = spread_layers(student, teacher)
    assert len(layers) == student
    assert layers[-1] == teacher - 1
    assert student == 1 or layers[0] == 0
    gaps = [after - before for before, after in itertools.pairwise(layers)]
    if gaps:
        assert min(gaps) >= (1 if student <= teacher else 0)
        assert max(gaps) - min(gaps) <= 1
    if student == teacher:
        assert layers == tuple(range(teacher))
