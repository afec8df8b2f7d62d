"""Operations whose time can be told on paper, and what must hold for every chip."""

from dataclasses import replace

import pytest

from stillhouse.device.chips import Chip, known_chips
from stillhouse.device.latency import Workload
from stillhouse.device.operations import measure_operations
from stillhouse.device.roofline import RooflineDevice, operation_s, padded_flops, pass_ms
from stillhouse.device.work import Operation, Product, operations_of
from stillhouse.errors import DeviceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import BlockSpace, ChainArchitecture, ChainBlock, ChainSpace
from stillhouse.space.counts import Ends, count_flops

ENDS = Ends(vocab_size=1000, positions=512, token_types=2, labels=2)
BERT = BertArchitecture(layers=3, hidden_size=256, heads=4, ffn_size=1024)
CHIPS = known_chips()
TOY = Chip(
    label="toy",
    source="none",
    peak_tflops={"float32": 1, "bfloat16": 2, "int8": 4},
    vector_tflops=0.1,
    bandwidth_gb_s=100,
    on_chip_mb=1,
    keeps_weights=False,
    fuses=False,
    tile=(1, 1, 1),
    units=1,
    launch_us=2,
)


def linear(rows, before, after):
    return Operation(
        products=(Product(rows=rows, columns=after, depth=before),),
        weights=before * after,
        activations=rows * (before + after),
    )


def us(operation, chip=TOY, precision="float32", kept_bytes=0):
    return 1e6 * operation_s(operation, chip, precision, kept_bytes=kept_bytes)


def device(chip, **changes):
    return RooflineDevice(chip=chip, teacher=BERT, ends=ENDS, positions=512, **changes)


def test_a_large_product_takes_its_arithmetic():
    """2·10⁹ operations at 10¹² a second; its 12 MB would take 120 µs."""
    assert us(linear(1000, 1000, 1000)) == pytest.approx(2000 + 2)


def test_a_product_of_one_row_takes_the_reading_of_its_weights():
    """4 MB at 100 GB a second; 2·10⁶ operations would take 2 µs, and 8 kB stay on the chip."""
    assert us(linear(1, 1000, 1000)) == pytest.approx(40 + 2)


def test_element_wise_work_is_done_by_the_vector_units_after_the_product():
    both = replace(linear(1000, 1000, 1000), vector_flops=30_000_000)
    assert us(both) == pytest.approx(2000 + 300 + 2)


def test_activations_are_traffic_only_where_they_do_not_fit():
    fits = Operation(activations=250_000)  # 1 MB of float32
    assert us(fits) == pytest.approx(2)
    assert us(replace(fits, activations=250_001)) == pytest.approx(10 + 2, rel=1e-4)
    assert us(replace(fits, activations=500_000), precision="bfloat16") == pytest.approx(2)


def test_kept_weights_are_not_read_but_take_room():
    operation = Operation(weights=100_000, activations=125_000)  # 0.4 and 0.5 MB
    assert us(operation) == pytest.approx(4 + 2)
    assert us(operation, kept_bytes=400_000) == pytest.approx(2)
    assert us(operation, kept_bytes=600_000) == pytest.approx(5 + 2)


def test_weights_are_kept_where_those_of_the_whole_network_fit():
    keeps, halves = replace(TOY, keeps_weights=True), [Operation(weights=125_000)] * 2
    assert pass_ms(halves, keeps, "float32") == pytest.approx(2 * 0.002)
    assert pass_ms(halves, TOY, "float32") == pytest.approx(2 * (0.005 + 0.002))
    three = [*halves, Operation(weights=1)]
    read = pass_ms(three, keeps, "float32")
    assert read == pytest.approx(2 * 0.005 + 3 * 0.002, rel=1e-4)
    assert pass_ms(three, keeps, "bfloat16") == pytest.approx(3 * 0.002)


def test_fused_work_has_no_launch_and_moves_nothing():
    work = Operation(vector_flops=100_000, activations=500_000, is_elementwise=True)
    assert us(work) == pytest.approx(20 + 2)
    assert us(work, replace(TOY, fuses=True)) == pytest.approx(1)
    look_up = replace(work, is_elementwise=False)
    assert us(look_up, replace(TOY, fuses=True)) == pytest.approx(20 + 2)


@pytest.mark.parametrize(
    ("product", "units", "padded"),
    [
        (Product(rows=8, columns=128, depth=128), 1, 2 * 8 * 128 * 128),
        (Product(rows=3, columns=130, depth=1), 1, 2 * 8 * 256 * 128),
        (Product(rows=8, columns=128, depth=129, count=3), 1, 3 * 2 * 8 * 128 * 256),
        (Product(rows=8, columns=256, depth=128), 4, 4 * 2 * 8 * 128 * 128),
        (Product(rows=17, columns=256, depth=128), 4, 8 * 2 * 8 * 128 * 128),
    ],
)
def test_products_are_rounded_up_to_tiles_and_tiles_to_units(product, units, padded):
    chip = replace(TOY, tile=(8, 128, 128), units=units)
    assert padded_flops(product, chip) == padded
    assert padded_flops(product, TOY) == product.flops


def test_without_padding_launches_and_traffic_a_pass_takes_its_flops():
    bare = replace(TOY, vector_tflops=1e12, bandwidth_gb_s=1e12, launch_us=0)
    workload = Workload(length=40)
    flops = count_flops(BERT, ENDS, length=40)
    ms = pass_ms(operations_of(BERT, ENDS, workload), bare, "float32")
    assert ms == pytest.approx(1e3 * flops / 1e12)


EVERYWHERE = [
    pytest.param(chip, precision, id=f"{name}, {precision}")
    for name, chip in CHIPS.items()
    for precision in chip.peak_tflops
]


@pytest.mark.parametrize(("chip", "precision"), EVERYWHERE)
def test_nothing_gets_faster_by_being_larger(chip, precision):
    def ms(shape=BERT, **changes):
        workload = Workload(**{"length": 64, "precision": precision, **changes})
        return device(chip).compare(shape, workload).student.median_ms

    assert ms(replace(BERT, layers=4)) > ms()
    assert ms(replace(BERT, ffn_size=2048)) > ms()
    assert ms(replace(BERT, hidden_size=512)) > ms()
    assert ms(length=256) > ms()
    assert ms(batch=64) > ms()


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "server-cpu"])
def test_fewer_bits_are_faster_where_arithmetic_decides(name):
    large = linear(8192, 8192, 8192)
    chip = replace(CHIPS[name], launch_us=0)
    int8, bfloat16, float32 = (
        us(large, chip, precision) for precision in ("int8", "bfloat16", "float32")
    )
    assert bfloat16 == pytest.approx(2 * int8, rel=0.01)
    assert float32 > 1.9 * bfloat16


def test_one_core_is_slower_than_all_of_them():
    chip = device(CHIPS["server-cpu"])
    one, all_ = (
        chip.compare(BERT, Workload(length=128, threads=threads)).student.median_ms
        for threads in (1, 96)
    )
    assert all_ < one


def test_figures_say_that_they_are_analytic():
    comparison = device(CHIPS["tpu-v4i"]).compare(
        replace(BERT, layers=1), Workload(length=64, precision="bfloat16")
    )
    for latency in (comparison.student, comparison.teacher):
        assert (latency.how, latency.runs) == ("analytic", 0)
        assert latency.device == "TPUv4i (analytic)"
        assert len({latency.low_ms, latency.median_ms, latency.high_ms, latency.p10_ms}) == 1
    assert comparison.speedup > 1


def test_the_teacher_is_told_by_the_same_model():
    comparison = device(CHIPS["h100"]).compare(BERT, Workload(length=64))
    assert comparison.speedup == 1


def test_a_precision_that_the_chip_lacks_is_refused():
    with pytest.raises(DeviceError, match=r"no float32 arithmetic; .* one of bfloat16, int8"):
        device(CHIPS["tpu-v4i"]).compare(BERT, Workload(length=64))


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(DeviceError, match="length 513 is above the model's 512 positions"):
        device(CHIPS["h100"]).compare(BERT, Workload(length=513))


@pytest.mark.parametrize("name", ["tpu-v4i", "server-cpu"])
def test_chains_are_the_sums_of_their_operations(name):
    space = ChainSpace(
        block=BlockSpace(hidden_sizes=(64, 128), most_operations=3),
        blocks=2,
        embedding_sizes=(64,),
        head_size=32,
    )
    workload = Workload(length=64, precision=CHIPS[name].precision)
    table = measure_operations(device(CHIPS[name]), workload, space)
    chain = ChainArchitecture(
        embedding_size=64,
        blocks=(
            ChainBlock(hidden_size=64, operations=("M", "F", "S5")),
            ChainBlock(hidden_size=64, operations=("S3", "F")),
        ),
        head_size=32,
    )
    told = device(CHIPS[name]).compare(chain, workload).student.median_ms
    assert table.chain_ms(chain) == pytest.approx(told, rel=1e-9)
    assert table.refused == {}
