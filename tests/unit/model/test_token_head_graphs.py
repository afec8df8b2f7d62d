"""Taggers and readers of every family as ONNX files, in float32 and in 8 bits."""

import numpy as np
import pytest
import torch
from transformers import MobileBertConfig

from stillhouse.model.chains import chain_config
from stillhouse.model.heads import auto_class_of
from stillhouse.model.inputs import input_names
from stillhouse.model.onnx_graph import float_weights, open_session, quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock

FREE = BertArchitecture(layers=2, hidden_size=24, heads=2, head_size=16, ffn_size=48)
CHAIN = ChainArchitecture(
    embedding_size=16,
    blocks=(
        ChainBlock(hidden_size=24, operations=("S3", "M", "F")),
        ChainBlock(hidden_size=16, operations=("M", "S5")),
    ),
    head_size=8,
)
FAMILIES = (
    "bert", "roberta", "distilbert", "factored electra", "mobilebert", "free heads", "chain",
)  # fmt: skip
OUTPUTS = {"tags": ("logits",), "spans": ("start_logits", "end_logits")}


def config_of(family, tiny_config, outputs):
    match family:
        case "free heads":
            return student_config(FREE, tiny_config("bert", labels=outputs))
        case "chain":
            return chain_config(CHAIN, tiny_config("bert", labels=outputs))
        case "mobilebert":
            return MobileBertConfig(
                vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=32, intra_bottleneck_size=16, embedding_size=8,
                max_position_embeddings=24, num_labels=outputs,
            )  # fmt: skip
    return tiny_config(family, labels=outputs)


@pytest.fixture(
    scope="module",
    params=[(family, kind) for family in FAMILIES for kind in OUTPUTS],
    ids="-".join,
)
def written(request, tiny_config, tmp_path_factory):
    """A kind of task, a model for it with random weights, and its file of float32."""
    family, kind = request.param
    config = config_of(family, tiny_config, 5 if kind == "tags" else 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto_class_of(kind).from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1 and weight.numel():
                    weight.normal_(std=0.2)
    path = tmp_path_factory.mktemp("graph") / "float32.onnx"
    return kind, model, write_graph(model, path, inputs=input_names(config))


def drawn(graph, batch, length):
    """Texts of different lengths, padded."""
    generator = np.random.default_rng(batch * length)
    mask = (np.arange(length) < generator.integers(1, length + 1, (batch, 1))).astype(np.int64)
    values = {
        "input_ids": generator.integers(3, 50, (batch, length)),
        "attention_mask": mask,
        "token_type_ids": generator.integers(0, 2, (batch, length)),
    }
    return {name: values[name] for name in graph.inputs}


def answers_of(path, names, inputs):
    return dict(zip(names, open_session(path, threads=1).run(list(names), inputs), strict=True))


@pytest.mark.slow
def test_a_file_of_any_family_says_of_every_token_what_the_model_says(written):
    kind, model, graph = written
    assert graph.outputs == OUTPUTS[kind]
    for batch, length in ((1, 1), (1, 24), (4, 7)):
        inputs = drawn(graph, batch, length)
        with torch.no_grad():
            told = model(**{name: torch.from_numpy(one) for name, one in inputs.items()})
        found = answers_of(graph.path, graph.outputs, inputs)
        kept = inputs["attention_mask"].astype(bool)
        for name in graph.outputs:
            expected = told[name].numpy()
            assert found[name].shape == expected.shape == (batch, length, *expected.shape[2:])
            np.testing.assert_allclose(found[name][kept], expected[kept], atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_a_file_in_8_bits_says_nearly_the_same(written, tmp_path, precision):
    _, _, graph = written
    path = tmp_path / "small.onnx"
    if precision == "int8":
        quantise_graph(graph.path, path)
    else:
        quantise_statically(graph.path, path, [drawn(graph, 8, length) for length in (7, 24)])
    assert float_weights(path) == ()
    inputs = drawn(graph, 4, 7)
    exact, near = (answers_of(one, graph.outputs, inputs) for one in (graph.path, path))
    kept = inputs["attention_mask"].astype(bool)
    for name in graph.outputs:
        gap = np.abs(near[name][kept] - exact[name][kept])
        assert 0 < gap.mean() <= 0.1 * np.abs(exact[name][kept]).max()
