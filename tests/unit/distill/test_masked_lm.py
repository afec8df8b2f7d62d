"""Masked words beside whole models in float64, whose logits are computed at every token."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy.special import log_softmax, rel_entr, softmax
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, BertModel, BertTokenizer

from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.data.packing import PackedSet
from stillhouse.distill import masked_lm
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.masked_lm import (
    BorrowedHead,
    MaskedLmLesson,
    MaskedLmStep,
    MaskedText,
    MlmHeadStep,
    held_out_mlm,
)
from stillhouse.distill.steps import Schedule, Watch, run_steps
from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.chains import chain_config
from stillhouse.model.encoders import Encoder
from stillhouse.model.mlm_teachers import MlmHead, MlmTeacher
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock

LENGTH = 11
CHAIN = ChainArchitecture(
    embedding_size=12,
    blocks=(
        ChainBlock(hidden_size=16, operations=("M", "S3")),
        ChainBlock(hidden_size=24, operations=("F", "M")),
    ),
    head_size=8,
)
FREE = BertArchitecture(layers=2, hidden_size=12, heads=3, head_size=8, ffn_size=20)


@pytest.fixture(scope="module")
def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(45))]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)})


@pytest.fixture(scope="module")
def masker(tokenizer):
    return Masker(tokenizer, MaskingRule(probability=0.3))


def packed(ids_NT, used=LENGTH):
    return PackedSet(
        chunks=(ids_NT.astype(np.uint16),),
        stretches=np.array([[0, len(ids_NT)]]),
        length=LENGTH,
        used_length=used,
    )


@pytest.fixture(scope="module")
def corpus():
    """Ten sequences; the tokens of one are neighbours in the vocabulary, so that they tell."""
    generator = np.random.default_rng(0)
    ids_NT = generator.integers(5, 45, (10, 1)) + generator.integers(0, 4, (10, LENGTH))
    ids_NT[:, 0], ids_NT[:, -1] = 2, 3
    return packed(ids_NT)


def randomised(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = name.endswith("weight") and weight.ndim == 1
            weight.normal_(mean=float(is_scale), std=0.3, generator=generator)
    return model.eval()


def build_teacher(tokenizer, *, with_head=True):
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=16,
    )
    model = randomised(BertModel(config), 5)
    head = randomised(MlmHead(model), 6) if with_head else None
    encoder = Encoder(name="a teacher", model=model, tokenizer=tokenizer)
    return MlmTeacher(encoder=encoder, head=head)


@pytest.fixture
def teacher(tokenizer):
    return build_teacher(tokenizer)


def whole_model(teacher):
    """The teacher as transformers' own model, in float64."""
    model = BertForMaskedLM(teacher.encoder.model.config)
    weights = dict(teacher.encoder.model.state_dict())
    model.bert.load_state_dict({n: w for n, w in weights.items() if "pooler" not in n})
    model.cls.predictions.transform.dense.load_state_dict(teacher.head.dense.state_dict())
    model.cls.predictions.transform.LayerNorm.load_state_dict(teacher.head.norm.state_dict())
    with torch.no_grad():
        model.get_output_embeddings().bias.copy_(teacher.head.bias)
    return model.double().eval()


@pytest.fixture
def make_student(tiny_config):
    """Makes students of 16 with 2 layers, of any family or with free heads, and chains."""

    def make(family="bert", *, seed=1, **more):
        if family == "chain":
            config = chain_config(CHAIN, tiny_config("bert"))
        elif family == "free heads":
            config = student_config(FREE, tiny_config("bert"))
        else:
            config = tiny_config(family, **more)
        return randomised(AutoModelForMaskedLM.from_config(config), seed)

    return make


def text_of(corpus, masker, *, batch_size=4, seed=3):
    return MaskedText(corpus=corpus, masker=masker, batch_size=batch_size, seed=seed)


def read_step(corpus, masker, step):
    """What a step of `text_of` reads: all sequences of the batch, and all labels."""
    ids_BT = corpus.batch(corpus.plan(batch_size=4, seed=3, step=step))
    masked_BT, labels_BT = masker.mask(ids_BT, seed=3, step=step)
    return torch.from_numpy(masked_BT).long(), torch.from_numpy(labels_BT)


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    """Equal up to rounding, which is measured by the largest of all gradients."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    assert largest > 1e-3
    for name, gradient in expected.items():
        difference = (found[name].double() - gradient.double()).abs().max().item()
        assert difference <= 1e-5 * largest, name


@pytest.fixture(params=[512, 3], ids=["at once", "by threes"])
def portions(request, monkeypatch):
    monkeypatch.setattr(masked_lm, "TOKENS_AT_ONCE", request.param)


FAMILIES = ["bert", "roberta", "distilbert", "factored electra", "free heads", "chain"]


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_a_student_learns_from_words_and_teacher(
    family, weight, make_student, teacher, corpus, masker
):
    student = make_student(family)
    whole = copy.deepcopy(student).double()
    lesson = MaskedLmLesson(teacher=teacher, weight=weight)
    step = MaskedLmStep(student, lesson, text_of(corpus, masker), Accelerator(cpu=True))
    losses = step(2)

    ids_BT, labels_BT = read_step(corpus, masker, 2)
    kept_BT = labels_BT != -100
    assert kept_BT.sum() > 6
    with torch.no_grad():
        wanted_NV = whole_model(teacher)(ids_BT).logits[kept_BT]
    logits_NV = whole(ids_BT).logits[kept_BT]
    entropy = F.cross_entropy(logits_NV, labels_BT[kept_BT])
    divergence = F.kl_div(logits_NV.log_softmax(-1), wanted_NV.softmax(-1), reduction="batchmean")
    ((1 - weight) * entropy + weight * divergence).backward()

    found_log_NV = log_softmax(logits_NV.detach().numpy(), axis=1)
    by_hand = rel_entr(softmax(wanted_NV.numpy(), axis=1), np.exp(found_log_NV)).sum(1).mean()
    assert losses.tolist() == pytest.approx([entropy.item(), by_hand], rel=1e-4)
    assert not losses.requires_grad
    assert_same(gradients(student), gradients(whole))
    assert not gradients(teacher.encoder.model)
    assert not gradients(teacher.head)


@pytest.mark.usefixtures("portions")
def test_a_head_learns_alone(teacher, corpus, masker):
    whole = whole_model(teacher)
    step = MlmHeadStep(teacher, text_of(corpus, masker), Accelerator(cpu=True))
    [loss] = step(2)
    ids_BT, labels_BT = read_step(corpus, masker, 2)
    expected = F.cross_entropy(whole(ids_BT).logits.transpose(1, 2), labels_BT)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    part = whole.cls.predictions
    named = {
        "dense.weight": part.transform.dense.weight,
        "dense.bias": part.transform.dense.bias,
        "norm.weight": part.transform.LayerNorm.weight,
        "norm.bias": part.transform.LayerNorm.bias,
        "bias": part.decoder.bias,
    }
    assert_same(gradients(teacher.head), {name: p.grad for name, p in named.items()})
    assert not gradients(teacher.encoder.model)


def test_steps_add_to_the_gradients_and_read_what_is_planned(make_student, teacher, corpus, masker):
    student = make_student()
    text = text_of(corpus, masker)
    step = MaskedLmStep(student, MaskedLmLesson(teacher=teacher), text, Accelerator(cpu=True))
    assert step.tokens == MlmHeadStep(teacher, text, Accelerator(cpu=True)).tokens == 44
    first = step(0)
    once = {name: gradient.clone() for name, gradient in gradients(student).items()}
    assert torch.equal(first, step(0))
    assert_same(gradients(student), {name: 2 * gradient for name, gradient in once.items()})
    assert not torch.equal(first, step(1))


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


@pytest.fixture
def half_empty():
    """Four sequences; the first two of step 0 have one word among them, the others many."""
    ids_NT = np.random.default_rng(0).integers(5, 50, (4, LENGTH))
    ids_NT[:, 0], ids_NT[:, -1] = 2, 3
    order = packed(ids_NT).plan(batch_size=4, seed=3, step=0)
    ids_NT[order[0], 1:] = 3
    ids_NT[order[1], 2:] = 3
    return packed(ids_NT)


@pytest.fixture(params=["full", "half empty", "one empty"])
def shared_text(request, corpus, half_empty, masker):
    """Batches whose halves have unlike numbers of chosen tokens, or none."""
    if request.param == "full":
        return text_of(corpus, masker)
    if request.param == "one empty":
        first = half_empty.plan(batch_size=4, seed=3, step=0)[1]
        ids_NT = half_empty.chunks[0].copy()
        ids_NT[first, 1:] = 3
        return text_of(packed(ids_NT), masker)
    return text_of(half_empty, masker)


def assert_workers_agree(work):
    """Two workers, the second with the messages of the first, and one alone."""
    first = Worker(0)
    work(first)
    (module, losses) = work(Worker(1, received=first.sent))
    (whole, expected) = work(Accelerator(cpu=True))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    assert_same(gradients(module), gradients(whole))


def test_workers_average_to_the_step_of_one_student(make_student, teacher, shared_text):
    def work(worker):
        student = make_student()
        return student, MaskedLmStep(student, MaskedLmLesson(teacher=teacher), shared_text, worker)(
            0
        )

    assert_workers_agree(work)


def test_workers_average_to_the_step_of_one_head(tokenizer, shared_text):
    def work(worker):
        teacher = build_teacher(tokenizer)
        return teacher.head, MlmHeadStep(teacher, shared_text, worker)(0)

    assert_workers_agree(work)


def test_text_without_words_teaches_nothing(make_student, teacher, masker):
    student = make_student()
    text = text_of(packed(np.full((4, LENGTH), 3)), masker)
    step = MaskedLmStep(student, MaskedLmLesson(teacher=teacher), text, Accelerator(cpu=True))
    assert step(0).tolist() == [0.0, 0.0]
    assert not any(gradient.any() for gradient in gradients(student).values())


def test_dropout_is_a_matter_of_seed_step_and_worker(make_student, teacher, corpus, masker):
    lesson, found = MaskedLmLesson(teacher=teacher), []
    for seed in (1, 2):
        student = make_student(dropout=0.4)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        step = MaskedLmStep(student, lesson, text_of(corpus, masker), Accelerator(cpu=True))
        found.append(step(0))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*found)
    student = make_student(dropout=0.0)
    step = MaskedLmStep(student, lesson, text_of(corpus, masker), Accelerator(cpu=True))
    assert not torch.allclose(step(0), found[0], rtol=1e-3)


def test_half_precision_is_near(make_student, teacher, corpus, masker):
    found = []
    for precision in ("float32", "bfloat16"):
        lesson = MaskedLmLesson(teacher=teacher, precision=precision)
        step = MaskedLmStep(make_student(), lesson, text_of(corpus, masker), Accelerator(cpu=True))
        head = MlmHeadStep(
            teacher, text_of(corpus, masker), Accelerator(cpu=True), precision=precision
        )
        found.append(torch.cat([step(0), head(0)]))
    assert found[1].dtype == torch.float32
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, rtol=0.1, atol=0.05)


def test_padding_teaches_nothing(make_student, teacher, masker):
    ids_NT = np.random.default_rng(0).integers(5, 50, (1, LENGTH))
    ids_NT[:, 0], ids_NT[:, 6], ids_NT[:, 7:] = 2, 3, 0
    student = make_student()
    whole = copy.deepcopy(student).double()
    text = text_of(packed(ids_NT, used=7), masker, batch_size=1)
    losses = MaskedLmStep(student, MaskedLmLesson(teacher=teacher), text, Accelerator(cpu=True))(1)
    masked_BT, labels_BT = masker.mask(ids_NT, seed=3, step=1)
    logits_NV = whole(torch.from_numpy(masked_BT[:, :7])).logits[0]
    expected = F.cross_entropy(logits_NV, torch.from_numpy(labels_BT[0, :7]))
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.fixture
def learn(make_student, teacher, corpus, masker):
    """Trains a student, which has dropout, or a head."""

    def run(what, *, steps=12, **watch):
        schedule = Schedule(steps=steps, learning_rate=3e-2, warmup_fraction=0.2)
        accelerator, text = Accelerator(cpu=True), text_of(corpus, masker)
        if what == "head":
            module = randomised(MlmHead(teacher.encoder.model), 9)
            fresh = MlmTeacher(encoder=teacher.encoder, head=module)
            step = MlmHeadStep(fresh, text, accelerator)
        else:
            module = make_student(dropout=0.1)
            step = MaskedLmStep(module, MaskedLmLesson(teacher=teacher), text, accelerator)
        report = run_steps(module, step, schedule, accelerator=accelerator, watch=Watch(**watch))
        return module, report

    return run


@pytest.mark.parametrize("what", ["student", "head"])
def test_a_resumed_training_ends_with_the_numbers_of_an_unbroken_one(what, learn, tmp_path):
    whole, expected = learn(what)

    def stop(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    folder = CheckpointFolder(path=tmp_path / "training", fingerprint="", every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        learn(what, on_step=stop, checkpoint=folder)
    told = []
    resumed, report = learn(what, on_step=told.append, checkpoint=folder)
    assert told[0].step == 7
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name
    assert report.losses == expected.losses


@pytest.mark.parametrize("what", ["student", "head"])
def test_training_tells_more_words(what, learn, teacher, corpus, masker):
    scores = []
    for steps in (1, 60):
        module, _ = learn(what, steps=steps)
        network = MlmTeacher(encoder=teacher.encoder, head=module) if what == "head" else module
        scores.append(held_out_mlm(network, corpus, masker))
    before, after = scores
    assert after.cross_entropy_nats < before.cross_entropy_nats - 0.5


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize("what", ["student", "teacher"])
@torch.no_grad()
def test_held_out_text_is_scored_at_every_chosen_token(
    what, batch_size, make_student, teacher, corpus, masker
):
    network = make_student(dropout=0.5).train() if what == "student" else teacher
    told = []
    found = held_out_mlm(network, corpus, masker, batch_size=batch_size, on_progress=told.append)
    whole = copy.deepcopy(network).double().eval() if what == "student" else whole_model(teacher)
    entropies, right = [], []
    for index in range(10):
        ids_1T, labels_1T = map(
            torch.from_numpy, masker.mask(corpus.batch([index]), seed=0, step=index)
        )
        for logits_V, label in zip(whole(ids_1T.long()).logits[0], labels_1T[0], strict=True):
            if label != -100:
                entropies.append(-logits_V.log_softmax(0)[label].item())
                right.append(logits_V.argmax() == label)
    assert found.chosen_count == len(right)
    assert found.accuracy_fraction == pytest.approx(np.mean(right))
    assert found.cross_entropy_nats == pytest.approx(np.mean(entropies), rel=1e-5)
    assert told == sorted(told)
    assert len(told) == -(-10 // batch_size)
    assert told[-1] == 1.0


def test_a_teachers_head_reads_a_student_through_a_projection(teacher, corpus, masker):
    """The student is the teacher with its states turned; the projection turns them back."""
    hidden = teacher.encoder.model.config.hidden_size
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(hidden, hidden)).Q

    class Turned(BertModel):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            output.last_hidden_state = output.last_hidden_state @ turn
            return output

    student = Turned(teacher.encoder.model.config)
    student.load_state_dict(teacher.encoder.model.state_dict())
    back = torch.nn.Linear(hidden, hidden, bias=False)
    with torch.no_grad():
        back.weight.copy_(turn)
    borrowed = BorrowedHead(student=student, projection=back, head=teacher.head)
    found, expected = (held_out_mlm(one, corpus, masker) for one in (borrowed, teacher))
    assert found.chosen_count == expected.chosen_count
    assert found.cross_entropy_nats == pytest.approx(expected.cross_entropy_nats, rel=1e-4)
    plain = BorrowedHead(student=student, projection=torch.nn.Identity(), head=teacher.head)
    other = held_out_mlm(plain, corpus, masker)
    assert other.cross_entropy_nats != pytest.approx(expected.cross_entropy_nats, rel=1e-2)


def test_a_teacher_without_a_head_is_refused(tokenizer, corpus, masker, make_student):
    bare = build_teacher(tokenizer, with_head=False)
    text, worker = text_of(corpus, masker), Accelerator(cpu=True)
    told = "'a teacher' has no head for masked words; train one"
    with pytest.raises(TeacherError, match=told):
        MlmHeadStep(bare, text, worker)
    with pytest.raises(TeacherError, match=told):
        MaskedLmStep(make_student(), MaskedLmLesson(teacher=bare), text, worker)
    with pytest.raises(TeacherError, match=told):
        held_out_mlm(bare, corpus, masker)


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_impossible_weights_are_refused(weight, teacher):
    with pytest.raises(SettingsError, match=r"weight is within 0\.\.1, but is"):
        MaskedLmLesson(teacher=teacher, weight=weight)
