"""What the families of ours put into checkpoints."""

import inspect
import json

import pytest
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
)

from stillhouse.model import modeling_chain_bert, modeling_free_head_bert
from stillhouse.model.modeling_chain_bert import ChainBertConfig
from stillhouse.model.modeling_free_head_bert import FreeHeadBertConfig
from stillhouse.model.own_families import add_code, needs_code

AUTO = (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
SMALL = {"vocab_size": 9, "max_position_embeddings": 8}
FAMILIES = [
    (modeling_chain_bert, ChainBertConfig(embedding_size=8, **SMALL)),
    (
        modeling_free_head_bert,
        FreeHeadBertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, **SMALL
        ),
    ),
]
families = pytest.mark.parametrize(
    ("code", "config"), FAMILIES, ids=lambda one: getattr(one, "model_type", "")
)


def test_only_these_families_need_their_code():
    assert all(needs_code(config) for _, config in FAMILIES)
    assert not needs_code(BertConfig())


@families
@pytest.mark.parametrize("auto", AUTO, ids=lambda auto: auto.__name__)
def test_every_task_has_a_model_of_the_family(code, config, auto):
    assert type(auto.from_config(config)).__module__ == code.__name__


@families
def test_a_checkpoint_names_its_code(code, config, tmp_path):
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    add_code(tmp_path)
    after = json.loads((tmp_path / "config.json").read_text())
    named = after.pop("auto_map")
    assert after == before
    assert set(named) == {"AutoConfig", *(auto.__name__ for auto in AUTO)}
    for auto in (AutoConfig, *AUTO):
        module, name = named[auto.__name__].split(".")
        assert f"{module}.py" == code.__name__.rpartition(".")[2] + ".py"
        made = config if auto is AutoConfig else auto.from_config(config)
        assert name == type(made).__name__
    [written] = tmp_path.glob("*.py")
    assert written.read_bytes() == inspect.getsource(code).encode()
