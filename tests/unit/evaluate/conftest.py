"""Small sets of tagged sentences and of questions, and the real ones where there are any."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from stillhouse.data.answers import AnswerSheet, Question, SpanGold, TagGold
from stillhouse.data.encoding import NO_CLASS

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def data_folder():
    """Gives a file or folder of the real data; skips the test where it is missing."""

    def find(name):
        named = os.environ.get("STILLHOUSE_DATA")
        roots = [Path(named)] if named else []
        roots.append(REPOSITORY.parent / "shared" / "data")
        for root in roots:
            if (root / name).exists():
                return root / name
        pytest.skip(f"there is no {name} in $STILLHOUSE_DATA or {roots[-1]}")

    return find


@pytest.fixture(scope="session")
def tagged():
    """Makes gold tags and logits from the right and the given tags of sentences.

    Each sentence begins and ends with a special token, and every third word has a second piece;
    the logits there are noise.
    """

    def make(right, given, names):
        numbers = {name: number for number, name in enumerate(names)}
        generator = np.random.default_rng(0)
        tags, logits, lengths = [], [], []
        for sentence, answer in zip(right, given, strict=True):
            gold, chosen = [NO_CLASS], [None]
            for place, (one, other) in enumerate(zip(sentence, answer, strict=True)):
                gold += [numbers[one], *[NO_CLASS] * (place % 3 == 0)]
                chosen += [numbers[other], *[None] * (place % 3 == 0)]
            tags += [*gold, NO_CLASS]
            for tag in [*chosen, None]:
                row = generator.normal(size=len(names))
                if tag is not None:
                    row[tag] = row.max() + 1
                logits.append(row)
            lengths.append(len(gold) + 1)
        return np.array(logits), TagGold(
            offsets=np.cumsum([0, *lengths]), tags_P=np.array(tags), names=tuple(names)
        )

    return make


@pytest.fixture(scope="session")
def asked():
    """Makes the gold answers of questions, whose passages are cut into windows that overlap.

    A window has a first token, two of the question, a separator, words of the passage as white
    space parts them, and a separator.
    """

    def make(questions, *, may_lack_answers, window=8, stride=3, threshold=None):
        question_of, characters, lengths = [], [], []
        for number, question in enumerate(questions):
            words = [match.span() for match in re.finditer(r"\S+", question.context)]
            starts = [0]
            while starts[-1] + window < len(words):
                starts.append(starts[-1] + window - stride)
            for start in starts:
                inside = words[start : start + window]
                characters += [(-1, -1)] * 4 + inside + [(-1, -1)]
                lengths.append(len(inside) + 5)
                question_of.append(number)
        sheet = AnswerSheet(
            questions=tuple(questions),
            question_of_N=np.array(question_of, dtype=np.int64),
            characters_P2=np.array(characters, dtype=np.int32).reshape(-1, 2),
            may_lack_answers=may_lack_answers,
        )
        offsets = np.cumsum([0, *lengths])
        return SpanGold(offsets=offsets, sheet=sheet, threshold=threshold)

    return make


@pytest.fixture(scope="session")
def made_up(asked):
    """Makes questions on passages of random words; with `lacking`, one in three has no answer."""

    def make(count, *, seed=0, lacking=False, articles=True, **options):
        draw = np.random.default_rng(seed)
        words = ["red,", "Red", "fox.", "fox", "ran", "over", "hill", "it's"]
        words += ["The", "a", "an"] if articles else []
        questions = []
        for number in range(count):
            passage = draw.choice(words, size=draw.integers(4, 25)).tolist()
            places = draw.integers(0, len(passage), size=(draw.integers(1, 4), 2))
            texts = [" ".join(passage[min(pair) : max(pair) + 1]) for pair in places]
            questions.append(
                Question(
                    key=f"q{number}",
                    text="what ?",
                    context=" ".join(passage),
                    answers=() if lacking and number % 3 == 0 else tuple(texts),
                )
            )
        gold = asked(questions, may_lack_answers=lacking, **options)
        return draw.normal(size=(gold.offsets[-1], 2)), gold

    return make
