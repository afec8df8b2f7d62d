import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import accuracy_score

from stillhouse.data.answers import Question, TagGold
from stillhouse.errors import DataError, SettingsError, TrainingError
from stillhouse.evaluate.answering import answers
from stillhouse.evaluate.loyalty import label_loyalty, loyalty, probability_loyalty

STUDENT, TEACHER = (0.75, 0.2, 0.05), (0.8, 0.1, 0.1)


def pair_of(shape, seed=0, noise=1.0):
    draw = np.random.default_rng(seed)
    teacher = draw.normal(size=shape)
    return teacher + noise * draw.normal(size=shape), teacher


def share_of(logits):
    raised = np.exp(logits)
    return raised / raised.sum()


def distance(student, teacher, base=None):
    """The distance of two vectors of logits, one at a time."""
    return jensenshannon(share_of(student), share_of(teacher), base)


def test_the_worked_example_has_the_distance_that_it_says():
    logits, classes = (np.log([each]) for each in (STUDENT, TEACHER)), np.array([0])
    assert probability_loyalty(*logits, classes) == pytest.approx(0.88535, abs=5e-6)


def test_the_distance_is_the_root_of_the_divergence_taken_once():
    middle = [(one + other) / 2 for one, other in zip(STUDENT, TEACHER, strict=True)]
    divergence = sum(
        share * math.log(share / mean) / 2
        for each in (STUDENT, TEACHER)
        for share, mean in zip(each, middle, strict=True)
    )
    logits = [np.log([each]) for each in (STUDENT, TEACHER)]
    classes = np.array([0])
    assert probability_loyalty(*logits, classes) == pytest.approx(1 - math.sqrt(divergence))
    in_bits = 1 - math.sqrt(divergence / math.log(2))
    assert probability_loyalty(*logits, classes, base="2") == pytest.approx(in_bits)


@pytest.mark.parametrize(("base", "scipys"), [("e", None), ("2", 2)])
def test_classes_agree_with_scipy_and_scikit_learn(base, scipys):
    (student, teacher), classes = pair_of((200, 4)), np.zeros(200, dtype=np.int64)
    expected = 1 - np.mean([distance(*pair, scipys) for pair in zip(student, teacher, strict=True)])
    assert probability_loyalty(student, teacher, classes, base=base) == pytest.approx(
        expected, abs=1e-6
    )
    same = accuracy_score(teacher.argmax(axis=1), student.argmax(axis=1))
    assert label_loyalty(student, teacher, classes) == pytest.approx(same)


@pytest.mark.parametrize(("base", "worst"), [("e", 1 - math.sqrt(math.log(2))), ("2", 0.0)])
def test_the_range_ends_at_opposite_and_at_equal_models(base, worst):
    teacher = np.array([[60.0, 0.0], [0.0, 60.0]])
    classes = np.array([0, 1])
    opposite = probability_loyalty(teacher[::-1], teacher, classes, base=base)
    assert opposite == pytest.approx(worst, abs=1e-6)
    assert probability_loyalty(teacher, teacher, classes, base=base) == 1.0
    assert label_loyalty(teacher[::-1], teacher, classes) == 0.0


def test_models_that_differ_by_rounding_alone_are_loyal():
    student, teacher = pair_of((5_000, 3), noise=1e-9)
    assert probability_loyalty(student, teacher, np.zeros(5_000, np.int64)) == pytest.approx(
        1.0, abs=1e-6
    )


def test_right_labels_do_not_matter():
    student, teacher = pair_of((50, 3))
    unknown, right = np.full(50, -100), teacher.argmax(axis=1)
    assert loyalty(student, teacher, unknown, seed=0) == loyalty(student, teacher, right, seed=0)


def test_sets_of_classes_are_compared_class_by_class():
    (student, teacher), labels = pair_of((80, 3)), np.zeros((80, 3), dtype=np.float32)
    distances = [
        [distance([one, 0.0], [other, 0.0]) for one, other in zip(*rows, strict=True)]
        for rows in zip(student, teacher, strict=True)
    ]
    expected = 1 - np.mean(distances)
    assert probability_loyalty(student, teacher, labels) == pytest.approx(expected, abs=1e-6)
    same = accuracy_score(teacher > 0, student > 0)
    assert label_loyalty(student, teacher, labels) == pytest.approx(same)


def test_tags_are_compared_at_scored_words():
    gold = TagGold(
        offsets=np.array([0, 3, 4, 8]),
        tags_P=np.array([-100, 0, 1, -100, 2, -1, 0, -100]),
        names=("A", "B", "C"),
    )
    student, teacher = pair_of((8, 3))
    scored = [1, 2, 4, 6]
    expected = 1 - np.mean([distance(student[one], teacher[one]) for one in scored])
    assert probability_loyalty(student, teacher, gold) == pytest.approx(expected, abs=1e-6)
    same = np.mean([student[one].argmax() == teacher[one].argmax() for one in scored])
    assert label_loyalty(student, teacher, gold) == pytest.approx(same)
    assert loyalty(student, teacher, gold, seed=0).count == 3  # one of them without a word


@pytest.mark.parametrize("lacking", [False, True])
def test_questions_are_compared_by_their_windows_and_their_texts(lacking, made_up):
    _, gold = made_up(40, lacking=lacking, threshold=0.5)
    student, teacher = pair_of((gold.offsets[-1], 2), noise=0.3)
    windows = [slice(*ends) for ends in zip(gold.offsets[:-1], gold.offsets[1:], strict=True)]
    distances = [
        [distance(student[window, end], teacher[window, end]) for end in (0, 1)]
        for window in windows
    ]
    expected = 1 - np.mean(distances)
    assert probability_loyalty(student, teacher, gold) == pytest.approx(expected, abs=1e-6)
    texts = [[one.text for one in answers(logits, gold)] for logits in (student, teacher)]
    same = np.mean([one == other for one, other in zip(*texts, strict=True)])
    assert 0.2 < same < 1
    # Some texts differ by an article or a capital letter alone.
    assert same <= label_loyalty(student, teacher, gold) < same + 0.2


def test_texts_that_differ_in_case_alone_are_one_answer(asked):
    question = Question(key="q", text="?", context="Fox fox, hill", answers=("hill",))
    gold = asked([question], may_lack_answers=False)
    first, second, third = (np.zeros((gold.offsets[-1], 2)) for _ in range(3))
    first[4], second[5], third[6] = 9.0, 9.0, 9.0
    assert label_loyalty(first, second, gold) == 1.0
    assert label_loyalty(first, third, gold) == 0.0


def test_the_teacher_has_its_own_threshold(made_up):
    logits, gold = made_up(30, lacking=True, articles=False, threshold=0.0)
    silent = replace(gold, threshold=-100.0)
    spoken = np.mean([bool(one.text) for one in answers(logits, gold)])
    assert 0 < spoken < 1
    assert label_loyalty(logits, logits, gold) == 1.0
    other = label_loyalty(logits, logits, gold, teacher_gold=silent)
    assert other == pytest.approx(1 - spoken)
    found = loyalty(logits, logits, gold, seed=0, teacher_gold=silent)
    assert found.label == pytest.approx(1 - spoken)
    assert found.probability == 1.0


def test_numbers_have_no_loyalty():
    student, teacher = pair_of((20, 1))
    labels = np.zeros(20, dtype=np.float32)
    found = loyalty(student, teacher, labels, seed=0)
    assert (found.label, found.probability, found.probability_high) == (None, None, None)
    assert found.count == 20
    assert "regression" in found.reason
    assert label_loyalty(student, teacher, labels) is None
    assert probability_loyalty(student, teacher, labels) is None


def test_the_intervals_draw_examples():
    (student, teacher), classes = pair_of((60, 3)), np.zeros(60, dtype=np.int64)
    found = loyalty(student, teacher, classes, seed=3, base="2", resamples=80)
    drawn = np.random.default_rng(3)
    spread = []
    for _ in range(80):
        chosen = drawn.integers(60, size=60)
        pair = student[chosen], teacher[chosen]
        spread.append(
            (
                label_loyalty(*pair, classes),
                probability_loyalty(*pair, classes, base="2"),
            )
        )
    low, high = np.quantile(spread, [0.025, 0.975], axis=0)
    assert (found.label_low, found.probability_low) == pytest.approx(tuple(low))
    assert (found.label_high, found.probability_high) == pytest.approx(tuple(high))
    assert found.label_low < found.label < found.label_high
    assert found.probability_low < found.probability < found.probability_high
    assert (found.base, found.count, found.reason) == ("2", 60, "")


def test_the_agreement_is_plain_data():
    student, teacher = pair_of((20, 3))
    found = loyalty(student, teacher, np.zeros(20, dtype=np.int64), seed=0, resamples=10)
    fields = json.loads(json.dumps(found.to_dict()))
    assert type(found)(**fields) == found


CLASSES, SETS = np.zeros(4, dtype=np.int64), np.zeros((4, 3), dtype=np.float32)
NUMBERS = np.zeros(4, dtype=np.float32)
TAGS = TagGold(offsets=np.array([0, 4]), tags_P=np.array([0, 1, 2, 0]), names=("A", "B", "C"))


@pytest.mark.parametrize(
    ("student", "teacher", "gold", "error", "message"),
    [
        (np.zeros((4, 3)), np.zeros((4, 2)), CLASSES, DataError, r"teacher's \[4, 2\]"),
        (np.zeros((5, 3)), np.zeros((5, 3)), CLASSES, DataError, r"student's is \[5, 3\]"),
        (np.zeros((4, 1)), np.zeros((4, 1)), CLASSES, DataError, "classes"),
        (np.zeros((0, 3)), np.zeros((0, 3)), CLASSES[:0], DataError, "same examples"),
        (np.zeros((4, 2)), np.zeros((4, 2)), SETS, DataError, "multi_label"),
        (np.zeros((4, 2)), np.zeros((4, 2)), NUMBERS, DataError, "scores"),
        (np.zeros((4, 3)), np.zeros((4, 2)), TAGS, DataError, r"got \[4, 2\]"),
        (np.zeros((4, 3)), np.full((4, 3), np.nan), CLASSES, TrainingError, "NaN"),
        (np.full((4, 3), np.inf), np.zeros((4, 3)), TAGS, TrainingError, "NaN"),
        (
            np.zeros((4, 3)),
            np.zeros((4, 3)),
            replace(TAGS, tags_P=np.full(4, -1)),
            DataError,
            "labelled sentences",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(student, teacher, gold, error, message):
    with pytest.raises(error, match=message):
        loyalty(student, teacher, gold, seed=0)


def test_other_questions_of_the_teacher_are_refused(made_up):
    (logits, gold), (_, fewer) = made_up(5), made_up(4)
    with pytest.raises(DataError, match="same questions"):
        label_loyalty(logits, logits, gold, teacher_gold=fewer)


def test_there_is_at_least_one_resample():
    student, teacher = pair_of((4, 3))
    with pytest.raises(SettingsError, match="resamples is 0"):
        loyalty(student, teacher, CLASSES, seed=0, resamples=0)
