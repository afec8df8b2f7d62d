"""Files of models trained in few bits, beside numpy's whole numbers and the models themselves."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from stillhouse.errors import ExportError
from stillhouse.model import onnx_graph, onnx_trained
from stillhouse.model.lsq import quantise_model, quantised_parts, settle
from stillhouse.model.lsq_parts import QuantisedLinear
from stillhouse.model.lsq_ranges import set_activation_clips, set_weight_clips
from stillhouse.model.onnx_graph import EXACT_SUMS, open_session, sums_saturate, write_graph
from stillhouse.model.onnx_trained import ServedLinear, float_products, write_trained_graph

INPUTS = ("input_ids", "attention_mask")


def quantised(model, tokens, bits):
    quantise_model(model, weight_bits=bits)
    set_weight_clips(model, "quantile")
    set_activation_clips(model, tokens, "kl")
    settle(model)
    return model


def many_texts(count=60):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(3, 50, (count, 12), generator=generator)
    mask = (torch.arange(12) < torch.randint(1, 13, (count, 1), generator=generator)).long()
    return {"input_ids": rows, "attention_mask": mask}


@torch.no_grad()
def both(model, path, fed):
    expected = model(**fed).logits.numpy()
    session = open_session(path, threads=1)
    [found] = session.run(["logits"], {name: values.numpy() for name, values in fed.items()})
    return expected, found


@pytest.fixture(scope="module", params=[8, 2])
def trained(request, make_bert, tokens, tmp_path_factory):
    """A classifier of some bits, and its file."""
    model = quantised(make_bert(seed=request.param), tokens, request.param)
    path = tmp_path_factory.mktemp("trained") / "model.onnx"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = write_trained_graph(model, path, inputs=INPUTS)
    assert graph.inputs == INPUTS
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return model, path, request.param


def test_logits_are_those_of_the_model(trained):
    """But where a sum of another order falls on the other side of a step."""
    model, path, _ = trained
    expected, found = both(model, path, many_texts())
    gaps = np.abs(found - expected).max(axis=1)
    assert np.mean(gaps < 1e-5) > 0.7
    assert gaps.max() < 0.05 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.98


def test_what_other_texts_are_in_a_batch_does_not_matter(trained):
    _, path, _ = trained
    session = open_session(path, threads=1)
    fed = {name: values.numpy() for name, values in many_texts(8).items()}
    [together] = session.run(None, fed)
    alone = [session.run(None, {name: one[i : i + 1] for name, one in fed.items()}) for i in (0, 5)]
    assert np.array_equal(alone[0][0][0], together[0])
    assert np.array_equal(alone[1][0][0], together[5])


def test_every_quantised_product_is_one_of_whole_numbers(trained, tmp_path):
    """Of two layers: six projections and two products of attention each; and the pooler's."""
    _, path, _ = trained
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] + kinds["QLinearMatMul"] == 2 * (6 + 2) + 1
    assert kinds["MatMul"] + kinds["Gemm"] == 1  # of the classifier, which is not quantised
    assert float_products(path) == ()


def test_weights_are_the_models_as_whole_numbers(trained):
    model, path, bits = trained
    graph = onnx.load(path).graph
    kept = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    codes = [values for values in kept.values() if values.dtype == np.int8]
    parts = quantised_parts(model)
    assert sorted(one.size for one in codes) == sorted(
        part.weight.numel() for part in parts.values()
    )
    assert max(np.abs(one).max() for one in codes) == 2 ** (bits - 1) - 1
    table = parts["bert.embeddings.word_embeddings"]
    [found] = [one for one in codes if one.shape == table.weight.shape]
    step = table.weight_clip.item() / (2 ** (bits - 1) - 1)
    np.testing.assert_allclose(found * step, table.weight.numpy(force=True), rtol=1e-6)
    large = {one.shape for one in kept.values() if one.dtype == np.float32 and one.ndim > 1}
    assert large <= {(2, 16), (3, 16), (16, 3)}  # of token types and the classifier


def test_only_weights_of_eight_bits_ask_for_exact_sums(trained, monkeypatch):
    """Which change nothing where none saturates."""
    model, path, bits = trained
    file = onnx.load(path)
    assert [one.key for one in file.metadata_props] == [EXACT_SUMS] * (bits == 8)
    assert b"site-packages" not in file.SerializeToString()
    _, found = both(model, path, many_texts())
    monkeypatch.setattr(onnx_graph, "sums_saturate", lambda: True)
    options = open_session(path, threads=1).get_session_options()
    if bits == 8:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    _, exact = both(model, path, many_texts())
    assert np.array_equal(found, exact)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2 avx512f", True),
        ("x86_64", "avx512f avx512_vnni", False),
        ("AMD64", "avx2 avx_vnni", False),
        ("AMD64", None, True),
        ("aarch64", "asimd", False),
    ],
)
def test_sums_saturate_on_x86_without_vnni(tmp_path, monkeypatch, machine, flags, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor: 0\nflags: {flags}\n")
    assert sums_saturate(cpuinfo) is expected


class OneLayer(torch.nn.Module):
    """A served projection as a model."""

    def __init__(self, linear):
        super().__init__()
        self.linear = ServedLinear(linear)

    def forward(self, state):
        return {"left": self.linear(state)}


def test_a_projection_is_exactly_that_of_numpys_whole_numbers(tmp_path):
    """Of inputs far outside the range, and weights at its ends, whose sums are the largest.

    Without the note these saturate on processors without VNNI.
    """
    draw = np.random.default_rng(0)
    weight_clip, input_clip = 0.5, 3.0
    weight = draw.choice([-0.5, 0.5, 0.11, -0.27], size=(20, 64)).astype(np.float32)
    bias = draw.normal(size=20).astype(np.float32)
    linear = torch.nn.Linear(64, 20)
    linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
    served = QuantisedLinear.of(linear, weight_bits=8, has_output_clip=False)
    served.weight_clip.data.fill_(weight_clip)
    served.input_clip.data.fill_(-input_clip)  # whose sign has no meaning
    path = tmp_path / "layer.onnx"
    write_graph(OneLayer(served).eval(), path, inputs=(), states={"state": 64})
    file = onnx.load(path)
    file.metadata_props.add(key=EXACT_SUMS, value="1")
    onnx.save(file, path)
    state = draw.normal(scale=3, size=(3, 7, 64)).astype(np.float32)
    state[0, 0], state[0, 1] = 100, -100
    [found] = open_session(path, threads=1).run(None, {"state": state})

    codes = np.rint(np.clip(state.astype(np.float64), -3, 3) / 3 * 127).astype(np.int64)
    weight_codes = np.rint(weight.astype(np.float64) / 0.5 * 127).astype(np.int64)
    assert codes.min() == -127
    sums = codes @ weight_codes.T
    expected = sums * (3 / 127) * (0.5 / 127) + bias
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("roberta", "classes"),
        ("distilbert", "classes"),
        ("electra", "classes"),
        ("bert", "tags"),
        ("bert", "spans"),
    ],
)
def test_every_family_and_head_is_written(family, head, make_model, family_tokens, tmp_path):
    model = quantised(make_model(family, head=head), family_tokens, 4)
    path = tmp_path / "model.onnx"
    graph = write_trained_graph(model, path, inputs=INPUTS)
    session = open_session(path, threads=1)
    fed = {name: values.numpy() for name, values in family_tokens.items()}
    with torch.no_grad():
        expected = model(**family_tokens)
    kept = family_tokens["attention_mask"].bool().numpy()
    for name, found in zip(graph.outputs, session.run(None, fed), strict=True):
        gap = np.abs(found - expected[name].numpy())
        assert np.median(gap if head == "classes" else gap[kept]) < 1e-3


def test_a_model_that_was_not_trained_so_is_refused(make_bert, tokens, tmp_path):
    with pytest.raises(ExportError, match="was not trained in few bits"):
        write_trained_graph(make_bert(), tmp_path / "a.onnx", inputs=INPUTS)
    model = make_bert()
    quantise_model(model, weight_bits=4)
    set_weight_clips(model, "quantile")
    with pytest.raises(
        ExportError, match=r"the range bert\.encoder.*_clip is nan.*train the model"
    ):
        write_trained_graph(model, tmp_path / "a.onnx", inputs=INPUTS)
    assert not (tmp_path / "a.onnx").exists()


def test_a_file_that_would_be_computed_in_float32_is_refused(
    make_bert, tokens, tmp_path, monkeypatch
):
    """As one whose activations are signed, on x86; elsewhere another is found, so that is faked."""
    monkeypatch.setattr(onnx_trained, "float_products", lambda _: ("Gemm a", "MatMul b"))
    monkeypatch.setattr(
        onnx_trained, "write_graph", lambda _, path, **__: onnx.save(onnx.ModelProto(), path)
    )
    model = quantised(make_bert(), tokens, 4)
    with pytest.raises(ExportError, match=r"in float32: Gemm a, MatMul b; take another version"):
        write_trained_graph(model, tmp_path / "a.onnx", inputs=INPUTS)


def test_products_in_float32_are_found(tmp_path):
    """One of dequantised numbers whose result a Gemm adds a bias of float32 to."""
    codes = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    kept = {
        "codes": codes,
        "step": np.float32(0.1),
        "zero": np.uint8(128),
        "bias": np.ones(4, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["x codes"]),
        helper.make_node("DequantizeLinear", ["x codes", "step", "zero"], ["entered"]),
        helper.make_node("DequantizeLinear", ["codes", "step"], ["weight"]),
        helper.make_node("Gemm", ["entered", "weight", "bias"], ["y"], name="with bias"),
    ]
    graph = helper.make_graph(
        nodes,
        "one product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in kept.items()],
    )
    path = tmp_path / "gemm.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    [found] = float_products(path)
    assert "with bias" in found
