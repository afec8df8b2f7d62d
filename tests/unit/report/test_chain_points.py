from stillhouse.report import write_report
from stillhouse.report.chain_points import choose_chains
from stillhouse.report.gather import gather


def series_of(run):
    found = choose_chains(gather(run))["selected"]
    return found, {series.look["name"]: series.points for series in found.series}


def test_selected_chains_stand_beside_those_next_in_line(chain_run):
    found, series = series_of(chain_run)

    assert (found.x, found.y) == ("predicted_ms", "mlm_loss")
    assert [point.text for point in series["selected"]] == ["1", "2"]
    assert [point.values["predicted_ms"] for point in series["next in line"]] == [0.7, 0.7]
    assert [point.values["mlm_loss"] for point in series["next in line"]] == [6.5, 6.5]


def test_what_is_known_of_a_selected_chain_has_axes(chain_run):
    found, series = series_of(chain_run)
    first, second = series["selected"]

    assert first.values["accuracy_fraction"] == 0.25  # pre-trained
    assert second.values["accuracy_fraction"] is None
    assert (first.low["latency_ms"], first.high["latency_ms"]) == (0.7, 0.9)
    assert series["teacher"][0].values["latency_ms"] == 8.0
    limits = {axis.name: axis.limits for axis in found.axes}
    assert (limits["parameters"], limits["latency_ms"]) == ((2_500_000.0,), (1.0,))


def test_without_predictions_parameters_lie_across(chain_run, rewrite):
    for number in (1, 2):
        told = {"mlm_loss": 1.4, "parameters": 1_000_000 * number, "limits": {}}
        rewrite(chain_run / f"selected/{number}/selected.json", told)

    assert series_of(chain_run)[0].x == "parameters"


def test_the_page_draws_them(chain_run):
    page = write_report(chain_run).read_text(encoding="utf-8")

    assert 'id="selected"' in page
    assert 'data-plot="selected"' in page


def test_before_a_selection_there_is_nothing_to_draw(chain_run):
    for path in chain_run.glob("selected/*/selected.json"):
        path.unlink()

    assert choose_chains(gather(chain_run)) == {}
