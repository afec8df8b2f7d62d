"""ONNX files in OpenVINO beside ONNX Runtime; some are written by hand, some are our families'."""

import platform
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoModelForSequenceClassification, MobileBertConfig

from stillhouse.errors import ExportError
from stillhouse.model import openvino_graph
from stillhouse.model.chains import chain_config
from stillhouse.model.inputs import input_names
from stillhouse.model.onnx_graph import open_session, quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.openvino_graph import import_openvino, open_compiled, require_openvino
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="needs the package openvino"
)
WIDTH, WORDS = 64, 20
IDS = np.arange(WORDS).reshape(2, -1)
FREE = BertArchitecture(layers=2, hidden_size=24, heads=2, head_size=16, ffn_size=48)
CHAIN = ChainArchitecture(
    embedding_size=16,
    blocks=(
        ChainBlock(hidden_size=24, operations=("S3", "M", "F")),
        ChainBlock(hidden_size=16, operations=("M", "S7", "S5")),
    ),
    head_size=8,
)


def save(path, nodes, outputs, weights, *, domain=None):
    graph = helper.make_graph(
        nodes,
        "made by hand",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    if domain is not None:
        opsets.append(helper.make_opsetid(domain, 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Words and a product of them, both of them outputs."""
    draw = np.random.default_rng(0)
    weights = {"table": draw.normal(size=(WORDS, WIDTH)), "dense": draw.normal(size=(WIDTH,) * 2)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], name="embed"),
        helper.make_node("MatMul", ["words", "dense"], ["mixed"], name="mix"),
    ]
    return save(tmp_path_factory.mktemp("hand") / "hand.onnx", nodes, ("mixed", "words"), weights)


def gap(path, inputs, **options):
    """Largest difference between both runtimes, as a share of the largest output or of 1."""
    session = open_session(path)
    names = [one.name for one in session.get_outputs()]
    expected = dict(zip(names, session.run(names, inputs), strict=True))
    found = open_compiled(path, **options)(inputs)
    assert set(found) == set(names)
    for name in names:
        assert found[name].shape == expected[name].shape
        assert found[name].dtype == np.float32
    return max(
        np.abs(found[name] - expected[name]).max() / max(1, np.abs(expected[name]).max())
        for name in names
    )


@needs_openvino
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_outputs_are_those_of_onnx_runtime(source, threads):
    """In bfloat16 they would differ by more than 1e-3, on processors that have it."""
    assert gap(source, {"input_ids": IDS}, threads=threads) <= 1e-6


@needs_openvino
def test_an_opened_file_takes_any_batch_and_keeps_what_it_gave(source):
    run = open_compiled(source)
    first = run({"input_ids": IDS})
    kept = first["mixed"].copy()
    assert run({"input_ids": IDS[:1, :3]})["mixed"].shape == (1, 3, WIDTH)
    np.testing.assert_array_equal(first["mixed"], kept)


@needs_openvino
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors' ways")
def test_products_of_a_static_file_alone_are_computed_in_8_bits(source, tmp_path):
    """Tells why `open_compiled` wants static files; its own settings are those used here."""
    static = quantise_statically(source, tmp_path / "static.onnx", [{"input_ids": IDS}]).path
    dynamic = quantise_graph(source, tmp_path / "dynamic.onnx").path
    kinds = {}
    for path in (source, static, dynamic):
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = import_openvino().Core().compile_model(path, "CPU", settings)
        layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        kinds[path] = [
            layer["runtimePrecision"] for layer in layers if layer["layerType"] == "FullyConnected"
        ]
    assert kinds == {source: ["f32"], static: ["u8"], dynamic: ["f32"]}
    assert gap(static, {"input_ids": IDS}) <= 0.01


@needs_openvino
def test_an_output_keeps_its_name_where_openvino_makes_it_one_with_another_tensor(tmp_path):
    """Parts that are put together again are no operation to it."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["both"], name="embed"),
        helper.make_node("Split", ["both"], ["first", "second"], axis=2, num_outputs=2),
        helper.make_node("Concat", ["first", "second"], ["logits"], axis=2),
    ]
    table = np.random.default_rng(0).normal(size=(WORDS, 2))
    path = save(tmp_path / "split.onnx", nodes, ("logits",), {"table": table})
    assert gap(path, {"input_ids": IDS}) <= 1e-6


@needs_openvino
def test_an_operator_that_openvino_lacks_is_named(tmp_path):
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Odd", ["values"], ["odd"], domain="of.ours"),
    ]
    path = save(tmp_path / "odd.onnx", nodes, ("odd",), {}, domain="of.ours")
    with pytest.raises(ExportError, match=r"lacks the operators of\.ours\.Odd of .*odd\.onnx"):
        open_compiled(path)


@needs_openvino
def test_what_is_no_onnx_file_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"cannot read .*none\.onnx"):
        open_compiled(tmp_path / "none.onnx")


def test_a_missing_package_is_named_with_the_extra(source, monkeypatch):
    monkeypatch.setattr(openvino_graph, "find_spec", lambda name: None)
    for needs_it in (require_openvino, lambda: open_compiled(source)):
        with pytest.raises(ExportError, match=r"openvino.*pip install 'stillhouse\[openvino\]'"):
            needs_it()


@needs_openvino
def test_nothing_is_told_over_the_network(tmp_path):
    """A package of this name sends what OpenVINO tells it, such as that it was imported."""
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("print('loaded')\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from stillhouse.model.openvino_graph import import_openvino\n"
        "print(import_openvino().Core().available_devices)\n"
        "import openvino_telemetry\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert told.splitlines() == ["['CPU']", "loaded"]


@pytest.fixture(scope="module", params=["free heads", "chain", "mobilebert"])
def family_graph(request, tiny_config, tmp_path_factory):
    """A classifier of one of our families as an ONNX file of float32."""
    match request.param:
        case "free heads":
            config = student_config(FREE, tiny_config("bert"))
        case "chain":
            config = chain_config(CHAIN, tiny_config("bert"))
        case _:
            config = MobileBertConfig(
                vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=32, intra_bottleneck_size=16, embedding_size=8,
                max_position_embeddings=24,
            )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1 and weight.numel():
                    weight.normal_(std=0.2)
    path = tmp_path_factory.mktemp("family") / "float32.onnx"
    return write_graph(model, path, inputs=input_names(config))


def drawn(graph, batch, length):
    generator = np.random.default_rng(batch * length)
    mask = (np.arange(length) < generator.integers(1, length + 1, (batch, 1))).astype(np.int64)
    values = {
        "input_ids": generator.integers(3, 50, (batch, length)),
        "attention_mask": mask,
        "token_type_ids": generator.integers(0, 2, (batch, length)),
    }
    return {name: values[name] for name in graph.inputs}


@needs_openvino
@pytest.mark.slow
def test_every_family_gives_the_same(family_graph, tmp_path):
    for batch, length in ((1, 1), (1, 24), (4, 7)):
        assert gap(family_graph.path, drawn(family_graph, batch, length)) <= 1e-4
    batches = [drawn(family_graph, 8, length) for length in (5, 24)]
    static = quantise_statically(family_graph.path, tmp_path / "static.onnx", batches)
    inputs = drawn(family_graph, 4, 7)
    exact = open_compiled(family_graph.path)(inputs)["logits"]
    near = open_compiled(static.path)(inputs)["logits"]
    assert 0 < np.abs(near - exact).max() <= 0.3 * np.abs(exact).max()
