"""MobileBERTs found by quality at masked words and latency, distilled, and fine-tuned."""

import csv
import json
from dataclasses import replace

import optuna
import pytest
from transformers import (
    AutoConfig,
    AutoTokenizer,
    MobileBertForMaskedLM,
    MobileBertForSequenceClassification,
    RobertaConfig,
    RobertaModel,
)

import stillhouse
from stillhouse.distill import steps
from stillhouse.errors import (
    DataError,
    DeviceError,
    RunError,
    SettingsError,
    SpaceError,
    TeacherError,
)
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.mobilebert import mobilebert_of
from stillhouse.recipe import autodistill, flash, mlm_nursery
from stillhouse.run.settings_file import apply_overrides
from stillhouse.search.trial import TrialState
from stillhouse.space.architecture import architecture_from_dict
from stillhouse.space.published import autodistill_for

CANDIDATES = 5


@pytest.fixture(scope="module")
def settings(weather_encoder_folder, weather_text):
    return {
        "teacher": {"model": str(weather_encoder_folder)},
        "corpus": {"name": str(weather_text), "length": 16, "held_out": 12},
        "device": {"kind": "analytic", "chip": "tpu-v4i"},
        "distill": {"precision": "float32"},
        "mlm": {"head_steps": 8},
        "search": {"candidates": CANDIDATES, "strategy": "random"},
        "transfer": {"steps": 8, "flash_fraction": 0.25, "batch_size": 4},
        "pretrain": {"steps": 8, "batch_size": 4},
        "final": {"students": 2},
        "limit": {"speedup": 0.1},
    }


@pytest.fixture(scope="module")
def search(settings):
    """Searches in a run directory, with settings by path beside the common ones."""

    def run(path, **changed):
        overrides = {name.replace("__", "."): value for name, value in changed.items()}
        return stillhouse.search(
            recipe="autodistill", run=path, settings=apply_overrides(settings, overrides)
        )

    return run


@pytest.fixture(scope="module")
def searched(search, tmp_path_factory):
    path = tmp_path_factory.mktemp("searched") / "run"
    return search(path)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def outcomes(result):
    return [(t.architecture.key, t.state, t.quality, t.latency_ms) for t in result.trials]


def test_a_search_leaves_trials_a_front_and_finished_students(searched):
    assert len(searched.trials) >= CANDIDATES
    trained = [trial for trial in searched.trials if trial.quality is not None]
    assert len({trial.architecture for trial in trained}) == CANDIDATES
    for trial in trained:
        assert 0 <= trial.quality <= 1
        assert trial.attributes["flash_steps"] == 4  # a quarter of 8 + 8, one for each layer
        assert trial.attributes["attention_rule"] in ("each_head", "mean_over_heads")
        assert trial.attributes["latency"]["how"] == "analytic"
    assert 1 <= len(searched.students) <= 2
    assert {one.metrics["trial"] for one in searched.students} <= {t.number for t in searched.front}
    with (searched.path / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["bottleneck_size"]) for row in rows] == [
        trial.architecture.bottleneck_size for trial in searched.trials
    ]


def test_students_are_measured_on_text_that_chose_nothing(searched):
    teacher = read_json(searched.path / "teacher" / "metrics.json")
    for student in searched.students:
        told = student.metrics
        assert told["metric"] == "masked_lm_accuracy"
        assert told["quality_low"] <= told["quality"] <= told["quality_high"]
        assert told["quality_count"] > 0
        assert told["teacher_quality"] == teacher["quality"]
        assert told["latency_how"] == "analytic"
        assert told["within_limit"]
        assert told["flash_quality"] == next(
            trial.quality for trial in searched.trials if trial.number == told["trial"]
        )


def test_students_load_with_transformers_alone_and_are_as_large_as_said(searched):
    for student in searched.students:
        model = MobileBertForMaskedLM.from_pretrained(student.path)
        assert student.metrics["checkpoint_parameters"] == sum(
            p.numel() for p in model.parameters()
        )
        assert mobilebert_of(model.config) == architecture_from_dict(
            student.metrics["architecture"]
        )
        bare = model.mobilebert
        assert student.metrics["parameters"] == sum(p.numel() for p in bare.parameters())
        assert len(AutoTokenizer.from_pretrained(student.path)) == model.config.vocab_size
        card = (student.path / "README.md").read_text()
        assert "a MobileBERT, found by multi-objective search" in card
        assert "trust_remote_code" not in card


def test_the_report_tells_what_was_judged_and_on_which_device(searched):
    page = searched.report.read_text(encoding="utf-8")
    best = searched.students[0].metrics
    assert best["architecture_label"] in page
    assert "masked_lm_accuracy" in page
    assert "analytic" in page
    assert "on dev" not in page
    told = read_json(searched.path / "run.json")["hypervolume"]
    assert len(told["by_trial"]) == len(searched.trials)
    assert told["by_trial"] == sorted(told["by_trial"])
    assert f"{100 * told['by_trial'][-1]:.1f} % of the box" in page
    assert "stillhouse finetune students/1 --task TASK" in page
    assert "AutoModelForSequenceClassification" not in page


def test_hand_crafted_mobileberts_are_judged_as_the_candidates_are(searched):
    told = read_json(searched.path / "references.json")
    tiny = told["points"][1]
    architecture = architecture_from_dict(tiny["architecture"])
    page = searched.report.read_text(encoding="utf-8")

    assert [one["name"] for one in told["points"]] == ["MobileBERT", "MobileBERT-tiny"]
    assert told["left_out"] == []
    assert (architecture.layers, architecture.ffn_count) == (4, 2)
    assert architecture.bottleneck_attention
    for one in told["points"]:
        assert one["flash_steps"] == 4  # as every candidate
        assert 0 <= one["quality"] <= 1
        assert one["within_limit"]
        assert one["label"] in page
    assert "references" in read_json(searched.path / "run.json")["phases_s"]
    assert (searched.path / "tensorboard" / "reference-MobileBERT-tiny").is_dir()


def test_the_same_command_again_computes_nothing(search, searched, monkeypatch):
    monkeypatch.setattr(autodistill, "search_mobilebert", lambda *_: pytest.fail("searched again"))
    again = search(searched.path)
    assert outcomes(again) == outcomes(searched)
    assert [one.metrics for one in again.students] == [one.metrics for one in searched.students]


@pytest.mark.parametrize(("room", "name"), [(flash, "score_words"), (steps, "_Run")])
def test_stopped_anywhere_it_goes_on_as_if_it_never_had_been(
    search, searched, tmp_path, monkeypatch, room, name
):
    """At every third call of a part in turn, until it comes through."""
    calls, real, noted = [0], getattr(room, name), {}
    spent = tmp_path / "run" / "work" / "final"

    def stumbling(*given, **named):
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise KeyboardInterrupt
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(room, name, stumbling)
        for _ in range(30):
            try:
                result = search(tmp_path / "run")
                break
            except KeyboardInterrupt:
                noted |= {one.stem: read_json(one)["cost_s"] for one in spent.glob("*.json")}
    assert calls[0] > 3
    costs = {
        f"student-of-trial-{s.metrics['trial']:04d}": s.metrics["cost_s"] for s in result.students
    }
    assert noted or room is flash  # which stops candidates alone
    assert all(costs.get(name, cost_s) >= round(cost_s, 3) for name, cost_s in noted.items())
    assert not list(spent.glob("*.json"))
    assert outcomes(result) == outcomes(searched)
    assert read_json(tmp_path / "run" / "references.json") == read_json(
        searched.path / "references.json"
    )
    names = ("quality", "cross_entropy_nats", "trial")
    assert [[s.metrics[n] for n in names] for s in result.students] == [
        [s.metrics[n] for n in names] for s in searched.students
    ]


def test_a_student_is_fine_tuned_and_scored(run_cli, searched, weather_csv, tmp_path):
    code, _, err = run_cli(
        "finetune", searched.students[0].path, "--task", weather_csv, "--run", tmp_path / "run",
        "--learning-rate", "3e-3", "--epochs", "1", "--set", "distill.precision=float32",
    )  # fmt: skip
    assert code == 0, err
    folder = tmp_path / "run" / "model"
    metrics = read_json(folder / "metrics.json")
    assert metrics["architecture"]["family"] == "mobilebert"
    model = MobileBertForSequenceClassification.from_pretrained(folder)
    assert metrics["parameters"] == sum(weight.numel() for weight in model.parameters())
    code, out, err = run_cli("evaluate", folder, "--task", weather_csv)
    assert code == 0, err
    assert f"accuracy {metrics['quality']:.4f}" in out


def test_search_on_the_command_line(run_cli, weather_encoder_folder, weather_text, tmp_path):
    code, out, err = run_cli(
        "search", "autodistill", "--teacher", weather_encoder_folder, "--corpus", weather_text,
        "--device", "tpu-v4i", "--trials", "2", "--run", tmp_path / "run",
        "--limit", "speedup=0.1", "--set", "corpus.length=16", "--set", "corpus.held_out=12",
        "--set", "transfer.steps=4", "--set", "transfer.batch_size=4", "--set", "mlm.head_steps=4",
        "--set", "pretrain.steps=4", "--set", "pretrain.batch_size=4",
        "--set", "transfer.flash_fraction=0.5", "--set", "final.students=1",
        "--compare", "MobileBERT",
    )  # fmt: skip
    assert code == 0, err
    assert "MobileB" in out  # as much of the name as a narrow table shows
    assert "masked_lm_accuracy" in out
    assert "analytic" in out
    assert "MobileBERTs in the proportions of" in err


@pytest.mark.parametrize(
    ("error", "message", "changed"),
    [
        (SettingsError, "search.strategy = controller", {"search__strategy": "controller"}),
        (SettingsError, "did you mean 'MobileBERT-tiny", {"compare": ["mobilebert_tny"]}),
        (SpaceError, "unknown: head_size", {"compare": ["MobileBERT", "head_size=4"]}),
        (SettingsError, "each of the 9 layers, got 8", {"compare": ["layers=9"]}),
        (SettingsError, "no use for search.quality = hidden", {"search__quality": "hidden"}),
        (SettingsError, "no use for final.controls = 3", {"final__controls": 3}),
        (SettingsError, "no use for search.alpha = -0.1: .* reward", {"search__alpha": -0.1}),
        (SettingsError, "no use for space.base = kd-nas", {"space__base": "kd-nas"}),
        (SettingsError, "one for each of the 4 layers, got 3", {"transfer__steps": 3}),
        (SettingsError, "corpus.held_out must be at least 2, got 1", {"corpus__held_out": 1}),
        (SettingsError, "transfer.flash_fraction must be above 0", {"transfer__flash_fraction": 0}),
        (SettingsError, "autodistill needs a trained teacher", {"teacher__model": "scratch"}),
        (SpaceError, "space.activation is no dimension", {"space__activation": ["gelu"]}),
        (SpaceError, "missing: ffn_size, unknown: ffn_ratio", {"space__ffn_ratio": [2]}),
        (SpaceError, "bottleneck_size must be strictly", {"space__bottleneck_size": [8, 8]}),
        (DeviceError, "even the smallest of the space", {"limit__speedup": 1e9}),
        (SettingsError, "the shortest judgement 2.0 of 4 flash", {"transfer__rungs": 2,
                                                                  "transfer__reduction": 2}),
        (SettingsError, "transfer.reduction must be at least 2", {"transfer__reduction": 1}),
        (DataError, "there is no corpus nowhere.txt", {"corpus__name": "nowhere.txt"}),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_trained(
    search, tmp_path, monkeypatch, error, message, changed
):
    monkeypatch.setattr(flash, "run_steps", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(error, match=message):
        search(tmp_path / "run", **changed)


def test_given_mobileberts_are_distilled_in_full_beside_the_winners(
    search, searched, tmp_path, monkeypatch
):
    monkeypatch.setattr(autodistill, "judge_references", lambda _: None)  # tested above
    result = search(
        tmp_path / "run",
        compare=["MobileBERT-tiny", "hidden_size=16,ffn_count=2"],
        search__candidates=1,
        final__students=1,
    )
    tiny, shape = result.competitors
    found = result.students[0].metrics

    assert (shape.metrics["architecture"]["hidden_size"], shape.metrics["trial"]) == (16, None)
    for one in (tiny, shape):
        assert one.metrics["transfer"] == found["transfer"]
        assert one.metrics["tokens"] == found["tokens"]
        model = MobileBertForMaskedLM.from_pretrained(one.path)
        assert mobilebert_of(model.config) == architecture_from_dict(one.metrics["architecture"])
    told = read_json(result.path / "competitors.json")["points"]
    assert [one["name"] for one in told] == ["MobileBERT-tiny", "hidden_size=16,ffn_count=2"]
    assert [one["kind"] for one in told] == ["hand-crafted", "shape"]
    page = result.report.read_text(encoding="utf-8")
    assert "MobileBERT-tiny (hand-crafted), competitors/1" in page
    assert "masked_lm_accuracy, held-out text" in page  # what finished models are drawn on


@pytest.fixture
def small_table(weather_encoder_folder, tmp_path):
    """Latencies of the narrowest students alone, which no hand-crafted one is of."""
    teacher = architecture_of(AutoConfig.from_pretrained(weather_encoder_folder))
    rows = [one.key for one in autodistill_for(teacher) if one.hidden_size == 8]
    path = tmp_path / "table.csv"
    path.write_text("architecture,latency_ms\nteacher,9\n" + "".join(f"{k},1\n" for k in rows))
    return path


def test_a_reference_that_a_table_lacks_is_left_out(search, tmp_path, small_table):
    result = search(
        tmp_path / "run",
        device={"kind": "table", "table": str(small_table)},
        space__hidden_size=[8],
        search__candidates=1,
        final__students=1,
    )
    told = read_json(result.path / "references.json")

    assert told["points"] == []
    assert [one["name"] for one in told["left_out"]] == ["MobileBERT", "MobileBERT-tiny"]
    assert "has no row &#39;mobilebert-4x32" in result.report.read_text(encoding="utf-8")


def test_a_competitor_that_a_table_lacks_is_refused_before_the_corpus(
    search, tmp_path, small_table, monkeypatch
):
    monkeypatch.setattr(mlm_nursery, "prepare_corpus", lambda *_, **__: pytest.fail("tokenised"))
    with pytest.raises(DeviceError, match="has no row 'mobilebert-4x32"):
        search(
            tmp_path / "run",
            device={"kind": "table", "table": str(small_table)},
            space__hidden_size=[8],
            compare=["MobileBERT"],
        )


def test_a_corpus_of_which_little_is_held_out_is_refused(search, tmp_path, weather_text):
    lines = weather_text.read_text().splitlines()
    (tmp_path / "few.txt").write_text("\n".join(lines[:12]))
    with pytest.raises(DataError, match="are held out, a tenth of it at most"):
        search(tmp_path / "run", corpus__name=str(tmp_path / "few.txt"))


def test_teachers_that_no_mobilebert_can_follow_are_refused_before_the_corpus(
    search, searched, tmp_path, monkeypatch, weather_tokenizer
):
    monkeypatch.setattr(mlm_nursery, "prepare_corpus", lambda *_, **__: pytest.fail("tokenised"))
    with pytest.raises(TeacherError, match="'mobilebert' has its layers in bottlenecks"):
        search(tmp_path / "run", teacher__model=str(searched.students[0].path))
    config = RobertaConfig(
        vocab_size=len(weather_tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    weather_tokenizer.save_pretrained(tmp_path / "roberta")
    with pytest.raises(TeacherError, match="positions from 2, MobileBERT from 0"):
        search(tmp_path / "run", teacher__model=str(tmp_path / "roberta"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"limit__speedup": 1e9}, "even the smallest of the space"),
        ({"limit__size_mb": 1e-6}, "is over size_mb=1e-06"),
        ({"device__chip": None}, "latency table 'board' .* row"),
    ],
)
def test_what_no_student_can_meet_is_told_before_the_corpus_is_read(
    search, tmp_path, monkeypatch, changed, message
):
    monkeypatch.setattr(mlm_nursery, "prepare_corpus", lambda *_, **__: pytest.fail("tokenised"))
    if "device__chip" in changed:
        board = tmp_path / "board.csv"
        board.write_text("architecture,latency_ms\nteacher,9\n")
        changed = {**changed, "device__kind": "table", "device__table": str(board)}
    with pytest.raises(DeviceError, match=message):
        search(tmp_path / "run", **changed)


def test_what_is_recorded_of_a_candidate_is_what_it_may_be_limited_by(searched):
    for trial in searched.trials:
        told = trial.attributes
        assert told["size_mb"] == pytest.approx(4e-6 * told["parameters"])
        assert told["flops_fraction"] > 0


def test_a_candidate_that_runs_out_of_memory_ends_alone(search, searched, tmp_path, monkeypatch):
    calls, real = [0], flash.transfer

    def hungry(*given, **named):
        calls[0] += 1
        if calls[0] == 2:
            raise MemoryError
        return real(*given, **named)

    monkeypatch.setattr(flash, "transfer", hungry)
    result = search(tmp_path / "run")
    failed = [trial for trial in result.trials if trial.state is TrialState.FAILED]
    assert [trial.reason for trial in failed] == ["out of memory: MemoryError"]
    assert result.students


def test_a_candidate_that_takes_too_long_ends_alone(search, tmp_path):
    with pytest.raises(RunError, match="no candidate could be trained"):
        search(tmp_path / "run", search__candidate_seconds=1e-6, search__candidates=2)


def test_without_a_limit_all_latencies_are_searched(search, tmp_path):
    result = search(tmp_path / "run", limit__speedup=None, search__candidates=2, final__students=1)
    assert not any(trial.violations for trial in result.trials)
    assert result.students[0].metrics["limits"] == {}


def test_other_settings_of_a_begun_run_are_refused(search, searched):
    with pytest.raises(RunError, match=r"transfer\.steps: 8 → 12"):
        search(searched.path, transfer__steps=12)


def test_a_candidate_that_diverges_is_recorded_as_failed(search, tmp_path):
    with pytest.raises(RunError, match="no candidate could be trained"):
        search(tmp_path / "run", transfer__learning_rate=1e30, search__candidates=2)


def test_candidates_are_asked_for_in_batches_and_halved(search, tmp_path, monkeypatch):
    calls, real = [0], flash.score_words

    def ever_worse(*given, **named):
        """What is learnt in a few steps is a matter of chance, and often the same."""
        calls[0] += 1
        scored = real(*given, **named)
        [score] = scored.scores
        return replace(scored, scores=(replace(score, accuracy_fraction=0.9 / calls[0]),))

    monkeypatch.setattr(flash, "score_words", ever_worse)
    result = search(
        tmp_path / "run",
        transfer__rungs=2,
        transfer__reduction=2,
        transfer__flash_fraction=0.5,
        search__ask=2,
        final__students=1,
    )
    first = [trial for trial in result.trials if trial.repeat_of is None]
    stopped = [trial for trial in first if trial.state is TrialState.STOPPED]
    complete = [trial for trial in first if trial.state is TrialState.COMPLETE]
    assert stopped
    assert len(stopped) + len(complete) == CANDIDATES
    for trial in stopped:
        assert trial.quality is None
        assert len(trial.rung_qualities) == 1
        assert trial.attributes["flash_steps"] == 4  # half of half of 8 + 8
        assert "after rung 1 its score of " in trial.reason
    for trial in complete:
        assert trial.rung_qualities[1] == trial.quality
        assert trial.attributes["flash_steps"] == 8
    assert result.students[0].metrics["trial"] in {trial.number for trial in complete}
    with (result.path / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = {int(row["number"]): row for row in csv.DictReader(file)}
    for trial in stopped:
        row = rows[trial.number]
        assert (row["state"], row["quality"], row["reason"]) == ("stopped", "", trial.reason)
    page = result.report.read_text(encoding="utf-8")
    assert f"{len(stopped)} stopped" in page
    assert "What failed or was stopped, and why" in page


def test_three_objectives_are_searched_and_stand_in_everything(search, tmp_path):
    names = ["quality", "latency_ms", "size_mb"]
    result = search(tmp_path / "run", search__objectives=names, final__students=1)
    complete = [trial for trial in result.trials if trial.state is TrialState.COMPLETE]
    sizes_mb = [trial.attributes["size_mb"] for trial in complete]
    assert sizes_mb == [trial.attributes["parameters"] * 4 / 1e6 for trial in complete]
    smallest = min(complete, key=lambda trial: trial.attributes["size_mb"])
    least = [t for t in complete if t.attributes["size_mb"] == smallest.attributes["size_mb"]]
    assert any(trial in result.front for trial in least)
    state = read_json(result.path / "run.json")
    assert state["objectives"] == names
    assert list(state["hypervolume"]["reference"]) == names
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{result.path}/study.db")
    assert study.metric_names == names


def test_a_reward_alone_can_be_searched(search, tmp_path):
    result = search(
        tmp_path / "run",
        search__objectives=["reward"],
        search__alpha=-0.5,
        search__strategy="gp",
        final__students=1,
    )
    rewards = {
        trial.number: trial.attributes["reward"]
        for trial in result.trials
        if trial.state is TrialState.COMPLETE and trial.repeat_of is None
    }
    assert len(rewards) == CANDIDATES
    assert result.students[0].metrics["trial"] == max(rewards, key=rewards.get)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"search__objectives": ["size_mb"]}, "search.objectives must have quality"),
        ({"search__objectives": ["quality", "reward"]}, "either reward alone"),
    ],
)
def test_objectives_that_no_search_has_are_refused_at_once(search, tmp_path, changed, rule):
    with pytest.raises(SettingsError, match=rule):
        search(tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()
