import pytest

from stillhouse.errors import SettingsError
from stillhouse.run.extract_settings import ExtractSettings
from stillhouse.run.settings import settings_from_dict


def test_an_extract_is_of_the_important_neurons_unless_told():
    assert ExtractSettings() == ExtractSettings(indices="importance", loss="auto", examples=512)


def test_an_extract_of_students_that_begin_otherwise_is_refused():
    message = "extract is for distill.initialisation extract alone; leave it out, got 'slices'"
    with pytest.raises(SettingsError, match=message):
        settings_from_dict({"extract": {"indices": "random"}})
    given = {"distill": {"initialisation": "extract"}, "extract": {"indices": "random"}}
    assert settings_from_dict(given).extract.indices == "random"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"examples": 0}, r"extract.examples must be at least 1, got 0"),
        ({"loss": "labels"}, r"extract.loss: Input should be 'auto', 'words', 'states' or 'task'"),
        ({"indices": "leading"}, r"extract.indices: Input should be 'importance' or 'random'"),
        ({"size": 3}, r"extract.size: unknown key; known keys here: indices, loss, examples"),
    ],
)
def test_what_cannot_be_extracted_is_refused(section, message):
    with pytest.raises(SettingsError, match=message):
        settings_from_dict({"extract": section})
