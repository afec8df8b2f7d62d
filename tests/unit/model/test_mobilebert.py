"""MobileBERTs that transformers builds as their architectures say."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, DistilBertConfig, MobileBertConfig, RobertaConfig

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import (
    architecture_of,
    encoder_layers,
    encoder_parameters,
    ends_of,
    usable_positions,
)
from stillhouse.model.count import true_flops, true_parameters
from stillhouse.model.described import described
from stillhouse.model.encoders import build_encoder
from stillhouse.model.mobilebert import build_mobilebert, mobilebert_config, mobilebert_of
from stillhouse.model.students import build_student, student_config
from stillhouse.space.counts import Ends, count_parameters
from stillhouse.space.mobilebert import MobileBertArchitecture, mobilebert, mobilebert_tiny
from stillhouse.space.published import autodistill

SMALL = MobileBertArchitecture(
    layers=2,
    hidden_size=48,
    bottleneck_size=16,
    heads=2,
    ffn_size=40,
    ffn_count=3,
    embedding_size=24,
)
SMALL_TINY = replace(SMALL, ffn_count=2, bottleneck_attention=True)


@pytest.fixture
def teacher():
    return BertConfig(
        vocab_size=97,
        max_position_embeddings=40,
        type_vocab_size=2,
        hidden_size=32,
        num_attention_heads=4,
        id2label={0: "no", 1: "perhaps", 2: "yes"},
    )


def parameters(model):
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("architecture", [SMALL, SMALL_TINY, replace(SMALL, embedding_size=48)])
def test_counts_are_those_of_the_model(architecture, teacher):
    config = student_config(architecture, teacher)
    model = build_student(config, seed=0)
    counts = count_parameters(architecture, ends_of(config))
    assert counts.total == parameters(model) == true_parameters(architecture, config)
    assert counts.encoder == encoder_parameters(model)
    assert counts.head == parameters(model.classifier)
    assert len(encoder_layers(model)) == architecture.layers

    tokens_BT = torch.full((1, 20), 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.set_attn_implementation("eager")
        model(input_ids=tokens_BT)
    assert true_flops(architecture, config, length=20) == counter.get_total_flops()


@pytest.mark.parametrize("architecture", [SMALL, SMALL_TINY])
@pytest.mark.parametrize(("kind", "labels"), [("tags", 5), ("spans", 2)])
def test_counts_of_those_that_answer_tokens(architecture, teacher, kind, labels):
    teacher.id2label = {index: f"tag {index}" for index in range(labels)}
    config = student_config(architecture, teacher)
    assert config.id2label == teacher.id2label
    model = build_student(config, seed=0, kind=kind)
    counts = count_parameters(architecture, ends_of(config, kind))
    assert counts.total == parameters(model)
    assert counts.head == 48 * labels + labels
    tokens_BT = torch.full((1, 20), 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.set_attn_implementation("eager")
        model(input_ids=tokens_BT)
    found = true_flops(architecture, ends_of(config, kind), length=20)
    assert found == counter.get_total_flops()


def test_the_hand_crafted_ones_have_the_published_sizes():
    ends = Ends(vocab_size=30_522, positions=512, token_types=2, labels=0)
    assert count_parameters(mobilebert(), ends).total == 24_581_888
    assert count_parameters(mobilebert_tiny(), ends).total == 15_485_696
    published = MobileBertConfig(classifier_activation=False)
    assert mobilebert_of(published) == mobilebert()
    with torch.device("meta"):
        assert parameters(build_encoder(published, seed=0)) == 24_581_888


def test_the_space_spans_what_transformers_counts():
    ends = Ends(vocab_size=30_522, positions=512, token_types=2, labels=0)
    by_size = sorted(autodistill(), key=lambda one: count_parameters(one, ends).total)
    teacher = BertConfig()
    for one in (by_size[0], by_size[288], by_size[-1]):
        with torch.device("meta"):
            built = build_encoder(mobilebert_config(one, teacher), seed=0)
        assert parameters(built) == count_parameters(one, ends).total


@pytest.mark.parametrize("width", [24, 32, 48])
def test_word_embeddings_begin_as_the_teachers_principal_components(width, teacher):
    encoder = build_encoder(teacher, seed=1)
    words_VD = encoder.get_input_embeddings().weight.detach()
    with torch.no_grad():
        words_VD[:, 5] *= 20  # a direction that matters most
    architecture = replace(SMALL, embedding_size=width)
    config = mobilebert_config(architecture, teacher)
    student = build_mobilebert(config, encoder, seed=0)
    found_VE = student.get_input_embeddings().weight.detach()
    assert found_VE.shape == (97, width)
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    # Distances between words are kept as well as so many dimensions can.
    singular = torch.linalg.svdvals(words_VD.double())
    kept = torch.linalg.svdvals(found_VE.double())
    torch.testing.assert_close(kept[:32], singular[:width], rtol=1e-4, atol=1e-5)
    again = build_mobilebert(config, encoder, seed=0)
    assert all(
        torch.equal(one, other)
        for one, other in zip(student.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("architecture", [SMALL, SMALL_TINY])
def test_an_architecture_comes_back_from_its_configuration(architecture, teacher):
    config = mobilebert_config(architecture, teacher, dropout=0.2)
    assert described(config) == mobilebert_of(config) == architecture
    assert usable_positions(config) == 40
    assert config.num_labels == 3
    assert config.id2label == teacher.id2label
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.2


def test_a_teacher_without_token_types_gives_one_to_its_students():
    teacher = DistilBertConfig(vocab_size=97, dim=32, n_heads=4, max_position_embeddings=40)
    built = build_encoder(mobilebert_config(SMALL, teacher), seed=0)
    ends = replace(ends_of(teacher), labels=0)
    assert ends.token_types == 0
    assert count_parameters(SMALL, ends).total == parameters(built)


def test_a_block_is_built_as_the_paper_says(teacher):
    """Norms without statistics; values from the stream, or from the bottleneck in the tiny one."""
    layer = encoder_layers(build_student(mobilebert_config(SMALL, teacher), seed=0))[0]
    assert type(layer.output.LayerNorm).__name__ == "NoNorm"
    assert layer.attention.self.value.in_features == SMALL.hidden_size
    assert layer.attention.self.query.in_features == SMALL.bottleneck_size
    assert len(layer.ffn) == SMALL.ffn_count - 1
    tiny = encoder_layers(build_student(mobilebert_config(SMALL_TINY, teacher), seed=0))[0]
    assert tiny.attention.self.value.in_features == SMALL.bottleneck_size
    assert not hasattr(tiny.bottleneck, "attention")


def test_a_mobilebert_is_no_teacher(teacher):
    with pytest.raises(TeacherError, match="'mobilebert' has its layers in bottlenecks"):
        architecture_of(mobilebert_config(SMALL, teacher))


def test_other_builds_are_told_apart():
    ib_bert = MobileBertConfig(
        key_query_shared_bottleneck=False, normalization_type="layer_norm", hidden_act="gelu"
    )
    with pytest.raises(TeacherError, match="normalization_type 'layer_norm' instead of 'no_norm'"):
        mobilebert_of(ib_bert)
    # The published tiny one has a shared bottleneck that its attention does not read.
    tiny = MobileBertConfig(num_feedforward_networks=2, use_bottleneck_attention=True)
    assert mobilebert_of(tiny) == mobilebert_tiny()


def test_positions_that_begin_after_the_padding_are_refused():
    teacher = RobertaConfig(vocab_size=97, hidden_size=32, num_attention_heads=4)
    with pytest.raises(TeacherError, match="positions from 2, MobileBERT from 0"):
        mobilebert_config(SMALL, teacher)
