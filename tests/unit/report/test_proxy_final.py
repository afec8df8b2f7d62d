import pytest

from stillhouse.report.proxy_final import read_proxy_check


def test_everything_of_the_file_is_read(checked_run):
    notes = []
    check = read_proxy_check(checked_run, notes)

    assert notes == []
    assert [point.trial for point in check.of_role("winner")] == [7, 1]
    assert [point.final for point in check.of_role("control")] == [0.78]
    assert (check.agreement.spearman.low, check.agreement.count) == (0.41, 14)
    assert check.noise.pairs == ((0.83, 0.82), (0.75, 0.761))
    assert check.noise.seeds == "0 and 1"


def test_a_point_without_both_scores_is_noted(checked_run, rewrite, describe):
    points = [{"trial": 3, "role": "winner", "proxy": 0.8, "final": None}]
    rewrite(checked_run / "proxy_final.json", describe["proxy_final.json"](points=points))
    notes = []

    assert read_proxy_check(checked_run, notes).points == ()
    assert notes == ["proxy_final.json point 1 lacks a score; it is left out"]


@pytest.mark.parametrize("damage", [{"agreement": {}}, {"noise": {"agreement": {"count": "few"}}}])
def test_damaged_statistics_are_noted_and_not_shown(checked_run, rewrite, describe, damage):
    rewrite(checked_run / "proxy_final.json", describe["proxy_final.json"](**damage))
    notes = []

    assert read_proxy_check(checked_run, notes) is None
    assert notes[0].startswith("finished/proxy_final.json could not be read")


def test_a_run_without_a_check_has_none(full_run):
    assert read_proxy_check(full_run, []) is None
