"""Counts of chains against a network of plain torch modules and torch's own FLOP counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import OPERATIONS, ChainArchitecture, ChainBlock
from stillhouse.space.chain_counts import (
    bridge_flops,
    bridge_parameters,
    count_chain_flops,
    count_chain_parameters,
    operation_flops,
    operation_parameters,
)
from stillhouse.space.counts import Ends, count_flops, count_parameters

ENDS = Ends(vocab_size=101, positions=40, token_types=2, labels=3)


def chain(embedding_size, *blocks, head_size=4, ffn_ratio=4):
    return ChainArchitecture(
        embedding_size=embedding_size,
        blocks=tuple(
            ChainBlock(hidden_size=width, operations=tuple(operations.split()))
            for width, operations in blocks
        ),
        head_size=head_size,
        ffn_ratio=ffn_ratio,
    )


CHAINS = [
    chain(8, (8, "M F S3 S5 S7")),
    chain(6, (8, "S7 M"), (12, "F"), (12, "S3 S3"), (4, "M"), ffn_ratio=3),
    chain(16, (24, "F F"), head_size=24),
]


def total(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


class Attention(nn.Module):
    def __init__(self, width, head_size):
        super().__init__()
        self.heads = width // head_size
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden_TD):
        query_HTK, key_HTK, value_HTK = (
            project(hidden_TD).unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for project in self.projections[:3]
        )
        context_HTK = (query_HTK @ key_HTK.transpose(1, 2)).softmax(-1) @ value_HTK
        return self.projections[3](context_HTK.transpose(0, 1).flatten(1))


class Transposed(nn.Module):
    def __init__(self, width, kernel):
        super().__init__()
        self.depthwise = nn.Conv1d(
            width, width, kernel, padding=kernel // 2, groups=width, bias=False
        )

    def forward(self, hidden_TD):
        return self.depthwise(hidden_TD.T[None])[0].T


def separable(width, kernel):
    return nn.Sequential(nn.ReLU(), Transposed(width, kernel), nn.Linear(width, width))


def build_operation(name, width, architecture):
    if name == "M":
        return Attention(width, architecture.head_size)
    if name == "F":
        inner = width * architecture.ffn_ratio
        return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
    kernel = int(name[1:])
    return nn.Sequential(separable(width, kernel), nn.LayerNorm(width), separable(width, kernel))


def build(architecture):
    """Modules by part, and a function that runs them on some tokens."""
    narrow = before = architecture.embedding_size
    tables = [nn.Embedding(rows, narrow) for rows in (101, 40, 2)]
    norm = nn.LayerNorm(narrow)
    bridges, operations, steps = [], [], []
    for block in architecture.blocks:
        width = block.hidden_size
        if width != before:
            bridges.append(nn.Linear(before, width))
            steps.append(bridges[-1])
        for name in block.operations:
            inner, after = build_operation(name, width, architecture), nn.LayerNorm(width)
            operations += [inner, after]
            steps.append(lambda x, inner=inner, after=after: after(x + inner(x)))
        before = width
    pooler, outputs = nn.Linear(before, before), nn.Linear(before, 3)

    def run(length):
        hidden_TD = norm(sum(table(torch.ones(length, dtype=torch.long)) for table in tables))
        for step in steps:
            hidden_TD = step(hidden_TD)
        return outputs(torch.tanh(pooler(hidden_TD[:1])))

    return {
        "embeddings": [*tables, norm],
        "bridges": bridges,
        "operations": operations,
        "head": [pooler, outputs],
    }, run


@pytest.mark.parametrize("architecture", CHAINS, ids=lambda one: one.key)
def test_parameters_are_those_of_the_modules(architecture):
    parts, _ = build(architecture)
    count = count_chain_parameters(architecture, ENDS)
    for part, modules in parts.items():
        assert getattr(count, part) == total(*modules), part
    assert count.total == total(*(module for modules in parts.values() for module in modules))


@pytest.mark.parametrize("architecture", CHAINS, ids=lambda one: one.key)
@pytest.mark.parametrize("length", [1, 13])
def test_flops_are_those_that_torch_counts(architecture, length):
    _, run = build(architecture)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(length)
    assert count_chain_flops(architecture, ENDS, length=length) == counter.get_total_flops()


def test_a_chain_of_attention_and_feed_forward_in_turn_is_bert():
    one = chain(128, (192, "M F M F M F"), head_size=64)
    bert = BertArchitecture(layers=3, hidden_size=192, heads=3, ffn_size=768)
    ends = Ends(vocab_size=500, positions=64, token_types=2, labels=5, factored_size=128)
    ours, theirs = count_chain_parameters(one, ends), count_parameters(bert, ends)
    assert ours.embeddings + ours.bridges == theirs.embeddings
    assert (ours.operations, ours.head, ours.total) == (theirs.encoder, theirs.head, theirs.total)
    assert count_chain_flops(one, ends, length=17) == count_flops(bert, ends, length=17)


@pytest.mark.parametrize(
    ("operation", "parameters", "flops"),
    [
        # Width 2, ratio 3, 5 tokens. M: 4 · (4 + 2) + 4; 2 · 5 · (4 · 4 + 2 · 5 · 2).
        ("M", 28, 360),
        # F: 2 · 6 + 6 and 6 · 2 + 2, and 4; 2 · 5 · 24.
        ("F", 36, 240),
        # S: 2 · (2 · K + 4 + 2 + 4); 2 · 5 · 2 · (2 · K + 4).
        ("S3", 32, 200),
        ("S5", 40, 280),
        ("S7", 48, 360),
    ],
)
def test_single_operations_by_hand(operation, parameters, flops):
    assert operation_parameters(operation, 2, 3) == parameters
    assert operation_flops(operation, 2, 3, length=5) == flops


def test_bridges_by_hand():
    assert bridge_parameters(3, 5) == 20
    assert bridge_flops(3, 5, length=2) == 60
    assert bridge_parameters(4, 4) == bridge_flops(4, 4, length=2) == 0


def test_a_table_of_operations_and_bridges_sums_up_to_the_network():
    architecture = CHAINS[1]
    names = [(name, b.hidden_size) for b in architecture.blocks for name in b.operations]
    count = count_chain_parameters(architecture, ENDS)
    assert count.operations == sum(operation_parameters(name, width, 3) for name, width in names)
    steps = [(6, 8), (8, 12), (12, 4)]
    assert count.bridges == sum(bridge_parameters(*step) for step in steps)
    flops = sum(operation_flops(name, width, 3, 9) for name, width in names)
    flops += sum(bridge_flops(*step, 9) for step in steps)
    head = 2 * (4 * 4 + 4 * 3)
    assert count_chain_flops(architecture, ENDS, length=9) == flops + head


def test_an_unknown_operation_is_refused():
    for count in (operation_parameters, lambda *given: operation_flops(*given, 128)):
        with pytest.raises(SpaceError, match=f"one of {', '.join(OPERATIONS)}, got 'S9'"):
            count("S9", 64, 4)
