import json
from types import SimpleNamespace

import pytest

from stillhouse.recipe import proxy_check
from stillhouse.recipe.proxy_check import (
    check_against_final,
    choose_controls,
    spread_over_ranking,
    warn_of_little_learning,
)
from stillhouse.search.loop import Judgement
from stillhouse.search.trial import CandidateFailed, Trial, TrialState
from stillhouse.space.architecture import BertArchitecture


def trained(number, quality, **changes):
    made = {"state": TrialState.COMPLETE, "quality": quality, "latency_ms": 1.0, **changes}
    shape = BertArchitecture(layers=number + 1, hidden_size=32, heads=1, ffn_size=64)
    return Trial(number=number, architecture=shape, **made)


TRIALS = [trained(number, 0.5 + number / 100) for number in range(21)]


def test_controls_come_from_all_over_the_ranking():
    chosen = spread_over_ranking(TRIALS, 5)
    assert [trial.number for trial in chosen] == [20, 15, 10, 5, 0]


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (21, 21), (40, 21)])
def test_as_many_as_asked_for_or_all(count, expected):
    assert len(spread_over_ranking(TRIALS, count)) == expected


def test_no_winner_repeat_or_failure_is_a_control():
    repeat = trained(30, 0.9, repeat_of=3)
    failed = trained(31, None, state=TrialState.FAILED)
    winners = [TRIALS[20], TRIALS[10]]
    chosen = choose_controls([*TRIALS, repeat, failed], winners, 19)
    assert {trial.number for trial in chosen} == set(range(20)) - {10}


@pytest.fixture
def checked(bench, tmp_path, monkeypatch):
    """Runs the check; finals are twice the proxy, the second seed adds a constant."""
    judged = []

    def judge(bench, name, architecture, *, seed):
        judged.append(name)
        number = architecture.layers - 1
        if number == 5:
            raise CandidateFailed("made up")
        assert seed == 8
        return Judgement(quality=0.6 + number / 100)

    monkeypatch.setattr(proxy_check, "judge_candidate", judge)

    def finished(numbers):
        folders = {}
        for number in numbers:
            folders[number] = tmp_path / f"student-{number}"
            folders[number].mkdir(exist_ok=True)
            metrics = {"quality_search": 2 * TRIALS[number].quality}
            (folders[number] / "metrics.json").write_text(json.dumps(metrics))
        return folders

    def run(controls, noise):
        made = bench(
            {"seed": 7, "final": {"controls": 4, "noise_candidates": noise}},
            run=SimpleNamespace(path=tmp_path, work=tmp_path / "work"),
            task=SimpleNamespace(metrics=("accuracy",)),
        )
        winners = finished([20, 17, 12, 9])
        check_against_final(made, TRIALS, winners=winners, controls=finished(controls))
        return json.loads((tmp_path / "proxy_final.json").read_text()), judged

    return run


def test_a_proxy_that_ranks_as_the_final_is_told_so(checked, talk):
    content, _ = checked([0, 4, 8, 15], 0)
    assert content["agreement"]["spearman"]["value"] == pytest.approx(1.0)
    assert content["agreement"]["count"] == 8
    assert content["regret"] == 0
    assert content["noise"] is None
    assert [point["role"] for point in content["points"]].count("control") == 4
    assert any("8 students" in said for said in talk.said)


def test_seven_students_are_too_few_to_say(checked, talk):
    content, _ = checked([0, 4, 8], 0)
    assert content["agreement"]["spearman"] is None
    assert any("too few to say" in said for said in talk.said)


def test_the_noise_is_judged_once_and_without_what_fails(checked):
    content, judged = checked([0, 4, 8, 15], 21)
    assert content["noise"]["seeds"] == [7, 8]
    assert len(content["noise"]["pairs"]) == 20
    assert len(judged) == 21
    checked([0, 4, 8, 15], 21)
    assert len(judged) == 21  # the second start found everything in the run directory


@pytest.mark.parametrize(
    ("constant", "teacher", "warns"),
    [(0.0, 1.0, False), (0.58, 0.78, False), (0.59, 0.8, True), (0.9, 0.8, False)],
)
def test_candidates_at_the_level_of_a_constant_answer_are_told_of(constant, teacher, warns):
    """The middle one of the trials scores 0.6."""
    said = []
    warn_of_little_learning(
        TRIALS, constant=constant, teacher=teacher, narrator=SimpleNamespace(say=said.append)
    )
    assert bool(said) == warns
    if warns:
        assert "score 0.6000 or less, a constant answer 0.5900, the teacher 0.8000" in said[0]


def test_nothing_is_said_of_a_search_without_trained_candidates():
    failed = trained(31, None, state=TrialState.FAILED)
    warn_of_little_learning([failed], constant=0.0, teacher=1.0, narrator=SimpleNamespace())
