"""Static ONNX files, made of one that is written by hand so that no exporter has to run."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stillhouse.errors import ExportError
from stillhouse.model.onnx_graph import float_weights, open_session, quantise_graph
from stillhouse.model.onnx_static import quantise_statically

WIDTH, WORDS = 8, 20
IDS = np.arange(WORDS).reshape(2, -1)
BATCHES = [{"input_ids": IDS}, {"input_ids": IDS[:, ::-1].copy()}]


@pytest.fixture
def source(tmp_path):
    """Words -> table -> product -> likeness of words -> Gemm of one -> scores by the same table."""
    draw = np.random.default_rng(0)
    weights = {
        "table": draw.normal(size=(WORDS, WIDTH)) * np.geomspace(0.01, 1, WIDTH),
        "query": draw.normal(size=(WIDTH, WIDTH)),
        "dense": draw.normal(size=(WIDTH, WIDTH)),
    }
    weights["table"][:, 3] = 0
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], name="embed"),
        helper.make_node("MatMul", ["words", "query"], ["asked"], name="ask"),
        helper.make_node("Transpose", ["words"], ["keys"], name="turn words", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["asked", "keys"], ["likeness"], name="compare"),
        helper.make_node("MatMul", ["likeness", "words"], ["mixed"], name="mix"),
        helper.make_node("ReduceMean", ["mixed", "one"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Gemm", ["mean", "dense"], ["whole"], name="gemm", transB=1),
        helper.make_node("Transpose", ["table"], ["turned"], name="turn table", perm=[1, 0]),
        helper.make_node("MatMul", ["mixed", "turned"], ["scores"], name="score"),
    ]
    tensors = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "tokens", WORDS]),
            helper.make_tensor_value_info("whole", TensorProto.FLOAT, ["batch", WIDTH]),
        ],
        [*tensors, numpy_helper.from_array(np.array([1]), "one")],
        # Which is no longer true of the graph, as in files of the exporter.
        value_info=[helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["batch", 1, 1])],
    )
    opset = [helper.make_opsetid("", 20)]
    path = tmp_path / "tied.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture
def static(source, tmp_path):
    return quantise_statically(source, tmp_path / "static.onnx", BATCHES).path


def makers(graph):
    return {name: node for node in graph.node for name in node.output}


def tensors(path):
    found = onnx.load(path).graph.initializer
    return {one.name: numpy_helper.to_array(one) for one in found}


def activation_scales(path):
    """Scale and zero point of what each quantised tensor of the original is read as."""
    found = tensors(path)
    return {
        node.input[0]: (found[node.input[1]].item(), int(found[node.input[2]].item()))
        for node in onnx.load(path).graph.node
        if node.op_type == "QuantizeLinear"
    }


def test_every_weight_has_8_bits(source, static):
    assert len(float_weights(source)) == 4
    assert float_weights(static) == ()
    graph = onnx.load(static).graph
    made = makers(graph)
    factors = {
        node.name: [made[name].op_type for name in node.input[:2]]
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
    }
    assert factors.pop("compare") == ["MatMul", "Transpose"]
    assert factors.pop("mix") == ["MatMul", "Mul"]
    assert list(factors.values()) == [["DequantizeLinear"] * 2] * 3
    assert Counter(node.op_type for node in graph.node)["Transpose"] == 1  # of words
    whole = [one for one in tensors(static).values() if one.dtype == np.float32]
    assert max(one.size for one in whole) <= WORDS  # scales alone are left
    assert {one.dtype.name for one in tensors(static).values() if one.size >= WIDTH**2} == {"int8"}


def test_a_table_keeps_small_columns_beside_large_ones(source, static):
    table = tensors(source)["table"]
    [embed] = (node for node in onnx.load(static).graph.node if node.op_type == "Gather")
    codes, scales = tensors(static)[embed.input[0]], tensors(static)["table_scales"]
    off = np.abs(codes * scales - table).max(axis=0)
    assert (off <= np.abs(table).max(axis=0) / 127 / 2 * 1.001).all()
    assert (codes[:, 3] == 0).all()


def test_the_file_says_nearly_the_same(source, static):
    for ids in (IDS, IDS[:1, :3]):
        exact = open_session(source).run(None, {"input_ids": ids})
        near = open_session(static, threads=1).run(None, {"input_ids": ids})
        for one, other in zip(exact, near, strict=True):
            gap = np.abs(one - other).max() / np.abs(one).max()
            assert 0 < gap < 0.05


def test_scales_are_those_of_the_given_texts(source, tmp_path):
    """The range of a tensor is cut in 255 steps and includes 0."""
    table = tensors(source)["table"]
    for place, ids in enumerate(([[0, 1, 2]], [[7, 9], [4, 4]])):
        path = tmp_path / f"{place}.onnx"
        quantise_statically(source, path, [{"input_ids": np.array(ids)}])
        rows = table[np.unique(ids)]
        width = max(0, rows.max()) - min(0, rows.min())
        scale, zero = activation_scales(path)["words"]
        assert scale == pytest.approx(width / 255, rel=0.02)  # rows have 8 bits already
        assert zero == pytest.approx(-min(0, rows.min()) / scale, abs=1)


def test_an_answer_does_not_depend_on_the_batch_as_with_scales_taken_on_the_way(
    source, static, tmp_path
):
    dynamic = quantise_graph(source, tmp_path / "int8.onnx").path
    alone = {}
    for path in (static, dynamic):
        session = open_session(path)
        [together] = session.run(["whole"], {"input_ids": IDS})
        [one] = session.run(["whole"], {"input_ids": IDS[:1]})
        alone[path] = np.abs(together[:1] - one).max()
    assert alone[static] <= 1e-6 < alone[dynamic]


def test_batches_are_read_once_and_needed(source, tmp_path):
    batches = iter(BATCHES)
    quantise_statically(source, tmp_path / "read.onnx", batches)
    assert next(batches, None) is None
    quantise_statically(source, tmp_path / "listed.onnx", BATCHES)
    both = [activation_scales(tmp_path / f"{name}.onnx") for name in ("read", "listed")]
    assert both[0] == both[1]
    with pytest.raises(ExportError, match="give at least one"):
        quantise_statically(source, tmp_path / "none.onnx", [])


def test_a_dequantised_weight_counts_where_the_other_factor_is_in_float32(static, tmp_path):
    model = onnx.load(static)
    made = makers(model.graph)
    [ask] = (node for node in model.graph.node if node.name == "ask")
    ask.input[0] = made[made[ask.input[0]].input[0]].input[0]
    onnx.save(model, tmp_path / "half.onnx")
    assert float_weights(tmp_path / "half.onnx") == ("MatMul ask",)
