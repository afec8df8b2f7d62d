import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import DeviceError, SettingsError
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.run.settings_file import (
    apply_overrides,
    difference,
    parse_duration,
    parse_override,
    read_settings,
)

EVERYTHING = {
    "teacher": {"model": "folder", "finetune": "always", "epochs": 1.5,
                "learning_rates": [1e-5, 3e-4], "batch_size": 16},
    "task": {"name": "data.csv", "text": ["question", "answer"], "label": "y", "dev": "dev.tsv",
             "metric": "f1_macro", "unlabelled": "more.txt", "max_length": 64,
             "min_length": 4, "stride": 16,
             "directory": None, "max_train": 500},
    "space": {"base": "kd-nas", "layers": [1, 2], "hidden_size": [32, 64], "heads": None,
              "head_size": [16], "ffn_size": None, "ffn_ratio": [1.0, 2.5],
              "activation": ["gelu", "relu"], "bottleneck_size": [8, 16], "ffn_count": [2],
              "embedding_size": [32],
              "size_fraction": 0.25, "size_count": "total"},
    "limit": {"latency_ms": 5.0, "speedup": 1.5, "size_mb": 40.0, "memory_mb": 300.0,
              "parameters": 1e7, "params_m": 10.0, "flops_fraction": 0.25},
    "device": {"kind": "table", "table": "chip.csv", "chip": None, "profile": None,
               "batch": 2, "length": 48, "threads": 3, "precision": "bfloat16",
               "padding_fraction": 0.25, "watts": 65.0},
    "search": {"strategy": "gp", "candidates": 7, "seconds": 90.5, "proxy_examples": 100,
               "epochs": 0.5, "candidate_seconds": 3.0, "ask": 4, "controller": "published",
               "quality": "hidden", "alpha": -0.1, "beta": 0.5,
               "objectives": ["quality", "latency_ms", "size_mb"]},
    "distill": {"logit_weight": 0.5, "temperature": 2.0, "label_weight": 0.1,
                "hidden_weight": 0.2, "attention_weight": 0.3,
                "embeddings": True, "layer_map": "search", "initialisation": "extract",
                "kept_layers": "auto",
                "learning_rate": 1e-3, "batch_size": 8, "dropout": 0.1, "precision": "float32",
                "cache_gb": 0.5},
    "final": {"students": 2, "epochs": 4.0, "controls": 3, "noise_candidates": 9},
    "quantise": {"model": "folder", "weight_bits": 4, "ranges": "quantile", "epochs": 2.0,
                 "batch_size": 8, "learning_rate": 1e-4, "weight_clip_rate": 2e-3,
                 "activation_clip_rate": 1e-2, "weight_decay": 0.0, "label_weight": 1.0,
                 "evaluate_every": 0.5},
    "finetune": {"model": "folder", "epochs": 20.0, "learning_rates": [2e-5], "batch_size": 16,
                 "warmup_fraction": 0.1, "weight_decay": 0.0, "dropout": 0.0,
                 "evaluate_every": 0.5, "patience": 3, "stop_on": "dev",
                 "trust_remote_code": True},
    "corpus": {"name": "wiki.txt", "text": "body", "length": 64, "held_out": 100,
               "max_tokens": 50_000},
    "supernet": {"spaces": ["small", "tiny"], "one_shot": True, "steps": 500, "batch_size": 16,
                 "learning_rate": 1e-4, "warmup_fraction": 0.1, "weight_decay": 0.0,
                 "dropout": 0.0, "random_subnets": 3, "relation_heads": 6, "target": "kl",
                 "judge": "task", "judged": 20, "per_space": True, "runners_up": 0},
    "blocks": {"count": 2, "operations": 5, "hidden_sizes": [64, 128], "steps_per_epoch": 9,
               "warm_epochs": 0, "bins": 4, "bins_by": "size", "sampled": 50, "kept": 3,
               "dev_batches": 2, "batch_size": 16, "learning_rate": 1e-4, "warmup_fraction": 0.1,
               "weight_decay": 0.0, "dropout": 0.0},
    "mlm": {"probability": 0.2, "whole_word": True, "head_steps": 5, "head_learning_rate": 1e-4},
    "select": {"candidates": 20, "runners_up": 0},
    "pretrain": {"steps": 7, "batch_size": 16, "learning_rate": 1e-4, "warmup_fraction": 0.1,
                 "weight_decay": 0.0, "dropout": 0.0, "teacher_weight": 0.25, "start": "supernet"},
    "transfer": {"steps": 9, "flash_fraction": 0.1, "rungs": 3, "reduction": 2, "batch_size": 16,
                 "learning_rate": 1e-3, "weight_decay": 0.0, "mix": "even"},
    "cross_view": {"size": "published", "word_size": 50, "vectors": "glove.txt",
                   "most_words": 900, "labels_fraction": 0.1, "targets": "teacher",
                   "unlabelled_weight": 0.5, "label_smoothing": 0.0, "dropout": 0.4,
                   "unlabelled_dropout": 0.1, "batch_size": 8, "unlabelled_batch_size": 16,
                   "steps": 70, "learning_rate": 0.25, "warmup_steps": 7, "decay": 0.0,
                   "momentum": 0.8, "clip_norm": 2.0, "average": 0.9, "evaluate_every": 10,
                   "patience": 3},
    "layer_map": {"judge": "task", "strategy": "random", "evaluations": 9, "population": 6,
                  "generations": 3, "elite_fraction": 0.5, "crossover": 0.9, "mutation": 0.3,
                  "any_order": True, "seeds": 2, "sequences": 100, "epochs": 0.5,
                  "tasks": ["glue/rte"], "directory": "glue", "task_examples": 50,
                  "task_validation": 40, "task_epochs": 2.0, "task_learning_rate": 3e-4,
                  "task_batch_size": 16, "task_max_length": 64},
    "extract": {"indices": "random", "loss": "task", "examples": 9},
    "limits": [],
    "recipe": "kd-nas",
    "student": "layers=2",
    "compare": ["layers=1", "folder"],
    "seed": 11,
}  # fmt: skip


def test_every_setting_survives_yaml_and_back():
    settings = settings_from_dict(EVERYTHING)
    assert settings.to_dict() == EVERYTHING
    written = yaml.safe_load(yaml.safe_dump(settings.to_dict()))
    assert settings_from_dict(written) == settings


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("steps", 0, "transfer.steps must be above 0"),
        ("learning_rate", -1.0, "transfer.learning_rate must be above 0"),
        ("batch_size", 0, "transfer.batch_size must be above 0"),
        ("flash_fraction", 1.5, "transfer.flash_fraction must be above 0 and at most 1"),
        ("weight_decay", 2.0, "transfer.weight_decay must be in 0..1"),
        ("rungs", 0, "transfer.rungs must be above 0"),
        ("reduction", 1, "transfer.reduction must be at least 2, got 1"),
    ],
)
def test_a_transfer_that_cannot_train_is_refused(name, value, rule):
    with pytest.raises(SettingsError, match=rule):
        settings_from_dict({"transfer": {name: value}})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("evaluations", 0, "layer_map.evaluations must be above 0, got 0"),
        ("seeds", 0, "layer_map.seeds must be above 0, got 0"),
        ("sequences", -1, "layer_map.sequences must be above 0, got -1"),
        ("task_learning_rate", 0.0, "layer_map.task_learning_rate must be above 0"),
        ("task_max_length", 0, "layer_map.task_max_length must be above 0, got 0"),
        ("tasks", [], "layer_map.tasks must be different tasks, at least one"),
        ("tasks", "glue/rte,glue/rte", "layer_map.tasks must be different tasks"),
        ("population", 1, "layer_map: a population needs 2 maps"),
        ("elite_fraction", 0.99, "an elite of 0.99 leaves a population of 20 without elite or"),
        ("mutation", 1.5, "mutation must be in 0..1, got 1.5"),
        ("strategy", "tpe", "'genetic' or 'random'"),
    ],
)
def test_a_search_for_a_layer_map_that_cannot_be_is_refused(name, value, rule):
    with pytest.raises(SettingsError, match=rule):
        settings_from_dict({"layer_map": {name: value}})


def test_a_quantisation_without_bits_is_refused():
    rule = "the section quantise is for quantise.weight_bits alone, 2 to 8; give them, or leave it"
    with pytest.raises(SettingsError, match=rule):
        settings_from_dict({"quantise": {"epochs": 1.0}})
    settings_from_dict({"quantise": {"weight_bits": 4, "epochs": 1.0}})
    settings_from_dict({"quantise": {"model": "folder", "epochs": 1.0}})  # its job asks for bits


def test_proxy_tasks_are_read_from_a_command_line():
    section = {"tasks": "glue/rte, reviews.csv"}
    given = settings_from_dict({"recipe": "layer-map", "layer_map": section})
    assert given.layer_map.tasks == ("glue/rte", "reviews.csv")


def test_maps_are_judged_as_often_as_the_generations_have_new_ones():
    assert settings_from_dict({}).layer_map.most_evaluations == 20 + 9 * 15  # 5 of 20 are elite
    given = settings_from_dict({"recipe": "layer-map", "layer_map": {"evaluations": 7}})
    assert given.layer_map.most_evaluations == 7


def test_how_maps_are_searched_is_said_only_where_one_is():
    message = "section layer_map is for distill.layer_map search alone; leave it out, got 'uniform'"
    with pytest.raises(SettingsError, match=message):
        settings_from_dict({"layer_map": {"seeds": 3}})
    searching = {"hidden_weight": 1.0, "layer_map": "search"}
    given = settings_from_dict({"distill": searching, "layer_map": {"seeds": 3}})
    assert given.layer_map.seeds == 3


def test_a_map_is_searched_for_something_only():
    with pytest.raises(SettingsError, match=r"distill.layer_map = search needs distill.hidden_w"):
        settings_from_dict({"distill": {"layer_map": "search"}})
    settings_from_dict({"distill": {"layer_map": "search", "attention_weight": 1.0}})


def test_objectives_are_read_from_a_command_line_and_put_into_order():
    given = settings_from_dict({"search": {"objectives": "size_mb, latency_ms,quality"}})
    assert given.search.objectives == ("quality", "latency_ms", "size_mb")
    assert given == settings_from_dict(given.to_dict())


@pytest.mark.parametrize(
    ("search", "rule"),
    [
        ({"objectives": ["latency_ms"]}, "search.objectives must have quality and at least one"),
        ({"objectives": ["quality", "speed"]}, "search.objectives.*'size_mb'.*'speed'"),
        (
            {"strategy": "controller", "objectives": ["quality", "size_mb"]},
            "search.objectives is of Optuna's samplers .* Leave it out, got 'quality,size_mb'",
        ),
    ],
)
def test_objectives_that_no_search_has_are_refused(search, rule):
    with pytest.raises(SettingsError, match=rule):
        settings_from_dict({"search": search})


def test_the_controller_is_not_asked_for_several_at_a_time():
    assert settings_from_dict({"search": {"strategy": "controller"}}).search.ask == 1
    with pytest.raises(SettingsError, match=r"search\.ask must stay 1 with the controller.*got 4"):
        settings_from_dict({"recipe": "kd-nas", "search": {"ask": 4}})


def test_several_budgets_survive_yaml_and_back():
    none = dict.fromkeys(EVERYTHING["limit"])
    budgets = [{"params_m": 10.0, "latency_ms": 4.0}, {"speedup": 3.0}]
    data = {
        **EVERYTHING,
        "recipe": "nas-bert",
        "limit": none,
        "limits": [none | budget for budget in budgets],
    }
    settings = settings_from_dict(data)
    assert settings.to_dict() == data
    assert settings_from_dict({**data, "limits": budgets}) == settings
    assert [limits.given() for limits in settings.limits] == budgets
    written = yaml.safe_load(yaml.safe_dump(settings.to_dict()))
    assert settings_from_dict(written) == settings


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (
            {"limits": [{"params_m": 10}]},
            ["limits, several budgets, are for nas-bert alone; give `limit`", "'params_m': 10.0"],
        ),
        (
            {"recipe": "nas-bert", "limit": {"speedup": 2}},
            ["nas-bert takes a list of budgets, `limits`, instead of `limit`", "'speedup': 2.0"],
        ),
        (
            {"recipe": "nas-bert", "limits": [{"speedup": 2}, {"latency": 5}]},
            ["limits.1.latency: unknown key", "known keys here: latency_ms, speedup, size_mb, mem"],
        ),
        (
            {"recipe": "nas-bert", "limits": [{"speedup": 2}, {"size_mb": 0}]},
            ["limits.1: limit.size_mb must be above 0, got 0"],
        ),
        ({"recipe": "nas-bert", "limits": {"speedup": 2}}, ["limits: ", "list"]),
        ({"recipe": "nas-bert", "limits": ["speedup=2"]}, ["limits.0: ", "'speedup=2'"]),
    ],
)
def test_budgets_that_are_none(data, parts):
    with pytest.raises(SettingsError) as caught:
        settings_from_dict(data)
    for part in parts:
        assert part in str(caught.value)


def test_nothing_given_is_all_defaults():
    assert settings_from_dict({}) == RunSettings()
    assert settings_from_dict(RunSettings().to_dict()) == RunSettings()


def test_the_provenance_of_a_written_file_is_no_setting():
    assert settings_from_dict({"seed": 3, "provenance": {"versions": {}}}) == RunSettings(seed=3)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"serach": {}}, ["serach: unknown key", "teacher, task, space"]),
        (
            {"search": {"candidats": 3}},
            ["search.candidats: unknown key", "strategy, candidates, seconds", "value: 3"],
        ),
        ({"limit": {"latency": 5}}, ["limit.latency: unknown key", "latency_ms, speedup"]),
        ({"task": {"texts": "a"}}, ["task.texts: unknown key", "text, label, dev"]),
        ({"corpus": {"file": "a"}}, ["corpus.file: unknown key", "name, text, length, held_out"]),
        ({"supernet": {"space": ["tiny"]}}, ["supernet.space: unknown key", "spaces, one_shot"]),
        ({"limit": {"flops": 1}}, ["limit.flops: unknown key", "params_m, flops_fraction"]),
        ({"blocks": {"bin": 1}}, ["blocks.bin: unknown key", "bins, bins_by, sampled"]),
        ({"mlm": {"steps": 1}}, ["mlm.steps: unknown key", "whole_word, head_steps"]),
        ({"select": {"count": 1}}, ["select.count: unknown key", "candidates, runners_up"]),
        ({"pretrain": {"epochs": 1}}, ["pretrain.epochs: unknown key", "steps, batch_size"]),
    ],
)
def test_unknown_keys_name_their_path_and_the_known_ones(data, parts):
    with pytest.raises(SettingsError) as caught:
        settings_from_dict(data)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("search.candidates", "many", "search.candidates: .*integer.*'many'"),
        (
            "distill",
            {"kept_layers": "spread", "initialisation": "scratch"},
            "distill.kept_layers is of slices alone .* got 'spread'",
        ),
        ("search.candidates", 2.5, "search.candidates: .*2.5"),
        ("search.candidates", 0, "search.candidates must be above 0 or absent, got 0"),
        ("search.proxy_examples", -1, "proxy_examples must be above 0, got -1"),
        ("search.epochs", 0, "search.epochs must be above 0"),
        ("search.ask", 0, "search.ask must be above 0, got 0"),
        ("search.seconds", 0, "search.seconds must be above 0 or absent, got 0"),
        ("search.candidate_seconds", -2.0, "candidate_seconds .* got -2.0"),
        ("search.strategy", "grid", "search.strategy: .*'random', 'tpe'.*'grid'"),
        ("search", 5, "search: must be a section .*5"),
        ("limit.latency_ms", -5, "limit.latency_ms must be above 0, got -5"),
        ("limit.speedup", float("nan"), r"limit.speedup: .* finite number \(value: nan\)"),
        ("limit.speedup", float("inf"), r"limit.speedup: .* finite number \(value: inf\)"),
        ("search.epochs", float("inf"), r"search.epochs: .* finite number \(value: inf\)"),
        ("cross_view.decay", float("nan"), r"cross_view.decay: .* finite number \(value: nan\)"),
        ("limit.size_mb", 0, "limit.size_mb must be above 0"),
        ("limit.params_m", 0, "limit.params_m must be above 0, got 0"),
        ("limit.flops_fraction", -0.5, "limit.flops_fraction must be above 0, got -0.5"),
        ("limit.flops_fraction", "half", "limit.flops_fraction: .*number.*'half'"),
        ("space.size_fraction", 0, "space.size_fraction must be above 0 and at most 1"),
        ("space.size_fraction", 1.2, "got 1.2"),
        ("space.size_count", "both", "'encoder' or 'total'"),
        ("device.kind", "table", "device.table must name a file exactly when .* got None"),
        ("device.table", "chip.csv", "exactly when device.kind is 'table', got 'chip.csv'"),
        ("device.kind", "tpu", "'auto', 'table', 'analytic', 'predicted', 'cpu', .*'openvino-cpu'"),
        ("device.kind", "predicted", "device.profile must name a file exactly when .* got None"),
        ("device.profile", "kd.json", "exactly when device.kind is 'predicted', got 'kd.json'"),
        ("device.padding_fraction", 1.0, "at least 0 and below 1, got 1.0"),
        ("device.kind", "analytic", "device.chip must name a chip exactly when .* got None"),
        ("device.chip", "h100", "exactly when device.kind is 'analytic', got 'h100'"),
        ("device.precision", "int8", "must be one of float32, bfloat16 on this device, got 'int8'"),
        ("device.precision", "int4", "'float32', 'bfloat16', 'int8' or 'int8-static'"),
        ("device.batch", 0, "device.batch must be above 0, got 0"),
        ("device.length", -5, "device.length must be above 0, got -5"),
        ("device.threads", 0, "device.threads must be above 0, got 0"),
        ("distill.logit_weight", 0.0, "one distill weight must be above 0"),
        ("distill.label_weight", -0.1, "distill weights must not be negative"),
        ("distill.temperature", 0, "distill.temperature must be above 0"),
        ("distill.learning_rate", -1, "distill.learning_rate must be above 0"),
        ("distill.dropout", 1.0, r"distill.dropout must be in 0..1, got 1.0"),
        ("distill.layer_map", "first", "'uniform', 'last', 'uniform_last', 'search' or a list"),
        ("final.students", 0, "final.students must be above 0"),
        ("final.epochs", -3, "final.epochs must be above 0, got -3"),
        ("corpus.name", "", "corpus.name is empty"),
        ("corpus.name", "hf:", "'hf:' names no dataset"),
        ("corpus.text", "", "corpus.text names no column"),
        ("corpus.length", 7, "length is at least 8, but is 7"),
        ("corpus.held_out", -1, "held_out is not negative, but is -1"),
        ("corpus.max_tokens", 0, "max_tokens is at least 1, but is 0"),
        ("supernet.spaces", [], r"supernet.spaces must be different ones of tiny.*, got \(\)"),
        ("supernet.spaces", ["tiny", "tiny"], "supernet.spaces must be different ones"),
        ("supernet.spaces", ["huge"], "supernet.spaces.0: .*'tiny', 'small' or 'base'.*'huge'"),
        ("supernet.steps", 0, "supernet.steps must be above 0, got 0"),
        ("supernet.steps", 2.5, "supernet.steps: .*2.5"),
        ("supernet.batch_size", 0, "supernet.batch_size must be above 0, got 0"),
        ("supernet.learning_rate", 0, "supernet.learning_rate must be above 0"),
        ("supernet.warmup_fraction", 1.1, "supernet.warmup_fraction must be in 0..1, got 1.1"),
        ("supernet.weight_decay", -0.1, "supernet.weight_decay must be in 0..1, got -0.1"),
        ("supernet.dropout", 1.0, "supernet.dropout must be at least 0 and below 1, got 1.0"),
        ("supernet.random_subnets", -1, "supernet.random_subnets must not be negative, got -1"),
        ("supernet.relation_heads", 0, "supernet.relation_heads must be above 0, got 0"),
        ("supernet.target", "values", "'scores', 'probabilities' or 'kl'"),
        ("supernet.judge", "loss", "'relation' or 'task'"),
        ("supernet.judged", 0, "supernet.judged must be above 0, got 0"),
        ("supernet.runners_up", -1, "supernet.runners_up must not be negative, got -1"),
        ("finetune.epochs", 0, "finetune.epochs must be above 0, got 0"),
        ("finetune.learning_rates", [1e-4, 0], r"finetune.learning_rates must .* above 0.*0.0"),
        ("finetune.learning_rates", [], r"finetune.learning_rates must .* at least one, got \(\)"),
        ("finetune.learning_rates", [1e-4, 1e-4], "finetune.learning_rates must be different"),
        ("finetune.batch_size", 0, "finetune.batch_size must be above 0, got 0"),
        ("finetune.evaluate_every", 0, "finetune.evaluate_every must be above 0"),
        ("finetune.patience", 0, "finetune.patience must be above 0 or absent, got 0"),
        ("finetune.warmup_fraction", 1.5, "finetune.warmup_fraction must be in 0..1, got 1.5"),
        ("finetune.weight_decay", -0.1, "finetune.weight_decay must be in 0..1, got -0.1"),
        ("finetune.dropout", 1.0, "finetune.dropout must be at least 0 and below 1, got 1.0"),
        ("finetune.stop_on", "test", "'validation' or 'dev'"),
        ("teacher.finetune", "maybe", "'auto', 'always' or 'never'"),
        ("teacher.epochs", -1, "teacher.epochs must be above 0, got -1"),
        ("teacher.batch_size", 0, "teacher.batch_size must be above 0, got 0"),
        ("teacher.learning_rates", [1e-4, 0], "teacher.learning_rates must be above 0"),
        ("seed", -1, "seed must be at least 0, .*got -1"),
        ("seed", 2**63, "seed must be at least 0"),
        ("task.name", "glue/sst3", "there is no task 'glue/sst3'"),
        ("task.max_length", 4, "max_length is at least 8, but is 4"),
    ],
)
def test_impossible_values_are_refused(path, value, message):
    with pytest.raises(SettingsError, match=message):
        settings_from_dict(apply_overrides({}, {path: value}))


def test_everything_wrong_is_told_at_once():
    data = {"search": {"candidates": 0}, "final": {"epoch": 1}, "seed": "x"}
    with pytest.raises(SettingsError) as caught:
        settings_from_dict(data)
    assert len(str(caught.value).splitlines()) == 3


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunSettings().seed = 1


def test_only_the_given_limits_count():
    assert settings_from_dict({"limit": {"size_mb": 4}}).limit.given() == {"size_mb": 4.0}
    assert RunSettings().limit.given() == {}


@pytest.mark.parametrize(
    ("given", "most"),
    [({}, 30), ({"seconds": 60}, None), ({"candidates": 7}, 7),
     ({"candidates": 7, "seconds": 60}, 7)],
)  # fmt: skip
def test_the_candidates_of_a_search_without_any_end(given, most):
    assert settings_from_dict({"search": given}).search.most_candidates == most


def test_overrides_win_and_leave_the_data_as_it_was():
    data = {"search": {"candidates": 3, "epochs": 2.0}, "seed": 1}
    merged = apply_overrides(data, {"search.candidates": 9, "final.epochs": 5, "seed": 2})
    assert merged == {
        "search": {"candidates": 9, "epochs": 2.0},
        "final": {"epochs": 5},
        "seed": 2,
    }
    assert data == {"search": {"candidates": 3, "epochs": 2.0}, "seed": 1}


def test_a_value_is_no_section():
    with pytest.raises(SettingsError, match=r"seed\.x: 'seed' is a value"):
        apply_overrides({"seed": 1}, {"seed.x": 2})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("search.candidates=40", ("search.candidates", 40)),
        ("distill.learning_rate=0.001", ("distill.learning_rate", 0.001)),
        ("space.layers=[1, 2]", ("space.layers", [1, 2])),
        ("teacher.model=a=b", ("teacher.model", "a=b")),
        ("task.metric=null", ("task.metric", None)),
        ("task.metric=", ("task.metric", None)),
        (" seed =3", ("seed", 3)),
    ],
)
def test_an_override_is_a_path_and_a_yaml_value(text, parsed):
    assert parse_override(text) == parsed


def test_numbers_that_yaml_reads_as_text_are_numbers_after_all():
    path, value = parse_override("distill.learning_rate=3e-4")
    assert settings_from_dict(apply_overrides({}, {path: value})).distill.learning_rate == 3e-4


@pytest.mark.parametrize("text", ["search.candidates", "=3", "", "space.layers=[1, 2"])
def test_malformed_overrides_are_refused(text):
    with pytest.raises(SettingsError, match="--set"):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45m", 2700),
        ("1h30m", 5400),
        ("2h", 7200),
        ("90s", 90),
        ("90", 90),
        ("1m30s", 90),
        ("1m30", 90),
        ("0.5s", 0.5),
        (" 1h ", 3600),
        ("1h0m1s", 3601),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "0m", "-5m", "5 m", "1m1h", "m", "1d", "1.5h"])
def test_what_is_no_duration(text):
    with pytest.raises(SettingsError, match="time must"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 200), st.integers(1, 200))
def test_every_duration_adds_up(hours, minutes, seconds):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == (hours * 60 + minutes) * 60 + seconds


def test_a_difference_names_path_and_both_values():
    old = {"search": {"candidates": 3, "seconds": None}, "seed": 0, "gone": 1}
    new = {"search": {"candidates": 4, "seconds": None}, "seed": 0, "student": "layers=1"}
    assert difference(old, new) == [
        "gone: 1 → None",
        "search.candidates: 3 → 4",
        "student: None → 'layers=1'",
    ]
    assert difference(new, new) == []


def test_a_difference_between_a_section_and_a_value():
    assert difference({"a": {"b": 1}}, {"a": 2}) == ["a: {'b': 1} → 2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("a: [1", "not valid YAML"), ("- 1", "sections"), ("", "sections")],
)
def test_unreadable_settings_files_are_named(tmp_path, content, message):
    path = tmp_path / "some.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=rf"some\.yaml.*{message}"):
        read_settings(path)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ({}, "float32"),
        ({"kind": "table", "table": "chip.csv"}, "float32"),
        ({"kind": "table", "table": "chip.csv", "precision": "int8"}, "int8"),
        ({"kind": "analytic", "chip": "tpu-v4i"}, "bfloat16"),
        ({"kind": "analytic", "chip": "tpu-v4i", "precision": "int8"}, "int8"),
        ({"kind": "analytic", "chip": "server-cpu"}, "float32"),
        ({"kind": "onnxruntime-cpu", "precision": "int8-static"}, "int8-static"),
        ({"kind": "predicted", "profile": "kd.json"}, None),
    ],
)
def test_a_device_has_a_precision_of_its_own(device, precision):
    settings = settings_from_dict({"device": device})
    assert settings.device.precision == precision
    assert settings.to_dict()["device"]["precision"] == precision


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"chip": "tpu-v4"}, r"must be one of .*got 'tpu-v4': did you mean 'tpu-v4i'\?"),
        ({"chip": "tpu-v4i", "precision": "float32"}, "one of bfloat16, int8 on this device"),
        ({"chip": "phone-cpu", "threads": 5}, "at most the 4 cores of Snapdragon 855.*got 5"),
        ({"chip": "h100", "threads": 3}, "threads must be left out for H100 SXM: .* got 3"),
    ],
)
def test_what_a_chip_does_not_have_is_refused(device, message):
    with pytest.raises(SettingsError, match=message):
        settings_from_dict({"device": {"kind": "analytic", **device}})


def test_a_profile_brings_its_device_and_its_workload(profile_file):
    path = profile_file(batch=3, precision="bfloat16")
    given = {"kind": "predicted", "profile": path, "length": 16}
    found = settings_from_dict({"device": given}).device.as_measured()
    assert (found.kind, found.profile) == ("cpu", None)
    workload = (found.batch, found.length, found.threads, found.precision)
    assert workload == (3, 16, 1, "bfloat16")
    assert found.as_measured() is found


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ({"batch": 2}, "device.batch is 2, the profile's 1"),
        ({"length": 128}, "device.length is 128, the profile's 16"),
        ({"threads": 2}, "device.threads is 2, the profile's 1"),
        ({"precision": "int8"}, "device.precision is int8, the profile's float32"),
        ({"padding_fraction": 0.5}, "device.padding_fraction is 0.5, the profile's 0.0"),
    ],
)
def test_another_workload_than_the_profiles_is_refused_with_both_named(profile_file, device, told):
    given = {"kind": "predicted", "profile": profile_file(), **device}
    with pytest.raises(SettingsError, match="is for batch 1, length 16, float32, 1 thread: ") as e:
        settings_from_dict({"device": given}).device.as_measured()
    assert told in str(e.value)


def test_threads_do_not_matter_where_a_profile_has_none(profile_file):
    given = {"kind": "predicted", "profile": profile_file(threads=0), "threads": 5}
    assert settings_from_dict({"device": given}).device.as_measured().threads is None


def test_a_profile_that_is_not_there_is_refused(tmp_path):
    given = {"kind": "predicted", "profile": str(tmp_path / "kd.json")}
    with pytest.raises(DeviceError, match=r"kd\.json cannot be read"):
        settings_from_dict({"device": given}).device.as_measured()


def test_a_setting_of_an_older_version_is_known_by_its_old_name():
    settings = settings_from_dict({"distill": {"hidden_map": "last", "hidden_weight": 1.0}})
    assert settings.distill.layer_map == "last"
    with pytest.raises(SettingsError, match="hidden_map"):
        settings_from_dict({"distill": {"hidden_map": "last", "layer_map": "last"}})
