"""Latencies of operations on a chip that is not here."""

import pytest

from stillhouse.recipe.chain_nursery import open_operations

CHIP = {"kind": "analytic", "chip": "server-cpu"}


def test_operations_of_a_chip_are_told_and_kept(make_chain_nursery):
    nursery = make_chain_nursery(device=CHIP)
    table = open_operations(nursery)
    block = nursery.space.block
    assert table.refused == {}
    for kind in block.operations:
        small, large = (table.latency_ms[kind, size] for size in block.hidden_sizes)
        assert 0 < small < large
    teacher = nursery.device.compare(nursery.device.teacher, nursery.workload).teacher
    assert teacher.how == "analytic"
    assert table.teacher_ms == pytest.approx(teacher.median_ms)
    assert open_operations(nursery) == table
