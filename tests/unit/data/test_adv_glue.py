import json
import os
from pathlib import Path

import pytest

from stillhouse.data.adv_glue import SECTIONS, adv_glue_sections, read_adv_glue
from stillhouse.errors import DataError, SettingsError

REPOSITORY = Path(__file__).resolve().parents[3]
CONTENT = {
    "sst2": [
        {"sentence": "a fyne film", "original_sentence": "a fine film", "label": 1},
        {"sentence": "not bad at all", "label": 1},
        {"sentence": "dul", "original_sentence": "dull", "label": 0},
    ],
    "mnli-mm": [
        {"premise": "p", "hypothesis": "h x", "original_hypothesis": "h", "label": 2},
        {"premise": "q x", "original_premise": "q", "hypothesis": "i", "label": 0},
    ],
    "rte": [],
}


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "dev_ann.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_file


def test_originals_are_those_of_the_examples_that_tell_them(write):
    found = read_adv_glue(write(CONTENT), "sst2")
    assert found.perturbed.text_a == ["a fyne film", "not bad at all", "dul"]
    assert found.perturbed.labels == [1, 1, 0]
    assert found.perturbed.text_b is None
    assert found.with_original == (0, 2)
    assert found.originals.text_a == ["a fine film", "dull"]
    assert found.originals.labels == [1, 0]


def test_of_a_pair_one_text_is_perturbed(write):
    found = read_adv_glue(write(CONTENT), "mnli-mm")
    assert (found.perturbed.text_a, found.perturbed.text_b) == (["p", "q x"], ["h x", "i"])
    assert (found.originals.text_a, found.originals.text_b) == (["p", "q"], ["h", "i"])


def test_sections_of_tasks():
    assert adv_glue_sections("glue/mnli") == ("mnli", "mnli-mm")
    assert adv_glue_sections("glue/sst2") == ("sst2",)
    for task in ("glue/cola", "sst2", "reviews.csv"):
        with pytest.raises(SettingsError, match=f"the task is '{task}'"):
            adv_glue_sections(task)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ([1], "has no list 'sst2'"),
        ({"rte": []}, "has no list 'sst2'"),
        ({"sst2": {}}, "has no list 'sst2'"),
        ({"sst2": []}, "'sst2' is empty"),
        ({"sst2": ["a"]}, "example 1 is no JSON object"),
        ({"sst2": [{"label": 1}]}, "example 1: 'sentence' is a text, but is None"),
        ({"sst2": [{"sentence": "a", "label": 2}]}, "label is from 0 to 1, but is 2"),
        ({"sst2": [{"sentence": "a", "label": True}]}, "but is True"),
        (
            {"sst2": [{"sentence": "a", "original_sentence": 3, "label": 1}]},
            "'original_sentence' is a text, but is 3",
        ),
    ],
)
def test_broken_files_are_refused(write, content, said):
    with pytest.raises(DataError, match=said):
        read_adv_glue(write(content), "sst2")


@pytest.fixture
def real_file():
    """AdvGLUE's dev set; skips the test where it is not."""
    named = os.environ.get("STILLHOUSE_DATA")
    candidates = [Path(named)] if named else []
    candidates.append(REPOSITORY.parent / "shared" / "data")
    for root in candidates:
        path = root / "robustness" / "adv_glue" / "dev_ann.json"
        if path.exists():
            return path
    pytest.skip(f"no robustness/adv_glue in $STILLHOUSE_DATA or {candidates[-1]}")


@pytest.mark.data
def test_the_released_counts_are_read(real_file):
    names = [name for of_task in SECTIONS.values() for name in of_task]
    found = {name: read_adv_glue(real_file, name) for name in names}
    counts = {name: len(section.perturbed) for name, section in found.items()}
    assert counts == {  # Wang et al. 2021, table 2, dev
        "sst2": 148, "qqp": 78, "mnli": 121, "mnli-mm": 162, "qnli": 148, "rte": 81,
    }  # fmt: skip
    assert len(found["sst2"].originals) == 131
    assert len(found["rte"].originals) == 81
