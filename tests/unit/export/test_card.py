import pytest
import yaml

from stillhouse.export.card import model_card


@pytest.fixture
def card(metrics):
    return model_card(metrics, teacher="some/teacher", task="glue/sst2")


@pytest.mark.parametrize(
    "text",
    [
        "# 4 × 312, 12 heads, FFN 1200, gelu",
        "`some/teacher`",
        "`glue/sst2`",
        "| accuracy (dev, n = 872) | 0.9123 | 0.9300 |",
        "0.8800 to 0.9346",
        "| latency (median) | 1.235 ms | 9.877 ms |",
        "| parameters | 14,350,248 | 109,483,778 |",
        "Some Chip, PyTorch 2: batch 1, length 64, float32, 2 threads; 8.00 times",
        "First weights: slices.",
    ],
)
def test_the_card_tells_every_figure(card, text):
    assert text in card


def test_the_card_of_a_multi_label_task_asks_for_every_class(card, metrics):
    assert 'model="path/to/this/folder")' in card
    several = model_card(metrics, teacher="t", task="t", kind="multi_label")
    assert 'model="path/to/this/folder", top_k=None)' in several


def test_the_card_of_a_student_with_code_asks_for_trust(metrics):
    card = model_card(metrics, teacher="t", task="t", kind="multi_label", has_code=True)
    assert 'model="path/to/this/folder", top_k=None, trust_remote_code=True)' in card
    card = model_card(metrics, teacher="t", task="t", has_code=True)
    assert 'model="path/to/this/folder", trust_remote_code=True)' in card


def test_the_card_begins_with_readable_metadata(card):
    _, head, _ = card.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "transformers"


def test_braces_in_names_do_no_harm(metrics):
    assert "`{odd}`" in model_card(metrics, teacher="{odd}", task="t")


def test_a_missing_measure_is_an_error(metrics):
    del metrics["quality_low"]
    with pytest.raises(KeyError, match="quality_low"):
        model_card(metrics, teacher="t", task="t")
