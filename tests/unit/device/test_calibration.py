import numpy as np
import pytest
from scipy.optimize import minimize

from stillhouse.device.calibration import calibrate
from stillhouse.errors import DeviceError


def test_a_line_is_found():
    known = np.array([1.0, 2.0, 5.0])
    found = calibrate(known, 3 * known + 0.5)
    assert (found.scale, found.overhead_ms) == pytest.approx((3, 0.5))
    assert found.apply([4.0]) == pytest.approx([12.5])


def test_units_do_not_matter():
    known = np.array([1e9, 2e9, 5e10])
    found = calibrate(known, 2e-9 * known + 0.25)
    assert (found.scale, found.overhead_ms) == pytest.approx((2e-9, 0.25))


def test_relative_errors_count():
    known, wanted = np.array([1.0, 2.0, 3.0, 40.0]), np.array([2.0, 3.5, 5.0, 30.0])

    def squares(line):
        return (((line[0] * known + line[1]) / wanted - 1) ** 2).sum()

    best = minimize(squares, (1.0, 1.0), method="Nelder-Mead", tol=1e-10).x
    found = calibrate(known, wanted)
    assert (found.scale, found.overhead_ms) == pytest.approx(tuple(best), rel=1e-4)


def test_an_overhead_is_never_negative():
    found = calibrate([1.0, 2.0, 3.0], [0.5, 2.0, 4.5])
    assert found.overhead_ms == 0
    assert found.scale > 0


@pytest.mark.parametrize(
    ("known", "wanted", "message"),
    [
        ([1.0, 1.0], [1.0, 2.0], "at least 2 different predictions"),
        ([1.0, 2.0], [1.0, 0.0], "latencies above 0"),
    ],
)
def test_what_no_line_can_be_put_through_is_refused(known, wanted, message):
    with pytest.raises(DeviceError, match=message):
        calibrate(known, wanted)
