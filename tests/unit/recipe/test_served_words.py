"""Masked words told by encoders in 8 bits, beside what ONNX Runtime gives without our code.

Letters in names: B batch, T tokens, D hidden, N chosen tokens, V vocabulary.
"""

import json
from dataclasses import fields, replace

import numpy as np
import onnxruntime
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stillhouse.data.encoding import NO_CLASS
from stillhouse.distill.masked_lm import HELD_OUT_SEED, BorrowedHead, held_out_mlm
from stillhouse.errors import ExportError
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.mobilebert import build_mobilebert, mobilebert_config
from stillhouse.model.onnx_graph import quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.recipe import flash, served
from stillhouse.recipe.chain_blocks import fresh_block
from stillhouse.recipe.chain_selection import mlm_loss
from stillhouse.recipe.mlm_nursery import MlmNursery
from stillhouse.recipe.mobile_nursery import MobileNursery
from stillhouse.recipe.pretrain import fresh_student, pretrain_selected
from stillhouse.recipe.served import precision_facts
from stillhouse.recipe.served_words import score_words, served_chains, served_words
from stillhouse.run.settings import MlmSettings, PretrainSettings, TransferSettings
from stillhouse.search.trial import CandidateFailed
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.mobilebert import MobileBertArchitecture
from stillhouse.space.published import autodistill_for

EIGHT_BITS = ("int8", "int8-static")
MOBILE = MobileBertArchitecture(
    layers=2,
    hidden_size=48,
    bottleneck_size=16,
    heads=2,
    ffn_size=40,
    ffn_count=2,
    embedding_size=24,
)
BLOCKS = (
    ChainBlock(hidden_size=16, operations=("M", "S5")),
    ChainBlock(hidden_size=8, operations=("F", "M")),
)
CHAIN = ChainArchitecture(embedding_size=16, blocks=BLOCKS, head_size=8)


@pytest.fixture(scope="module")
def nurseries(open_chains, tmp_path_factory):
    """A run's nursery by precision; those of 8 bits are served by ONNX Runtime."""

    def device(precision):
        return {} if precision is None else {"kind": "onnxruntime-cpu", "precision": precision}

    folder = tmp_path_factory.mktemp("served")
    return {
        precision: open_chains(folder / str(precision), device=device(precision))
        for precision in (None, *EIGHT_BITS)
    }


def stirred(module, seed=0, std=0.2):
    """Fills a network with numbers large enough for its answers to differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            is_scale = "norm" in name.lower() and name.endswith("weight")
            weight.normal_(mean=float(is_scale), std=std, generator=generator)
    return module


def mobile_student(nursery):
    """A MobileBERT under the teacher's head, the network, and what reads its last states."""
    config = nursery.teacher.encoder.model.config
    model = build_mobilebert(
        mobilebert_config(MOBILE, config), nursery.teacher.encoder.model, seed=0
    )
    student = stirred(model).eval()
    projection = stirred(nn.Linear(MOBILE.hidden_size, config.hidden_size), seed=1)
    head = nursery.teacher.head
    borrowed = BorrowedHead(student=student, projection=projection, head=head)
    return borrowed, student.mobilebert, lambda hidden_ND: head(projection(hidden_ND))


def chain_student(nursery):
    """A chain with its own head, twice, and the head."""
    student = stirred(fresh_student(nursery, CHAIN)).eval()
    return student, student.bert, student.predictions


STUDENTS = {"mobilebert": mobile_student, "chain": chain_student}


def calibrating(nursery):
    """Masked training text in steps of sixteen, as far as it reaches."""
    corpus = nursery.corpus.train
    for step in range(-(-min(256, len(corpus)) // 16)):
        rows = corpus.plan(batch_size=16, seed=nursery.settings.seed, step=step)
        ids_BT, _ = nursery.masker.mask(corpus.batch(rows), seed=nursery.settings.seed, step=step)
        ids_BT = ids_BT.astype(np.int64)
        yield {"input_ids": ids_BT, "attention_mask": np.ones_like(ids_BT)}


def in_8_bits(network, folder, precision, batches, **names):
    """Opens the file that our writers make, without what opens it in a recipe."""
    plain, file = folder / "plain.onnx", folder / "file.onnx"
    write_graph(network, plain, **names)
    if precision == "int8":
        quantise_graph(plain, file)
    else:
        quantise_statically(plain, file, batches)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def by_hand(nursery, text, session, read, batch):
    """Accuracy and cross-entropy over all hidden words, some sequences at a time."""
    pairs = [
        nursery.masker.mask(text.batch([n]), seed=HELD_OUT_SEED, step=n) for n in range(len(text))
    ]
    ids_NT, labels_NT = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    right, losses = [], []
    for start in range(0, len(text), batch):
        ids_BT = ids_NT[start : start + batch].astype(np.int64)
        labels_BT = torch.from_numpy(labels_NT[start : start + batch])
        fed = {"input_ids": ids_BT, "attention_mask": np.ones_like(ids_BT)}
        [hidden_BTD] = session.run(["last_hidden_state"], fed)
        scores_NV = read(torch.from_numpy(hidden_BTD)[labels_BT != NO_CLASS]).double()
        labels_N = labels_BT[labels_BT != NO_CLASS].long()
        right.append(scores_NV.argmax(dim=-1) == labels_N)
        losses.append(F.cross_entropy(scores_NV, labels_N, reduction="none"))
    return torch.cat(right).double().mean().item(), torch.cat(losses).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "kind", "batch"),
    [
        ("int8", "mobilebert", 1),
        ("int8", "chain", 5),
        ("int8-static", "mobilebert", 5),
        ("int8-static", "chain", 1),
    ],
)
def test_scores_are_those_of_the_file_in_8_bits(nurseries, precision, kind, batch, tmp_path):
    nursery = nurseries[precision]
    nursery = replace(nursery, workload=replace(nursery.workload, batch=batch))
    text = nursery.corpus.held_out
    network, body, read = STUDENTS[kind](nursery)

    scored = score_words(nursery, network, [text, text.part(0, 3)])
    session = in_8_bits(
        body,
        tmp_path,
        precision,
        calibrating(nursery),
        inputs=("input_ids", "attention_mask"),
    )
    first, second = scored.scores

    assert (scored.precision, scored.is_served) == (precision, True)
    for score, part in ((first, text), (second, text.part(0, 3))):
        right, loss = by_hand(nursery, part, session, read, batch)
        assert score.accuracy_fraction == pytest.approx(right)
        assert score.cross_entropy_nats == pytest.approx(loss, rel=1e-5)
    before = held_out_mlm(network, text, nursery.masker)
    assert first.chosen_count == before.chosen_count
    gap = abs(first.cross_entropy_nats - before.cross_entropy_nats)
    assert 0 < gap < 0.1 * before.cross_entropy_nats
    assert abs(first.accuracy_fraction - before.accuracy_fraction) < 0.2


def test_a_student_stays_in_one_piece(nurseries):
    nursery = nurseries["int8"]
    network, body, _ = mobile_student(nursery)
    weights = {name: value.clone() for name, value in network.student.state_dict().items()}
    before = held_out_mlm(network, nursery.corpus.held_out, nursery.masker)

    score_words(nursery, network, [nursery.corpus.held_out])

    assert network.student.base_model is body
    after = network.student.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())
    assert held_out_mlm(network, nursery.corpus.held_out, nursery.masker) == before


def test_a_teacher_is_not_served(nurseries):
    nursery = nurseries["int8"]
    text = nursery.corpus.held_out
    scored = score_words(nursery, nursery.teacher, [text])
    assert scored.precision == "float32"
    assert scored.scores == (held_out_mlm(nursery.teacher, text, nursery.masker),)


def test_a_device_of_float32_scores_as_before(nurseries):
    nursery = nurseries[None]
    assert served_words(nursery) is served_chains(nursery) is None
    network, *_ = chain_student(nursery)
    text = nursery.corpus.held_out
    scored = score_words(nursery, network, [text])
    assert scored.scores == (held_out_mlm(network, text, nursery.masker),)
    assert not scored.is_served
    assert precision_facts(scored.precision) == {"quality_precision": "float32"}


def test_a_precision_of_8_bits_is_told_as_that_of_a_task():
    assert precision_facts("int8-static") == {
        "quality_precision": "int8-static",
        "served_precision": "int8-static",
    }


class Sealed:
    """Text that nothing may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"held-out text was asked for {name}")

    def __len__(self):
        raise AssertionError("held-out text was counted")


def test_scales_are_fixed_without_a_look_at_what_is_judged(nurseries, monkeypatch):
    nursery = nurseries["int8-static"]
    sealed = replace(nursery, corpus=replace(nursery.corpus, held_out=Sealed()))
    expected = list(calibrating(nursery))
    assert sum(len(one["input_ids"]) for one in expected) >= min(256, len(nursery.corpus.train))

    found = list(served_words(sealed).calibration())
    chains = list(served_chains(sealed).calibration())
    assert len(found) == len(chains) == len(expected)
    for ours, theirs, chain in zip(found, expected, chains, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
        ids_BT = torch.from_numpy(theirs["input_ids"])
        state_BTD = nursery.teacher.encoder.model(ids_BT, output_hidden_states=True)
        first_BTD = state_BTD.hidden_states[0].detach().numpy()
        np.testing.assert_allclose(chain["state"], first_BTD, rtol=1e-5, atol=1e-6)
        assert chain["mask"].all()

    given = []
    quantise = served.quantise_statically

    def watched(source, target, batches):
        given.extend(batches)
        return quantise(source, target, given)

    monkeypatch.setattr(served, "quantise_statically", watched)
    network, *_ = chain_student(nursery)
    score_words(nursery, network, [nursery.corpus.held_out])
    assert len(given) == len(expected)
    for ours, theirs in zip(given, expected, strict=True):
        assert np.array_equal(ours["input_ids"], theirs["input_ids"])


class Naive(nn.Module):
    """A complete chain as its blocks are trained: into the width, through it, and out again."""

    def __init__(self, supernets, blocks):
        super().__init__()
        self.supernets, self.blocks = nn.ModuleList(supernets), blocks

    def forward(self, state, mask):
        for supernet, block in zip(self.supernets, self.blocks, strict=True):
            state = supernet(block, state, mask)
        return {"found": state}


@pytest.mark.slow
@pytest.mark.parametrize("precision", EIGHT_BITS)
@torch.no_grad()
def test_a_complete_chain_is_compared_in_8_bits(nurseries, precision, tmp_path):
    """Scales as activations come are those of a request, here of two sequences."""
    nursery = nurseries[precision]
    nursery = replace(nursery, workload=replace(nursery.workload, batch=2))
    supernets = [stirred(fresh_block(nursery, place), seed=place).eval() for place in range(2)]
    dev = nursery.dev()
    session = in_8_bits(
        Naive(supernets, BLOCKS).eval(),
        tmp_path,
        precision,
        served_chains(nursery).calibration(),
        inputs=("mask",),
        states={"state": 32},
    )
    losses = []
    for batch in dev:
        state_BTD = batch.states[0].numpy()
        assert len(state_BTD) == 2
        fed = {"state": state_BTD, "mask": np.ones(state_BTD.shape[:2], dtype=np.int64)}
        [found_BTD] = session.run(["found"], fed)
        found_ND = torch.from_numpy(found_BTD).flatten(0, 1)[batch.text.places]
        scores_NV = nursery.teacher.head(found_ND)
        losses.append(F.cross_entropy(scores_NV, batch.text.labels, reduction="none"))

    loss = mlm_loss(nursery, supernets, BLOCKS, dev, served=served_chains(nursery))

    assert loss == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    exact = mlm_loss(nursery, supernets, BLOCKS, dev)
    assert 0 < abs(loss - exact) < 0.1 * exact


def refuse(*_, **__):
    raise ExportError("no such operator")


def test_a_candidate_that_cannot_be_written_fails_alone(nurseries, monkeypatch):
    chains = nurseries["int8"]
    shared = {field.name: getattr(chains, field.name) for field in fields(MlmNursery)}
    transfer = TransferSettings(steps=2, flash_fraction=0.01, batch_size=2)
    settings = replace(chains.settings, transfer=transfer)
    space = autodistill_for(architecture_of(chains.teacher.encoder.model.config))
    nursery = MobileNursery(**{**shared, "settings": settings, "space": space})

    monkeypatch.setattr(served, "write_graph", refuse)
    with pytest.raises(CandidateFailed, match="no such operator"):
        flash.flash_distil(nursery, "trial-0000", MOBILE)


def test_a_pretrained_chain_tells_both_scores(make_chain_nursery, talk):
    nursery = make_chain_nursery(device={"kind": "onnxruntime-cpu", "precision": "int8"})
    settings = replace(
        nursery.settings,
        mlm=MlmSettings(head_steps=2),
        pretrain=PretrainSettings(steps=2, batch_size=2),
    )
    folder = nursery.run.path / "selected" / "1"
    folder.mkdir(parents=True)
    told = {
        "architecture": CHAIN.to_dict(),
        "architecture_label": CHAIN.label,
        "parameters": 1,
        "flops_fraction": 0.1,
        "device": "chip",
        "latency_ms": 1.0,
        "latency_how": "measured",
        "workload_label": nursery.workload.label,
        **precision_facts("int8"),
    }
    (folder / "selected.json").write_text(json.dumps(told), encoding="utf-8")

    student = pretrain_selected(folder, settings, nursery.run, talk, Accelerator(cpu=True))

    found = json.loads((student / "metrics.json").read_text(encoding="utf-8"))
    assert found["quality_precision"] == found["served_precision"] == "int8"
    assert 0 <= found["mlm_accuracy_fraction"] <= 1
    assert 0 <= found["mlm_accuracy_before_8_bits_fraction"] <= 1
    card = (student / "README.md").read_text(encoding="utf-8")
    assert (
        f"| masked words told right, student in int8 | {found['mlm_accuracy_fraction']:.3f} |"
        in card
    )
