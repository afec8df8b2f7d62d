"""Checkpoints of every kind, loaded where there is no stillhouse."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
)

from stillhouse.export.checkpoint import save_checkpoint
from stillhouse.model.chains import chain_config
from stillhouse.model.encoders import build_encoder, load_encoder
from stillhouse.model.own_families import add_code
from stillhouse.model.students import build_student, student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.supernet.subnets import Supernet

FREE = BertArchitecture(layers=2, hidden_size=24, heads=2, head_size=16, ffn_size=64)
SHARED = BertArchitecture(layers=1, hidden_size=16, heads=1, ffn_size=48)
CHAIN = ChainArchitecture(
    embedding_size=16,
    blocks=(
        ChainBlock(hidden_size=24, operations=("S3", "M", "F", "S5")),
        ChainBlock(hidden_size=32, operations=("M", "S7")),
    ),
    head_size=8,
)

AUTO = {
    "encoder": "AutoModel",
    "encoder after roberta": "AutoModel",
    "sequences": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "answers": "AutoModelForQuestionAnswering",
    "words": "AutoModelForMaskedLM",
    "chain": "AutoModel",
    "chain after roberta": "AutoModel",
    "chain of sequences": "AutoModelForSequenceClassification",
    "chain of tokens": "AutoModelForTokenClassification",
    "chain of answers": "AutoModelForQuestionAnswering",
    "chain of words": "AutoModelForMaskedLM",
    "plain encoder": "AutoModel",
    "plain sequences": "AutoModelForSequenceClassification",
}
NEED_CODE = [kind for kind in AUTO if not kind.startswith("plain")]

LOADER = """
import json
import sys
from pathlib import Path

sys.modules["stillhouse"] = None  # whoever imports it now gets an ImportError
try:
    import stillhouse
except ImportError:
    pass
else:
    raise SystemExit("stillhouse could be imported")

import numpy
import torch
import transformers

work = Path(sys.argv[1])
told = {}
with numpy.load(work / "tokens.npz") as stored:
    inputs = {name: torch.from_numpy(stored[name]) for name in stored.files}
texts = json.loads((work / "texts.json").read_text())
for kind, auto_name in json.loads((work / "kinds.json").read_text()).items():
    auto, folder = getattr(transformers, auto_name), work / kind
    told[kind] = {"refusals": []}
    if not kind.startswith("plain"):
        for given in ({}, {"trust_remote_code": False}):
            try:
                auto.from_pretrained(folder, **given)
            except ValueError as error:
                told[kind]["refusals"].append(str(error))
    trust = {} if kind.startswith("plain") else {"trust_remote_code": True}
    model = auto.from_pretrained(folder, **trust).eval()
    with torch.no_grad():
        outputs = model(**inputs)
    numpy.savez(work / f"{kind}.npz", **{name: value.numpy() for name, value in outputs.items()})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **trust)
    told[kind]["input_ids"] = tokenizer(texts, padding=True)["input_ids"]
    told[kind]["class"] = type(model).__name__
    told[kind]["module"] = type(model).__module__
for kind in ("sequences", "chain of sequences"):
    pipe = transformers.pipeline(
        "text-classification", model=str(work / kind), trust_remote_code=True
    )
    told[kind]["answer"] = pipe(texts[3])
(work / "told.json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def texts(weather_rows):
    """20 texts of 1 to 20 words."""
    words = " ".join(text for text, _ in weather_rows).split()
    return [" ".join(words[place : place + place + 1]) for place in range(20)]


@pytest.fixture(scope="module")
def models(weather_teacher_folder, weather_tokenizer, tiny_config):
    """A model of each kind; the encoders are students out of a supernet."""
    teacher = load_encoder(str(weather_teacher_folder)).model
    free = Supernet(teacher, [FREE]).extract(FREE)
    shared = Supernet(teacher, [SHARED]).extract(SHARED)
    sizes = {"num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    vocabulary = {"vocab_size": len(weather_tokenizer)}
    other = build_encoder(tiny_config("roberta", **sizes, **vocabulary), seed=0).eval()
    made = {
        "encoder": free,
        "encoder after roberta": Supernet(other, [FREE]).extract(FREE),
        "sequences": build_student(student_config(FREE, teacher.config), seed=0),
        "plain encoder": shared,
        "plain sequences": build_student(student_config(SHARED, teacher.config), seed=0),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for kind, auto in (
            ("tokens", AutoModelForTokenClassification),
            ("answers", AutoModelForQuestionAnswering),
            ("words", AutoModelForMaskedLM),
        ):
            made[kind] = auto.from_config(student_config(FREE, teacher.config))
    for kind in ("sequences", "plain sequences", "tokens", "answers", "words"):
        encoder = (shared if kind.startswith("plain") else free).state_dict()
        made[kind].bert.load_state_dict(encoder, strict="sequences" in kind)  # others: no pooler
    made |= chains_for(teacher.config, other.config)
    return {kind: model.eval() for kind, model in made.items()}


def chains_for(after_bert, after_roberta):
    """A chain of each kind, its weights so random that texts are told apart."""
    made = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for kind, name in AUTO.items():
            if kind.startswith("chain"):
                teacher = after_roberta if kind.endswith("roberta") else after_bert
                model = getattr(transformers, name).from_config(chain_config(CHAIN, teacher))
                for weight in model.parameters():
                    torch.nn.init.normal_(weight, std=0.3)
                made[kind] = model
    return made


@pytest.fixture(scope="module")
def tokens(texts, weather_tokenizer):
    encoded = weather_tokenizer(texts, padding=True, return_tensors="pt")
    assert len(set(encoded["attention_mask"].sum(dim=1).tolist())) == len(texts)
    return dict(encoded)


def _loaded_code():
    return {name for name in sys.modules if name.startswith("transformers_modules.")}


@pytest.fixture(scope="module")
def loaded_before():
    """Code of checkpoints that other tests have run in this process."""
    return _loaded_code()


@pytest.fixture(scope="module")
def told(loaded_before, models, texts, tokens, weather_tokenizer, tmp_path_factory):
    """What one process without stillhouse makes of all checkpoints."""
    work = tmp_path_factory.mktemp("checkpoints")
    for kind, model in models.items():
        if AUTO[kind] in ("AutoModel", "AutoModelForSequenceClassification"):
            save_checkpoint(work / kind, model, weather_tokenizer, metrics={}, card="")
        else:
            model.save_pretrained(work / kind)
            weather_tokenizer.save_pretrained(work / kind)
            add_code(work / kind)
    np.savez(work / "tokens.npz", **{name: tensor.numpy() for name, tensor in tokens.items()})
    (work / "texts.json").write_text(json.dumps(texts))
    (work / "kinds.json").write_text(json.dumps(AUTO))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-I", "-c", LOADER, str(work)],
        cwd=work,
        env={**environment, "HF_MODULES_CACHE": str(work / "modules"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr
    return {**json.loads((work / "told.json").read_text()), "work": work}


@pytest.mark.parametrize("kind", AUTO)
@torch.no_grad()
def test_outputs_are_those_of_the_model_that_was_saved(kind, told, models, tokens):
    expected = models[kind](**tokens)
    with np.load(told["work"] / f"{kind}.npz") as found:
        assert set(found.files) == set(expected.keys())
        for name, value in expected.items():
            assert np.abs(found[name] - value.numpy()).max() <= 1e-5
            assert np.abs(found[name] - found[name][:1]).max() > 1e-3  # texts are told apart


@pytest.mark.parametrize("kind", AUTO)
def test_the_code_that_ran_is_that_of_the_checkpoint_or_of_transformers(kind, told, models):
    assert told[kind]["class"] == type(models[kind]).__name__
    folder = "transformers_modules." if kind in NEED_CODE else "transformers.models.bert."
    assert told[kind]["module"].startswith(folder)
    written = list((told["work"] / kind).glob("*.py"))
    assert len(written) == (1 if kind in NEED_CODE else 0)


@pytest.mark.parametrize("kind", NEED_CODE)
def test_code_of_a_checkpoint_runs_on_the_users_word_alone(kind, told):
    unasked, denied = told[kind]["refusals"]
    assert "trust_remote_code=True" in unasked
    assert "trust_remote_code=True" in denied


@pytest.mark.parametrize("kind", AUTO)
def test_the_tokeniser_travels_along(kind, told, tokens):
    assert told[kind]["input_ids"] == tokens["input_ids"].tolist()


@pytest.mark.parametrize("kind", ["sequences", "chain of sequences"])
@torch.no_grad()
def test_a_pipeline_answers(kind, told, models, texts, weather_tokenizer):
    [answer] = told[kind]["answer"]
    logits = models[kind](**weather_tokenizer(texts[3], return_tensors="pt")).logits
    probabilities = logits.softmax(dim=-1)[0]
    assert answer["label"] == ("bad", "good")[probabilities.argmax()]
    assert answer["score"] == pytest.approx(probabilities.max().item(), abs=1e-5)


def test_this_process_has_run_no_code_of_the_checkpoints(loaded_before, told):
    assert _loaded_code() == loaded_before
