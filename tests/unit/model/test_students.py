import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from stillhouse.model.anatomy import architecture_of, encoder_layers, encoder_parameters, ends_of
from stillhouse.model.chains import chain_config
from stillhouse.model.heads import outputs_of
from stillhouse.model.students import (
    build_student,
    initialise_student,
    set_dropout,
    student_config,
)
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.counts import count_parameters


def shape(layers=2, hidden_size=8, heads=2, ffn_size=20, activation="gelu"):
    return BertArchitecture(
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        ffn_size=ffn_size,
        activation=activation,
    )


def equal_weights(one, other):
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())


def test_a_student_shares_all_but_its_shape_with_the_teacher(make_bert):
    teacher = make_bert(labels=5, vocab_size=37, type_vocab_size=3, layer_norm_eps=1e-7).config
    teacher.problem_type = "single_label_classification"
    config = student_config(shape(3, 24, 6, 40, "relu"), teacher, dropout=0.25)
    for name in ("vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id"):
        assert getattr(config, name) == getattr(teacher, name)
    assert config.layer_norm_eps == 1e-7
    assert config.problem_type == "single_label_classification"
    assert config.id2label == {i: f"label {i}" for i in range(5)}
    assert config.label2id == {f"label {i}": i for i in range(5)}
    assert (config.num_hidden_layers, config.hidden_size) == (3, 24)
    assert (config.num_attention_heads, config.intermediate_size) == (6, 40)
    assert config.hidden_act == "relu"
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.25)


def test_a_student_is_of_its_teachers_family(make_model, family):
    teacher = make_model(family, labels=5, vocab_size=37, dropout=0.1)
    architecture = shape(3, 24, 6, 40, "relu")
    config = student_config(architecture, teacher.config)
    student = build_student(config, seed=0)
    assert type(student) is type(teacher)
    assert type(config) is type(teacher.config)
    assert architecture_of(config) == architecture
    assert ends_of(config) == ends_of(teacher.config)
    assert config.pad_token_id == teacher.config.pad_token_id
    assert config.id2label == {i: f"label {i}" for i in range(5)}


@pytest.mark.parametrize(("width", "expected"), [(8, 12), (12, 12), (24, 12)])
def test_factored_embeddings_keep_their_width(make_model, width, expected):
    teacher = make_model("factored electra")
    config = student_config(shape(hidden_size=width), teacher.config)
    assert config.embedding_size == expected
    student = build_student(config, seed=0)
    assert student.electra.embeddings.word_embeddings.weight.shape == (50, expected)
    assert hasattr(student.electra, "embeddings_project") is (width != expected)
    # Where the teacher has no projection, nor has its student, however wide.
    plain = student_config(shape(hidden_size=width), make_model("electra").config)
    assert plain.embedding_size == width


def test_equal_seeds_give_equal_weights_and_leave_the_global_state(make_bert):
    config = student_config(shape(), make_bert().config)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, same, other = (build_student(config, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert equal_weights(first, same)
    assert not equal_weights(first, other)


@pytest.mark.parametrize(
    ("architecture", "labels", "vocabulary"),
    [
        (shape(1, 8, 2, 20), 2, 50),
        (shape(3, 24, 6, 8, "relu"), 1, 101),
        (shape(2, 32, 4, 128), 7, 33),
    ],
)
def test_built_models_have_the_counted_parameters(
    tiny_config, family, architecture, labels, vocabulary
):
    teacher = tiny_config(family, labels=labels, vocab_size=vocabulary)
    student = build_student(student_config(architecture, teacher), seed=0)
    count = count_parameters(architecture, ends_of(teacher))
    assert encoder_parameters(student) == count.encoder
    assert sum(weight.numel() for weight in student.parameters()) == count.total


def test_from_scratch_keeps_the_fresh_weights(make_bert):
    teacher = make_bert(num_hidden_layers=4)
    config = student_config(shape(), teacher.config)
    student = build_student(config, seed=0)
    done = initialise_student(student, teacher, "scratch")
    assert equal_weights(student, build_student(config, seed=0))
    assert done.to_dict() == {"kind": "scratch", "layers": []}


def test_slices_come_from_spread_layers(make_bert):
    teacher = make_bert(num_hidden_layers=6)
    student = build_student(student_config(shape(3, 16, 4, 32), teacher.config), seed=0)
    done = initialise_student(student, teacher, "slices")
    assert done.to_dict() == {"kind": "slices", "layers": [0, 2, 5]}
    for layer, source in zip(student.bert.encoder.layer, (0, 2, 5), strict=True):
        assert equal_weights(layer, teacher.bert.encoder.layer[source])


def test_slices_may_come_from_the_layers_of_the_uniform_map(make_bert):
    teacher = make_bert(num_hidden_layers=6)
    student = build_student(student_config(shape(3, 16, 4, 32), teacher.config), seed=0)
    done = initialise_student(student, teacher, "slices", rule="uniform")
    assert done.layers == (1, 3, 5)
    for layer, source in zip(student.bert.encoder.layer, done.layers, strict=True):
        assert equal_weights(layer, teacher.bert.encoder.layer[source])


OUTPUTS = {"tags": 5, "spans": 2}


def logits(model, inputs):
    with torch.no_grad():
        return torch.stack(model.eval()(**inputs).to_tuple())


def test_a_student_answers_tokens_as_its_teacher_does(
    make_model, family, token_head, family_tokens, tmp_path
):
    """Of its family and with its labels; saved, it loads without stillhouse."""
    teacher = make_model(family, head=token_head, num_hidden_layers=3)
    config = student_config(shape(2, 8, 2, 20), teacher.config)
    student = build_student(config, seed=0, kind=token_head)
    assert type(student) is type(teacher)
    assert config.id2label == {i: f"label {i}" for i in range(OUTPUTS[token_head])}
    assert config.problem_type is None
    done = initialise_student(student, teacher, "slices")
    assert done.layers == (0, 2)
    student.save_pretrained(tmp_path)
    loaded = type(teacher).from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, family_tokens), logits(student, family_tokens))


def test_built_models_that_answer_tokens_have_the_counted_parameters(
    tiny_config, family, token_head
):
    teacher = tiny_config(family, labels=OUTPUTS[token_head])
    architecture = shape(3, 24, 6, 8, "relu")
    student = build_student(student_config(architecture, teacher), seed=0, kind=token_head)
    count = count_parameters(architecture, ends_of(teacher, token_head))
    assert encoder_parameters(student) == count.encoder
    assert sum(weight.numel() for weight in student.parameters()) == count.total


@pytest.mark.parametrize("family", ["bert", "roberta"], indirect=True)
def test_free_heads_answer_tokens_as_the_teachers_do(make_model, family, token_head, family_tokens):
    teacher = make_model(family, seed=1, head=token_head)
    free = BertArchitecture(layers=2, hidden_size=16, heads=6, head_size=4, ffn_size=32)
    student = build_student(student_config(free, teacher.config), seed=0, kind=token_head)
    initialise_student(student, teacher, "slices")
    with torch.no_grad():
        for layer in encoder_layers(student):
            layer.attention.output.dense.weight[:, 16:] = 0.0
    kept = family_tokens["attention_mask"].bool()
    found, expected = (logits(one, family_tokens)[:, kept] for one in (student, teacher))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_every_dropout_under_a_head_of_tokens_is_set(make_model, family, token_head, family_tokens):
    model = make_model(family, head=token_head, dropout=0.3).train()
    found = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert 0.3 in found
    set_dropout(model, 0.0)
    model.train()
    first, second = (outputs_of(model(**family_tokens)) for _ in range(2))
    assert torch.equal(first, second)
    again = build_student(model.config, seed=0, kind=token_head)
    assert {one.p for one in again.modules() if isinstance(one, nn.Dropout)} == {0.0}


FREE_HEAD_FAMILIES = ["bert", "roberta", "camembert", "xlm-roberta"]


def free_student(teacher, **sizes):
    """A student whose heads need not share its width out."""
    config = student_config(BertArchitecture(ffn_size=32, **sizes), teacher.config)
    return build_student(config, seed=0).eval()


@pytest.mark.parametrize("family", FREE_HEAD_FAMILIES, indirect=True)
def test_free_heads_can_do_what_the_teachers_do(make_model, family, family_tokens):
    """Of six heads four are the teacher's; where the others add nothing, outputs are its own."""
    teacher = make_model(family, seed=1, num_hidden_layers=3)
    student = free_student(teacher, layers=3, hidden_size=16, heads=6, head_size=4)
    assert initialise_student(student, teacher, "slices").layers == (0, 1, 2)
    with torch.no_grad():
        for layer in encoder_layers(student):
            layer.attention.output.dense.weight[:, 16:] = 0.0
        expected = teacher(**family_tokens, output_hidden_states=True)
        found = student(**family_tokens, output_hidden_states=True)
    kept = family_tokens["attention_mask"].bool()
    pairs = [(found.logits, expected.logits)]
    for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
        pairs.append((ours[kept], theirs[kept]))
    for ours, theirs in pairs:
        largest = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("family", FREE_HEAD_FAMILIES, indirect=True)
def test_the_head_of_a_narrow_student_of_free_heads_is_cut_by_hand(make_model, family):
    """Of 16 dimensions the first 8."""
    teacher = make_model(family, seed=1)
    student = free_student(teacher, layers=1, hidden_size=8, heads=3, head_size=4)
    initialise_student(student, teacher, "slices")
    if family == "bert":
        dense, outputs = teacher.bert.pooler.dense, teacher.classifier
    else:
        dense, outputs = teacher.classifier.dense, teacher.classifier.out_proj
    assert torch.equal(student.bert.pooler.dense.weight, dense.weight[:8, :8])
    assert torch.equal(student.bert.pooler.dense.bias, dense.bias[:8])
    assert torch.equal(student.classifier.weight, outputs.weight[:, :8])
    assert torch.equal(student.classifier.bias, outputs.bias)


def test_a_saved_student_loads_without_stillhouse(make_model, family, family_tokens, tmp_path):
    teacher = make_model(family, num_hidden_layers=3)
    student = build_student(student_config(shape(2, 8, 2, 20), teacher.config), seed=0)
    initialise_student(student, teacher, "slices")
    student.eval().save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(teacher)
    with torch.no_grad():
        assert torch.equal(loaded(**family_tokens).logits, student(**family_tokens).logits)


def test_dropout_of_a_loaded_model_is_set_everywhere(make_model, family, family_tokens, tmp_path):
    model = make_model(family, dropout=0.3).train()

    def is_deterministic():
        with torch.no_grad():
            first, second = (model(**family_tokens).logits for _ in range(2))
            return torch.equal(first, second)

    assert not is_deterministic()
    set_dropout(model, 0.0)
    assert is_deterministic()
    set_dropout(model, 0.5)
    assert not is_deterministic()
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tmp_path))
    dropouts = [module.p for module in again.modules() if isinstance(module, nn.Dropout)]
    assert set(dropouts) == {0.5}
    assert len(dropouts) > 2 * len(encoder_layers(again))


def test_a_dropout_of_the_head_alone_is_set_too(make_bert):
    model = make_bert(classifier_dropout=0.4)
    set_dropout(model, 0.2)
    assert model.dropout.p == model.config.classifier_dropout == 0.2


def test_dropout_of_attention_in_own_families_is_set_too(tiny_config):
    free = BertArchitecture(layers=1, hidden_size=16, heads=3, head_size=8, ffn_size=16)
    chain = ChainArchitecture(
        embedding_size=8, blocks=(ChainBlock(hidden_size=16, operations=("M",)),), head_size=8
    )
    teacher = tiny_config("bert")
    ids_BT = torch.arange(2, 8)[None]
    for config, part in (
        (student_config(free, teacher), "self"),
        (chain_config(chain, teacher), "inner"),
    ):
        model = build_student(config, seed=0).train()
        assert torch.equal(model(ids_BT).logits, model(ids_BT).logits)
        set_dropout(model, 0.5)
        for name, module in model.named_modules():
            if isinstance(module, nn.Dropout) and not name.endswith(f"{part}.dropout"):
                module.p = 0.0
        assert not torch.equal(model(ids_BT).logits, model(ids_BT).logits)
