import json

import pytest
from datasets import Dataset
from transformers import BertModel

from stillhouse import api
from stillhouse.api import functions, runs
from stillhouse.data.task import IN_MEMORY, TaskSettings, load_task
from stillhouse.errors import SettingsError
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import FinetuneSettings, RunSettings, settings_from_dict


@pytest.fixture
def asked(monkeypatch):
    """What `search` hands to the job: settings, path and objects."""
    jobs = []
    monkeypatch.setattr(
        functions,
        "run_search_job",
        lambda settings, path, _, given: jobs.append((settings, path, given)),
    )

    def ask(**arguments):
        api.search(**arguments)
        return jobs[-1]

    return ask


def test_arguments_become_settings(asked, tmp_path):
    settings, path, given = asked(
        teacher="some/model",
        task="data.csv",
        text=("question", "answer"),
        label="y",
        limit={"latency_ms": 5},
        seconds=90,
        candidates=7,
        run=tmp_path / "run",
        settings={"search": {"epochs": 2.0, "candidates": 1}},
    )
    assert (settings.teacher.model, settings.task.name) == ("some/model", "data.csv")
    assert (settings.task.text, settings.task.label) == (("question", "answer"), "y")
    assert settings.limit.given() == {"latency_ms": 5.0}
    found = settings.search
    assert (found.seconds, found.candidates, found.epochs) == (90, 7, 2.0)
    assert path == tmp_path / "run"
    assert given == api.Given()


def test_nothing_given_is_the_demonstration_in_a_new_folder(asked):
    settings, first, _ = asked()
    _, second, _ = asked()
    assert settings == RunSettings()
    assert first != second


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
@pytest.mark.parametrize("rank", [0, 1])
def test_jobs_of_one_process_refuse_to_be_several(tmp_path, monkeypatch, variable, rank):
    monkeypatch.setenv(variable, "2")
    monkeypatch.setenv("RANK", str(rank))
    jobs = [
        ("autodistill", api.run_search_job, {"recipe": "autodistill"}),
        ("plain", api.run_search_job, {}),
        ("distill", api.run_distill_job, {"student": "layers=1"}),
        ("finetune", api.run_finetune_job, {"finetune": {"model": "some/model"}}),
    ]
    for name, job, settings in jobs:
        with pytest.raises(SettingsError, match=f"{name} runs in one process, but 2 were started"):
            job(settings_from_dict(settings), tmp_path / "run", LoggingNarrator())
    assert not (tmp_path / "run").exists()


def test_settings_may_name_teacher_and_task(asked):
    settings, _, _ = asked(settings={"teacher": {"model": "t"}, "task": {"name": "glue/rte"}})
    assert (settings.teacher.model, settings.task.name) == ("t", "glue/rte")


def test_objects_are_handed_on_beside_the_settings(
    asked, weather_teacher, weather_tokenizer, weather_dataset
):
    settings, _, given = asked(
        teacher=weather_teacher,
        tokenizer=weather_tokenizer,
        task=weather_dataset,
        text=("text",),
        label="label",
    )
    assert settings.teacher.model == settings.task.name == IN_MEMORY
    assert settings.task.text == ()
    assert given.task.label_names == ("bad", "good")
    assert given.teacher.tokenizer is weather_tokenizer
    given.teacher.model.requires_grad_(requires_grad=False)
    assert all(parameter.requires_grad for parameter in weather_teacher.parameters())


def test_objects_that_lack_something_are_refused(asked, weather_teacher, weather_tokenizer):
    with pytest.raises(SettingsError, match=r"needs its tokenizer: pass tokenizer="):
        asked(teacher=weather_teacher)
    encoder = BertModel(weather_teacher.config)
    with pytest.raises(SettingsError, match="sequence-classification model, got BertModel"):
        asked(teacher=encoder, tokenizer=weather_tokenizer)
    with pytest.raises(SettingsError, match=r"needs its columns.*\['a', 'b'\]"):
        asked(task=Dataset.from_dict({"a": ["x"], "b": [0]}))


def test_a_task_in_memory_cannot_be_named():
    with pytest.raises(SettingsError, match="lies in no file"):
        load_task(TaskSettings(name=IN_MEMORY))


def test_a_distillation_needs_a_student(tmp_path):
    with pytest.raises(SettingsError, match="student is missing"):
        api.run_distill_job(RunSettings(), tmp_path / "run", LoggingNarrator())
    assert not (tmp_path / "run").exists()


@pytest.fixture
def asked_to_tune(monkeypatch):
    """What `finetune` hands to the job: settings, path and objects."""
    jobs = []
    monkeypatch.setattr(
        functions,
        "run_finetune_job",
        lambda settings, path, _, given: jobs.append((settings, path, given)),
    )

    def ask(*arguments, **options):
        api.finetune(*arguments, **options)
        return jobs[-1]

    return ask


def test_arguments_of_a_fine_tuning_become_settings(asked_to_tune, tmp_path):
    settings, path, given = asked_to_tune(
        tmp_path / "student",
        task="data.csv",
        text=("question", "answer"),
        label="y",
        learning_rates=[1e-5, 2e-5],
        epochs=3,
        run=tmp_path / "run",
        settings={"finetune": {"patience": 2, "epochs": 9.0}, "seed": 4},
    )
    found = settings.finetune
    assert found.model == str(tmp_path / "student")
    assert (found.learning_rates, found.epochs, found.patience) == ((1e-5, 2e-5), 3, 2)
    assert (settings.task.text, settings.task.label) == (("question", "answer"), "y")
    assert (settings.seed, path, given) == (4, tmp_path / "run", api.Given())


def test_a_fine_tuning_takes_a_task_in_memory(asked_to_tune, weather_dataset):
    settings, first, given = asked_to_tune("m", task=weather_dataset, text=("text",), label="label")
    assert (settings.task.name, settings.task.text) == (IN_MEMORY, ())
    assert given.task.label_names == ("bad", "good")
    settings, second, _ = asked_to_tune("m", settings={"task": {"name": "glue/rte"}})
    assert settings.task.name == "glue/rte"
    assert settings.finetune == FinetuneSettings(model="m")
    assert first != second


def test_questions_in_memory_are_read_at_their_usual_length(asked_to_tune):
    context = "a sunny day by the river"
    rows = [
        {
            "id": str(number),
            "question": "which day",
            "context": f"{context} {number}",
            "answers": {"text": ["sunny"], "answer_start": [2]},
        }
        for number in range(20)
    ]
    asked = {
        "task": Dataset.from_list(rows),
        "text": ("question", "context"),
        "label": "answers",
    }
    settings, _, given = asked_to_tune("m", **asked)
    assert (given.task.kind, settings.task.max_length) == ("spans", 384)
    settings, _, _ = asked_to_tune("m", **asked, settings={"task": {"max_length": 64}})
    assert settings.task.max_length == 64


def test_a_fine_tuning_needs_a_checkpoint(tmp_path):
    with pytest.raises(SettingsError, match=r"finetune\.model is missing"):
        api.run_finetune_job(RunSettings(), tmp_path / "run", LoggingNarrator())
    assert not (tmp_path / "run").exists()


@pytest.fixture
def finished_run(tmp_path):
    """A run whose process ended between the last student and tidying up."""
    settings = RunSettings(student="layers=1")
    path = tmp_path / "run"
    with open_run(path, settings) as run:
        (run.work / "finished").mkdir(parents=True)
        run.student(1).mkdir(parents=True)
        (run.student(1) / "metrics.json").write_text(json.dumps({"quality": 0.5}))
        run.update_state({"status": "complete"})
    return settings, path


def test_a_run_that_was_stopped_while_tidying_up_is_tidied(finished_run):
    settings, path = finished_run
    student = api.run_distill_job(settings, path, LoggingNarrator())
    assert student.metrics == {"quality": 0.5}
    assert (path / "report.html").exists()
    assert not (path / "work").exists()
    assert json.loads((path / "run.json").read_text())["status"] == "complete"


def test_a_report_that_cannot_be_written_costs_no_student(finished_run, monkeypatch):
    settings, path = finished_run

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_report", full)
    with pytest.raises(OSError, match="No space left"):
        api.run_distill_job(settings, path, LoggingNarrator())
    assert (path / "work" / "finished").exists()
