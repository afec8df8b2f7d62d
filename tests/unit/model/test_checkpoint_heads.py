import json

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForTokenClassification

from stillhouse.errors import TeacherError
from stillhouse.model.checkpoint_heads import load_headed
from stillhouse.model.heads import auto_class_of


@pytest.fixture
def save(tiny_config, weather_tokenizer, tmp_path):
    """Writes a checkpoint of a class of models, and gives the model back."""

    def write(kind, *, family="electra", outputs=2):
        config = tiny_config(family, vocab_size=len(weather_tokenizer), labels=outputs)
        model = kind.from_config(config)
        model.save_pretrained(tmp_path)
        weather_tokenizer.save_pretrained(tmp_path)
        return model

    return write


@pytest.mark.parametrize(
    ("kind", "outputs", "head"),
    [
        (auto_class_of("classes"), 3, "classifier"),
        (auto_class_of("tags"), 5, "tagger"),
        (auto_class_of("spans"), 2, "reader"),
        (AutoModelForMaskedLM, 2, "masked words"),
        (AutoModel, 2, "encoder"),
    ],
)
def test_a_checkpoint_comes_with_the_head_that_it_was_written_with(
    save, tmp_path, kind, outputs, head
):
    written = save(kind, outputs=outputs)
    loaded = load_headed(str(tmp_path))
    assert loaded.head == head
    assert type(loaded.model) is type(written)
    assert not loaded.model.training
    weights = loaded.model.state_dict()
    assert all(torch.equal(weights[name], one) for name, one in written.state_dict().items())


def rename(folder, written):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [written]}))


@pytest.mark.parametrize(
    ("written", "lacking"),
    [("BertForTokenClassification", "classifier"), ("BertForQuestionAnswering", "qa_outputs")],
)
def test_a_checkpoint_that_lacks_its_head_is_refused(save, tmp_path, written, lacking):
    save(AutoModel, family="bert")
    rename(tmp_path, written)
    with pytest.raises(TeacherError, match=rf"lacks weights of a {written}: {lacking}.*finetune"):
        load_headed(str(tmp_path))


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForTokenClassification])
def test_weights_of_another_shape_than_the_configuration_tells(save, tmp_path, auto_class):
    save(auto_class, family="bert")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}))
    with pytest.raises(TeacherError, match=r"do not fit its config.json: .*drawn by chance"):
        load_headed(str(tmp_path))


def test_a_head_that_nothing_here_has_is_refused_with_those_that_there_are(save, tmp_path):
    save(AutoModel, family="bert")
    rename(tmp_path, "BertForMultipleChoice")
    with pytest.raises(TeacherError, match=r"a BertForMultipleChoice; supported are .* taggers"):
        load_headed(str(tmp_path))
