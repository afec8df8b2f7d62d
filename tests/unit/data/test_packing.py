import hashlib
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.data import packing
from stillhouse.data.packing import (
    FrameTokens,
    PackedSet,
    Packer,
    TokenPiece,
    frame_tokens,
    hold_out_blocks,
    open_sequences,
    shard,
    write_sequences,
)
from stillhouse.errors import DataError

START, SEP, PAD = 901, 902, 900
FRAME = FrameTokens(start=START, separator=SEP, pad=PAD)


def pieces_of(*documents):
    return [TokenPiece(np.array(document, np.int32), True) for document in documents]


def pack(*documents, length):
    packer = Packer(FRAME, length=length)
    return [row.tolist() for row in packer.pack(pieces_of(*documents))], packer


def numbered(*lengths):
    """Documents of the given lengths whose tokens count on from 0."""
    ends = np.cumsum(lengths)
    return [list(range(end - length, end)) for end, length in zip(ends, lengths, strict=True)]


def test_a_long_document_is_cut_into_sequences_and_its_rest_is_dropped():
    rows, packer = pack(range(8), length=5)
    assert rows == [[START, 0, 1, 2, SEP], [START, 3, 4, 5, SEP]]
    assert (packer.document_count, packer.token_count, packer.sequence_count) == (1, 8, 2)
    assert packer.last_length == 5


def test_documents_share_a_sequence_where_eight_tokens_of_the_next_fit():
    first, second = numbered(4, 21)
    rows, _ = pack(first, second, length=15)
    assert rows == [[START, *first, SEP, *second[:8], SEP], [START, *second[8:], SEP]]


def test_a_document_of_which_little_would_fit_fills_up_and_begins_anew():
    first, second = numbered(5, 13)
    rows, packer = pack(first, second, length=15)
    assert rows == [[START, *first, SEP, *second[:7], SEP], [START, *second, SEP]]
    assert packer.token_count == 18


def test_a_short_document_is_never_begun_twice():
    first, second, third = numbered(5, 3, 13)
    rows, _ = pack(first, second, third, length=15)
    assert rows[0] == [START, *first, SEP, *second, SEP, *third[:3], SEP]
    assert rows[1] == [START, *third, SEP]


def test_room_for_a_separator_alone_is_filled_by_it():
    first, second = numbered(12, 13)
    rows, _ = pack(first, second, length=15)
    assert rows == [[START, *first, SEP, SEP], [START, *second, SEP]]


def test_a_document_that_fills_a_sequence_needs_no_parting_separator():
    first, second = numbered(3, 3)
    rows, _ = pack(first, second, length=5)
    assert rows == [[START, *first, SEP], [START, *second, SEP]]


def test_the_only_sequence_is_padded():
    rows, packer = pack([7, 8], length=6)
    assert rows == [[START, 7, 8, SEP, PAD, PAD]]
    assert packer.last_length == 4
    assert pack(length=6)[0] == []


def test_pieces_of_a_document_are_packed_as_the_whole():
    whole = np.arange(60, dtype=np.int32)
    cut = [TokenPiece(part, place == 0) for place, part in enumerate(np.split(whole, [10, 11, 40]))]
    packer = Packer(FRAME, length=16)
    rows = [row.tolist() for row in packer.pack([*cut, *pieces_of([70, 71])])]
    assert rows == pack(whole, [70, 71], length=16)[0]
    assert packer.document_count == 2


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    length=st.integers(4, 40),
)
def test_sequences_are_full_hold_stretches_of_documents_and_lose_only_the_end(lengths, length):
    documents = numbered(*lengths)
    rows, packer = pack(*documents, length=length)
    document_of = {token: number for number, ids in enumerate(documents) for token in ids}
    seen = []
    for row in rows:
        assert len(row) == length
        assert row[0] == START
        assert row[packer.last_length - 1] == SEP
        assert (PAD in row) == (len(rows) == 1 and packer.last_length < length)
        text = [token for token in row if token < PAD]
        for before, token in pairwise(text):
            assert token == before + 1 or document_of[token] == document_of[before] + 1
        parted = [row[place - 1] for place in range(2, length) if row[place] < PAD]
        assert all((token == SEP) == (token not in document_of) for token in parted)
        seen += text
    assert set(seen) == set(range(max(seen) + 1))
    if len(rows) > 1:
        assert sum(lengths) - len(set(seen)) < length


def test_classification_and_separator_tokens_come_before_start_and_end_tokens():
    both = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    one = SimpleNamespace(cls_token_id=3, sep_token_id=4, **both)
    assert frame_tokens(one) == FrameTokens(start=3, separator=4, pad=0)
    other = SimpleNamespace(cls_token_id=None, sep_token_id=None, **both)
    assert frame_tokens(other) == FrameTokens(start=1, separator=2, pad=0)
    zero = SimpleNamespace(cls_token_id=0, sep_token_id=4, **both)
    assert frame_tokens(zero).start == 0


@pytest.mark.parametrize(("missing", "name"), [("cls", "cls or bos"), ("sep", "sep or eos")])
def test_a_tokeniser_without_framing_tokens_is_refused(missing, name):
    tokens = {"cls_token_id": 3, "sep_token_id": 4, "bos_token_id": None, "eos_token_id": None}
    tokens |= {"pad_token_id": 0, f"{missing}_token_id": None}
    with pytest.raises(DataError, match=name):
        frame_tokens(SimpleNamespace(**tokens))


@pytest.mark.parametrize(("largest_id", "dtype"), [(65_535, np.uint16), (65_536, np.int32)])
def test_written_sequences_are_read_back_in_chunks(tmp_path, monkeypatch, largest_id, dtype):
    monkeypatch.setattr(packing, "ROWS_A_CHUNK", 4)
    rows = np.random.default_rng(0).integers(0, largest_id + 1, (10, 6), np.int32)
    rows[-1, -1] = largest_id
    digest = write_sequences(tmp_path / "a", rows, length=6, largest_id=largest_id)
    assert digest == hashlib.sha256(rows.tobytes()).hexdigest()
    chunks = open_sequences(tmp_path / "a")
    assert [chunk.shape for chunk in chunks] == [(4, 6), (4, 6), (2, 6)]
    assert all(chunk.dtype == dtype and not chunk.flags.owndata for chunk in chunks)
    assert (np.concatenate(chunks) == rows).all()
    write_sequences(tmp_path / "b", rows, length=6, largest_id=largest_id)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_truncated_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "sequences"
    write_sequences(path, np.ones((9, 4), np.int32), length=4, largest_id=9)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"sequences is missing or damaged .*delete"):
        open_sequences(path)
    with pytest.raises(DataError, match="missing or damaged"):
        open_sequences(tmp_path / "none")


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """15 of 23 sequences, each of its row's number; chunks of 4."""
    monkeypatch.setattr(packing, "ROWS_A_CHUNK", 4)
    rows = np.repeat(np.arange(23, dtype=np.int32)[:, None], 3, axis=1)
    write_sequences(tmp_path / "rows", rows, length=3, largest_id=30)
    return PackedSet(
        chunks=open_sequences(tmp_path / "rows"),
        stretches=np.array([[1, 6], [9, 10], [14, 23]]),
        length=3,
        used_length=3,
    )


ROWS = [1, 2, 3, 4, 5, 9, 14, 15, 16, 17, 18, 19, 20, 21, 22]


def test_a_batch_reads_the_rows_of_its_stretches(packed):
    assert len(packed) == 15
    ids_BT = packed.batch(range(15))
    assert ids_BT.dtype == np.int32
    assert ids_BT.tolist() == [[row] * 3 for row in ROWS]
    assert packed.batch([14, 0, 5, 0])[:, 1].tolist() == [22, 1, 9, 1]
    assert packed.batch([]).shape == (0, 3)
    assert packed.attention_mask([3, 4]).tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 15), (0, 7), (7, 15), (3, 6), (5, 6), (6, 8), (4, 4), (15, 15)]
)
def test_a_part_is_a_set_of_its_own(packed, start, stop):
    part = packed.part(start, stop)
    assert len(part) == stop - start
    assert part.batch(range(len(part)))[:, 0].tolist() == ROWS[start:stop]
    assert part.length == packed.length


@pytest.mark.parametrize("indices", [[15, 0], [0, -1]])
def test_a_position_that_is_not_there_is_refused(packed, indices):
    bad = 15 if 15 in indices else -1
    with pytest.raises(DataError, match=f"15 sequences.*number {bad} "):
        packed.batch(indices)


def test_padding_is_masked(packed):
    one = PackedSet(chunks=packed.chunks[:1], stretches=np.array([[0, 1]]), length=3, used_length=2)
    assert one.attention_mask([0]).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("batch_size", [1, 4, 15, 40])
def test_every_epoch_reads_every_sequence_once(packed, batch_size):
    steps = -(-60 // batch_size)
    plans = [packed.plan(batch_size=batch_size, seed=3, step=step) for step in range(steps)]
    assert all(len(plan) == batch_size for plan in plans)
    places = np.concatenate(plans)
    epochs = places[:60].reshape(4, 15)
    assert (np.sort(epochs, axis=1) == np.arange(15)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_plan_depends_on_its_arguments_alone(packed):
    in_order = [packed.plan(batch_size=4, seed=3, step=step).tolist() for step in range(12)]
    backwards = [packed.plan(batch_size=4, seed=3, step=step).tolist() for step in range(12)[::-1]]
    assert in_order == backwards[::-1]
    assert packed.plan(batch_size=4, seed=4, step=0).tolist() != in_order[0]


@pytest.mark.parametrize(("batch_size", "step"), [(0, 0), (4, -1)])
def test_an_impossible_plan_is_refused(packed, batch_size, step):
    with pytest.raises(DataError, match=f"batch_size is {batch_size}, step {step}"):
        packed.plan(batch_size=batch_size, seed=0, step=step)


def test_an_empty_set_has_no_plan(packed):
    empty = PackedSet(
        chunks=packed.chunks, stretches=np.empty((0, 2), np.int64), length=3, used_length=3
    )
    assert len(empty) == 0
    assert empty.batch([]).shape == (0, 3)
    with pytest.raises(DataError, match="there are 0 sequences"):
        empty.plan(batch_size=2, seed=0, step=0)


def test_workers_share_a_batch():
    batch = np.array([5, 3, 9, 1, 0, 7])
    parts = [shard(batch, rank=rank, world=3).tolist() for rank in range(3)]
    assert parts == [[5, 3], [9, 1], [0, 7]]
    assert shard(batch, rank=0, world=1).tolist() == batch.tolist()


def test_uneven_shares_and_unknown_workers_are_refused():
    with pytest.raises(DataError, match=r"6 examples .* among 4 workers"):
        shard(np.arange(6), rank=0, world=4)
    for rank in (-1, 2):
        with pytest.raises(DataError, match=f"but is {rank} / 2"):
            shard(np.arange(6), rank=rank, world=2)


@settings(deadline=None)
@given(data=st.data(), total=st.integers(1, 3_000), seed=st.integers(0, 9))
def test_blocks_part_the_rows(data, total, seed):
    count = data.draw(st.integers(0, total // 2))
    kept, held = hold_out_blocks(total, count=count, seed=seed)
    rows = [[row for start, end in part for row in range(start, end)] for part in (kept, held)]
    assert sorted(rows[0] + rows[1]) == list(range(total))
    assert len(rows[1]) == count
    assert all(0 < end - start <= 50 for start, end in held)
    assert all(start < end for start, end in kept)
    again = hold_out_blocks(total, count=count, seed=seed)
    assert (kept == again[0]).all()
    assert (held == again[1]).all()


def test_blocks_are_few_spread_and_drawn_by_the_seed():
    _, held = hold_out_blocks(100_000, count=2_000, seed=0)
    assert len(held) == 40
    assert (held[:, 0] // 2_500).tolist() == list(range(40))
    assert len(hold_out_blocks(200, count=20, seed=0)[1]) == 8
    assert (hold_out_blocks(100_000, count=2_000, seed=1)[1] != held).any()
