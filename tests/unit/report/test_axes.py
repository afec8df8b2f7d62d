import pytest

from stillhouse.report.axes import Axis, Point, Series, chooser, draw, script_data, tell

QUALITY = Axis(name="quality", label="quality <b>", unit="score")
LATENCY = Axis(name="latency_ms", label="latency, ms", unit="ms", limits=(5.0,))
SIZE = Axis(name="size_mb", label="size, MB", unit="MB")
LOOK = {"type": "scatter", "mode": "markers", "name": "some", "marker": {"color": "#123456"}}


def point(quality=None, latency=None, size=None, **more):
    values = {"quality": quality, "latency_ms": latency, "size_mb": size}
    return Point(head="one", values=values, **more)


def choose(*points, axes=(QUALITY, LATENCY, SIZE), **more):
    series = [Series(look=LOOK, points=points), Series(look=LOOK, points=())]
    return chooser("place", axes, ("latency_ms", "quality"), series, **more)


def test_axes_that_no_point_has_a_value_on_are_not_offered():
    other = Axis(name="memory_mb", label="memory", unit="MB")
    found = choose(point(0.5, 2.0, 3.0), axes=(QUALITY, LATENCY, SIZE, other))

    assert [axis.name for axis in found.axes] == ["quality", "latency_ms", "size_mb"]


def test_two_axes_are_no_choice():
    assert not choose(point(0.5, 2.0)).has_choice
    assert choose(point(0.5, 2.0, 3.0)).has_choice


def test_without_a_value_on_the_first_axes_there_is_no_figure():
    assert choose(point(None, 2.0, 3.0)) is None


def test_what_lies_across_alone_is_not_offered_upwards():
    found = choose(point(0.5, 2.0, 3.0), axes=(QUALITY, SIZE), across=(LATENCY,))

    assert [axis.name for axis in found.across] == ["latency_ms"]
    assert [axis.name for axis in found.up] == ["quality", "size_mb"]
    assert len(found.axes) == 3


def test_the_script_gets_every_value_by_columns():
    found = choose(
        point(0.5, 2.0, 3.0, low={"latency_ms": 1.0}, high={"latency_ms": 4.0}, text="1"),
        point(0.25, None, 1 / 3),
        point(None, None, 1_234_567.0),
    )
    written = script_data({"place": found})["figures"]["place"]

    assert (written["x"], written["y"]) == ("latency_ms", "quality")
    assert written["axes"][1]["limits"] == [5.0]
    [series] = written["series"]  # the empty one is left out
    assert series["values"] == {
        "quality": [0.5, 0.25, None],
        "latency_ms": [2.0, None, None],
        "size_mb": [3.0, 0.333333, 1_234_567.0],
    }
    assert series["low"] == {"latency_ms": [1.0, None, None]}
    assert (series["text"], series["look"]["name"]) == (["1", "", ""], "some")


def test_a_drawn_figure_leaves_out_points_without_both_values():
    figure = draw(choose(point(0.5, 2.0, 3.0), point(0.25, None, 1.0)))
    [trace] = figure["data"]

    assert (trace["x"], trace["y"]) == ([2.0], [0.5])
    assert trace["hovertext"] == ["one<br>quality &lt;b&gt;: 0.5000<br>latency, ms: 2 ms"]
    assert figure["layout"]["shapes"][0]["x0"] == 5.0
    assert figure["layout"]["yaxis"]["title"]["text"] == "quality &lt;b&gt;"


def test_stretches_of_an_axis_are_shaded_with_their_escaped_names():
    trial = Axis(name="latency_ms", label="trial", unit="count", bands=((0.0, 2.0, "<i>"),))
    figure = draw(choose(point(0.5, 2.0, 3.0), axes=(QUALITY, trial, SIZE)))

    [shape] = figure["layout"]["shapes"]
    assert (shape["type"], shape["x0"], shape["x1"]) == ("rect", 0.0, 2.0)
    assert shape["label"]["text"] == "&lt;i&gt;"


def test_a_limit_with_words_of_its_own_is_told_in_them():
    axis = Axis(name="latency_ms", label="l", unit="ms", limits=(5.0,), limit_note="5 <then>")
    found = choose(point(0.5, 2.0, 3.0), axes=(QUALITY, axis, SIZE))

    assert draw(found)["layout"]["annotations"][0]["text"] == "5 &lt;then&gt;"
    assert script_data({"place": found})["figures"]["place"]["axes"][1]["note"] == "5 <then>"


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.12346, "score", "0.1235"),
        (0.25, "fraction", "25.0 %"),
        (12.3456, "ms", "12.3 ms"),
        (1234.5, "s", "1230 s"),
        (1_234_567.0, "count", "1,234,567"),
        (2.6380, "times", "2.64×"),
        (2.5, "number", "2.5"),
    ],
)
def test_values_are_told_with_their_units(value, unit, told):
    assert tell(value, unit) == told
