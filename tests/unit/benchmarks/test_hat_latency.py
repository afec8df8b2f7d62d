import numpy as np
import pytest

from benchmarks.hat_latency import (
    CHOSEN,
    OURS,
    USUAL,
    Table,
    ours,
    read_hat,
    split,
    verdict,
    with_layer_products,
)

COLUMNS = ("encoder_layer_num", "encoder_embed_dim")


@pytest.fixture
def table():
    rows = np.random.default_rng(0).integers(1, 9, size=(2000, 2)).astype(float)
    return Table(
        name="made up", columns=COLUMNS, rows=rows, latency_ms=3 + rows[:, 0] * rows[:, 1] ** 2
    )


def test_a_table_is_read_without_its_latencies_among_the_columns(tmp_path):
    path = tmp_path / "task_machine_all.csv"
    path.write_text(
        "encoder_layer_num,latency_mean_encoder,latency_mean_decoder,latency_std_encoder\n"
        "6,1.5,20,0.1\n4,1.25,10,0.1\n"
    )
    found = read_hat(path)
    assert (found.name, found.columns) == ("task_machine", ("encoder_layer_num",))
    assert found.rows.tolist() == [[6], [4]]
    assert found.latency_ms.tolist() == [21.5, 11.25]


def test_no_reported_row_is_fitted_to(table):
    parts = split(table, 3)
    assert (len(parts.fitted), len(parts.reported)) == (1600, 200)
    assert not set(parts.fitted) & set(parts.reported)
    assert (split(table, 4).reported != parts.reported).any()


@pytest.mark.parametrize("chosen", [False, True])
def test_a_hundred_rows_give_products_of_columns_away(table, chosen):
    parts = split(table, 0)
    predicted_ms, facts = ours(table, parts, chosen=chosen)
    assert predicted_ms == pytest.approx(table.latency_ms[parts.reported], rel=0.02)
    assert facts["cross_validated_mape"] < 0.02


def test_the_verdict_names_the_worst_table():
    mape = {
        "a": {OURS: 0.04, CHOSEN: 0.02, USUAL: 0.05},
        "b": {OURS: 0.06, CHOSEN: 0.02, USUAL: 0.05},
    }
    assert "5.00% is at most" in verdict(OURS, mape)
    assert "is 1.20 (b), above 1.15" in verdict(OURS, mape)
    assert "is 0.40 (a), not above 1.15" in verdict(CHOSEN, mape)
    mape["a"][OURS] = 0.05
    assert "5.50% is not at most" in verdict(OURS, mape)


def test_averages_over_layers_become_what_all_layers_come_to():
    names, rows = with_layer_products(
        ("a_layer_num", "a_embed_dim", "a_ffn", "b_layer_num", "b_heads"),
        np.array([[2.0, 3.0, 5.0, 7.0, 11.0]]),
    )
    assert dict(zip(names, rows[0], strict=True)) == {
        "a_layer_num": 2,
        "a_embed_dim": 3,
        "a_ffn": 5,
        "b_layer_num": 7,
        "b_heads": 11,
        "a_layer_num × a_embed_dim": 6,
        "a_layer_num × a_embed_dim × a_embed_dim": 18,
        "a_layer_num × a_ffn": 10,
        "a_layer_num × a_embed_dim × a_ffn": 30,
        "b_layer_num × b_heads": 77,
    }


def test_a_table_without_layers_stays_as_it_is():
    names, rows = with_layer_products(("width", "depth"), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert names == ("width", "depth")
    assert rows.tolist() == [[1, 2], [3, 4]]
