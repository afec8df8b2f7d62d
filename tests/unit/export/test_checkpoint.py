import json
import sys

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaForMaskedLM,
    pipeline,
)

from stillhouse.errors import ExportError
from stillhouse.export.card import model_card
from stillhouse.export.checkpoint import read_metrics, save_checkpoint
from stillhouse.model.chains import chain_config
from stillhouse.model.encoders import build_encoder
from stillhouse.model.modeling_chain_bert import ChainBertForMaskedLM
from stillhouse.model.modeling_free_head_bert import (
    FreeHeadBertForMaskedLM,
    FreeHeadBertForSequenceClassification,
    FreeHeadBertModel,
)
from stillhouse.model.students import build_student, student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.mobilebert import MobileBertArchitecture

TEXTS = ["a b c", "d", "a d d b a"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "students" / "1"


def save(folder, model, tokenizer, metrics, card="# card\n"):
    save_checkpoint(folder, model, tokenizer, metrics=metrics, card=card)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def logits(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


def test_transformers_alone_loads_the_same_classifier(make_bert, tokenizer, metrics, folder):
    model = make_bert()
    save(folder, model, tokenizer, metrics)
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    assert words(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert torch.equal(logits(again, words), logits(model, tokenizer))
    assert again.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}


FREE = BertArchitecture(layers=2, hidden_size=12, heads=3, head_size=8, ffn_size=20)
CODE = "modeling_free_head_bert.py"


def test_a_student_of_free_heads_brings_its_code(make_bert, tokenizer, metrics, folder):
    model = build_student(student_config(FREE, make_bert().config), seed=0)
    save(folder, model, tokenizer, metrics)
    config = json.loads((folder / "config.json").read_text())
    reference = config["auto_map"]["AutoModelForSequenceClassification"]
    assert reference == "modeling_free_head_bert.FreeHeadBertForSequenceClassification"
    assert "class FreeHeadBertForSequenceClassification" in (folder / CODE).read_text()
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(again) is FreeHeadBertForSequenceClassification
    assert torch.equal(logits(again, tokenizer), logits(model, tokenizer))
    assert again.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    # What was loaded is saved again like what was built.
    save(folder, again, tokenizer, metrics)
    assert json.loads((folder / "config.json").read_text())["auto_map"] == config["auto_map"]
    assert (folder / CODE).exists()


OWN_CODE = """
from transformers import BertForSequenceClassification


class Mine(BertForSequenceClassification):
    def forward(self, *arguments, **inputs):
        output = super().forward(*arguments, **inputs)
        output.logits = 3 * output.logits + 1
        return output
"""


def test_a_model_that_brought_its_own_code_is_compared_with_it(
    make_bert, tokenizer, metrics, tmp_path, folder, monkeypatch
):
    make_bert().save_pretrained(tmp_path / "given")
    (tmp_path / "given" / "mine.py").write_text(OWN_CODE)
    config = json.loads((tmp_path / "given" / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "mine.Mine"}
    (tmp_path / "given" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("sys.path", list(sys.path))
    given = {
        trust: AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "given", trust_remote_code=trust
        )
        for trust in (True, False)
    }
    save(folder, given[True], tokenizer, metrics)
    again = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert torch.equal(logits(again, tokenizer), 3 * logits(given[False], tokenizer) + 1)
    # Code that nobody trusted does not run here either: it is not even beside the weights.
    save(folder, given[False], tokenizer, metrics)
    assert not list(folder.glob("*.py"))


def test_what_transformers_has_a_class_for_brings_no_code(make_bert, tokenizer, metrics, folder):
    save(folder, make_bert(), tokenizer, metrics)
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    assert not list(folder.glob("*.py"))


def bare(kind, config):
    if kind is DistilBertModel:  # it has no pooler
        return DistilBertModel(DistilBertConfig(vocab_size=9, dim=16, n_layers=1, n_heads=2))
    if kind is FreeHeadBertModel:
        return build_encoder(student_config(FREE, config), seed=0)
    return BertModel(config)


@pytest.mark.parametrize("kind", [BertModel, DistilBertModel, FreeHeadBertModel])
@torch.no_grad()
def test_bare_encoders_are_saved_too(kind, make_bert, tokenizer, metrics, folder):
    model = bare(kind, make_bert().config).eval()
    save(folder, model, tokenizer, metrics)
    again = AutoModel.from_pretrained(folder).eval()
    assert type(again) is kind
    ids_BT = torch.tensor([tokenizer("a d b")["input_ids"]])
    expected, found = model(ids_BT).to_tuple(), again(ids_BT).to_tuple()
    assert len(expected) == len(found) == (1 if kind is DistilBertModel else 2)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert (folder / CODE).exists() == (kind is FreeHeadBertModel)


def test_an_encoder_that_was_built_without_a_pooler_is_saved(make_bert, tokenizer, metrics, folder):
    model = BertModel(make_bert().config, add_pooling_layer=False)
    save(folder, model, tokenizer, metrics)
    assert read_metrics(folder) == metrics


@pytest.mark.parametrize(
    ("part", "named"),
    [("encoder.layer.1.output.dense", "last_hidden_state"), ("pooler.dense", "pooler_output")],
)
@pytest.mark.parametrize("kind", [BertModel, FreeHeadBertModel])
def test_encoders_of_other_outputs_are_refused(
    kind, part, named, make_bert, tokenizer, metrics, folder
):
    model, other = (bare(kind, make_bert().config) for _ in range(2))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.get_submodule(part).bias.add_(torch.linspace(0, 1, model.config.hidden_size))
    model.save_pretrained = other.save_pretrained
    with pytest.raises(ExportError, match=f"gives {named} that differ by"):
        save(folder, model, tokenizer, metrics)
    assert not folder.exists()


CHAIN = ChainArchitecture(
    embedding_size=8,
    blocks=(ChainBlock(hidden_size=16, operations=("S3", "M", "F")),),
    head_size=4,
)


def config_for(kind, teacher):
    if kind.__name__.startswith("Free"):
        return student_config(FREE, teacher)
    if kind.__name__.startswith("Chain"):
        return chain_config(CHAIN, teacher)
    return kind.config_class(**{**teacher.to_dict(), "pad_token_id": 0})


MASKED_WORDS = [
    BertForMaskedLM,
    RobertaForMaskedLM,
    FreeHeadBertForMaskedLM,
    ChainBertForMaskedLM,
]


@pytest.mark.parametrize("kind", MASKED_WORDS)
@torch.no_grad()
def test_models_of_masked_words_are_saved_too(kind, make_bert, tokenizer, metrics, folder):
    model = kind(config_for(kind, make_bert().config)).eval()
    save(folder, model, tokenizer, metrics)
    again = AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert type(again) is kind
    ids_BT = torch.tensor([tokenizer("a [MASK] b d")["input_ids"]])
    logits_BTV = again(ids_BT).logits
    assert logits_BTV.shape == (*ids_BT.shape, model.config.vocab_size)
    torch.testing.assert_close(logits_BTV, model(ids_BT).logits, atol=1e-6, rtol=0)
    assert read_metrics(folder) == metrics
    code = {"Free": CODE, "Chai": "modeling_chain_bert.py"}.get(kind.__name__[:4])
    assert [file.name for file in folder.glob("*.py")] == ([] if code is None else [code])


@pytest.mark.parametrize("kind", MASKED_WORDS)
def test_other_scores_of_masked_words_are_refused(kind, make_bert, tokenizer, metrics, folder):
    config = config_for(kind, make_bert().config)
    model, other = kind(config), kind(config)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.get_output_embeddings().bias.add_(torch.linspace(0, 1, config.vocab_size))
    model.save_pretrained = other.save_pretrained
    with pytest.raises(ExportError, match="gives logits that differ by"):
        save(folder, model, tokenizer, metrics)
    assert not folder.exists()


HEADS = {"tags": AutoModelForTokenClassification, "spans": AutoModelForQuestionAnswering}
OUTPUTS = {"tags": ("logits",), "spans": ("start_logits", "end_logits")}


@pytest.fixture(params=sorted(HEADS))
def head(request):
    return request.param


def build_with(head, config, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HEADS[head].from_config(config).eval()


def check_saved(head, model, folder, tokenizer, metrics):
    model.config.no_answer_threshold = -1.25
    save(folder, model, tokenizer, metrics)
    again = HEADS[head].from_pretrained(folder).eval()
    assert type(again) is type(model)
    ids_BT = torch.tensor([tokenizer("a d b")["input_ids"]])
    with torch.no_grad():
        expected, found = model(ids_BT), again(ids_BT)
    for name in OUTPUTS[head]:
        assert found[name].shape[:2] == ids_BT.shape
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
    assert again.config.id2label == model.config.id2label
    assert again.config.no_answer_threshold == -1.25
    assert read_metrics(folder) == metrics


def test_taggers_and_readers_of_every_family_are_saved(
    tiny_config, family, head, tokenizer, metrics, folder
):
    config = tiny_config(family, labels={"tags": 5, "spans": 2}[head])
    check_saved(head, build_with(head, config), folder, tokenizer, metrics)
    assert not list(folder.glob("*.py"))


MOBILE = MobileBertArchitecture(
    layers=1,
    hidden_size=24,
    bottleneck_size=16,
    heads=2,
    ffn_size=20,
    ffn_count=2,
    embedding_size=12,
)
STUDENTS = {"free heads": FREE, "chain": CHAIN, "mobilebert": MOBILE}


@pytest.mark.parametrize("kind", sorted(STUDENTS))
def test_students_that_answer_tokens_are_saved(kind, tiny_config, head, tokenizer, metrics, folder):
    teacher = tiny_config("bert", labels={"tags": 5, "spans": 2}[head])
    describe = chain_config if kind == "chain" else student_config
    model = build_with(head, describe(STUDENTS[kind], teacher))
    check_saved(head, model, folder, tokenizer, metrics)
    code = {"free heads": [CODE], "chain": ["modeling_chain_bert.py"], "mobilebert": []}[kind]
    assert [file.name for file in folder.glob("*.py")] == code
    if code:
        named = json.loads((folder / "config.json").read_text())["auto_map"]
        module = code[0].removesuffix(".py")
        assert named[HEADS[head].__name__] == f"{module}.{type(model).__name__}"


def test_a_tagger_whose_tags_are_as_many_as_words_is_a_tagger(
    tiny_config, tokenizer, metrics, folder
):
    model = build_with("tags", tiny_config("bert", labels=50))
    assert model.config.num_labels == model.config.vocab_size
    check_saved("tags", model, folder, tokenizer, metrics)


@pytest.mark.parametrize("name", ["logits", "start_logits", "end_logits"])
def test_other_answers_for_tokens_are_refused(name, tiny_config, tokenizer, metrics, folder):
    head = "tags" if name == "logits" else "spans"
    config = tiny_config("bert", labels={"tags": 5, "spans": 2}[head])
    model, other = build_with(head, config), build_with(head, config)
    outputs = other.classifier if head == "tags" else other.qa_outputs
    with torch.no_grad():
        outputs.bias[1 if name == "end_logits" else 0] += 1
    model.save_pretrained = other.save_pretrained
    with pytest.raises(ExportError, match=f"gives {name} that differ by"):
        save(folder, model, tokenizer, metrics)
    assert not folder.exists()


@pytest.mark.parametrize("kind", [BertForNextSentencePrediction, BertForPreTraining])
def test_other_heads_are_refused(kind, make_bert, tokenizer, metrics, folder):
    model = kind(make_bert().config)
    with pytest.raises(ExportError, match=rf"got a {kind.__name__}; write it with save_pretrained"):
        save(folder, model, tokenizer, metrics)
    assert list(folder.parent.iterdir()) == []


def test_the_line_of_the_card_works(make_bert, tokenizer, metrics, folder):
    save(folder, make_bert(), tokenizer, metrics)
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    [answer] = classify("a b")
    assert answer["label"] in {"no", "perhaps", "yes"}


def test_measures_and_card_lie_beside_the_weights(make_bert, tokenizer, metrics, folder):
    card = model_card(metrics, teacher="some/teacher", task="embedded")
    save(folder, make_bert(), tokenizer, metrics, card)
    assert (folder / "README.md").read_text(encoding="utf-8") == card
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == metrics
    assert read_metrics(folder) == metrics
    names = files(folder)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(names)
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_a_newer_checkpoint_replaces_the_older_whole(make_bert, tokenizer, metrics, folder):
    save(folder, make_bert(0), tokenizer, metrics)
    (folder / "left-over.txt").write_text("old")
    newer = make_bert(1)
    save(folder, newer, tokenizer, {"quality": 1.0})
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    assert torch.equal(logits(again, tokenizer), logits(newer, tokenizer))
    assert read_metrics(folder) == {"quality": 1.0}
    assert "left-over.txt" not in files(folder)


def test_a_failure_leaves_the_old_checkpoint(make_bert, tokenizer, metrics, folder):
    save(folder, make_bert(0), tokenizer, metrics)
    before = files(folder)
    with pytest.raises(TypeError, match="not JSON serializable"):
        save(folder, make_bert(1), tokenizer, {"quality": object()})
    assert files(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_checkpoint_of_other_outputs_is_refused(make_bert, tokenizer, metrics, folder):
    model, other = make_bert(0), make_bert(1)
    model.save_pretrained = other.save_pretrained
    with pytest.raises(ExportError, match="gives logits that differ by"):
        save(folder, model, tokenizer, metrics)
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []


def test_weights_that_are_not_numbers_are_refused(make_bert, tokenizer, metrics, folder):
    model = make_bert()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ExportError, match="differ by nan"):
        save(folder, model, tokenizer, metrics)
    assert not folder.exists()
