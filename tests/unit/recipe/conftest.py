"""A workbench without the parts that a test does not need, and nurseries of tiny chains."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from transformers import BertConfig

from stillhouse.device.latency import Comparison
from stillhouse.device.predicted import PredictedDevice
from stillhouse.model.mlm_teachers import MlmHead
from stillhouse.model.teachers import Teacher
from stillhouse.recipe.chain_nursery import load_chain_teacher, open_chain_nursery, set_up_chains
from stillhouse.recipe.workbench import Workbench
from stillhouse.run.directory import RunDirectory, open_run
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


class Predicting(PredictedDevice):
    """Predicts a share of what another device measures, and measures what is finished.

    Attributes:
        finished: What was measured, in this order.
    """

    name = "predicting"

    def __init__(self, measuring, share):
        self._measuring, self._share, self.finished = measuring, share, []

    def compare(self, architecture, workload):
        found = self._measuring.compare(architecture, workload)
        names = ("median_ms", "low_ms", "high_ms", "p10_ms", "p90_ms")
        told = {name: self._share * getattr(found.student, name) for name in names}
        student = replace(found.student, **told, runs=0, how="predicted")
        return Comparison(student=student, teacher=found.teacher)

    def peak_memory_mb(self, architecture, workload):
        return self._measuring.peak_memory_mb(architecture, workload)

    def _measured(self, architecture, workload):
        self.finished.append(architecture)
        return self._measuring.compare(architecture, workload)


@pytest.fixture
def predicting():
    """Makes a device that predicts what another one measures."""

    def make(measuring, share=0.5):
        return Predicting(measuring, share)

    return make


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
        names = ("run", "accelerator", "precision", "data", "device", "workload", "teacher_hash")
        missing = {**dict.fromkeys(names), "task": SimpleNamespace(kind="classes")}
        return Workbench(
            settings=settings_from_dict(settings or {}),
            narrator=talk,
            source=Teacher(
                name="shape", model=ConfigOnly(config), tokenizer=None, has_trained_head=True
            ),
            **{**missing, **parts},
        )

    return make


CHAINS = {
    "count": 2,
    "operations": 2,
    "hidden_sizes": [8, 16],
    "batch_size": 2,
    "dev_batches": 2,
    "learning_rate": 0.01,
}


@pytest.fixture(scope="session")
def open_chains(weather_encoder_folder, weather_text):
    """Opens the nursery of a run: a teacher of 4 layers with a fresh head, 60 students a block."""

    def open_folder(path, *, device=None, seed=0, **blocks):
        settings = settings_from_dict(
            {
                "recipe": "nas-bert",
                "teacher": {"model": str(weather_encoder_folder)},
                "corpus": {"name": str(weather_text), "length": 16, "held_out": 12},
                "blocks": {**CHAINS, **blocks},
                "distill": {"precision": "float32"},
                "device": {"threads": 1, **(device or {})},
                "seed": seed,
            }
        )
        with open_run(path, settings):
            pass
        teacher = load_chain_teacher(str(weather_encoder_folder))
        teacher = replace(teacher, head=MlmHead(teacher.encoder.model, seed=0))
        run = RunDirectory(path=path)
        setup = set_up_chains(settings, teacher)
        return open_chain_nursery(setup, run, Talk(), Accelerator(cpu=True))

    return open_folder


@pytest.fixture
def make_chain_nursery(open_chains, talk, tmp_path):
    """Opens the nursery of a run by the folder's name; it says what it says to `talk`."""

    def make(name="run", **settings):
        return replace(open_chains(tmp_path / name, **settings), narrator=talk)

    return make
