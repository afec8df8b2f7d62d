"""A made-up table in the place of those of the package."""

import pytest
import yaml

from stillhouse.benchmark import table as module
from stillhouse.search.recorded import RecordedRow, RecordedTable, write_recorded
from stillhouse.space.architecture import BertArchitecture

FIGURES = {  # by hidden size: latency, then quality by seed; the means of 24 are 0.6
    8: (1.0, (0.2,)),
    16: (4.0, (0.1,)),
    24: (2.0, (0.5, 0.7)),
    32: (3.0, (0.8,)),
}
STORY = {
    "title": "Made up",
    "students": "4 BERTs; 1 of them was trained with a second seed",
    "teacher": "none",
    "data": "none",
    "training": "none",
    "quality": "a number",
    "latency_ms": "another number",
    "machine": "none",
    "recorded": "2026-01-31",
    "program": "none",
}


def bert(hidden_size):
    return BertArchitecture(layers=1, hidden_size=hidden_size, heads=2, ffn_size=16)


@pytest.fixture
def rows():
    return [
        RecordedRow(architecture=bert(size), seed=seed, quality=quality, latency_ms=latency_ms)
        for size, (latency_ms, qualities) in FIGURES.items()
        for seed, quality in enumerate(qualities)
    ]


@pytest.fixture
def recorded(rows):
    return RecordedTable.of(rows)


@pytest.fixture
def tables(tmp_path, monkeypatch, rows):
    """A folder with the tables sst2-minilm and made-up, which say the same."""
    for name in ("sst2-minilm", "made-up"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(STORY))
        for row in rows:
            write_recorded(tmp_path / f"{name}.csv", row)
    monkeypatch.setattr(module, "TABLES", tmp_path)
    return tmp_path
