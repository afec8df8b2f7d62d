"""Operations on a made-up device, on which a chain takes exactly what its parts take."""

import itertools
import math

import pytest

from stillhouse.device.latency import Comparison, Latency, Workload
from stillhouse.device.operations import (
    ENDS,
    OperationTable,
    measure_operations,
    read_operations,
)
from stillhouse.errors import DeviceError
from stillhouse.space.chain import BlockSpace, ChainArchitecture, ChainBlock, ChainSpace

WORKLOAD = Workload(length=16)
SPACE = ChainSpace(
    block=BlockSpace(hidden_sizes=(8, 16, 24), most_operations=2),
    blocks=2,
    embedding_sizes=(8, 12),
    head_size=8,
    ffn_ratio=3,
    activation="relu",
)
COST_MS = {
    (kind, size): 0.1 * (1 + number) * size / 8
    for number, kind in enumerate(SPACE.block.operations)
    for size in SPACE.block.hidden_sizes
}
ENDS_MS = {8: 0.3, 16: 0.5, 24: 0.8}
TEACHER_MS = 7.0


def latency(ms):
    figures = dict.fromkeys(("median_ms", "low_ms", "high_ms", "p10_ms", "p90_ms"), ms)
    return Latency(**figures, runs=20, how="measured", device="chip", workload=WORKLOAD)


class Chip:
    """A device; some operations it refuses, and its speed may drift between comparisons."""

    name = "chip"

    def __init__(self, refuses=(), drift=(1.0,), costs_ms=COST_MS):
        self.refuses, self.drift, self.costs_ms = refuses, itertools.cycle(drift), costs_ms
        self.asked = []

    def compare(self, architecture, workload):
        assert workload is WORKLOAD
        self.asked.append(architecture)
        (block,) = architecture.blocks
        keys = [(kind, block.hidden_size) for kind in block.operations]
        for key in keys:
            if key in self.refuses:
                raise DeviceError(f"no kernel, for {key[0]}\nof {key[1]}")
        student_ms = ENDS_MS[block.hidden_size] + sum(self.costs_ms[key] for key in keys)
        slow = next(self.drift)
        return Comparison(student=latency(student_ms * slow), teacher=latency(TEACHER_MS * slow))


def measure(chip, **more):
    return measure_operations(chip, WORKLOAD, SPACE, **more)


def expected(without=()):
    ends = {(ENDS, size): ms for size, ms in ENDS_MS.items()}
    return {key: ms for key, ms in (COST_MS | ends).items() if key not in without}


def test_differences_are_the_costs_of_the_operations():
    chip, told = Chip(), []
    table = measure(chip, on_progress=told.append)
    assert table.latency_ms == pytest.approx(expected(), rel=1e-12)
    assert table.teacher_ms == TEACHER_MS
    assert table.refused == {}
    assert table.ffn_ratio == 3
    assert told == pytest.approx([(n + 1) / 15 for n in range(15)])
    # Every chain is of one operation, as the space has it, with embeddings that need no bridge.
    assert len(chip.asked) == 2 * 15
    for chain in chip.asked:
        (block,) = chain.blocks
        assert len(set(block.operations)) == 1
        assert chain.embedding_size == block.hidden_size
        assert (chain.head_size, chain.ffn_ratio, chain.activation) == (8, 3, "relu")


def test_a_speed_that_drifts_changes_nothing():
    """The chain of few and that of many are timed at unlike speeds; in the median it is 1."""
    table = measure(Chip(drift=[1.0, 0.5, 1.0, 3.0, 1.0, 2.0, 0.25]))
    assert table.latency_ms == pytest.approx(expected(), rel=1e-12)
    assert table.teacher_ms == TEACHER_MS


def test_a_slower_hour_is_slower_throughout():
    table = measure(Chip(drift=[4.0, 8.0, 16.0]))
    assert table.teacher_ms == 8 * TEACHER_MS
    assert table.latency_ms == pytest.approx(
        {key: 8 * ms for key, ms in expected().items()}, rel=1e-12
    )


def test_what_noise_makes_negative_is_next_to_nothing():
    costs_ms = COST_MS | {("M", 8): -0.01}
    table = measure(Chip(costs_ms=costs_ms))
    assert 0 < table.latency_ms["M", 8] < 1e-5
    assert table.latency_ms["F", 8] == pytest.approx(COST_MS["F", 8])
    assert table.latency_ms[ENDS, 8] == pytest.approx(ENDS_MS[8])


def test_a_refused_operation_is_left_out_with_its_reason():
    table = measure(Chip(refuses={("S5", 16), ("M", 8)}))
    assert table.latency_ms == pytest.approx(expected(without={("S5", 16), ("M", 8)}), rel=1e-12)
    reasons = {
        ("S5", 16): "no kernel, for S5\nof 16",
        ("M", 8): "no kernel, for M\nof 8",
    }
    assert table.refused == reasons


def test_a_width_of_which_all_is_refused_can_have_no_ends():
    table = measure(Chip(refuses={(kind, 24) for kind in SPACE.block.operations}))
    without = {(kind, 24) for kind in (*SPACE.block.operations, ENDS)}
    assert table.latency_ms == pytest.approx(expected(without=without), rel=1e-12)
    assert table.ends_ms(8, 24) == math.inf
    assert table.ends_ms(16, 16) == pytest.approx(ENDS_MS[16])


def test_a_device_that_runs_nothing_is_refused():
    with pytest.raises(
        DeviceError, match=r"chip runs none of the operations; .*: no kernel, for M"
    ):
        measure(Chip(refuses=COST_MS))


def test_errors_of_other_kinds_are_no_refusal():
    with pytest.raises(KeyError):
        measure(Chip(costs_ms={}))


def block(hidden_size, *operations):
    return ChainBlock(hidden_size=hidden_size, operations=operations)


def chain(embedding_size, *blocks):
    return ChainArchitecture(embedding_size=embedding_size, blocks=blocks, head_size=8)


BY_HAND = {
    ("M", 16): 2.0, ("F", 16): 4.0, ("S3", 16): 1.0, (ENDS, 16): 0.5,
    ("M", 8): 1.0, ("F", 8): 3.0, ("S3", 8): 0.5, (ENDS, 8): 0.25,
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "expected_ms"),
    [
        (chain(16, block(16, "M")), 0.5 + 2),
        (chain(16, block(16, "M", "F"), block(16, "S3")), 0.5 + 2 + 4 + 1),
        # A feed-forward operation of 16 is 2 · 16 · 64 = 2,048 weights, those to 8 and back 128.
        (chain(8, block(16, "F")), 0.5 + 4 + 4 / 16),
        (chain(8, block(8, "M"), block(16, "S3", "M")), 0.25 + 1 + 4 / 16 + 1 + 2),
        (
            chain(12, block(16, "M"), block(8, "F", "S3"), block(8, "M"), block(16, "S3")),
            0.5 + 4 * 192 / 2048 + 2 + 4 / 16 + 3 + 0.5 + 1 + 4 / 16 + 1,
        ),
        (chain(32, block(8, "M")), 0.25 + 4 * 256 / 2048 + 1),  # beyond all widths: the nearest
    ],
    ids=lambda value: getattr(value, "key", ""),
)
def test_a_chain_is_the_sum_of_its_parts(architecture, expected_ms):
    table = OperationTable(latency_ms=BY_HAND, teacher_ms=9.0)
    assert table.chain_ms(architecture) == pytest.approx(expected_ms, rel=1e-12)


def test_a_bridge_runs_at_the_rate_of_the_nearest_feed_forward_operation_that_there_is():
    def without(*keys):
        kept = {key: ms for key, ms in BY_HAND.items() if key not in keys}
        return OperationTable(latency_ms=kept, teacher_ms=9.0)

    # One of 8 is 2 · 8 · 32 = 512 weights, the bridge 128.
    assert without(("F", 16)).bridge_ms(8, 16) == pytest.approx(3 * 128 / 512)
    assert without(("F", 16), ("F", 8)).bridge_ms(8, 16) == 0
    assert without(("F", 16)).bridge_ms(16, 16) == 0


def test_measured_parts_make_whole_chains():
    """On this device a bridge costs nothing; chains of one width are predicted exactly."""
    table = measure(Chip(drift=[1.0, 2.0, 0.5]))
    for operations in itertools.product(SPACE.block.operations, repeat=3):
        for size in SPACE.block.hidden_sizes:
            whole = chain(size, block(size, *operations[:2]), block(size, *operations[2:]))
            wanted_ms = ENDS_MS[size] + sum(COST_MS[kind, size] for kind in operations)
            assert table.chain_ms(whole) == pytest.approx(wanted_ms, rel=1e-9)


def test_a_written_table_is_read_as_it_was(tmp_path):
    table = OperationTable(
        latency_ms={("M", 8): 0.1 + 0.2, ("F", 8): 1e-6, (ENDS, 8): 1 / 3, ("S7", 24): 12345.678},
        teacher_ms=2 / 3,
        refused={("S5", 16): 'says "no", 1.5', ("M", 16): "no kernel\nat all", ("F", 16): ""},
        ffn_ratio=3,
    )
    file = tmp_path / "operations.csv"
    table.write(file)
    assert file.read_text().splitlines()[0] == "operation,hidden_size,latency_ms,refused"
    assert read_operations(file, ffn_ratio=3) == table
