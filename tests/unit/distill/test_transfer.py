"""Progressive transfer beside whole models of transformers, which tell all layers at once."""

import copy
import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModel, AutoModelForMaskedLM, BertTokenizer, MobileBertConfig

from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.data.packing import PackedSet
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.masked_lm import MaskedText
from stillhouse.distill.steps import Part, Schedule, Watch, run_steps
from stillhouse.distill.transfer import (
    LayerReader,
    TransferLesson,
    TransferStep,
    rate_multiplier,
)
from stillhouse.distill.transfer_losses import EVEN_MIX, MOBILEBERT_MIX
from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.chains import chain_config
from stillhouse.space.chain import ChainArchitecture, ChainBlock

LENGTH = 9


def randomised(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = name.endswith("weight") and weight.ndim == 1
            weight.normal_(mean=float(is_scale), std=0.3, generator=generator)
    return model.eval()


@pytest.fixture
def make(tiny_config):
    """Makes encoders of 16 with 4 heads; MobileBERT has 2."""

    def build(family="bert", *, seed=0, build=AutoModel, layers=2, dropout=0.0, **more):
        if family == "mobilebert":
            config = MobileBertConfig(
                vocab_size=50,
                hidden_size=16,
                embedding_size=12,
                intra_bottleneck_size=8,
                intermediate_size=20,
                num_attention_heads=2,
                num_feedforward_networks=2,
                num_hidden_layers=layers,
                max_position_embeddings=24,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        else:
            config = tiny_config(family, num_hidden_layers=layers, dropout=dropout, **more)
        return randomised(build.from_config(config), seed)

    return build


@pytest.fixture(scope="module")
def masker():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(45))]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    return Masker(tokenizer, MaskingRule(probability=0.3))


@pytest.fixture
def make_text(masker):
    """Ten sequences, four a step; or one a step that ends with padding."""

    def build(*, padded=False):
        ids_NT = np.random.default_rng(0).integers(5, 50, (1 if padded else 10, LENGTH))
        used = LENGTH - 3 if padded else LENGTH
        ids_NT[:, 0], ids_NT[:, used - 1], ids_NT[:, used:] = 2, 3, 0
        corpus = PackedSet(
            chunks=(ids_NT.astype(np.uint16),),
            stretches=np.array([[0, len(ids_NT)]]),
            length=LENGTH,
            used_length=used,
        )
        return MaskedText(corpus=corpus, masker=masker, batch_size=1 if padded else 4, seed=3)

    return build


def multipliers(layer, places, *, steps_a_layer):
    return [rate_multiplier(layer, step, steps_a_layer=steps_a_layer) for step in places]


def test_rates_of_a_layer_before_in_and_after_its_phase():
    """Phases of 20 steps: the ramp takes 2, the decay is 0.9 + 0.1·√(what is left)."""
    before = multipliers(1, [0, 1, 10, 19], steps_a_layer=20)
    assert before == [0.0] * 4
    within = multipliers(1, [20, 21, 22, 35, 39], steps_a_layer=20)
    left = [1 - 2 / 20, 1 - 15 / 20, 1 / 20]
    assert within == pytest.approx(
        [0.0, 1.5, *(3 * (0.9 + 0.1 * math.sqrt(share)) for share in left)]
    )
    after = multipliers(1, [40, 41, 55, 60, 61], steps_a_layer=20)
    assert after == pytest.approx([0.0, 0.15, 0.3 * 0.95, 0.0, 0.15])


def test_every_phase_has_the_same_rates():
    for layer in range(3):
        places = range(7 * layer, 7 * layer + 7)
        assert multipliers(layer, places, steps_a_layer=7) == multipliers(
            0, range(7), steps_a_layer=7
        )


def test_a_phase_of_one_step_has_the_full_rate():
    assert multipliers(1, range(4), steps_a_layer=1) == [0.0, 3.0, 0.3, 0.3]


def attention_of(signals, mask_BT):
    scores_BHTS = signals.scores().masked_fill(mask_BT[:, None, None] == 0, -1e30)
    return scores_BHTS.softmax(dim=-1)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "family", ["bert", "mobilebert", "roberta", "distilbert", "factored electra"]
)
def test_a_layer_is_read_as_the_whole_model_tells_it(family, padded, make):
    model = make(family, layers=3)
    ids_BT = torch.randint(5, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, 5:] = 1 - padded
    found = [LayerReader(model, layer)(ids_BT, mask_BT if padded else None) for layer in range(3)]
    model.set_attn_implementation("eager")
    whole = model(ids_BT, mask_BT, output_hidden_states=True, output_attentions=True)
    for layer, signals in enumerate(found):
        for ours, theirs in (
            (signals.hidden_BTD, whole.hidden_states[layer + 1]),
            (attention_of(signals, mask_BT), whole.attentions[layer]),
        ):
            largest = theirs.abs().max().item()
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * largest)


def test_a_reader_leaves_its_model_as_it_was(make):
    model = make(layers=3)
    ids_BT = torch.arange(5, 15).view(2, 5)
    before = model(ids_BT).last_hidden_state
    reader = LayerReader(model, 0)
    reader(ids_BT, None)
    assert torch.equal(model(ids_BT).last_hidden_state, before)
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        reader.layer.output.dense.weight.zero_()
    assert not torch.equal(model(ids_BT).last_hidden_state, before)


def whole_losses(student, teacher, batch, layers, projection=nn.Identity()):  # noqa: B008
    """The four losses of student layer and teacher layer from what whole models tell."""
    told = []
    for model in (student, teacher):
        model.set_attn_implementation("eager")
        told.append(
            model.base_model(
                batch.input_ids, batch.mask, output_hidden_states=True, output_attentions=True
            )
        )
    used = LENGTH if batch.mask is None else int(batch.mask[0].sum())
    s, t = (one.hidden_states[layer + 1] for one, layer in zip(told, layers, strict=True))
    s, t = projection(s)[:, :used], t[:, :used].detach()
    q, p = (
        one.attentions[layer][:, :, :used, :used] for one, layer in zip(told, layers, strict=True)
    )
    if q.shape[1] != p.shape[1]:
        q, p = q.mean(dim=1), p.mean(dim=1)
    p = p.detach()
    return {
        "feature": F.mse_loss(*(F.layer_norm(x, x.shape[-1:], eps=0.0) for x in (s, t))),
        "plain": F.mse_loss(s, t),
        "attention": (p * (p.log() - q.log())).sum(-1).mean(),
        "mean": F.mse_loss(s.mean(-1), t.mean(-1)),
        "variance": F.l1_loss(s.var(-1, unbiased=False), t.var(-1, unbiased=False)),
    }


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


CASES = {
    "the same shape": ("bert", {}),
    "another width": ("bert", {"hidden_size": 24}),
    "MobileBERT": ("mobilebert", {"hidden_size": 24}),
    "MobileBERT of the same width": ("mobilebert", {}),
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_a_step_learns_one_layer_of_the_teacher(case, layer, padded, make, make_text):
    """The teacher has four layers; both networks have a head, which is not read."""
    family, sizes = CASES[case]
    student = make(family, build=AutoModelForMaskedLM)
    teacher = make(seed=1, layers=4, build=AutoModelForMaskedLM, **sizes)
    lesson = TransferLesson(teacher=teacher, mix=MOBILEBERT_MIX, steps_a_layer=3)
    text, accelerator = make_text(padded=padded), Accelerator(cpu=True)
    step = TransferStep(student, lesson, text, accelerator)
    number = 3 * layer + 1
    whole = copy.deepcopy(step.modules).double()
    found = step(number)

    batch = text.batch(number, accelerator)
    links = (layer, 2 * layer + 1)
    losses = whole_losses(
        whole["student"], teacher.double(), batch, links, whole["projections"][layer]
    )
    names = ("feature", "attention", "mean", "variance")
    assert found.tolist() == pytest.approx([losses[name].item() for name in names], rel=1e-4)
    assert not found.requires_grad
    weighted = zip((100.0, 1.0, 5000.0, 5.0), names, strict=True)
    sum(weight / 2 * losses[name] for weight, name in weighted).backward()

    ours, theirs = gradients(step.modules), gradients(whole)
    layers = (f".encoder.layer.{n}." for n in range(layer + 1))
    inside = (".embeddings.", *layers, f"projections.{layer}.")
    expected = {name: one for name, one in theirs.items() if any(n in name for n in inside)}
    assert {name for name, one in ours.items() if one.any()} <= expected.keys()
    assert all(any(n in name for n in inside) for name in ours if "projections" not in name)
    largest = max(one.abs().max().item() for one in expected.values())
    for name, gradient in expected.items():
        difference = (ours[name].double() - gradient).abs().max().item()
        assert difference <= 1e-5 * largest, name
    assert not gradients(teacher)


def test_an_even_mix_is_not_divided_by_the_layers(make, make_text):
    student, teacher = make(), make(seed=1)
    whole = copy.deepcopy(student).double()
    lesson = TransferLesson(teacher=teacher, mix=EVEN_MIX, steps_a_layer=3)
    text = make_text()
    found = TransferStep(student, lesson, text, Accelerator(cpu=True))(0)
    losses = whole_losses(whole, teacher.double(), text.batch(0, Accelerator(cpu=True)), (0, 0))
    assert found.tolist() == pytest.approx(
        [losses["plain"].item(), losses["attention"].item()], rel=1e-4
    )
    (0.5 * losses["plain"] + 0.5 * losses["attention"]).backward()
    [ours], [theirs] = (
        [p.grad for n, p in model.named_parameters() if n == "encoder.layer.0.output.dense.weight"]
        for model in (student, whole)
    )
    largest = theirs.abs().max().item()
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5 * largest)


@pytest.fixture
def learn(make, make_text):
    """Trains a student, which has dropout, for 20 steps a layer."""

    def run(family="bert", *, rate=3e-3, steps_a_layer=20, **watch):
        teacher = make(seed=1, hidden_size=24)
        student = make(family, build=AutoModelForMaskedLM, dropout=0.4)
        lesson = TransferLesson(teacher=teacher, mix=EVEN_MIX, steps_a_layer=steps_a_layer)
        accelerator = Accelerator(cpu=True)
        step = TransferStep(student, lesson, make_text(), accelerator)
        run_steps(
            step.modules,
            step,
            step.schedule(learning_rate=rate),
            accelerator=accelerator,
            parameters=step.parts,
            watch=Watch(**watch),
        )
        return step

    return run


def state_of(step):
    return {name: tensor.clone() for name, tensor in step.modules.state_dict().items()}


FAMILIES = pytest.mark.parametrize("family", ["bert", "mobilebert"])


@FAMILIES
def test_layers_learn_one_after_the_other(family, learn, make_text, monkeypatch):
    told, states, begun = {}, {}, []
    call = TransferStep.__call__

    def watched(step, number):
        states[number] = state_of(step)
        begun.append(number)
        losses = call(step, number)
        told[number] = float(losses.sum())
        return losses

    monkeypatch.setattr(TransferStep, "__call__", watched)
    states[40] = state_of(learn(family))
    assert begun == list(range(40))

    def moved(first, last):
        return {
            name
            for name, weight in states[last].items()
            if not torch.equal(weight, states[first][name])
        }

    tied = "cls.predictions.decoder.weight"  # to the word embeddings
    first_part = (".encoder.layer.0.", ".embeddings.", "projections.0.", tied)
    for name in moved(0, 20):
        assert any(part in name for part in first_part), name
    assert any("embeddings.word_embeddings" in name for name in moved(0, 20))
    assert any(".encoder.layer.0." in name for name in moved(0, 20))
    assert any(".encoder.layer.1." in name for name in moved(20, 40))
    assert any(".encoder.layer.0." in name for name in moved(20, 40))
    assert not any("cls" in name and tied not in name for name in moved(0, 40))
    assert not moved(20, 21)  # the background is 0 at the beginning of a phase
    for first in (0, 20):
        early = np.mean([told[number] for number in range(first, first + 5)])
        late = np.mean([told[number] for number in range(first + 15, first + 20)])
        assert late < 0.8 * early


def test_dropout_is_off(make, make_text):
    lesson = TransferLesson(teacher=make(seed=1), mix=EVEN_MIX, steps_a_layer=1)
    found = []
    for dropout in (0.0, 0.4):
        student = make(dropout=dropout).train()
        found.append(TransferStep(student, lesson, make_text(), Accelerator(cpu=True))(1))
    assert torch.equal(*found)


@FAMILIES
@pytest.mark.parametrize("stopped", [3, 8])
def test_a_resumed_training_ends_with_the_numbers_of_an_unbroken_one(
    family, stopped, learn, tmp_path
):
    whole = state_of(learn(family, steps_a_layer=6))

    def stop(progress):
        if progress.step == stopped:
            raise KeyboardInterrupt

    folder = CheckpointFolder(path=tmp_path / "training", fingerprint="", every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        learn(family, steps_a_layer=6, on_step=stop, checkpoint=folder)
    steps = []
    torch.manual_seed(1234)
    resumed = state_of(
        learn(family, steps_a_layer=6, on_step=lambda p: steps.append(p.step), checkpoint=folder)
    )
    assert steps == list(range(stopped, 13))
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


class Worker:
    """One of two workers: it sends its messages, or averages them with those of the other."""

    device = torch.device("cpu")
    num_processes = 2

    def __init__(self, rank, received=()):
        self.process_index, self.received, self.sent = rank, list(received), []

    def reduce(self, tensor, reduction):
        assert reduction == "mean"
        self.sent.append(tensor.clone())
        return (tensor + self.received.pop(0)) / 2 if self.received else tensor


def test_workers_average_to_the_step_of_one(make, make_text):
    def work(worker):
        student, lesson = (
            make(),
            TransferLesson(teacher=make(seed=1), mix=MOBILEBERT_MIX, steps_a_layer=1),
        )
        losses = TransferStep(student, lesson, make_text(), worker)(1)
        return losses, gradients(student)

    first = Worker(0)
    work(first)
    losses, ours = work(Worker(1, received=first.sent))
    expected, theirs = work(Accelerator(cpu=True))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    largest = max(one.abs().max().item() for one in theirs.values())
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max().item() <= 1e-5 * largest, name


def test_half_precision_is_near(make, make_text):
    found = []
    for precision in ("float32", "bfloat16"):
        lesson = TransferLesson(
            teacher=make(seed=1), mix=MOBILEBERT_MIX, steps_a_layer=1, precision=precision
        )
        step = TransferStep(make("mobilebert"), lesson, make_text(), Accelerator(cpu=True))
        found.append(step(1))
    assert found[1].dtype == torch.float32
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, rtol=0.1, atol=0.05 * found[0].max().item())


def test_projections_are_a_matter_of_the_seed(make, make_text):
    lesson = TransferLesson(teacher=make(hidden_size=24), mix=EVEN_MIX, steps_a_layer=1)
    found = []
    for seed in (1, 2):
        student = make()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        step = TransferStep(student, lesson, make_text(), Accelerator(cpu=True))
        assert torch.equal(before, torch.get_rng_state())
        found.append(state_of(step)["projections.1.weight"])
    assert torch.equal(*found)
    assert found[0].shape == (24, 16)
    assert step.tokens == 4 * LENGTH


def test_a_phase_without_steps_is_refused(make):
    with pytest.raises(SettingsError, match="at least 1 step of its own, but steps_a_layer is 0"):
        TransferLesson(teacher=make(), mix=EVEN_MIX, steps_a_layer=0)


def test_chains_are_refused(make, make_text, tiny_config):
    blocks = (ChainBlock(hidden_size=16, operations=("M", "S3")),)
    chain = ChainArchitecture(embedding_size=12, blocks=blocks, head_size=8)
    student = AutoModel.from_config(chain_config(chain, tiny_config("bert")))
    lesson = TransferLesson(teacher=make(), mix=EVEN_MIX, steps_a_layer=1)
    with pytest.raises(TeacherError, match="chain of operations"):
        TransferStep(student, lesson, make_text(), Accelerator(cpu=True))


def test_parts_move_at_their_own_rates():
    """Beside AdamW of torch with a rate for each of two matrices, the first still at first."""
    made = [nn.Linear(3, 2), nn.Linear(2, 4)]
    both = nn.Sequential(*made)
    plain = copy.deepcopy(both)
    rates = [lambda step: float(step > 1), lambda step: 2.0 + step]
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

    def backward(net):
        loss = net(inputs).square().mean()
        loss.backward()
        return loss.detach()[None]

    seen = []
    run_steps(
        both,
        lambda _: (seen.append(made[0].weight.detach().clone()), backward(both))[1],
        Schedule(steps=4, learning_rate=0.01, end_fraction=1.0, weight_decay=0.5, clip_norm=0.1),
        accelerator=Accelerator(cpu=True),
        parameters=[
            Part(parameters=list(layer.parameters()), multiplier=rate)
            for layer, rate in zip(made, rates, strict=True)
        ],
    )
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[2], seen[3])
    optimizer = torch.optim.AdamW(
        [
            {"params": [parameter], "weight_decay": 0.5 if parameter.ndim > 1 else 0.0}
            for layer in plain
            for parameter in layer.parameters()
        ]
    )
    for step in range(4):
        optimizer.zero_grad()
        backward(plain)
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        for place, group in enumerate(optimizer.param_groups):
            group["lr"] = 0.01 * rates[place // 2](step)
        optimizer.step()
    torch.testing.assert_close(both.state_dict(), plain.state_dict())


@pytest.mark.parametrize(("end", "expected"), [(1.0, [8, 8, 8, 8, 8]), (0.5, [8, 8, 7, 6, 5])])
def test_a_decay_may_end_above_nothing(end, expected):
    schedule = Schedule(steps=5, learning_rate=8.0, warmup_fraction=0.2, end_fraction=end)
    found = [schedule.learning_rate_at(step) for step in range(6)]
    assert found == pytest.approx([*expected, 8 * end])


@pytest.mark.parametrize("end", [-0.1, 1.5])
def test_impossible_ends_are_refused(end):
    with pytest.raises(SettingsError, match=r"end_fraction must be within 0\.\.1, got"):
        Schedule(steps=1, learning_rate=1.0, end_fraction=end)
