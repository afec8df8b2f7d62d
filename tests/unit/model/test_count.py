import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.model.count import paper_flops, paper_parameters, true_flops, true_parameters
from stillhouse.space.architecture import BertArchitecture

FREE = BertArchitecture(layers=2, hidden_size=8, heads=3, head_size=4, ffn_size=20)


def total(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


def test_true_parameters_are_those_of_the_model(make_bert):
    model = make_bert(labels=5)
    architecture = architecture_of(model.config)
    assert true_parameters(architecture, model.config) == total(model)
    bare = true_parameters(architecture, model.config, bare=True)
    assert bare == total(model.bert)
    assert bare == total(model) - total(model.classifier)


def test_the_ends_of_a_configuration_are_all_that_is_read_of_it(make_bert):
    config = make_bert().config
    assert true_parameters(FREE, config) == true_parameters(FREE, ends_of(config))
    assert true_flops(FREE, config) == true_flops(FREE, ends_of(config))


def test_true_flops_by_hand(make_bert):
    # A token of a layer: 3 · 8 · 12 and 12 · 8 in attention, 2 · 8 · 20 in the feed-forward block,
    # 2 · 12 for each token that it looks at. The pooler and 3 outputs read one token.
    config = make_bert(labels=3).config
    layer = 10 * (4 * 8 * 12 + 2 * 8 * 20 + 10 * 2 * 12)
    assert true_flops(FREE, config, length=10) == 2 * (2 * layer + 8 * 8 + 8 * 3)
    assert true_flops(FREE, config, length=10, bare=True) == 2 * (2 * layer + 8 * 8)


def counted_by_torch(model, length):
    """The fused kernel of attention is no product that torch counts, the plain one is."""
    tokens = torch.full((1, length), 5)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return counter.get_total_flops()


@pytest.mark.parametrize("length", [1, 13])
def test_counts_of_every_head_are_those_of_the_model(make_model, family, head, length):
    model = make_model(family, head=head)
    architecture, ends = architecture_of(model.config), ends_of(model.config, head)
    assert true_parameters(architecture, ends) == total(model)
    assert true_flops(architecture, ends, length=length) == counted_by_torch(model, length)


def test_counts_of_students_of_other_families(make_own, own_family, own_architecture, head):
    model = make_own(own_family, head=head)
    ends = ends_of(model.config, head)
    assert true_parameters(own_architecture, ends) == total(model)
    assert true_flops(own_architecture, ends, length=13) == counted_by_torch(model, 13)


def test_an_encoder_under_a_head_of_tokens_has_no_pooler(make_model, family, token_head):
    model = make_model(family, head=token_head)
    bare = true_parameters(
        architecture_of(model.config), ends_of(model.config, token_head), bare=True
    )
    assert bare == total(model.base_model)


def test_flops_of_tags_by_hand(make_bert):
    layer = 10 * (4 * 8 * 12 + 2 * 8 * 20 + 10 * 2 * 12)
    ends = ends_of(make_bert(labels=3).config, "tags")
    assert true_flops(FREE, ends, length=10) == 2 * (2 * layer + 10 * 8 * 3)
    assert true_flops(FREE, ends, length=10, bare=True) == 2 * 2 * layer


def test_the_papers_formulas_know_no_head_size():
    for head_size in (2, 64):
        other = BertArchitecture(layers=2, hidden_size=8, heads=3, head_size=head_size, ffn_size=20)
        assert paper_parameters(other) == paper_parameters(FREE)
        assert paper_flops(other) == paper_flops(FREE)


def test_the_papers_formulas_by_hand():
    # A quarter of the 12 heads: queries, keys and values count as 8 × 2 each.
    attention = 3 * 8 * 2 + 8 * 8 + 6 * 8
    feed_forward = 2 * 8 * 20 + 20 + 3 * 8
    ends = 8 * (30_522 + 512 + 4) + 8 * 8 + 2 * 8
    assert paper_parameters(FREE) == ends + 2 * (attention + feed_forward)
    layer = 10 * (3 * 8 * 2 + 8 * 8 + 2 * 8 * 20 + 2 * 10 * 2)
    assert paper_flops(FREE, length=10) == 2 * layer + 10 * 8 * 8 + 2 * 8
    assert paper_flops(FREE) == paper_flops(FREE, length=128)


@pytest.mark.parametrize(("given", "found"), [(64, 64), (None, 4), (4, 4)])
def test_an_architecture_has_the_head_size_of_its_configuration(given, found):
    config = BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    config.head_size = given
    architecture = architecture_of(config)
    assert architecture.head_size == found
    assert architecture.has_free_heads == (found == 64)
