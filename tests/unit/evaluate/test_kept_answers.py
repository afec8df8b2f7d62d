import numpy as np
import pytest

from stillhouse.data.answers import AnswerSheet, Question, SpanGold, TagGold
from stillhouse.errors import DataError
from stillhouse.evaluate.kept_answers import pack_answers, read_answers
from stillhouse.evaluate.metrics import bootstrap, judge, score

NAMES = ("O", "B-X", "I-X", "B-Y")


def classes(generator):
    labels = generator.integers(3, size=60)
    return ("accuracy", "f1_macro", "mcc"), generator.normal(size=(60, 3)), labels


def label_sets(generator):
    labels = (generator.random((50, 4)) < 0.3).astype(np.float32)
    return ("f1_micro", "subset_accuracy", "f1_macro"), generator.normal(size=(50, 4)), labels


def numbers(generator):
    labels = generator.normal(size=40).astype(np.float32)
    noisy = labels + generator.normal(size=40).astype(np.float32)
    return ("pearson", "spearman"), noisy[:, None], labels


def tags(generator):
    offsets = np.array([0, 5, 9, 20, 26])
    tags_P = generator.integers(-1, 4, size=26)
    gold = TagGold(offsets=offsets, tags_P=tags_P, names=NAMES)
    return ("entity_f1", "tag_accuracy"), generator.normal(size=(26, 4)), gold


def questions(generator):
    context = "one two three four"
    places = np.array([(-1, -1), (0, 3), (4, 7), (8, 13), (14, 18)], np.int32)
    sheet = AnswerSheet(
        questions=tuple(
            Question(key=str(n), text="which?", context=context, answers=(word,))
            for n, word in enumerate(("one", "two three", "four"))
        ),
        question_of_N=np.arange(3),
        characters_P2=np.tile(places, (3, 1)),
        may_lack_answers=False,
    )
    gold = SpanGold(offsets=np.array([0, 5, 10, 15]), sheet=sheet)
    return ("answer_f1", "exact_match"), generator.normal(size=(15, 2)), gold


def two_classes(generator):
    labels = (generator.random(60) < 0.2).astype(np.int64)
    return ("f1", "mcc", "accuracy"), generator.normal(size=(60, 2)), labels


def macro_classes(generator):
    """Seven classes, of which many a resample of 25 examples lacks one."""
    return ("f1_macro",), generator.normal(size=(25, 7)), generator.integers(7, size=25)


def correlated_classes(generator):
    labels = generator.integers(4, size=80)
    return ("mcc",), generator.normal(size=(80, 4)) + np.eye(4)[labels], labels


def macro_sets(generator):
    labels = (generator.random((30, 5)) < 0.1).astype(np.int64)
    return ("f1_macro", "f1_micro"), generator.normal(size=(30, 5)) - 1.0, labels


JUDGED = (
    classes,
    label_sets,
    numbers,
    tags,
    questions,
    two_classes,
    macro_classes,
    correlated_classes,
    macro_sets,
)


@pytest.fixture(params=JUDGED)
def judged(request):
    return request.param(np.random.default_rng(3))


@pytest.fixture
def kept(judged, tmp_path):
    file = tmp_path / "dev_answers.npz"
    file.write_bytes(pack_answers(*judged, dev_sha256="abc"))
    return read_answers(file)


def test_every_metric_follows_from_what_is_kept(judged, kept):
    metrics, logits, gold = judged

    assert kept.metric == metrics[0]
    assert kept.dev_sha256 == "abc"
    assert len(kept) == len(gold)
    expected = score(metrics, logits, gold)
    assert {name: one.score() for name, one in kept.judged.items()} == pytest.approx(expected)


def test_resamples_are_scored_as_the_interval_scores_them(judged, kept):
    metrics, logits, gold = judged
    generator = np.random.default_rng(7)
    draws = [generator.integers(len(gold), size=len(gold)) for _ in range(200)]
    scores = [kept.primary.score(chosen) for chosen in draws]

    ends = bootstrap(metrics[0], logits, gold, seed=7, resamples=200)
    assert np.quantile(scores, (0.025, 0.975)) == pytest.approx(ends)


def test_every_resample_has_the_score_of_scikit_learn(judged, kept):
    metrics, logits, gold = judged
    expected = judge(metrics, logits, gold)
    generator = np.random.default_rng(8)
    for _ in range(100):
        chosen = generator.integers(len(gold), size=len(gold))
        for name, one in kept.judged.items():
            assert one.score(chosen) == pytest.approx(expected[name].score(chosen), abs=1e-12)


@pytest.mark.parametrize("name", ["f1", "f1_macro", "mcc"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [0, 1, 1]])
@pytest.mark.parametrize("predicted", [[0, 0, 0], [1, 1, 1]])
def test_constants_have_the_score_of_scikit_learn(tmp_path, name, labels, predicted):
    file = tmp_path / "a.npz"
    logits = np.eye(2)[predicted]
    file.write_bytes(pack_answers([name], logits, np.array(labels), dev_sha256="a"))

    expected = score([name], logits, np.array(labels))[name]
    assert read_answers(file).primary.score() == pytest.approx(expected)


def test_the_same_answers_have_one_fingerprint(judged, tmp_path):
    metrics, logits, gold = judged
    given = {"a": logits, "b": logits.copy(), "c": logits[::-1]}
    found = {}
    for name, one in given.items():
        (tmp_path / name).write_bytes(pack_answers(metrics, one, gold, dev_sha256="d"))
        found[name] = read_answers(tmp_path / name).sha256
    assert found["a"] == found["b"] != found["c"]


def test_same_answers_make_the_same_file(judged):
    assert pack_answers(*judged, dev_sha256="a") == pack_answers(*judged, dev_sha256="a")


def test_forty_thousand_predictions_are_small():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(40_000, 2)), generator.integers(2, size=40_000)

    assert len(pack_answers(["f1", "accuracy"], logits, labels, dev_sha256="a" * 64)) < 30_000


def test_numbers_beyond_a_byte_stay_what_they_are(tmp_path):
    labels = np.array([0, 300, 70_000])
    logits = np.zeros((3, 70_001), np.float32)
    logits[[0, 1, 2], [0, 300, 1]] = 1.0
    file = tmp_path / "a.npz"
    file.write_bytes(pack_answers(["f1_macro", "accuracy"], logits, labels, dev_sha256="a"))

    assert read_answers(file).judged["accuracy"].score() == pytest.approx(2 / 3)
    expected = score(["f1_macro"], logits, labels)["f1_macro"]
    assert read_answers(file).primary.score() == pytest.approx(expected)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + b"\0" * 18])
def test_a_damaged_file_is_refused_with_what_follows(tmp_path, content):
    file = tmp_path / "dev_answers.npz"
    file.write_bytes(content)

    with pytest.raises(
        DataError, match=r"dev_answers\.npz holds no answers .* metrics\.json alone"
    ):
        read_answers(file)


def test_half_a_file_is_refused(judged, tmp_path):
    file = tmp_path / "dev_answers.npz"
    packed = pack_answers(*judged, dev_sha256="a")
    file.write_bytes(packed[: len(packed) // 2])

    with pytest.raises(DataError, match="holds no answers"):
        read_answers(file)


def test_answers_of_other_lengths_are_refused(tmp_path):
    file = tmp_path / "a.npz"
    facts = '{"metrics": ["mcc"], "dev_sha256": "a"}'
    np.savez(file, facts=np.array(facts), predictions=np.zeros(3), labels=np.zeros(4))

    with pytest.raises(DataError, match="3 predictions of 4 examples"):
        read_answers(file)


def test_pickles_are_not_opened(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, facts=np.array({"metrics": ["mcc"]}, dtype=object))

    with pytest.raises(DataError, match="holds no answers"):
        read_answers(file)
