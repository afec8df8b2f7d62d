import pytest

from stillhouse.device.chips import find_chip, known_chips
from stillhouse.errors import DeviceError, SettingsError, did_you_mean

CHIPS = known_chips()


def test_the_chips_of_the_documentation_are_there():
    assert set(CHIPS) == {
        "tpu-v4i", "tpu-v1-int8", "a100", "h100", "h200", "phone-cpu", "server-cpu",
    }  # fmt: skip


@pytest.mark.parametrize("name", CHIPS)
def test_every_data_sheet_is_complete_and_has_a_source(name):
    chip = CHIPS[name]
    assert len(chip.source) > 20
    assert "\n" not in chip.label
    figures = (*chip.peak_tflops.values(), chip.vector_tflops, chip.bandwidth_gb_s, chip.on_chip_mb)
    assert all(figure > 0 for figure in (*figures, chip.launch_us, chip.units, *chip.tile))


@pytest.mark.parametrize("name", ["tpu-v4i", "tpu-v1-int8"])
def test_the_peak_is_that_of_the_matrix_units_at_their_clock(name):
    """128 × 128 and 256 × 256 multiply-adds a cycle, at 1.05 and 0.7 GHz."""
    clock_hz = {"tpu-v4i": 1.05e9, "tpu-v1-int8": 0.7e9}[name]
    chip = CHIPS[name]
    cells = chip.tile[1] * chip.tile[2] * chip.units
    assert chip.peak_tflops["int8"] * 1e12 == pytest.approx(2 * cells * clock_hz, rel=0.01)


def test_the_own_precision_comes_first():
    assert CHIPS["tpu-v4i"].precision == "bfloat16"
    assert CHIPS["tpu-v1-int8"].precision == "int8"
    assert CHIPS["server-cpu"].precision == "float32"


def test_threads_share_the_arithmetic_and_fill_the_bandwidth():
    chip = CHIPS["server-cpu"]
    one, two, all_ = (chip.with_threads(count) for count in (1, 2, 96))
    assert one.units == 1
    assert one.peak_tflops["float32"] == pytest.approx(10.9 / 96)
    assert (one.bandwidth_gb_s, two.bandwidth_gb_s) == (35, 70)
    assert two.vector_tflops == pytest.approx(2 * one.vector_tflops)
    assert all_.bandwidth_gb_s == chip.bandwidth_gb_s
    assert chip.with_threads(0) is chip


@pytest.mark.parametrize(
    ("name", "threads", "message"),
    [("phone-cpu", 5, "has 4 cores, got 5 threads"), ("h100", 1, "has no processor threads")],
)
def test_threads_that_are_not_there_are_refused(name, threads, message):
    with pytest.raises(DeviceError, match=message):
        CHIPS[name].with_threads(threads)


def test_an_unknown_chip_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match=r"one of tpu-v4i, .*'tpuv4i'.*mean 'tpu-v4i'\?"):
        find_chip("tpuv4i")
    with pytest.raises(SettingsError, match=r"got 'abacus'$"):
        find_chip("abacus")
    assert did_you_mean("H100", CHIPS) == ": did you mean 'h100'?"
