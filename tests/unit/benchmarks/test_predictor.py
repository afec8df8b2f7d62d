import numpy as np
import pytest

from benchmarks.predictor import Outcome, of_each_third
from stillhouse.errors import SpaceError


def test_each_third_of_the_range_gives_as_many():
    pool = [f"shape {ms}" for ms in range(91)]
    drawn = of_each_third(pool, np.arange(91.0) ** 2, 30)
    assert [third for third, _ in drawn] == ["fast", "middle", "slow"] * 10
    assert len({shape for _, shape in drawn}) == 30
    for third, low, high in (("fast", 0, 2700), ("middle", 2700, 5400), ("slow", 5400, 8101)):
        squares = [int(shape.split()[1]) ** 2 for name, shape in drawn if name == third]
        assert all(low <= square < high for square in squares)
    assert drawn == of_each_third(pool, np.arange(91.0) ** 2, 30)


def test_too_few_in_a_third_are_refused():
    with pytest.raises(SpaceError, match="too few architectures for every third"):
        of_each_third([*"abcdef"], np.array([1, 1, 1, 1, 1, 9.0]), 6)


def test_errors_are_relative_to_the_measurement():
    outcome = Outcome(
        thirds=np.array(["fast", "slow"]),
        measured=np.array([2.0, 10.0]),
        told={"FLOPs": np.array([3.0, 9.0])},
    )
    assert outcome.errors("FLOPs") == pytest.approx([0.5, 0.1])
    assert outcome.errors("FLOPs", "slow") == pytest.approx([0.1])
