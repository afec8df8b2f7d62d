import itertools
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertForSequenceClassification,
)

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import head_paths
from stillhouse.model.encoders import load_encoder
from stillhouse.model.heads import outputs_of
from stillhouse.model.teachers import (
    fresh_bert,
    hash_weights,
    label_order_by_agreement,
    label_order_by_name,
    load_model,
    load_tokenizer,
    name_labels,
    renew_outputs,
    reorder_outputs,
)


@pytest.fixture
def saved(make_bert, tmp_path):
    """A folder with a classifier of three labels, and the classifier."""
    model = make_bert(seed=3)
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved", model


def test_a_matching_head_is_kept(saved, tokens):
    folder, original = saved
    for labels in (3, None):
        model, has_head = load_model(str(folder), labels=labels)
        assert has_head
        assert not model.training
        assert model.dtype == torch.float32
        with torch.no_grad():
            assert torch.equal(model(**tokens).logits, original(**tokens).logits)


def test_another_number_of_labels_gets_a_fresh_head(saved):
    folder, original = saved
    model, has_head = load_model(str(folder), labels=5)
    assert not has_head
    assert model.config.num_labels == model.classifier.out_features == 5
    assert torch.equal(model.bert.pooler.dense.weight, original.bert.pooler.dense.weight)


def test_a_bare_encoder_gets_a_fresh_head(saved, tmp_path):
    _, original = saved
    original.bert.save_pretrained(tmp_path / "bare")
    for labels in (None, 2, 3):
        model, has_head = load_model(str(tmp_path / "bare"), labels=labels)
        assert not has_head
        assert torch.equal(model.bert.pooler.dense.weight, original.bert.pooler.dense.weight)


def test_heads_of_every_family_are_told_from_fresh_ones(
    make_model, family, family_tokens, tmp_path
):
    original = make_model(family)
    original.save_pretrained(tmp_path / "whole")
    original.base_model.save_pretrained(tmp_path / "bare")
    whole, has_head = load_model(str(tmp_path / "whole"), labels=3)
    assert has_head
    assert hash_weights(whole) == hash_weights(original)
    with torch.no_grad():
        assert torch.equal(whole(**family_tokens).logits, original(**family_tokens).logits)
    resized, has_head = load_model(str(tmp_path / "whole"), labels=5)
    assert not has_head
    assert resized(**family_tokens).logits.shape == (2, 5)
    for labels in (None, 3):
        bare, has_head = load_model(str(tmp_path / "bare"), labels=labels)
        assert not has_head
        kept, sources = bare.base_model.state_dict(), original.base_model.state_dict()
        assert all(torch.equal(weight, sources[name]) for name, weight in kept.items())


ENDINGS = {"tags": "ForTokenClassification", "spans": "ForQuestionAnswering"}
OUTPUTS = {"tags": 5, "spans": 2}


def test_heads_of_tokens_of_every_family_are_told_from_fresh_ones(
    make_model, family, token_head, family_tokens, tmp_path
):
    original, outputs = make_model(family, head=token_head), OUTPUTS[token_head]
    original.save_pretrained(tmp_path / "whole")
    original.base_model.save_pretrained(tmp_path / "bare")
    for labels in (None, outputs):
        whole, has_head = load_model(str(tmp_path / "whole"), labels=labels, kind=token_head)
        assert has_head
        assert hash_weights(whole) == hash_weights(original)
    with torch.no_grad():
        found, expected = whole(**family_tokens), original(**family_tokens)
        assert torch.equal(outputs_of(found), outputs_of(expected))
    bare, has_head = load_model(str(tmp_path / "bare"), labels=outputs, kind=token_head)
    assert not has_head
    assert type(bare) is type(original)
    kept, sources = bare.base_model.state_dict(), original.base_model.state_dict()
    assert all(torch.equal(weight, sources[name]) for name, weight in kept.items())


def test_another_number_of_tags_gets_a_fresh_head(make_model, family, tmp_path):
    make_model(family, head="tags").save_pretrained(tmp_path)
    model, has_head = load_model(str(tmp_path), labels=4, kind="tags")
    assert not has_head
    assert model.config.num_labels == model.classifier.out_features == 4


HEADS = ("classes", "tags", "spans")


@pytest.mark.parametrize(("written", "wanted"), list(itertools.permutations(HEADS, 2)))
def test_a_head_for_another_task_is_not_taken(make_model, family, written, wanted, tmp_path):
    """Both have two outputs, and in BERT a projection of one name onto classes and onto tags."""
    original = make_model(family, head=written, labels=2)
    original.save_pretrained(tmp_path)
    for labels in (None, 2):
        model, has_head = load_model(str(tmp_path), labels=labels, kind=wanted, seed=1)
        assert not has_head
        kept, sources = model.base_model.state_dict(), original.base_model.state_dict()
        assert all(
            torch.equal(weight, sources[name]) for name, weight in kept.items() if name in sources
        )
        outputs = model.get_submodule(head_paths(model.config, wanted)[-1])
        assert outputs.weight.std() < 0.06  # those of the checkpoint have 0.5
        assert not outputs.bias.any()
    again, _ = load_model(str(tmp_path), labels=2, kind=wanted, seed=1)
    assert hash_weights(again) == hash_weights(model)


@pytest.mark.parametrize("written", HEADS)
def test_heads_of_students_of_other_families_are_told_too(
    make_own, own_family, written, head, tmp_path
):
    original = make_own(own_family, head=written)
    original.save_pretrained(tmp_path)
    model, has_head = load_model(str(tmp_path), kind=head)
    assert has_head == (written == head)
    if has_head:
        assert hash_weights(model) == hash_weights(original)


def test_a_checkpoint_that_names_no_class_is_told_by_its_weights(make_model, tmp_path):
    original = make_model("bert", head="tags")
    original.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("architectures") == ["BertForTokenClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(str(tmp_path), kind="tags")[1]
    assert not load_model(str(tmp_path), kind="spans")[1]
    assert not load_model(str(tmp_path), kind="classes")[1]  # there is no pooler


def test_a_head_without_its_first_projection_is_fresh(make_model, family, tmp_path):
    original = make_model(family)
    names = {"bert": "bert.pooler", "distilbert": "pre_classifier"}
    first = names.get(family, "classifier.dense")
    weights = {
        name: weight for name, weight in original.state_dict().items() if not name.startswith(first)
    }
    assert len(weights) == len(original.state_dict()) - 2
    original.save_pretrained(tmp_path, state_dict=weights)
    assert not load_model(str(tmp_path), labels=3)[1]


@pytest.mark.parametrize("changed", [{"intermediate_size": 24}, {"num_hidden_layers": 3}])
def test_weights_that_do_not_fit_the_configuration_are_not_drawn_by_chance(saved, changed):
    """Of another shape, or missing altogether."""
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    words = (
        r"do not fit its config.json: (bert\.)?encoder\.layer\.\d.* more would be drawn by chance"
    )
    for labels in (None, 3, 5):
        with pytest.raises(TeacherError, match=words):
            load_model(str(folder), labels=labels)
    with pytest.raises(TeacherError, match=words):
        load_encoder(str(folder))


def test_a_fresh_head_does_not_hang_on_the_global_state(saved):
    folder, _ = saved
    heads = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        heads.append(load_model(str(folder), labels=5)[0].classifier.weight)
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*heads)
    assert heads[0].std() > 0


def test_half_precision_checkpoints_are_loaded_in_float32(saved, tmp_path):
    _, model = saved
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    loaded, has_head = load_model(str(tmp_path / "half"), labels=3)
    assert has_head
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}


def test_nothing_to_load_is_a_teacher_error(tmp_path):
    with pytest.raises(TeacherError, match="no model could be loaded from"):
        load_model(str(tmp_path / "absent"))
    with pytest.raises(TeacherError, match="no model could be loaded from"):
        load_model("nobody/has-this-model")
    with pytest.raises(TeacherError, match="no tokeniser could be loaded from"):
        load_tokenizer(str(tmp_path / "absent"))


def test_damaged_weights_are_a_teacher_error(saved):
    folder, _ = saved
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TeacherError, match="no model could be loaded from"):
        load_model(str(folder))


def test_another_family_is_refused(tmp_path):
    config = AlbertConfig(
        vocab_size=20,
        embedding_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match="'albert' is not supported"):
        load_model(str(tmp_path))


def test_a_saved_tokeniser_is_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path))("a d")["input_ids"] == [2, 5, 8, 3]


@pytest.mark.parametrize("family", ["bert", "roberta"], indirect=True)
def test_a_folder_without_a_tokeniser_is_refused(make_model, family, tmp_path):
    folder = tmp_path / "alone"
    make_model(family).save_pretrained(folder)
    with pytest.raises(TeacherError, match=r"alone' has no tokeniser: its vocabulary holds"):
        load_tokenizer(str(folder))


def test_the_fresh_teacher_is_small_and_seeded(tokenizer):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model, same, other = (fresh_bert(tokenizer, labels=4, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert hash_weights(model) == hash_weights(same) != hash_weights(other)
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size) == (4, 256)
    assert (config.vocab_size, config.num_labels, config.pad_token_id) == (9, 4, 0)
    assert not model.training


def test_the_fresh_teacher_has_the_head_of_its_task(tokenizer, token_head):
    labels = OUTPUTS[token_head]
    model, same = (fresh_bert(tokenizer, labels=labels, seed=7, kind=token_head) for _ in range(2))
    assert type(model).__name__ == f"Bert{ENDINGS[token_head]}"
    assert hash_weights(model) == hash_weights(same)
    assert (model.config.num_labels, model.config.hidden_size) == (labels, 256)
    assert not model.training


def test_names_of_tags_and_of_spans_are_written(make_model, tmp_path):
    tagger, reader = make_model("bert", head="tags"), make_model("bert", head="spans")
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    name_labels(tagger, names, kind="tags")
    name_labels(reader, (), kind="spans")
    assert tagger.config.id2label == dict(enumerate(names))
    assert reader.config.id2label == {0: "start", 1: "end"}
    assert reader.config.label2id == {"start": 0, "end": 1}
    for kind, model in (("tags", tagger), ("spans", reader)):
        assert model.config.problem_type is None
        model.save_pretrained(tmp_path / kind)
        loaded, has_head = load_model(str(tmp_path / kind), kind=kind)
        assert has_head
        assert loaded.config.id2label == model.config.id2label
        assert loaded.config.problem_type is None


def test_labels_are_written_into_the_configuration(make_bert):
    model = make_bert()
    name_labels(model, ["no", "perhaps", "yes"], kind="classes")
    assert model.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    assert model.config.label2id == {"no": 0, "perhaps": 1, "yes": 2}
    assert model.config.problem_type == "single_label_classification"
    score = make_bert(labels=1)
    name_labels(score, [], kind="scores")
    assert (score.config.id2label, score.config.label2id) == ({0: "score"}, {"score": 0})
    assert score.config.problem_type == "regression"
    name_labels(model, ["no", "perhaps", "yes"], kind="multi_label")
    assert model.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize(
    ("theirs", "task", "expected"),
    [
        (["a", "b", "c"], ["a", "b", "c"], (0, 1, 2)),
        (["ENTAILMENT", "Neutral", "no"], ["no", "entailment", "neutral"], (2, 0, 1)),
        (["LABEL_0", "LABEL_1"], ["no", "yes"], None),
        (["no", "yes", "perhaps"], ["no", "yes"], None),
        (["no", "yes"], ["no", "yes", "perhaps"], None),
        # Capitals count where names differ in nothing else.
        (["a", "A", "b"], ["A", "b", "a"], (1, 2, 0)),
        # Classes that differ in case only have no order by names without case.
        (["a", "b"], ["A", "a"], None),
        (["A", "a"], ["A", "b"], None),
    ],
)
def test_outputs_are_found_by_name(make_bert, theirs, task, expected):
    model = make_bert(labels=len(theirs))
    model.config.id2label = dict(enumerate(theirs))
    assert label_order_by_name(model, task) == expected


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_a_permutation_of_four_classes_is_recovered(order):
    """Output `order[label]` is the right one; a quarter of the answers is wrong."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 200)
    right = np.array(order)[labels]
    answers = np.where(generator.random(200) < 0.25, generator.integers(0, 4, 200), right)
    logits = generator.normal(size=(200, 4)).astype(np.float32)
    logits[np.arange(200), answers] = 9
    assert label_order_by_agreement(logits, labels) == order


@given(classes=st.integers(2, 6), seed=st.integers(0, 1000), count=st.integers(0, 20))
def test_agreement_gives_a_permutation_as_good_as_any(classes, seed, count):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)).astype(np.float32)
    order = label_order_by_agreement(logits, labels)
    assert sorted(order) == list(range(classes))
    answers = logits.argmax(axis=1)

    def agreement(permutation):
        return int((np.array(permutation)[labels] == answers).sum())

    assert agreement(order) == max(map(agreement, itertools.permutations(range(classes))))


def test_reordered_outputs_are_the_old_ones_in_the_order(make_model, family, family_tokens):
    model = make_model(family, labels=4)
    with torch.no_grad():
        before = model(**family_tokens).logits
        reorder_outputs(model, (2, 0, 3, 1))
        after = model(**family_tokens).logits
    assert torch.equal(after, before[:, [2, 0, 3, 1]])


def test_tags_are_reordered_for_every_token(make_model, family, family_tokens):
    model = make_model(family, head="tags")
    with torch.no_grad():
        before = model(**family_tokens).logits
        reorder_outputs(model, (2, 0, 4, 3, 1))
        after = model(**family_tokens).logits
    torch.testing.assert_close(after, before[..., [2, 0, 4, 3, 1]], atol=1e-5, rtol=1e-5)


def test_start_and_end_can_change_places(make_model, family, family_tokens):
    model = make_model(family, head="spans")
    with torch.no_grad():
        before = model(**family_tokens)
        reorder_outputs(model, (1, 0))
        after = model(**family_tokens)
    assert torch.equal(after.start_logits, before.end_logits)
    assert torch.equal(after.end_logits, before.start_logits)


def test_renewed_outputs_of_tokens_are_the_only_change(make_model, family, token_head):
    model = make_model(family, head=token_head)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    renew_outputs(model, seed=3)
    changed = {n for n, weight in model.state_dict().items() if not torch.equal(weight, before[n])}
    last = {"tags": "classifier", "spans": "qa_outputs"}[token_head]
    assert changed == {f"{last}.weight", f"{last}.bias"}


def test_renewed_outputs_are_small_seeded_and_the_only_change(make_model, family):
    model, same, other = (make_model(family, labels=4) for _ in range(3))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for one, seed in ((model, 3), (same, 3), (other, 4)):
        renew_outputs(one, seed=seed)
    assert torch.equal(state, torch.get_rng_state())
    assert hash_weights(model) == hash_weights(same) != hash_weights(other)
    changed = {n for n, weight in model.state_dict().items() if not torch.equal(weight, before[n])}
    last = "classifier.out_proj" if "classifier.out_proj.weight" in before else "classifier"
    assert changed == {f"{last}.weight", f"{last}.bias"}
    outputs = model.get_submodule(last)
    assert not outputs.bias.any()
    assert 0.01 < outputs.weight.std() < 0.04  # these models' weights have 0.5


OWN_CODE = """
from transformers import BertForSequenceClassification


class Mine(BertForSequenceClassification):
    pass
"""


@pytest.fixture
def with_code(saved, monkeypatch, tmp_path):
    """A checkpoint that brings the code of its model."""
    folder, _ = saved
    (folder / "mine.py").write_text(OWN_CODE)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("sys.path", list(sys.path))
    return str(folder)


def test_code_in_a_checkpoint_runs_on_the_users_word_alone(with_code):
    kinds = {
        trust: type(load_model(with_code, trust_remote_code=trust)[0]) for trust in (False, True)
    }
    assert kinds[False] is BertForSequenceClassification
    assert kinds[True].__name__ == "Mine"


def test_the_hash_sees_every_weight(make_bert):
    model, same = make_bert(seed=1), make_bert(seed=1)
    first = hash_weights(model)
    assert first == hash_weights(same)
    assert len(first) == 64
    with torch.no_grad():
        model.bert.encoder.layer[1].output.LayerNorm.bias[-1] += 1e-6
    assert hash_weights(model) != first
    assert hash_weights(make_bert(seed=2)) != first
