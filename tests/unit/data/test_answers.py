import numpy as np

from stillhouse.data.answers import AnswerSheet, Question


def sheet(*keys, windows=(0,), lacks=False):
    questions = tuple(Question(key=key, text="q", context="c", answers=("c",)) for key in keys)
    return AnswerSheet(
        questions=questions,
        question_of_N=np.array(windows),
        characters_P2=np.arange(2 * len(windows), dtype=np.int32).reshape(-1, 2),
        may_lack_answers=lacks,
    )


def test_joined_sheets_count_their_questions_on():
    joined = AnswerSheet.join([sheet("a", "b", windows=(1, 0, 1)), sheet("c"), sheet("d", "e")])
    assert [one.key for one in joined.questions] == ["a", "b", "c", "d", "e"]
    assert joined.question_of_N.tolist() == [1, 0, 1, 2, 3]
    assert joined.characters_P2.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [0, 1]]
    assert not joined.may_lack_answers
    assert AnswerSheet.join([sheet("a"), sheet("b", lacks=True)]).may_lack_answers


def test_the_fingerprint_sees_questions():
    assert sheet("a").fingerprint() == sheet("a").fingerprint()
    prints = {each.fingerprint() for each in (sheet("a"), sheet("b"), sheet("a", lacks=True))}
    assert len(prints) == 3
