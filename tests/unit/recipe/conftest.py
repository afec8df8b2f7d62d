"""A workbench without the parts that a test does not need."""

import pytest
from transformers import BertConfig

from stillhouse.model.teachers import Teacher
from stillhouse.recipe.workbench import Workbench
from stillhouse.run.settings import settings_from_dict


class Talk:
    """A narrator that remembers what it was told to say."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def note(self, text):
        pass

    def begin(self, task, total):
        pass

    def advance(self, done, detail=""):
        pass

    def end(self):
        pass


class ConfigOnly:
    """Stands for a teacher of which only the configuration is read."""

    def __init__(self, config):
        self.config = config


@pytest.fixture
def talk():
    return Talk()


@pytest.fixture
def bench(talk):
    """Makes a workbench whose teacher is a shape: layers, width, heads of 32, FFN of 4 widths."""

    def make(settings=None, layers=4, width=256, **parts):
        config = BertConfig(
            vocab_size=30_000,
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=width // 32,
            intermediate_size=4 * width,
            max_position_embeddings=128,
            num_labels=2,
        )
        names = ("run", "accelerator", "precision", "task", "data", "device")
        others = ("workload", "teacher_hash")
        missing = dict.fromkeys((*names, *others))
        return Workbench(
            settings=settings_from_dict(settings or {}),
            narrator=talk,
            source=Teacher(
                name="shape", model=ConfigOnly(config), tokenizer=None, has_trained_head=True
            ),
            **{**missing, **parts},
        )

    return make
