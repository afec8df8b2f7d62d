import json
import re
import string
from dataclasses import replace

import numpy as np
import pytest
from torchmetrics.text import SQuAD

from stillhouse.data.answers import Question
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.answering import answers, best_threshold, normalised
from stillhouse.evaluate.metrics import bootstrap, constant_quality, paired_bootstrap, score
from stillhouse.evaluate.spans import n_best_answers

METRICS = ("answer_f1", "exact_match")


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("The  Cat, an\tanimal!", "cat animal"),
        ("a.m.", "am"),
        ("Theatre of a king", "theatre of king"),
        ("–the – half-done", "– – halfdone"),
        ("'", ""),
        ("AN", ""),
    ],
)
def test_texts_are_compared_without_what_does_not_count(text, bare):
    assert normalised(text) == bare


def answered(text, accepted, *, may_lack_answers, asked):
    """Scores one answer: the passage is the answer itself, or there is none."""
    question = Question(key="q", text="?", context=text or "nothing", answers=tuple(accepted))
    gold = asked([question], may_lack_answers=may_lack_answers, threshold=0.0, window=99)
    words = len((text or "nothing").split())
    logits = np.zeros((gold.offsets[-1], 2))
    logits[4, 0] = logits[4 + words - 1, 1] = 5.0
    if not text:
        logits[0] = 9.0
    (answer,) = answers(logits, gold)
    assert answer.text == text
    scores = score(METRICS, logits, gold)
    return scores["exact_match"], scores["answer_f1"]


@pytest.mark.parametrize("may_lack_answers", [False, True])
@pytest.mark.parametrize(
    ("text", "accepted", "exact", "f1"),
    [
        ("The Red Fox", ["red fox"], 1.0, 1.0),
        ("red fox", ["blue sky", "the red"], 0.0, 2 / 3),
        ("red red fox", ["red fox fox"], 0.0, 2 / 3),
        ("hill", ["red fox"], 0.0, 0.0),
        ("the", ["red fox"], 0.0, 0.0),
    ],
)
def test_an_answer_is_judged_by_the_nearest_accepted_one(
    text, accepted, exact, f1, may_lack_answers, asked
):
    judged = answered(text, accepted, may_lack_answers=may_lack_answers, asked=asked)
    assert judged == pytest.approx((exact, f1))


def test_a_question_without_an_answer_wants_none(asked):
    assert answered("", [], may_lack_answers=True, asked=asked) == (1.0, 1.0)
    assert answered("fox", [], may_lack_answers=True, asked=asked) == (0.0, 0.0)
    assert answered("", ["fox"], may_lack_answers=True, asked=asked) == (0.0, 0.0)


def test_an_accepted_answer_without_a_word_counts_in_version_one_only(asked):
    # evaluate-v1.1 finds the texts alike, but no common word; evaluate-v2.0 strikes the answer out.
    assert answered("the", [".", "fox"], may_lack_answers=False, asked=asked) == (1.0, 0.0)
    assert answered("the", [".", "fox"], may_lack_answers=True, asked=asked) == (0.0, 0.0)


def test_none_is_answered_where_it_leads_by_more_than_the_threshold(made_up):
    logits, gold = made_up(30, lacking=True)
    given = {}
    for threshold in (-2.0, 0.0, 1.5):
        given[threshold] = answers(logits, replace(gold, threshold=threshold))
        for one, candidates in zip(given[threshold], n_best_answers(logits, gold), strict=True):
            scores = {candidate.text: candidate.score for candidate in reversed(candidates)}
            none = scores.pop("")
            span = max(scores, key=scores.get)
            assert (one.span, one.score, one.score_of_none) == (span, scores[span], none)
            assert one.text == ("" if none - scores[span] > threshold else span)
    silent = [sum(not one.text for one in each) for each in given.values()]
    assert silent[0] > silent[1] > silent[2]


def test_where_every_question_has_an_answer_one_is_given(made_up):
    logits, gold = made_up(20)
    logits[gold.offsets[:-1]] = 50.0
    given = answers(logits, replace(gold, threshold=-100.0))
    assert [one.key for one in given] == [question.key for question in gold.sheet.questions]
    assert all(one.text == one.span != "" for one in given)
    with pytest.raises(DataError, match="no threshold to choose"):
        best_threshold(logits, gold)


def stripped(text):
    """The rule of both programs, step by step."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(word for word in re.sub(r"\b(a|an|the)\b", " ", kept).split())


def judged_by_version_two(text, accepted):
    """Exact match and F1 of one answer, as evaluate-v2.0 defines them."""
    wanted = [answer for answer in accepted if stripped(answer)] or [""]
    exact, best = 0.0, 0.0
    for answer in wanted:
        exact = max(exact, float(stripped(text) == stripped(answer)))
        said, right = stripped(text).split(), stripped(answer).split()
        if not said or not right:
            best = max(best, float(said == right))
            continue
        left, common = list(right), 0
        for word in said:
            if word in left:
                left.remove(word)
                common += 1
        if common:
            precision, recall = common / len(said), common / len(right)
            best = max(best, 2 * precision * recall / (precision + recall))
    return exact, best


def threshold_of_version_two(given, gold):
    """The threshold of the best F1: one pass over the questions, the surest of an answer first."""
    right = {question.key: question.answers for question in gold.sheet.questions}
    total = best = sum(not accepted for accepted in right.values())
    threshold = 0.0
    for one in sorted(given, key=lambda one: one.score_of_none - one.score):
        if right[one.key]:
            total += judged_by_version_two(one.span, right[one.key])[1]
        else:
            total -= 1 if one.span else 0
        if total > best:
            best, threshold = total, one.score_of_none - one.score
    return threshold, best / len(given)


def likely(logits, gold, skill):
    """Raises the logits of the first accepted answer, or of none, with some noise."""
    logits = logits.copy()
    for window, number in enumerate(gold.sheet.question_of_N):
        question = gold.sheet.questions[number]
        tokens = np.arange(gold.offsets[window], gold.offsets[window + 1])
        first = question.context.find(question.answers[0]) if question.answers else -1
        last = first + len(question.answers[0]) if question.answers else -1
        places = gold.sheet.characters_P2[tokens]
        start, end = (places[:, 0] == first) & (first >= 0), (places[:, 1] == last) & (first >= 0)
        if start.any() and end.any():
            logits[tokens[start], 0] += skill
            logits[tokens[end], 1] += skill
        else:
            logits[tokens[0]] += skill
    return logits


@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_is_that_of_the_best_f1(seed, made_up):
    logits, gold = made_up(60, seed=seed, lacking=True, articles=False)
    logits = likely(logits, gold, 1.5)
    threshold = best_threshold(logits, gold)
    given = answers(logits, replace(gold, threshold=0.0))
    expected, f1 = threshold_of_version_two(given, gold)
    assert threshold == pytest.approx(expected)
    reached = score(("answer_f1",), logits, replace(gold, threshold=threshold))["answer_f1"]
    assert reached == pytest.approx(f1)
    assert score(("answer_f1",), logits, gold)["answer_f1"] == pytest.approx(f1)
    others = [one.score_of_none - one.score for one in given]
    assert reached == max(
        score(("answer_f1",), logits, replace(gold, threshold=other))["answer_f1"]
        for other in [min(others) - 1, *others]
    )


def test_questions_with_one_score_are_answered_together(asked):
    questions = [
        Question(key=str(number), text="?", context="fox", answers=("fox",) if number < 2 else ())
        for number in range(5)
    ]
    gold = asked(questions, may_lack_answers=True)
    logits = np.zeros((gold.offsets[-1], 2))
    # Two are right and three wrong at the same score: it is best to answer none of them.
    assert best_threshold(logits, gold) < 0
    assert score(("answer_f1",), logits, gold)["answer_f1"] == pytest.approx(3 / 5)
    assert score(("exact_match",), logits, replace(gold, threshold=0.0)) == {"exact_match": 0.4}


def test_the_best_constant_answer_is_none(made_up):
    _, gold = made_up(30, lacking=True)
    assert constant_quality("answer_f1", gold, classes=2) == pytest.approx(1 / 3)
    assert constant_quality("exact_match", gold, classes=2) == pytest.approx(1 / 3)
    assert constant_quality("exact_match", made_up(30, articles=False)[1], classes=2) == 0
    with pytest.raises(SettingsError, match="choose one of exact_match"):
        constant_quality("accuracy", gold, classes=2)


def test_the_interval_draws_questions(made_up):
    logits, gold = made_up(40, articles=False)
    logits = likely(logits, gold, 3.0)
    exact = [
        judged_by_version_two(one.text, question.answers)[0]
        for one, question in zip(answers(logits, gold), gold.sheet.questions, strict=True)
    ]
    drawn = np.random.default_rng(5)
    spread = [np.mean(np.array(exact)[drawn.integers(40, size=40)]) for _ in range(60)]
    expected = np.quantile(spread, [0.025, 0.975])
    assert bootstrap("exact_match", logits, gold, 5, 60) == pytest.approx(expected)


def test_readers_are_compared_in_pairs(made_up):
    logits, gold = made_up(300, lacking=True, threshold=0.0)
    good, worse = likely(logits, gold, 4.0), likely(logits, gold, 1.0)
    difference, low, high = paired_bootstrap("answer_f1", good, worse, gold, 0, 200)
    ours, theirs = (score(METRICS, each, gold)["answer_f1"] for each in (good, worse))
    assert difference == pytest.approx(ours - theirs)
    assert 0 < low < difference < high


def test_a_metric_of_something_else_is_refused(made_up):
    logits, gold = made_up(3)
    with pytest.raises(SettingsError, match="choose one of exact_match, answer_f1"):
        score(("accuracy",), logits, gold)


def real_questions(path, count):
    """Draws questions, with those that lack an answer where there are such ones."""
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    every = [
        Question(
            key=row["id"],
            text=row["question"],
            context=paragraph["context"],
            answers=tuple(answer["text"] for answer in row["answers"]),
        )
        for article in articles
        for paragraph in article["paragraphs"]
        for row in paragraph["qas"]
    ]
    drawn = np.random.default_rng(0).choice(len(every), size=count, replace=False)
    return [every[number] for number in drawn]


def perturbed(gold, *, silent=0.0):
    """Marks spans near the accepted answers: some moved, longer, shorter, or none at all."""
    draw = np.random.default_rng(1)
    logits = np.zeros((gold.offsets[-1], 2))
    for window, number in enumerate(gold.sheet.question_of_N):
        question = gold.sheet.questions[number]
        tokens = np.arange(gold.offsets[window], gold.offsets[window + 1])
        if draw.random() < silent:
            logits[tokens[0]] = 9.0
            continue
        inside = tokens[gold.sheet.characters_P2[tokens, 0] >= 0]
        accepted = draw.choice(question.answers or [""])
        place = question.context.find(accepted) if accepted else draw.integers(400)
        starts = gold.sheet.characters_P2[inside, 0]
        first = np.searchsorted(starts, place, "right") - 1
        last = np.searchsorted(starts, place + max(len(accepted), 1), "left") - 1
        first, last = (
            np.clip(end + draw.choice([-2, -1, 0, 0, 0, 0, 1, 2]), 0, len(inside) - 1)
            for end in (first, last)
        )
        logits[inside[min(first, last)], 0] = logits[inside[max(first, last)], 1] = 7.0
    return logits


@pytest.mark.data
def test_answers_to_real_questions_are_scored_as_torchmetrics_does(data_folder, asked):
    questions = real_questions(data_folder("squad/dev-v1.1.json"), 500)
    gold = asked(questions, may_lack_answers=False, window=10_000)
    logits = perturbed(gold)
    given = answers(logits, gold)
    reference = SQuAD()
    reference.update(
        [{"id": one.key, "prediction_text": one.text} for one in given],
        [
            {
                "id": question.key,
                "answers": {"text": list(question.answers), "answer_start": [0]},
            }
            for question in questions
        ],
    )
    expected = {name: float(value) / 100 for name, value in reference.compute().items()}
    scores = score(METRICS, logits, gold)
    assert 0.1 < scores["exact_match"] < 0.6 < scores["answer_f1"] < 0.9
    assert scores["exact_match"] == pytest.approx(expected["exact_match"], abs=1e-6)
    assert scores["answer_f1"] == pytest.approx(expected["f1"], abs=1e-6)


@pytest.mark.data
def test_answers_to_real_questions_are_scored_as_version_two_does(data_folder, asked):
    questions = real_questions(data_folder("squad/dev-v2.0.json"), 500)
    gold = asked(questions, may_lack_answers=True, window=10_000, threshold=0.0)
    logits = perturbed(gold, silent=0.4)
    judged = [
        judged_by_version_two(one.text, question.answers)
        for one, question in zip(answers(logits, gold), questions, strict=True)
    ]
    exact, f1 = np.mean(judged, axis=0)
    scores = score(METRICS, logits, gold)
    assert 0.1 < scores["exact_match"] < scores["answer_f1"] < 0.8
    assert scores == {"answer_f1": pytest.approx(f1), "exact_match": pytest.approx(exact)}
