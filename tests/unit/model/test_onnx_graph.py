"""ONNX files, most of them written by hand so that no exporter has to run."""

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from stillhouse.errors import ExportError
from stillhouse.model import onnx_graph
from stillhouse.model.onnx_graph import (
    float_weights,
    open_session,
    quantise_graph,
    read_graph,
    require_onnx,
    write_graph,
)

WIDTH, WORDS = 8, 20


@pytest.fixture
def tied(tmp_path):
    """Words -> table -> product -> Gemm -> scores by the same table, transposed at run time."""
    draw = np.random.default_rng(0)
    table, dense, other = (
        draw.normal(size=size).astype(np.float32)
        for size in ((WORDS, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH))
    )
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], name="embed"),
        helper.make_node("MatMul", ["words", "dense"], ["mixed"], name="mix"),
        helper.make_node("Gemm", ["mixed", "other"], ["more"], name="gemm", transB=1),
        helper.make_node("Transpose", ["table"], ["turned"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["more", "turned"], ["logits"], name="score"),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["tokens", WORDS])],
        [
            numpy_helper.from_array(value, name)
            for name, value in (("table", table), ("dense", dense), ("other", other))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "tied.onnx"
    onnx.save(model, path)
    return path, table[:, :] @ dense @ other.T @ table.T


def kinds(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_every_weight_of_the_file_in_8_bits_has_8_bits(tied, tmp_path):
    source, _ = tied
    assert float_weights(source) == ("Gather embed", "MatMul mix", "Gemm gemm", "MatMul score")
    target = quantise_graph(source, tmp_path / "int8.onnx").path
    assert float_weights(target) == ()
    found = kinds(target)
    assert found["MatMulInteger"] == 3
    assert found["MatMul"] == found["Gemm"] == found["Transpose"] == 0
    graph = onnx.load(target).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    [embed] = (node for node in graph.node if node.op_type == "Gather")
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    eight = (TensorProto.INT8, TensorProto.UINT8)
    assert types[embed.input[0]] in eight
    assert all(types[node.input[1]] in eight for node in products)
    sizes = [np.prod(one.dims) for one in graph.initializer if one.data_type == TensorProto.FLOAT]
    assert max(sizes) <= WORDS  # scales alone are left


def test_a_tied_table_is_left_in_float32_where_it_is_not_folded(tied, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "_fold_transposes", lambda model: None)
    with pytest.raises(ExportError, match=r"MatMul score.*--precision float32"):
        quantise_graph(tied[0], tmp_path / "int8.onnx")


def test_the_file_in_8_bits_says_nearly_the_same(tied, tmp_path):
    source, expected = tied
    fed = {"input_ids": np.arange(WORDS)}
    [exact] = open_session(source).run(None, fed)
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-4)
    target = quantise_graph(source, tmp_path / "int8.onnx").path
    [near] = open_session(target, threads=1).run(None, fed)
    gap = np.abs(near - expected).max() / np.abs(expected).max()
    assert 0 < gap < 0.05


def test_stale_shapes_do_no_harm(tied, tmp_path):
    source, _ = tied
    model = onnx.load(source)
    wrong = helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["tokens", WIDTH + 1])
    model.graph.value_info.append(wrong)
    onnx.save(model, source)
    with pytest.raises(Exception, match=r"(?i)differ|incompatible|shape"):
        quantize_dynamic(source, tmp_path / "plain.onnx")
    assert float_weights(quantise_graph(source, tmp_path / "int8.onnx").path) == ()
    assert len(onnx.load(source).graph.value_info) == 1  # the source stays as it is


def test_a_file_says_what_it_is(tied):
    graph = read_graph(tied[0])
    assert (graph.inputs, graph.outputs, graph.opset) == (("input_ids",), ("logits",), 20)
    assert graph.size_mb == pytest.approx(tied[0].stat().st_size / 1e6)


class Gated(torch.nn.Module):
    """A product of states, where the gate is open."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(WIDTH, 3)

    def forward(self, states, gate):
        return {"mixed": self.mix(states) * gate[..., None]}


def test_a_file_may_read_states_beside_whole_numbers(tmp_path):
    model = Gated().eval()
    graph = write_graph(model, tmp_path / "gated.onnx", inputs=("gate",), states={"states": WIDTH})
    assert set(graph.inputs) == {"gate", "states"}
    draw = np.random.default_rng(0)
    for batch, length in ((1, 5), (3, 1)):  # other sizes than those of the sample
        fed = {
            "states": draw.normal(size=(batch, length, WIDTH)).astype(np.float32),
            "gate": draw.integers(2, size=(batch, length)),
        }
        [found] = open_session(graph.path).run(["mixed"], fed)
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(value) for name, value in fed.items()})
        np.testing.assert_allclose(found, expected["mixed"], rtol=1e-5, atol=1e-6)


def test_a_file_tells_nothing_of_the_code_that_it_came_from(tmp_path, make_bert):
    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_bert(seed=0).eval()

        def forward(self, input_ids):
            return {"logits": self.inner(input_ids=input_ids).logits}

    whole = write_graph(Classifier().eval(), tmp_path / "whole.onnx", inputs=("input_ids",))
    few = quantise_graph(whole.path, tmp_path / "few.onnx")
    for file in (whole.path, few.path):
        for told in (b"site-packages", b"test_onnx_graph", str(Path.cwd()).encode(), b"torch.fx"):
            assert told not in file.read_bytes()


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        onnx_graph, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(ExportError, match=r"onnxscript.*pip install 'stillhouse\[onnx\]'"):
        require_onnx()


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ExportError, match=r"cannot read .*bad\.onnx"):
        open_session(tmp_path / "bad.onnx")


def test_a_model_too_large_for_one_file_is_refused(tmp_path):
    model = torch.nn.Linear(2**15, 2**14, bias=False, device="meta")
    with pytest.raises(ExportError, match="2,147 MB"):
        write_graph(model, tmp_path / "large.onnx", inputs=("input_ids",))


@torch.library.custom_op("stillhouse_tests::odd", mutates_args=())
def odd(values: torch.Tensor) -> torch.Tensor:
    return values + 1


@odd.register_fake
def _(values):
    return torch.empty_like(values)


class Odd(torch.nn.Module):
    def forward(self, input_ids):
        return {"logits": odd(input_ids.float())}


def test_an_operator_that_the_exporter_lacks_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"lacks the operator stillhouse_tests\.odd.*a Odd uses"):
        write_graph(Odd().eval(), tmp_path / "odd.onnx", inputs=("input_ids",))
