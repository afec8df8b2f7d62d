"""What a folder refuses; files come from a stand-in for the exporter, written by hand."""

import json

import numpy as np
import onnx
import pytest
import torch
from datasets import Dataset
from onnx import TensorProto, helper, numpy_helper

from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples
from stillhouse.data.tagging import to_dataset
from stillhouse.errors import ExportError
from stillhouse.export import onnx_folder
from stillhouse.export.comparison import Check
from stillhouse.export.onnx_folder import Calibration, Provenance, write_onnx_folder
from stillhouse.model.checkpoint_heads import HeadedModel
from stillhouse.model.lsq import activation_clips, quantise_model, weight_clips
from stillhouse.model.onnx_graph import float_weights, read_graph

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
        monkeypatch.setattr(onnx_folder, "write_trained_graph", write)

    return use


@pytest.fixture
def multiplier(monkeypatch):
    """Makes the exporter write a file that has a table and a product, of the model's own weights.

    The model must not look further than at its tokens, one by one, and at their sum.
    """

    def write(model, path, *, inputs):
        weights = {
            "table": model.bert.embeddings.word_embeddings.weight,
            "dense": model.classifier.weight.T,
            "bias": model.classifier.bias,
        }
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["words"], name="embed"),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["kept"]),
            helper.make_node("Mul", ["words", "kept"], ["said"], name="keep"),
            helper.make_node("ReduceSum", ["said", "one"], ["sum"], keepdims=0),
            helper.make_node("MatMul", ["sum", "dense"], ["product"], name="multiply"),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "bag of words",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in inputs],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 3])],
            [
                *(numpy_helper.from_array(w.numpy(force=True), n) for n, w in weights.items()),
                numpy_helper.from_array(np.array([-1]), "last"),
                numpy_helper.from_array(np.array([1]), "one"),
            ],
        )
        opset = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
        return read_graph(path)

    monkeypatch.setattr(onnx_folder, "write_graph", write)


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
    assert told["calibrated_on"] is None
    exporter((1000.2, 0.0, -7.0))
    with pytest.raises(ExportError, match=r"differ by 0\.2"):
        written(tmp_path / "out", exported, check)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card.split("---\n")[1]
    assert told["source"]["weights_sha256"] in card


def test_the_file_of_a_quantised_model_may_differ_by_some_steps(
    exported, check, exporter, tmp_path
):
    head = exported.model.classifier
    head.weight.data.zero_()
    head.bias.data.copy_(head.bias.new_tensor([10.0, 0.0, -7.0]))
    quantise_model(exported.model, weight_bits=4)
    for clip in (
        *weight_clips(exported.model).values(),
        *activation_clips(exported.model).values(),
    ):
        clip.data.fill_(1.0)

    def write(folder):
        return write_onnx_folder(
            folder, exported, precision="int8", check=check, provenance=Provenance()
        )

    exporter((9.9, 0.0, -7.0))
    told = write(tmp_path / "out")
    assert told["precision"] == "int8"
    assert told["trained_weight_bits"] == 4
    assert told["differences"] == {"onnx int8": {"logits": pytest.approx(0.1, rel=1e-4)}}
    half = told["median_differences_fraction"]["onnx int8"]["logits"]
    assert half == pytest.approx(0.01, rel=1e-4)
    assert told["int8_agreement_fraction"] == 1.0
    exporter((9.0, 0.0, -7.0))  # of every text: no step, but something wrong
    with pytest.raises(ExportError, match=r"half of them by 0\.1 or more, where it is 0\.05"):
        write(tmp_path / "out")
    exporter((0.0, 7.0, -7.0))
    with pytest.raises(ExportError, match=r"differ by 10 .* 1 of their size, where at most 0\.25"):
        write(tmp_path / "out")


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


def words_check(tokenizer, sentences, *, checked=None):
    encoded = encode(to_dataset(sentences), tokenizer, max_length=6)
    return Check(name="t", texts=checked or sentences, encoded=encoded)


def test_tokens_of_words_are_those_of_the_example(exported, exporter, tokenizer, tmp_path):
    """Words of which nothing is left, and what is cut off, do no harm."""
    exporter((0.0, 0.0, 0.0))
    exported.model.classifier.weight.data.zero_()
    exported.model.classifier.bias.data.zero_()
    sentences = [["a", "b"], ["a", "\u200b", "c"], ["d"] * 9, ["a"] * 3 + ["b-c"]]
    check = words_check(tokenizer, sentences)
    assert written(tmp_path / "out", exported, check)["checked_on"]["texts"] == 4
    other = words_check(tokenizer, sentences, checked=[["a", "d"], *sentences[1:]])
    with pytest.raises(ExportError, match=r"other tokens .* of \['a', 'd'\]"):
        written(tmp_path / "out", exported, other)


def questions(pairs):
    return Dataset.from_dict(
        {
            "key": [str(number) for number in range(len(pairs))],
            "question": [question for question, _ in pairs],
            "context": [context for _, context in pairs],
            "answers": [["a"] for _ in pairs],
            "answer_starts": [[context.index("a")] for _, context in pairs],
        }
    )


def test_tokens_of_questions_are_those_of_the_example(exported, exporter, tokenizer, tmp_path):
    """Of a passage of several windows the first; not of a question that is cut."""
    exporter((0.0, 0.0, 0.0))
    exported.model.classifier.weight.data.zero_()
    exported.model.classifier.bias.data.zero_()
    pairs = [("a b", "a c d"), ("b", "d a b c d a b c d c b"), ("b " * 9, "a"), ("c", "a")]
    encoded = encode(questions(pairs), tokenizer, max_length=12, stride=2)
    assert len(encoded) == len(pairs) + 1
    check = Check(name="t", texts=pairs, encoded=encoded)
    assert written(tmp_path / "out", exported, check)["checked_on"]["texts"] == 4
    other = [*pairs[:3], ("c", "b")]
    with pytest.raises(ExportError, match=r"other tokens .* of \('c', 'b'\)"):
        written(tmp_path / "out", exported, Check(name="t", texts=other, encoded=encoded))


class BagOfWords(torch.nn.Module):
    """Gives the sum of its words' vectors to the head of a classifier."""

    def __init__(self, model):
        super().__init__()
        self.config, self.bert, self.classifier = model.config, model.bert, model.classifier

    def forward(self, input_ids, attention_mask, token_type_ids):
        words = self.bert.embeddings.word_embeddings(input_ids) * attention_mask[:, :, None]
        return {"logits": self.classifier(words.sum(1))}


def test_a_static_file_tells_what_it_was_calibrated_on(exported, check, multiplier, tmp_path):
    bag = HeadedModel(
        name="bag",
        model=BagOfWords(exported.model),
        tokenizer=exported.tokenizer,
        head="classifier",
    )
    told, files = {}, {}
    for name, texts in {"short": ["a", "b"] * 20, "long": ["a b c d " * 4] * 3}.items():
        dataset = Examples(text_a=texts).to_dataset(())
        encoded = encode(dataset, exported.tokenizer, max_length=24)
        told[name] = write_onnx_folder(
            tmp_path / name,
            bag,
            precision="int8-static",
            check=check,
            provenance=Provenance(),
            calibration=Calibration(name=f"{name} texts", encoded=encoded),
        )
        files[name] = tmp_path / name / "model.onnx"
    assert (
        json.loads((tmp_path / "short" / "export.json").read_text()).items()
        >= {
            "precision": "int8-static",
            "calibrated_on": {"name": "short texts", "texts": 40},
        }.items()
    )
    assert told["long"]["calibrated_on"]["texts"] == 3
    assert told["short"]["differences"]["onnx float32"]["logits"] <= 1e-6
    assert told["short"]["differences"]["onnx int8-static"]["logits"] > 1e-6
    assert told["short"]["int8_agreement_fraction"] is not None
    assert float_weights(files["short"]) == ()
    scales = {name: largest_scale(path) for name, path in files.items()}
    assert scales["long"] > 2 * scales["short"]  # sums of up to 18 words beside those of 3
    card = (tmp_path / "short" / "README.md").read_text(encoding="utf-8")
    assert "as an ONNX file of int8-static" in card
    assert "Scales fixed on 40 texts of short texts." in card
    assert "Of the answers in int8-static, " in card


def largest_scale(path):
    graph = onnx.load(path).graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    return max(
        values[node.input[1]].max() for node in graph.node if node.op_type == "QuantizeLinear"
    )
