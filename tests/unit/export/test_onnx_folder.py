"""What a folder refuses; files come from a stand-in for the exporter, written by hand."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples
from stillhouse.errors import ExportError
from stillhouse.export import onnx_folder
from stillhouse.export.onnx_folder import Check, Provenance, write_onnx_folder
from stillhouse.model.checkpoint_heads import HeadedModel
from stillhouse.model.onnx_graph import read_graph

TEXTS = ["a b", "c", "d a b c"]


@pytest.fixture
def exported(make_bert, tokenizer):
    return HeadedModel(
        name="bert", model=make_bert().eval(), tokenizer=tokenizer, head="classifier"
    )


@pytest.fixture
def check(tokenizer):
    dataset = Examples(text_a=TEXTS).to_dataset(())
    return Check(name="t", texts=TEXTS, encoded=encode(dataset, tokenizer, max_length=24))


@pytest.fixture
def exporter(monkeypatch):
    """Makes the exporter write a file that gives everyone the same logits."""

    def use(logits):
        def write(model, path, *, inputs):
            row = numpy_helper.from_array(np.array([logits], dtype=np.float32), "row")
            nodes = [
                helper.make_node("Shape", ["input_ids"], ["size"], end=1),
                helper.make_node("Concat", ["size", "one"], ["wide"], axis=0),
                helper.make_node("Expand", ["row", "wide"], ["logits"]),
            ]
            one = numpy_helper.from_array(np.array([3]), "one")
            graph = helper.make_graph(
                nodes,
                "same",
                [
                    helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"])
                    for name in inputs
                ],
                [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 3])],
                [row, one],
            )
            opset = [helper.make_opsetid("", 20)]
            onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
            return read_graph(path)

        monkeypatch.setattr(onnx_folder, "write_graph", write)

    return use


def written(folder, exported, check):
    return write_onnx_folder(
        folder, exported, precision="float32", check=check, provenance=Provenance(licence="mit")
    )


@pytest.mark.parametrize("logits", [(5.0, 5.0, 5.0), (float("nan"),) * 3])
def test_a_file_that_differs_is_refused_and_kept_aside(exported, check, exporter, tmp_path, logits):
    exporter(logits)
    with pytest.raises(ExportError, match=r"logits that differ by .*out\.rejected"):
        written(tmp_path / "out", exported, check)
    assert not (tmp_path / "out").exists()
    kept = tmp_path / "out.rejected"
    assert (kept / "model.onnx").exists()
    gap = json.loads((kept / "export.json").read_text())["differences"]["onnx float32"]["logits"]
    assert not gap < 1


def test_the_limit_is_a_share_of_the_largest_output(exported, check, exporter, tmp_path):
    """Weights of the head are 0, so that the model gives its biases to everyone."""
    head = exported.model.classifier
    head.weight.data.zero_()
    head.bias.data.copy_(head.bias.new_tensor([1000.0, 0.0, -7.0]))
    exporter((1000.05, 0.0, -7.0))  # off by 5e-5 of the largest
    told = written(tmp_path / "out", exported, check)
    assert told["differences"]["onnx float32"]["logits"] == pytest.approx(0.05, rel=1e-2)
    exporter((1000.2, 0.0, -7.0))
    with pytest.raises(ExportError, match=r"differ by 0\.2"):
        written(tmp_path / "out", exported, check)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card.split("---\n")[1]
    assert told["source"]["weights_sha256"] in card


def test_a_folder_of_something_else_is_not_replaced(exported, check, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"would be replaced.*--out"):
        written(tmp_path, exported, check)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_tokeniser_that_its_file_does_not_tell_is_refused(exported, check, exporter, tmp_path):
    exporter((0.0, 0.0, 0.0))
    other = Check(name="t", texts=["b a", *TEXTS[1:]], encoded=check.encoded)
    with pytest.raises(ExportError, match="other tokens"):
        written(tmp_path / "out", exported, other)
