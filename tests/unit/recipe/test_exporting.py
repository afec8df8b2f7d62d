"""What an export is checked on and what it tells of its origin; no file is written."""

import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import yaml
from datasets import Dataset
from transformers import AutoModel, BertModel

from stillhouse.data.examples import Examples
from stillhouse.data.task import task_from_dataset
from stillhouse.errors import DataError, ExportError, TeacherError
from stillhouse.evaluate.spans import MOST_TOKENS
from stillhouse.export.onnx_folder import LONGEST_ANSWER
from stillhouse.model.heads import auto_class_of
from stillhouse.model.lsq import quantise_model
from stillhouse.recipe import exporting
from stillhouse.recipe.exporting import export_onnx_checkpoint


@pytest.fixture
def asked(monkeypatch):
    """Keeps what the folder would be written from."""
    given = {}

    def write(folder, exported, **more):
        given.update(more, folder=folder, exported=exported)
        return {}

    monkeypatch.setattr(exporting, "write_onnx_folder", write)
    return given


def export(name, *, folder=None, check=("a sunny day",), precision="float32"):
    export_onnx_checkpoint(str(name), folder, precision=precision, check=check, max_length=16)


@pytest.fixture
def student(weather_teacher, weather_tokenizer, tmp_path):
    """A student of a run whose teacher lies in a folder with a card."""
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# A teacher\n")
    folder = tmp_path / "run" / "students" / "1"
    weather_teacher.save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    (folder / "metrics.json").write_text('{"architecture_label": "small"}')
    settings = yaml.safe_dump({"teacher": {"model": str(teacher)}})
    (tmp_path / "run" / "settings.yaml").write_text(settings)
    return folder


def test_a_student_tells_its_teacher_and_the_teachers_licence(student, asked):
    export(student)
    origin = asked["provenance"]
    assert origin.teacher == str(student.parents[2] / "teacher")
    assert origin.licence == "cc-by-4.0"
    assert origin.metrics == {"architecture_label": "small"}
    assert asked["folder"] == student / "onnx"


def test_a_checkpoints_own_licence_comes_first(student, asked):
    (student / "README.md").write_text("---\nlicense: mit\n---\n")
    export(student, precision="int8")
    assert asked["provenance"].licence == "mit"
    assert asked["folder"] == student / "onnx-int8"


@pytest.fixture
def quantised(student, weather_teacher, weather_tokenizer):
    """The student's form in few bits; its ranges are not set."""
    quantise_model(weather_teacher, weight_bits=4)
    weather_teacher.save_pretrained(student / "quantised")
    weather_tokenizer.save_pretrained(student / "quantised")
    return student / "quantised"


@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_quantised_student_is_exported_in_8_bits(quantised, asked, precision):
    export(quantised, precision=precision)
    assert asked["precision"] == "int8"
    assert asked["folder"] == quantised / "onnx-int8"
    assert asked["provenance"].teacher == str(quantised.parents[3] / "teacher")


@pytest.mark.parametrize("precision", ["float32", "int8-static"])
def test_a_quantised_student_is_exported_in_nothing_else(quantised, asked, precision):
    with pytest.raises(ExportError, match=f"trained in few bits .* not in {precision}: leave"):
        export(quantised, precision=precision)
    assert asked == {}


@pytest.mark.parametrize(("job", "is_teacher"), [("quantise", True), ("finetune", False)])
def test_a_model_of_a_run_has_the_licence_of_what_it_was_made_of(student, asked, job, is_teacher):
    """Here a student of a teacher with a card, which is the one that tells it."""
    model = student.parents[2] / "next" / "model"
    shutil.copytree(student, model)
    settings = yaml.safe_dump({"teacher": {"model": None}, job: {"model": str(student)}})
    (model.parent / "settings.yaml").write_text(settings)
    export(model)
    origin = asked["provenance"]
    assert origin.licence == "cc-by-4.0"
    assert origin.teacher == (str(student) if is_teacher else None)
    (student / "README.md").write_text("---\nlicense: mit\n---\n")
    export(model)
    assert asked["provenance"].licence == "mit"


def test_a_run_that_names_itself_tells_no_licence(student, asked):
    (student.parents[2] / "teacher" / "README.md").unlink()
    settings = yaml.safe_dump({"teacher": {"model": str(student)}})
    (student.parents[1] / "settings.yaml").write_text(settings)
    export(student)
    assert asked["provenance"].licence is None


def test_without_a_precision_it_is_float32(student, asked):
    export(student, precision=None)
    assert asked["precision"] == "float32"
    assert asked["folder"] == student / "onnx"


@pytest.mark.parametrize("card", ["no head", "---\n: [\n---\n", "---\ntags: [a]\n---\n"])
def test_a_card_without_a_licence_tells_none(student, asked, card):
    (student / "README.md").write_text(card)
    (student.parents[2] / "teacher" / "README.md").unlink()
    export(student)
    assert asked["provenance"].licence is None


def test_texts_of_a_file_are_the_first_ones(student, asked, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"day {number}" for number in range(300)))
    export(student, check=path)
    assert asked["check"].name == "many.txt"
    assert len(asked["check"].encoded) == 256
    assert asked["check"].texts[0] == "day 0"
    assert asked["check"].score is None


@pytest.fixture(scope="module")
def make_texts(weather_tokenizer):
    """Makes different texts of two words."""
    words = sorted(weather_tokenizer.get_vocab().keys() - set(weather_tokenizer.all_special_tokens))
    return lambda count: [" ".join(pair) for pair in product(words, words)][:count]


def texts_of(encoded, tokenizer):
    """Tells the words of every example."""
    rows = [encoded.select([place]).input_ids for place in range(len(encoded))]
    return [" ".join(tokenizer.convert_ids_to_tokens(row[1:-1])) for row in rows]


@pytest.mark.parametrize(
    ("count", "checked", "fixed"), [(32, 16, 16), (45, 23, 22), (700, 256, 256)]
)
def test_a_static_file_is_calibrated_on_the_last_texts(
    student, asked, tmp_path, weather_tokenizer, make_texts, count, checked, fixed
):
    path, lines = tmp_path / "many.txt", make_texts(count)
    path.write_text("\n".join(lines))
    export(student, check=path, precision="int8-static")
    assert asked["folder"] == student / "onnx-int8-static"
    assert list(asked["check"].texts) == lines[:checked]
    assert asked["calibration"].name == "many.txt (its last ones)"
    assert texts_of(asked["calibration"].encoded, weather_tokenizer) == lines[-fixed:]


def test_too_few_texts_to_calibrate_on_are_refused(student, asked):
    with pytest.raises(DataError, match=r"given texts: int8-static needs 32 texts .* are 31: give"):
        export(student, check=["sunny"] * 31, precision="int8-static")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_other_files_are_not_calibrated(student, asked, precision):
    export(student, precision=precision)
    assert asked["calibration"] is None


def test_without_a_check_the_embedded_tasks_training_texts_calibrate(student, asked):
    export(student, check=None, precision="int8-static")
    assert asked["calibration"].name == "the training set of the embedded task"
    assert len(asked["calibration"].encoded) == 256
    assert len(asked["check"].encoded) == 24
    assert asked["calibration"].encoded.longest <= 16


@pytest.mark.parametrize(("count", "fixed"), [(300, 256), (40, 40)])
def test_a_tasks_training_texts_calibrate(
    student, asked, weather_tokenizer, make_texts, count, fixed
):
    lines = make_texts(count)
    task = weather([number % 2 for number in range(20)], ("good", "bad"))
    labels = [number % 2 for number in range(count)]
    train = Examples(text_a=lines, labels=labels).to_dataset(task.label_names)
    export(student, check=replace(task, train=train), precision="int8-static")
    assert asked["calibration"].name == "the training set of weather"
    drawn = texts_of(asked["calibration"].encoded, weather_tokenizer)
    assert len(drawn) == len(set(drawn)) == fixed
    assert set(drawn) <= set(lines)
    assert drawn != lines[:fixed]
    assert asked["check"].texts[0] == "day 0"


def test_without_a_check_texts_of_many_lengths_are_taken(student, asked):
    export(student, check=None)
    lengths = asked["check"].encoded.lengths
    assert len(lengths) == 24
    assert len(set(lengths[:16].tolist())) > 3
    assert lengths.max() <= 16


def test_no_texts_are_refused(student, asked):
    with pytest.raises(DataError, match="give at least one"):
        export(student, check=())


def weather(labels, names):
    texts = [f"day {number}" for number in range(len(labels))]
    rows = Dataset.from_dict({"text": texts, "label": [names[label] for label in labels]})
    return task_from_dataset(rows, rows, text="text", label="label", name="weather")


def test_scores_are_in_the_tasks_order_of_labels(student, asked):
    """The model's outputs are bad, good; the task says the same in capitals and in its order."""
    task = weather([0, 1, 1, 0] * 5, ("GOOD", "BAD"))
    export(student, check=task)
    named = [task.label_names[label] for label in task.dev["label"]]
    logits = np.array([[1.0, 0.0] if name == "BAD" else [0.0, 1.0] for name in named])
    assert asked["check"].score(logits)["accuracy"] == 1
    assert asked["check"].score(-logits)["accuracy"] == 0
    assert asked["check"].name == "the dev set of weather"


@pytest.mark.parametrize("names", [("up", "down"), ("bad", "good", "fair")])
def test_a_task_with_other_labels_is_refused(student, asked, names):
    task = weather([number % len(names) for number in range(30)], names)
    with pytest.raises(DataError, match="check it on its own task"):
        export(student, check=task)


def test_a_checkpoint_without_its_head_is_refused(
    weather_encoder_folder, asked, tmp_path, weather_tokenizer
):
    model = AutoModel.from_pretrained(weather_encoder_folder)
    model.save_pretrained(tmp_path)
    weather_tokenizer.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        config.replace('"BertModel"', '"BertForSequenceClassification"')
    )
    with pytest.raises(TeacherError, match="weights of its head are missing"):
        export(tmp_path)


def test_an_untrained_pooler_gives_no_output(asked, tmp_path, weather_tokenizer, tiny_config):
    config = tiny_config("bert", vocab_size=len(weather_tokenizer))
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    weather_tokenizer.save_pretrained(tmp_path)
    export(tmp_path)
    assert asked["exported"].head == "encoder"
    tokens = weather_tokenizer("a day", return_tensors="pt")
    assert list(asked["exported"].model(**tokens)) == ["last_hidden_state"]


@pytest.fixture
def token_model(tmp_path, weather_tokenizer, tiny_config):
    """Writes a checkpoint that answers every token."""

    def write(kind, **config):
        folder = tmp_path / kind
        shape = tiny_config("bert", vocab_size=len(weather_tokenizer), labels=2, **config)
        auto_class_of(kind).from_config(shape).save_pretrained(folder)
        weather_tokenizer.save_pretrained(folder)
        return folder

    return write


def test_a_tagger_is_checked_on_the_words_of_texts(token_model, asked):
    export(token_model("tags"), check=["a  sunny day", " ", "rainy"])
    check = asked["check"]
    assert check.texts == [["a", "sunny", "day"], ["rainy"]]
    assert check.encoded.tags.tolist() == [-100, -1, -1, -1, -100, -100, -1, -100]
    assert (check.name, check.score, check.answers) == ("given texts", None, None)
    with pytest.raises(DataError, match="given texts: there is no word to tag"):
        export(token_model("tags"), check=[" "])


def test_a_reader_is_checked_on_questions_with_passages_or_on_texts_as_both(token_model, asked):
    folder = token_model("spans")
    export(folder, check=["day ||| a sunny day", "the road"])
    check = asked["check"]
    assert check.texts == [("day", "a sunny day"), ("the road", "the road")]
    assert check.name == "given texts (1 of them both question and passage)"
    assert check.score is None
    logits_P2 = np.zeros((len(check.encoded.input_ids), 2))
    logits_P2[[4, 12], 0] = 1  # sunny; road
    logits_P2[[5, 12], 1] = 1
    assert check.answers(logits_P2).tolist() == ["sunny day", "road"]
    logits_P2[7] = 9  # the first token, which stands for no answer; the model knows no such thing
    assert check.answers(logits_P2).tolist() == ["sunny day", "road"]
    export(folder, check=["day ||| a sunny day"])
    assert asked["check"].name == "given texts"


def test_a_reader_with_a_threshold_may_give_no_answer(token_model, asked):
    export(token_model("spans", no_answer_threshold=1.5), check=["day ||| a sunny day"])
    logits_P2 = np.zeros((7, 2))
    for lead, answer in ((1.4, "a"), (1.6, "")):
        logits_P2[0, 0] = lead  # of the first token, over spans of 0
        assert asked["check"].answers(logits_P2).tolist() == [answer]


@pytest.mark.parametrize(("kind", "texts"), [("tags", list), ("spans", tuple)])
def test_without_a_check_embedded_texts_are_made_into_what_a_head_reads(
    token_model, asked, kind, texts
):
    export(token_model(kind), check=None, precision="int8-static")
    assert all(isinstance(one, texts) for one in asked["check"].texts)
    assert len(asked["check"].texts) == 24
    called = "the embedded task" + " (24 of them both question and passage)" * (kind == "spans")
    assert asked["check"].name == called
    assert asked["calibration"].encoded.longest <= 16
    for encoded in (asked["check"].encoded, asked["calibration"].encoded):
        assert (encoded.tags is None) == (encoded.sheet is not None) == (kind == "spans")


@pytest.mark.parametrize(("kind", "called"), [("tags", "tagger"), ("spans", "reader")])
def test_a_task_for_another_head_is_refused(token_model, asked, kind, called):
    task = weather([number % 2 for number in range(20)], ("good", "bad"))
    with pytest.raises(DataError, match=f"a {called}, the task weather needs a classifier: check"):
        export(token_model(kind), check=task)


def test_answers_of_the_example_are_as_long_as_those_of_evaluations():
    assert LONGEST_ANSWER == MOST_TOKENS
