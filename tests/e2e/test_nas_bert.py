"""Chains of operations for several budgets out of one search, pre-trained, and fine-tuned."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertTokenizer

import stillhouse
from stillhouse import api
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.errors import (
    DataError,
    DeviceError,
    RunError,
    SettingsError,
    SpaceError,
    TeacherError,
)
from stillhouse.model.chains import chain_config, chain_of
from stillhouse.recipe import (
    chain_blocks,
    chain_nursery,
    chain_rows,
    chain_selection,
    mlm_nursery,
    pretrain,
)
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings_file import apply_overrides
from stillhouse.space.chain import BlockSpace, ChainArchitecture, ChainBlock, chain_from_dict
from stillhouse.supernet.blocks import BlockSupernet

KINDS = {"M": 1.0, "F": 2.0, "S3": 1.1, "S5": 1.2, "S7": 1.3}
"""Milliseconds of the operations at a hidden size of 16."""
WIDTHS = (16, 24)
TEACHER_MS = 30.0
BUDGETS = ({"params_m": 0.011}, {"latency_ms": 14.0}, {"speedup": 2.5, "flops_fraction": 0.13})
DRIVER = Path(__file__).with_name("nas_bert_driver.py")
PATIENCE_S = 240


def operation_ms(kind, width):
    return KINDS[kind] * (width / 16) ** 2


def ends_ms(width):
    return 0.5 + width / 16


@pytest.fixture(scope="module")
def write_chip(tmp_path_factory):
    """Writes a table of the chains that are timed, but those of some operations."""

    def write(name="chip", without=()):
        path = tmp_path_factory.mktemp("device") / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("architecture", "latency_ms"))
            writer.writerow(("teacher", TEACHER_MS))
            for kind, width, count in product(KINDS, WIDTHS, (2, 8)):
                block = ChainBlock(hidden_size=width, operations=(kind,) * count)
                chain = ChainArchitecture(embedding_size=width, blocks=(block,), head_size=8)
                latency_ms = ends_ms(width) + count * operation_ms(kind, width)
                if (kind, width) not in without:
                    writer.writerow((chain.key, latency_ms))
        return path

    return write


@pytest.fixture(scope="module")
def chip(write_chip):
    return write_chip()


@pytest.fixture(scope="module")
def corpus(weather_text, tmp_path_factory):
    """The text in a file of its own, which a test may change."""
    path = tmp_path_factory.mktemp("text") / "weather.txt"
    shutil.copyfile(weather_text, path)
    return path


@pytest.fixture(scope="module")
def settings(weather_encoder_folder, corpus, chip):
    return {
        "teacher": {"model": str(weather_encoder_folder)},
        "corpus": {"name": str(corpus), "length": 16},
        "device": {"kind": "table", "table": str(chip)},
        "distill": {"precision": "float32"},
        "mlm": {"head_steps": 8},
        "blocks": {
            "count": 2,
            "operations": 2,
            "hidden_sizes": list(WIDTHS),
            "steps_per_epoch": 3,
            "warm_epochs": 1,
            "bins": 2,
            "sampled": 60,
            "kept": 3,
            "dev_batches": 1,
            "batch_size": 4,
        },
        "pretrain": {"steps": 8, "batch_size": 4},
        "limits": list(BUDGETS),
    }


@pytest.fixture(scope="module")
def search(settings):
    """Searches in a run directory, with settings by path beside the common ones."""

    def run(path, **changed):
        overrides = {name.replace("__", "."): value for name, value in changed.items()}
        return stillhouse.search(
            recipe="nas-bert", run=path, settings=apply_overrides(settings, overrides)
        )

    return run


def select(run, *budgets):
    return api.run_select_job(run, budgets, LoggingNarrator())


def train(run, number=1, **changed):
    overrides = {name.replace("__", "."): value for name, value in changed.items()}
    return api.run_train_job(run / "selected" / str(number), overrides, LoggingNarrator())


@pytest.fixture(scope="module")
def searched(search, tmp_path_factory):
    """A finished search for three budgets, which stays as it is."""
    path = tmp_path_factory.mktemp("chains") / "run"
    search(path)
    return path


@pytest.fixture(scope="module")
def trained(searched, tmp_path_factory):
    """A copy of it with the first student pre-trained, which stays as it is, too."""
    path = shutil.copytree(searched, tmp_path_factory.mktemp("trained") / "run")
    train(path)
    return path


@pytest.fixture
def run(searched, tmp_path):
    """A copy of the search to do anything with."""
    return shutil.copytree(searched, tmp_path / "run")


@pytest.fixture
def forbid(monkeypatch):
    """Lets functions fail that must not be called."""

    def work(*_, **__):
        raise AssertionError("worked again")

    def forbid(*pairs):
        for place, name in pairs:
            monkeypatch.setattr(place, name, work)

    return forbid


@pytest.fixture
def no_training(forbid):
    rooms = (chain_blocks, mlm_nursery, pretrain)
    forbid(*((room, "run_steps") for room in rooms))
    forbid(
        (chain_blocks, "block_losses"),
        (chain_rows, "block_losses"),
        (chain_nursery, "measure_operations"),
    )


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def selected(run):
    """All that is known of each selected student, by their numbers."""
    return [
        read_json(folder / "selected.json")
        for folder in sorted((run / "selected").iterdir(), key=lambda path: int(path.name))
    ]


DIARY = {".lock", "run.json", "settings.yaml", "report.html"}
"""Tell of each start."""


def contents(run):
    """What another command may add to, but not change."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in DIARY]
    return {path.relative_to(run): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def bridge_ms(before, after):
    """As fast as a feed-forward operation of the larger width, which is 8 times its square."""
    wide = max(before, after)
    return 0.0 if before == after else operation_ms("F", wide) * before * after / (8 * wide**2)


def chain_ms(chain):
    """The formula of the table, for a whole chain."""
    widths = [block.hidden_size for block in chain.blocks]
    operations = (
        operation_ms(kind, block.hidden_size) for block in chain.blocks for kind in block.operations
    )
    bridges = (bridge_ms(*pair) for pair in pairwise([chain.embedding_size, *widths]))
    return ends_ms(widths[0]) + sum(operations) + sum(bridges)


def count_parameters(chain, teacher):
    with torch.device("meta"):
        model = AutoModel.from_config(chain_config(chain, AutoConfig.from_pretrained(teacher)))
    return sum(weight.numel() for weight in model.parameters())


def test_a_search_leaves_its_tables_and_a_student_for_each_budget(
    searched, weather_encoder_folder, corpus
):
    state = read_json(searched / "run.json")
    assert state["status"] == "complete"
    assert state["task"] == f"corpus {corpus}"
    assert state["teacher"] == str(weather_encoder_folder)
    assert state["space_size"] == str((2 * (5 + 5**2)) ** 2)
    assert state["phases_s"].keys() == {"operations", "teacher's head", "blocks", "search"}
    assert "data_sha256" in (searched / "settings.yaml").read_text()
    assert (searched / "report.html").exists()
    assert not (searched / "work").exists()
    assert not (searched / "students").exists()
    head = read_json(searched / "mlm" / "mlm.json")
    assert head["is_trained_here"]
    assert head["chosen_count"] > 0
    assert (searched / "mlm" / "head.safetensors").exists()
    assert [one["limits"] for one in selected(searched)] == list(BUDGETS)


def test_operations_cost_what_the_table_of_whole_chains_says(searched):
    rows = {
        (row["operation"], row["hidden_size"]): row for row in read_csv(searched / "operations.csv")
    }
    assert float(rows["teacher", ""]["latency_ms"]) == TEACHER_MS
    for width in WIDTHS:
        found = float(rows["ends", str(width)]["latency_ms"])
        assert found == pytest.approx(ends_ms(width))
        for kind in KINDS:
            found = float(rows[kind, str(width)]["latency_ms"])
            assert found == pytest.approx(operation_ms(kind, width))
    assert not any(row["refused"] for row in rows.values())


def test_the_table_holds_what_shrinking_left(searched):
    space = BlockSpace(hidden_sizes=WIDTHS, most_operations=2)
    rows = read_csv(searched / "blocks.csv")
    for place in (1, 2):
        folder = searched / "supernets" / f"block-{place}"
        facts, told = read_json(folder / "supernet.json"), read_json(folder / "shrinking.json")
        assert facts["tokens"] == facts["steps"] * 4 * 16
        assert facts["steps"] == 3 * (1 + max(record["epoch"] for record in told["records"]))
        assert {record["epoch"] for record in told["records"]} == set(range(1, facts["steps"] // 3))
        own = [row for row in rows if row["block"] == str(place)]
        blocks = [
            ChainBlock(
                hidden_size=int(row["hidden_size"]), operations=(*row["operations"].split(),)
            )
            for row in own
        ]
        assert blocks == [space[index] for index in told["alive"]]
        assert len(blocks) == 2 * 3  # three of each bin
        for row, block in zip(own, blocks, strict=True):
            summed = sum(operation_ms(kind, block.hidden_size) for kind in block.operations)
            assert float(row["latency_ms"]) == pytest.approx(summed)
            assert 0 < float(row["loss"]) < 10


def test_every_student_is_within_its_limits(searched, weather_encoder_folder):
    for told in selected(searched):
        chain = chain_from_dict(told["architecture"])
        parameters = count_parameters(chain, weather_encoder_folder)
        assert told["parameters"] == parameters
        assert told["size_mb"] == parameters * 4 / 1e6
        assert told["latency_ms"] == told["predicted_latency_ms"] == pytest.approx(chain_ms(chain))
        assert (told["device"], told["latency_how"]) == ("chip", "sum of operations")
        assert told["teacher_latency_ms"] == pytest.approx(TEACHER_MS)
        assert told["speedup"] == pytest.approx(TEACHER_MS / told["latency_ms"])
        assert (told["workload"]["batch"], told["workload"]["length"]) == (1, 16)
        used = {
            "params_m": parameters / 1e6,
            "latency_ms": told["latency_ms"],
            "speedup": told["latency_ms"] / TEACHER_MS,
            "flops_fraction": told["flops_fraction"],
        }
        allowed = {**told["limits"], "speedup": 1 / told["limits"].get("speedup", 1e-9)}
        assert all(used[name] <= bound for name, bound in allowed.items())
        assert told["within_limit"]


def test_what_was_compared_is_all_that_the_table_has_within_a_budget(
    search, run, weather_encoder_folder, no_training
):
    """Of all pairs of rows; the best of them by the loss at masked words is selected."""
    limits = {"params_m": 0.0112, "latency_ms": 12.0}
    result = search(run, limits=[limits], select__runners_up=100)
    [told] = [dict(one.metrics) for one in result.students]
    tables = [
        [row for row in read_csv(run / "blocks.csv") if row["block"] == place] for place in "12"
    ]
    within = {}
    for rows in product(*tables):
        blocks = tuple(
            ChainBlock(
                hidden_size=int(row["hidden_size"]), operations=(*row["operations"].split(),)
            )
            for row in rows
        )
        width = told["architecture"]["embedding_size"]
        chain = ChainArchitecture(embedding_size=width, blocks=blocks, head_size=8)
        parameters = count_parameters(chain, weather_encoder_folder)
        if parameters <= 11_200 and chain_ms(chain) <= 12.0:
            within[chain.key] = sum(float(row["loss"]) for row in rows)
    compared = [told, *told["runners_up"]]
    found = {chain_from_dict(o["architecture"]).key: o["block_loss"] for o in compared}
    assert 1 < len(within) < 36
    assert found == pytest.approx(within)
    losses = [one["mlm_loss"] for one in compared]
    assert losses == sorted(losses)
    assert len(set(losses)) > 1


def test_the_same_command_again_changes_nothing(search, searched, run, no_training, forbid):
    forbid((chain_selection, "mlm_loss"))
    before, settings_file = contents(run), (run / "settings.yaml").read_bytes()
    result = search(run)
    assert [one.path for one in result.students] == [run / "selected" / n for n in "123"]
    assert [dict(one.metrics) for one in result.students] == selected(searched)
    assert contents(run) == before
    assert (run / "settings.yaml").read_bytes() == settings_file
    assert read_json(run / "run.json")["status"] == "complete"


def test_another_limit_selects_from_the_table(run, no_training):
    before, limit = contents(run), {"latency_ms": 11.0, "size_mb": 0.05}
    result = select(run, limit)
    [student] = result.students
    assert student.path == run / "selected" / "4"
    assert student.metrics["limits"] == limit
    assert chain_ms(chain_from_dict(student.metrics["architecture"])) <= 11.0
    assert student.metrics["parameters"] * 4 / 1e6 <= 0.05
    after = contents(run)
    assert {name: after[name] for name in before} == before
    assert [str(name) for name in after.keys() - before.keys()] == ["selected/4/selected.json"]
    assert read_json(run / "run.json")["status"] == "complete"
    again = select(run, limit, BUDGETS[1])
    assert [one.path.name for one in again.students] == ["4", "2"]
    assert contents(run) == after


def test_a_limit_out_of_other_candidates_is_selected_anew(search, run, no_training):
    [student] = search(run, limits=[BUDGETS[0]], select__candidates=1).students
    assert student.path.name == "4"
    assert student.metrics["limits"] == BUDGETS[0]
    assert not student.metrics["runners_up"]


def test_a_limit_may_stand_beside_a_recipe_in_the_settings(settings, run, no_training):
    given = {**settings, "recipe": "nas-bert", "limits": []}
    result = stillhouse.search(settings=given, run=run, limit=BUDGETS[1])
    assert [one.path for one in result.students] == [run / "selected" / "2"]


LOADER = """
import json, sys
sys.modules["stillhouse"] = None  # whoever imports it now gets an ImportError
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
tokens = tokenizer("a sunny [MASK] in the town", return_tensors="pt")
with torch.no_grad():
    logits = model(**tokens).logits
print(json.dumps({"logits": logits.tolist(), "module": type(model).__module__}))
"""


def test_a_pre_trained_student_is_loaded_without_stillhouse(trained, weather_encoder_folder):
    folder = trained / "students" / "1"
    metrics, [told, *_] = read_json(folder / "metrics.json"), selected(trained)
    assert {name: metrics[name] for name in told} == told
    assert metrics["pretrain"]["tokens"] == 8 * 4 * 16
    assert (metrics["initialisation"]["kind"], metrics["mlm_count"]) == (
        "scratch",
        read_json(trained / "mlm" / "mlm.json")["chosen_count"],
    )
    assert told["architecture_label"] in (folder / "README.md").read_text(encoding="utf-8")
    state = read_json(trained / "run.json")
    assert state["status"] == "complete"
    assert "pre-training" in state["phases_s"]
    assert not (trained / "work").exists()

    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(folder)], capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert loaded["module"].startswith("transformers_modules.")
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert chain_of(model.config) == chain_from_dict(told["architecture"])
    assert AutoModel.from_pretrained(folder).num_parameters() == told["parameters"]  # with pooler
    tokens = AutoTokenizer.from_pretrained(folder)(
        "a sunny [MASK] in the town", return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**tokens).logits
    assert torch.tensor(loaded["logits"]) == pytest.approx(logits, abs=1e-5)


def test_training_again_in_the_same_way_does_nothing_in_another_is_refused(
    trained, no_training, monkeypatch
):
    before = contents(trained)
    student = train(trained)
    assert student.path == trained / "students" / "1"
    assert dict(student.metrics) == read_json(student.path / "metrics.json")
    monkeypatch.chdir(trained / "selected" / "1")
    assert api.run_train_job(Path(), {}, LoggingNarrator()).path == student.path
    with pytest.raises(RunError, match=r"(?s)students/1 was pre-trained .*pretrain\.steps: 8 → 9"):
        train(trained, pretrain__steps=9)
    assert contents(trained) == before
    assert read_json(trained / "run.json")["status"] == "complete"


def test_a_student_is_fine_tuned(trained, weather_csv, tmp_path):
    result = stillhouse.finetune(
        trained / "students" / "1",
        task=str(weather_csv),
        epochs=1,
        learning_rates=[1e-3],
        run=tmp_path / "tuned",
        settings={
            "task": {"max_length": 16},
            "distill": {"precision": "float32"},
        },
    )
    assert result.metrics["architecture"] == selected(trained)[0]["architecture"]
    assert 0 <= result.metrics["quality"] <= 1


def mixed_student(run):
    """Notes a student that nobody selected, as its blocks differ in width."""
    chain = ChainArchitecture(
        embedding_size=24,
        blocks=(
            ChainBlock(hidden_size=16, operations=("S5", "M")),
            ChainBlock(hidden_size=24, operations=("F",)),
        ),
        head_size=8,
    )
    told = {**selected(run)[0], "architecture": chain.to_dict()}
    folder = run / "selected" / "9"
    folder.mkdir()
    (folder / "selected.json").write_text(json.dumps(told))
    return chain


def supernet_of(run, place, chain, teacher):
    space = BlockSpace(hidden_sizes=WIDTHS, most_operations=2)
    supernet = BlockSupernet(space, width=32, config=chain_config(chain, teacher))
    supernet.load_state_dict(
        load_file(run / "supernets" / f"block-{place}" / "weights.safetensors")
    )
    return supernet.eval()


def test_a_student_may_begin_with_the_supernets_weights(run, weather_encoder_folder):
    """So small a learning rate leaves what it began with: states go through as in the supernets."""
    chain = mixed_student(run)
    tiny = {"pretrain__steps": 1, "pretrain__learning_rate": 1e-12}
    student = train(run, 9, pretrain__start="supernet", **tiny)
    assert student.metrics["initialisation"]["kind"] == "supernet"
    first, second = AutoModel.from_pretrained(student.path).encoder.block
    teacher = AutoConfig.from_pretrained(weather_encoder_folder)
    before, after = (supernet_of(run, place, chain, teacher) for place in (1, 2))
    state_BTD = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inner_BTD = found_BTD = first.bridge(state_BTD)  # this one is fresh
        for operation in before.operations["16"][0]["S5"], before.operations["16"][1]["M"]:
            inner_BTD = operation(inner_BTD, None)
        wanted_BTD = after.inputs["24"](before.outputs["16"](inner_BTD))
        wanted_BTD = after.operations["24"][0]["F"](wanted_BTD, None)
        for operation in first.operation:
            found_BTD = operation(found_BTD, None)
        found_BTD = second(found_BTD)
    largest = wanted_BTD.abs().max().item()
    assert found_BTD == pytest.approx(wanted_BTD, abs=1e-5 * largest)

    shutil.move(student.path, run / "students" / "moved")
    scratch = AutoModel.from_pretrained(train(run, 9, **tiny).path).encoder.block[0]
    assert not equal(scratch.state_dict(), first.state_dict())


def test_a_teacher_that_knows_masked_words_keeps_its_head(
    search, weather_encoder_folder, tmp_path, forbid
):
    folder = shutil.copytree(weather_encoder_folder, tmp_path / "teacher")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForMaskedLM.from_pretrained(folder)
    model.save_pretrained(folder)
    forbid((mlm_nursery, "run_steps"))
    search(tmp_path / "run", teacher__model=str(folder), blocks__steps_per_epoch=1)
    assert not read_json(tmp_path / "run" / "mlm" / "mlm.json")["is_trained_here"]
    kept = load_file(tmp_path / "run" / "mlm" / "head.safetensors")
    assert torch.equal(kept["dense.weight"], model.cls.predictions.transform.dense.weight)


@pytest.fixture
def refused(search, tmp_path, forbid):
    """Tells why settings are refused; nothing was timed or tokenised then, nothing trained."""
    forbid((chain_nursery, "measure_operations"))

    def check(error, message, **changed):
        with pytest.raises(error, match=message):
            search(tmp_path / "run", **changed)
        written = {path.name for path in (tmp_path / "run").iterdir()}
        assert written <= {".lock", "run.json", "settings.yaml"}

    return check


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"teacher__model": "scratch"}, SettingsError, "needs a trained teacher.*--teacher"),
        ({"teacher__model": "in-memory"}, SettingsError, "needs a trained teacher.*--teacher"),
        ({"blocks__count": 3}, SpaceError, "4 layers, got 3; the nearest that does is 2 or 4"),
        ({"blocks__hidden_sizes": [16, 20]}, SpaceError, "head_size 8, got 20; the nearest is 16"),
        ({"blocks__hidden_sizes": [16, 16]}, SpaceError, "hidden_sizes must be distinct"),
        ({"corpus__length": 40}, SettingsError, r"corpus\.length 40 .* 32 positions"),
        ({"corpus__held_out": 0}, SettingsError, r"corpus\.held_out must be at least 1"),
        ({"corpus__name": "none.txt"}, DataError, r"there is no corpus none\.txt"),
        (
            {"device__kind": "cpu", "device__table": None, "device__length": 33},
            SettingsError,
            r"device\.length 33 is above the teacher's 32 positions",
        ),
    ],
)
def test_settings_that_cannot_go_together_are_refused(refused, changed, error, message):
    refused(error, message, **changed)


def test_a_teacher_that_is_not_there(refused, tmp_path):
    refused(TeacherError, "no encoder can be loaded", teacher__model=str(tmp_path / "none"))


def test_a_student_is_no_teacher(refused, trained):
    folder = str(trained / "students" / "1")
    refused(TeacherError, "'chain_bert' is a chain of operations", teacher__model=folder)


def test_a_tokeniser_without_a_mask_token(refused, weather_encoder_folder, tmp_path):
    folder = shutil.copytree(weather_encoder_folder, tmp_path / "teacher")
    tokenizer = BertTokenizer.from_pretrained(folder)
    tokenizer.mask_token = None
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    tokenizer.save_pretrained(folder)
    refused(DataError, "masking needs a mask token, but .* has none", teacher__model=str(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no text"),
        ("\n \n", "holds no text"),
        ("sunny\n", "too small: its 1 tokens fill"),
    ],
)
def test_a_corpus_without_enough_text(search, tmp_path, text, message):
    file = tmp_path / "short.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=rf"short\.txt {message}|short\.txt is {message}"):
        search(tmp_path / "run", corpus__name=str(file))
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {".lock", "run.json", "settings.yaml"}
    assert read_json(tmp_path / "run" / "run.json")["status"] == "failed"


def test_a_limit_below_every_student_is_refused_before_the_corpus_is_read(search, tmp_path, forbid):
    forbid((mlm_nursery, "run_steps"), (mlm_nursery, "prepare_corpus"))
    for limits in ({"params_m": 0.001}, {"latency_ms": 3.0}, {"speedup": 10.0}):
        with pytest.raises(
            DeviceError, match=r"no student .* the nearest has .* M parameters, .*16: "
        ):
            search(tmp_path / "run", limits=[{"params_m": 1}, limits])
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {".lock", "run.json", "settings.yaml"}


def test_a_limit_that_the_table_cannot_meet_leaves_the_run_complete(run, no_training):
    before, settings = contents(run), (run / "settings.yaml").read_bytes()
    for limit in ({"latency_ms": 5.5}, {"params_m": 1e-5}):
        with pytest.raises(
            DeviceError, match=r"no student .* the nearest has .* of the teacher's F"
        ):
            select(run, limit)
    assert contents(run) == before
    assert (run / "settings.yaml").read_bytes() == settings
    assert read_json(run / "run.json")["status"] == "complete"


@pytest.mark.parametrize("without", [[("S5", 24)], [(kind, 24) for kind in KINDS]])
def test_a_device_that_refuses_operations_goes_without_them(
    search, write_chip, tmp_path, caplog, without
):
    caplog.set_level("INFO")
    changed = {"device__table": str(write_chip("poor", without)), "mlm__head_steps": 1}
    search(tmp_path / "run", limits=[{"params_m": 1}], blocks__steps_per_epoch=1, **changed)
    rows = read_csv(tmp_path / "run" / "operations.csv")
    refused = {(row["operation"], int(row["hidden_size"])) for row in rows if row["refused"]}
    assert refused == set(without)
    kind, width = without[0]
    assert (
        f"{kind} of {width} is left out, the device refuses it: latency table 'poor'" in caplog.text
    )
    left = {
        (kind, int(row["hidden_size"]))
        for row in read_csv(tmp_path / "run" / "blocks.csv")
        for kind in row["operations"].split()
    }
    assert left
    assert not left & refused
    assert selected(tmp_path / "run")[0]["within_limit"]


def test_a_device_that_refuses_everything(search, write_chip, tmp_path, forbid):
    forbid((mlm_nursery, "run_steps"), (mlm_nursery, "prepare_corpus"))
    poor = write_chip("poor", list(product(KINDS, WIDTHS)))
    with pytest.raises(
        DeviceError, match=r"poor runs none of the operations; the first said: .* row"
    ):
        search(tmp_path / "run", device__table=str(poor))
    assert not (tmp_path / "run" / "operations.csv").exists()


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("blocks.kept", 2, r"blocks\.kept: 3 → 2"),
        ("blocks.steps_per_epoch", 4, r"blocks\.steps_per_epoch: 3 → 4"),
        ("mlm.probability", 0.2, r"mlm\.probability: 0\.15 → 0\.2"),
        ("corpus.length", 8, r"corpus\.length: 16 → 8"),
        ("device.batch", 2, r"device\.batch: 1 → 2"),
        ("seed", 1, r"seed: 0 → 1"),
    ],
)
def test_what_a_run_stands_on_may_not_change(search, searched, path, value, told):
    before = contents(searched)
    with pytest.raises(RunError, match=f"made with other settings:\n.*{told}"):
        search(searched, **{path.replace(".", "__"): value})
    with pytest.raises(RunError, match=f"made with other settings:\n.*{told}"):
        train(searched, **{path.replace(".", "__"): value})
    assert contents(searched) == before


def test_measured_operations_may_not_change_before_anything_is_trained_either(
    search, tmp_path, forbid
):
    forbid((mlm_nursery, "run_steps"))
    with pytest.raises(AssertionError, match="worked again"):
        search(tmp_path / "run")
    assert (tmp_path / "run" / "operations.csv").exists()
    with pytest.raises(RunError, match=r"device\.batch: 1 → 2"):
        search(tmp_path / "run", device__batch=2)
    with pytest.raises(AssertionError, match="worked again"):
        search(tmp_path / "run", limits=[{"latency_ms": 20}])


def test_another_teacher_in_the_same_folder_is_refused(search, run, monkeypatch, no_training):
    load = mlm_nursery.load_mlm_teacher

    def load_other(name):
        teacher = load(name)
        with torch.no_grad():
            teacher.encoder.model.get_input_embeddings().weight[0, 0] += 1.0
        return teacher

    monkeypatch.setattr(mlm_nursery, "load_mlm_teacher", load_other)
    before = contents(run)
    for again in (lambda: search(run), lambda: select(run, {"params_m": 1}), lambda: train(run)):
        with pytest.raises(RunError, match=r"other weights of its teacher \(SHA-256 .*--run"):
            again()
    assert contents(run) == before
    assert read_json(run / "run.json")["status"] == "complete"


def test_another_text_in_the_same_file_is_refused(search, run, corpus):
    written, state = corpus.read_bytes(), corpus.stat()
    try:
        with corpus.open("a", encoding="utf-8") as file:
            file.write("more\n")
        for again in (lambda: search(run), lambda: train(run)):
            with pytest.raises(DataError, match="the corpus changed since"):
                again()
    finally:
        corpus.write_bytes(written)
        os.utime(corpus, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_what_is_no_run_or_no_selected_student_is_named(searched, trained, tmp_path, run):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.yaml").write_text("recipe: autodistil\n")
    for path in (tmp_path / "nowhere", tmp_path / "other"):
        with pytest.raises(RunError, match=rf"{path.name} holds no run of nas-bert: make one with"):
            select(path, {"params_m": 1})
    (run / "blocks.csv").unlink()
    with pytest.raises(RunError, match=r"not come to its table of blocks \(blocks.csv\): give the"):
        select(run, {"params_m": 1})
    moved = shutil.copytree(run / "selected" / "1", tmp_path / "moved" / "selected" / "1")
    with pytest.raises(RunError, match=r"moved holds no run of nas-bert"):
        api.run_train_job(moved, {}, LoggingNarrator())
    shutil.copytree(run / "selected" / "1", run / "selected" / "mine")
    for folder in (run, run / "selected" / "77", run / "selected" / "mine", trained / "students/1"):
        with pytest.raises(RunError, match="is no selected student: give RUN/selected/N"):
            api.run_train_job(folder, {}, LoggingNarrator())


def test_a_settings_file_with_a_single_limit_is_refused(run_cli, settings, tmp_path):
    given = {**settings, "recipe": "nas-bert", "limit": {"params_m": 1}}
    del given["limits"]
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(given))
    code, _, err = run_cli("search", tmp_path / "settings.yaml", "--run", tmp_path / "run")
    assert code == 1
    assert "nas-bert takes a list of budgets, `limits`, instead of `limit`" in " ".join(err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--time", "2h", "search.seconds = 7200.0"),
        ("--candidates", 5, "search.candidates = 5"),
        ("--strategy", "random", "search.strategy = random"),
        ("--compare", "layers=1,hidden_size=16", "compare = layers=1,hidden_size=16"),
    ],
)
def test_options_of_a_search_by_trials_are_refused(
    run_cli, weather_encoder_folder, corpus, tmp_path, option, value, told
):
    given = ("--teacher", weather_encoder_folder, "--corpus", corpus, "--run", tmp_path / "run")
    code, _, err = run_cli("search", "nas-bert", *given, option, value)
    assert code == 1
    words = " ".join(err.split())
    assert f"nas-bert has no use for {told}:" in words
    assert "blocks.steps_per_epoch" in words
    assert "--limit" in words
    assert not (tmp_path / "run").exists()


def test_the_command_line_asks_for_a_teacher(run_cli, corpus, tmp_path):
    code, out, err = run_cli("search", "nas-bert", "--corpus", corpus, "--run", tmp_path / "run")
    assert (code, out) == (1, "")
    assert "nas-bert needs a trained teacher" in err
    assert "--teacher" in err
    assert "Traceback" not in err


def test_search_select_and_train_on_the_command_line(
    run_cli, settings, tmp_path, monkeypatch, weather_csv
):
    monkeypatch.setenv("COLUMNS", "200")
    run, file = tmp_path / "run", tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({name: settings[name] for name in settings if name != "limits"}))
    command = [
        "search", "nas-bert", file, "--run", run, "--limit", "params_m=0.012,latency_ms=15",
        "--limit", "speedup=2", "--seed", "2", "--set", "blocks.steps_per_epoch=1",
        "--set", "mlm.head_steps=2",
    ]  # fmt: skip
    code, first, err = run_cli(*command)
    assert code == 0, err
    assert [one["limits"] for one in selected(run)] == [
        {"params_m": 0.012, "latency_ms": 15},
        {"speedup": 2},
    ]
    for told, budget in zip(
        selected(run), ("latency_ms=15, params_m=0.012", "speedup=2"), strict=True
    ):
        assert budget in first
        assert f"{told['mlm_loss']:.4f}" in first
    assert f"stillhouse train {run / 'selected' / '1'}" in " ".join(err.split())
    assert "2 blocks of at most 2 operations" in " ".join(err.split())

    before = contents(run)
    code, again, err = run_cli(*command)
    assert (code, again) == (0, first), err
    assert contents(run) == before

    code, out, err = run_cli("select", run, "--limit", "latency_ms=12")
    assert code == 0, err
    assert "latency_ms=12" in out
    assert f"stillhouse train {run / 'selected' / '3'}" in " ".join(err.split())

    folder = run / "selected" / "3"
    code, out, err = run_cli(
        "train", folder, "--steps", "2", "--batch-size", "2", "--start", "supernet"
    )
    assert code == 0, err
    metrics = read_json(run / "students" / "3" / "metrics.json")
    assert (metrics["pretrain"]["steps"], metrics["pretrain"]["tokens"]) == (2, 2 * 2 * 16)
    assert f"masked words told right: {metrics['mlm_accuracy_fraction']:.1%} of" in out
    assert f"stillhouse finetune {run / 'students' / '3'} --task" in " ".join(err.split())

    for arguments, naming in (
        (("select", run, "--limit", "params=1"), "limits.0.params: unknown key; known keys here:"),
        (("select", run, "--limit", "params_m"), "needs different limits such as latency_ms=5"),
        (("select", run, "--limit", "params_m=-1"), "limit.params_m must be above 0, got -1.0"),
        (("select", run, "--limit", "latency_ms=1"), "no student of this search is within"),
        (("train", folder, "--steps", "0"), "pretrain.steps must be above 0, got 0"),
        (("train", folder, "--start", "teacher"), "'scratch' or 'supernet'"),
        (("train", folder, "--steps", "3"), "pretrain.steps: 2 → 3"),
        (("train", run), "is no selected student"),
    ):
        code, out, err = run_cli(*arguments)
        exit_code = 3 if "within" in naming else 1
        assert (code, out) == (exit_code, "")
        assert naming in " ".join(err.split())
        assert "Traceback" not in err
    code, _, err = run_cli("select", run)
    assert code == 2
    assert "--limit" in err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("search", ("nas-bert", "--limit", "each is a budget of its own", "--corpus")),
        ("select", ("stillhouse select runs/nb --limit size_mb=12", "takes seconds")),
        ("train", ("stillhouse train runs/nb/selected/1", "--start", "supernet", "--steps")),
    ],
)
def test_commands_explain_themselves(run_cli, monkeypatch, command, words):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run_cli(command, "--help")
    assert code == 0
    for word in words:
        assert word in " ".join(out.replace("│", " ").split())  # a cell may go over lines


def results(run):
    """What has to be the same to the bit: weights, survivors, tables and selected."""
    files = [file for name in ("mlm", "selected", "supernets") for file in (run / name).rglob("*")]
    files += [
        run / "operations.csv",
        run / "blocks.csv",
        *(run / "students").rglob("*.safetensors"),
    ]
    # The loss of a training is that of its last process.
    read = [file for file in files if file.is_file() and file.name != "supernet.json"]
    return {str(file.relative_to(run)): file.read_bytes() for file in read}


@contextmanager
def stopped(place, name, *, at_call=1):
    """Presses Ctrl-C at a call of a function."""
    function, calls = getattr(place, name), []

    def stop(*arguments, **named):
        calls.append(1)
        if len(calls) == at_call:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, stop)
        yield


@pytest.fixture
def many_checkpoints(monkeypatch):
    """One after each step."""
    monkeypatch.setattr(chain_blocks, "CHECKPOINT_EVERY_S", -1.0)
    monkeypatch.setitem(CheckpointFolder.__init__.__kwdefaults__, "every_s", -1.0)


def stop_search(search, run, *moment, **at_call):
    with stopped(*moment, **at_call), pytest.raises(KeyboardInterrupt):
        search(run)
    assert read_json(run / "run.json")["status"] == "interrupted"


def assert_equals_undisturbed(run, searched):
    assert read_json(run / "run.json")["status"] == "complete"
    assert results(run) == results(searched)
    assert not (run / "work").exists()
    assert not list(run.rglob("*.tmp"))


def test_ctrl_c_after_a_shrinking_and_before_a_checkpoint(search, searched, tmp_path):
    run = tmp_path / "run"
    stop_search(search, run, BlockSupernet, "forward", at_call=25)
    assert (run / "work" / "shrinking" / "block-1-epoch-2.npz").exists()
    assert not (run / "work" / "blocks").exists()
    search(run)
    assert_equals_undisturbed(run, searched)


@pytest.mark.usefixtures("many_checkpoints")
def test_ctrl_c_between_a_training_and_what_comes_of_it(search, searched, tmp_path):
    run = tmp_path / "run"
    stop_search(search, run, mlm_nursery, "held_out_mlm")  # the head is trained, not scored
    stop_search(search, run, chain_blocks, "_save")  # the blocks are trained, none is saved
    stop_search(search, run, chain_blocks, "_save", at_call=2)  # one of two is
    stop_search(search, run, chain_rows, "_write_rows")
    stop_search(search, run, chain_selection, "mlm_loss", at_call=40)
    search(run)
    assert_equals_undisturbed(run, searched)


@pytest.mark.usefixtures("many_checkpoints")
def test_ctrl_c_in_a_training_keeps_what_others_began(run, trained, monkeypatch, run_cli):
    with stopped(pretrain.MaskedLmStep, "__call__", at_call=5):
        code, _, err = run_cli("train", run / "selected" / "1")
    assert code == 130
    assert f"What was finished is kept in {run}; the same command again goes on there." in " ".join(
        err.split()
    )
    assert read_json(run / "run.json")["status"] == "interrupted"
    checkpoint = run / "work" / "pretrain" / "1" / "step-4"
    assert checkpoint.exists()
    train(run, 2, pretrain__steps=1)
    select(run, {"latency_ms": 11.0})
    assert checkpoint.exists()
    steps = []
    step = pretrain.MaskedLmStep.__call__
    monkeypatch.setattr(
        pretrain.MaskedLmStep, "__call__", lambda self, n: (steps.append(n), step(self, n))[1]
    )
    train(run)
    assert steps == [4, 5, 6, 7]
    weights = Path("students", "1", "model.safetensors")
    assert (run / weights).read_bytes() == (trained / weights).read_bytes()
    assert not (run / "work").exists()


@pytest.fixture(scope="module")
def driver_settings(settings):
    overrides = {
        "mlm.head_steps": 12,
        "pretrain.steps": 12,
        "pretrain.dropout": 0.0,  # that of a sequence depends on its worker
        "pretrain.learning_rate": 1e-4,
    }
    return json.dumps(apply_overrides(settings, overrides))


ALONE = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}
"""One thread, whose sums have one order, and no device but the processor."""


class Process:
    """A process that the driver forked."""

    def __init__(self, driver, run):
        self._driver = driver
        print(run, file=driver.stdin, flush=True)
        self.number = int(driver.stdout.readline())

    def end(self):
        """Waits for its end; gives its exit code."""
        return int(self._driver.stdout.readline())


@pytest.fixture(scope="module")
def start(driver_settings):
    """Starts processes, one after the other."""
    with subprocess.Popen(
        [sys.executable, str(DRIVER), driver_settings],
        env={**os.environ, **ALONE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        yield lambda run: Process(driver, run)
        driver.stdin.close()
        driver.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The run of a single worker that nobody disturbs."""
    run = tmp_path_factory.mktemp("processes") / "whole"
    assert start(run).end() == 0
    return run


MOMENTS = {
    "in the training of the head": "work/mlm-head/step-[4-8]/complete.json",
    "in that of the blocks, after two shrinkings": "work/blocks/1-2/step-1[0-3]/complete.json",
    "in the pre-training": "work/pretrain/1/step-[4-8]/complete.json",
}


def wait_for(pattern, run):
    deadline = time.monotonic() + PATIENCE_S
    while not any(run.glob(pattern)):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_three_times_and_started_again_equals_undisturbed(whole, start, tmp_path):
    run = tmp_path / "killed"
    for moment, pattern in MOMENTS.items():
        process = start(run)
        wait_for(pattern, run)
        os.kill(process.number, signal.SIGKILL)
        assert process.end() == -signal.SIGKILL, moment
        assert read_json(run / "run.json")["status"] == "running"
        checkpoints = run / pattern.split("/step")[0]
        # As if it had been killed while it wrote: one folder aside, one without its end's mark.
        for name in (".step-90.tmp", "step-91"):
            (checkpoints / name).mkdir()
            (checkpoints / name / "weights.safetensors").write_bytes(b"half")
    assert start(run).end() == 0
    found, wanted = results(run), results(whole)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert len(read_json(run / "supernets" / "block-1" / "shrinking.json")["records"]) > 2
    assert read_json(run / "run.json")["status"] == "complete"
    assert not (run / "work").exists()


@pytest.mark.slow
def test_two_workers_train_what_one_does(whole, driver_settings, tmp_path):
    """Blocks to the bit, for each is one worker's; head and student share out the text."""
    run = tmp_path / "two"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = subprocess.run(
        [sys.executable, *launcher, str(DRIVER), driver_settings, str(run)],
        env={**os.environ, **ALONE}, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, wanted = results(run), results(whole)
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name.startswith("supernets") or name.endswith(".csv"):
            assert found[name] == wanted[name], name
    for name in ("mlm/head.safetensors", "students/1/model.safetensors"):
        ours, theirs = load_file(run / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert max((ours[key] - theirs[key]).abs().max().item() for key in ours) < 1e-5
    for ours, theirs in zip(selected(run), selected(whole), strict=True):
        assert ours["architecture"] == theirs["architecture"]
        assert ours["mlm_loss"] == pytest.approx(theirs["mlm_loss"], rel=1e-4)
    assert {path.name for path in (run / "tensorboard").iterdir()} == {
        "mlm-head", "blocks-1", "blocks-2", "pretrain-1",
    }  # fmt: skip
    assert read_json(run / "run.json")["status"] == "complete"
