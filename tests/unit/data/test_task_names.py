import pytest

from stillhouse.data.task import TaskSettings
from stillhouse.data.task_names import form_of
from stillhouse.errors import SettingsError


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("embedded", "embedded"),
        ("in-memory", "in-memory"),
        ("glue/rte", "glue"),
        ("squad-v2", "squad"),
        ("hf:./folder.json", "hub"),
        ("a/T.CSV", "table"),
        ("a.parquet", "table"),
        ("a.bio", "columns"),
        ("conll:a.txt", "columns"),
        ("conll:a.conllu", "columns"),
        ("en.conllu", "conllu"),
        ("dev-v2.0.json", "questions"),
    ],
)
def test_names_tell_where_a_task_comes_from(name, form):
    assert form_of(name) == form
    assert TaskSettings(name=name).name == name


@pytest.mark.parametrize("name", ["train.txt", "glue/nope", "squad-v3", "conllu", ""])
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(SettingsError, match=r"\.iob.*conll:PATH.*squad, squad-v2, glue/sst2"):
        TaskSettings(name=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "squad", "dev": "dev.json"}, "brings its own columns and dev set"),
        ({"name": "squad", "label": "answers"}, "remove text, label and dev"),
        ({"name": "t.json", "text": ("q", "c")}, "is in SQuAD's form, without columns; remove"),
        ({"name": "t.json", "dev": "dev.jsonl"}, r"dev is a \.json .* but is 'dev\.jsonl'"),
        ({"name": "t.conll", "dev": "dev.txt"}, r"dev is a \.conll.*conll:PATH file, but"),
        ({"name": "t.conllu", "dev": "dev.conll"}, r"dev is a \.conllu file"),
        ({"name": "t.csv", "dev": "dev.conll"}, r"dev is a \.csv, "),
        ({"name": "t.conll", "text": ("1", "2")}, "are the numbers of the columns"),
        ({"name": "t.conll", "label": "ner"}, "from 1, but are .* and 'ner'"),
        ({"name": "t.conll", "label": "0"}, "from 1, but are"),
        ({"name": "t.conll", "text": ("words",)}, r"but are \['words'\]"),
        ({"name": "t.conllu", "text": ("2",)}, "column FORM; remove text"),
        ({"name": "t.conllu", "label": "ner"}, "one of upos, xpos, deprel, but is 'ner'"),
        ({"name": "t.json", "directory": "/data"}, "directory is for GLUE and SQuAD tasks"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        TaskSettings(**settings)
