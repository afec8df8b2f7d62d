import shutil

import pytest

from stillhouse.report.chain_reading import read_chains
from stillhouse.report.gather import gather

SMALL = "embeddings 64 | 64: M S3 | 64: M, heads of 32, FFN × 4, gelu"


def test_every_selection_is_read_with_its_runners_up(chain_run):
    notes = []
    first, second = read_chains(chain_run, notes).selected

    assert notes == []
    assert (first.number, first.limits) == (1, {"params_m": 2.5, "latency_ms": 1.0})
    assert (first.best.architecture, first.best.mlm_loss, first.best.block_loss) == (
        SMALL,
        6.25,
        1.4,
    )
    assert (first.best.predicted_ms, first.figures.latency_ms, first.speedup) == (0.75, 0.8, 10.0)
    assert [other.mlm_loss for other in first.runners_up] == [6.5]
    assert second.blocks == ((128, "M"), (128, "M M"))


def test_the_teacher_has_flops_and_a_head(chain_run):
    chains = read_chains(chain_run, [])

    assert chains.teacher_flops == pytest.approx(140_000_000)
    assert chains.head.is_trained_here
    assert (chains.head.score.accuracy_fraction, chains.head.score.count) == (0.4, 270)


def test_a_predicted_speed_up_needs_the_teachers_latency(chain_run):
    chains = read_chains(chain_run, [])
    assert chains.predicted_speedup(chains.last.best) == pytest.approx(6.4)  # 8 of 1.25 ms

    (chain_run / "operations.csv").unlink()
    chains = read_chains(chain_run, [])
    assert chains.predicted_speedup(chains.last.best) is None


def test_a_student_is_pretrained_if_its_folder_is_there(chain_run):
    chains = read_chains(chain_run, [])

    student = chains.trained(1)
    assert (student.folder, student.steps, student.start) == ("students/1", 4000, "scratch")
    assert (student.score.accuracy_fraction, student.score.cross_entropy_nats) == (0.25, 4.75)
    assert chains.trained(2) is None


def test_operations_make_a_table_with_their_ends_last(chain_run):
    table = read_chains(chain_run, []).operations

    assert (table.teacher_ms, table.kinds) == (8.0, ("M", "S3", "ends"))
    assert table.hidden_sizes == (64, 128)
    assert table.share(table.at("M", 64)) == 0.5  # 0.2 of 0.4 ms
    assert table.share(table.at("S3", 128)) == 0.0
    assert table.at("F", 64) is None


def test_what_the_device_refuses_has_a_reason(chain_run):
    (refused,) = read_chains(chain_run, []).operations.refused

    assert (refused.kind, refused.hidden_size, refused.latency_ms) == ("S3", 128, None)
    assert refused.refused == "no kernel, <script>alert(1)</script>"


def test_every_candidate_of_a_block_is_accounted_for(chain_run):
    first, second = read_chains(chain_run, []).blocks

    assert (first.other_latency_bin, first.beyond_largest, first.lost, first.left) == (
        20,
        10,
        25,
        5,
    )
    assert (first.candidates, first.epochs, first.steps) == (60, 6, 600)
    assert (second.candidates, second.lost, second.left) == (None, 25, 5)  # of an older version


def test_the_course_of_a_bin_holds_until_the_epoch_that_drops(chain_run):
    first, second = read_chains(chain_run, []).blocks

    assert first.course(0) == [(0, 20), (4, 10), (6, 2)]
    assert first.course(1) == []  # empty from the start
    assert first.course(2) == [(0, 10), (4, 3), (6, 3)]
    assert (second.bins, second.course(0)) == (3, first.course(0))


def test_a_bin_that_never_shrank_is_level(chain_run, rewrite):
    file = chain_run / "supernets/block-1/shrinking.json"
    record = {"epoch": 1, "bin": 1, "sampled": 4, "dropped": 2, "alive": 2}
    rewrite(file, {"alive": [1, 2, 3], "left_in_bins": [1, 2], "records": [record]})

    assert read_chains(chain_run, []).blocks[0].course(0) == [(0, 1), (2, 1)]


def test_rows_stand_by_block(chain_run):
    chains = read_chains(chain_run, [])

    assert [(row.operations, row.loss) for row in chains.rows_of(2)] == [("M", 0.9), ("M M", 0.7)]
    assert chains.numbers == [1, 2]


def test_a_row_without_a_loss_is_noted_and_left_out(chain_run):
    with (chain_run / "blocks.csv").open("a", encoding="utf-8") as file:
        file.write("\n2,64,M,1,1,0.2,\n")
    notes = []

    assert len(read_chains(chain_run, notes).rows) == 4
    assert notes == ["blocks.csv line 6 lacks its block or a figure; it is left out"]


def test_an_empty_run_of_the_recipe_has_nothing_yet(chain_run):
    for name in ("mlm", "supernets", "selected", "students"):
        shutil.rmtree(chain_run / name)
    for name in ("operations.csv", "blocks.csv"):
        (chain_run / name).unlink()
    notes = []

    chains = read_chains(chain_run, notes)

    assert notes == []
    assert (chains.head, chains.operations, chains.last) == (None, None, None)
    assert (chains.blocks, chains.rows, chains.pretrained, chains.numbers) == ((), (), (), [])


def test_damaged_files_are_noted_and_the_rest_is_read(chain_run):
    (chain_run / "selected/1/selected.json").write_text("{", encoding="utf-8")
    (chain_run / "supernets/block-1/shrinking.json").write_text("[1]", encoding="utf-8")
    (chain_run / "operations.csv").write_bytes(b"operation\n\xff\xfe")
    notes = []

    chains = read_chains(chain_run, notes)

    assert len(notes) == 3
    assert chains.operations is None
    assert (chains.selected[0].limits, chains.selected[0].best.architecture) == ({}, "")
    assert (chains.blocks[0].left, chains.blocks[0].candidates) == (None, None)
    assert chains.blocks[0].steps == 600


def test_folders_that_are_written_aside_are_none_yet(chain_run):
    shutil.copytree(chain_run / "selected/1", chain_run / "selected/.3.tmp")
    shutil.copytree(chain_run / "supernets/block-1", chain_run / "supernets/.block-3.tmp")

    chains = read_chains(chain_run, [])

    assert ([one.number for one in chains.selected], len(chains.blocks)) == ([1, 2], 2)


def test_records_that_lack_a_number_are_skipped(chain_run, rewrite):
    file = chain_run / "supernets/block-1/shrinking.json"
    rewrite(file, {"records": [{"epoch": 1}, 7, None], "left_in_bins": ["x"], "left_out": 3})

    block = read_chains(chain_run, []).blocks[0]

    assert (block.records, block.left_in_bins, block.lost) == ((), (0,), 0)


def test_only_a_run_of_chains_has_them(chain_run, family_run, full_run):
    assert gather(chain_run).family is None
    assert not gather(chain_run).has_task
    assert gather(family_run).chains is gather(full_run).chains is None


def test_a_run_without_settings_is_known_by_its_operations(chain_run):
    (chain_run / "settings.yaml").unlink()

    assert gather(chain_run).chains.last.number == 2
