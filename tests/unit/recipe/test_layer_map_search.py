"""The search for a layer map: what judges it, that every map is judged alike, and what is told."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from stillhouse.errors import DataError, RunError, TrainingError
from stillhouse.recipe import general, map_judges
from stillhouse.recipe.general import open_text_bench
from stillhouse.recipe.kept_scores import KeptScores
from stillhouse.recipe.layer_map_search import (
    is_map_of_text,
    map_space,
    map_strategy,
    map_trainings,
    named_maps,
    read_layer_maps,
    searched_map,
)
from stillhouse.recipe.map_judges import TextJudge
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.settings import settings_from_dict
from stillhouse.run.settings_file import apply_overrides
from stillhouse.search.genetic import RandomMaps
from stillhouse.space.architecture import BertArchitecture

SHAPE = BertArchitecture(layers=2, hidden_size=32, heads=4, ffn_size=64)
SMALLER = BertArchitecture(layers=2, hidden_size=16, heads=2, ffn_size=32)


@pytest.fixture
def open_bench(weather_encoder_folder, weather_text, weather_csv, talk, tmp_path):
    def make(**changed):
        common = {
            "recipe": "layer-map",
            "student": "layers=2",
            "teacher": {"model": str(weather_encoder_folder)},
            "corpus": {"name": str(weather_text), "length": 16, "held_out": 6},
            "distill": {"precision": "float32", "learning_rate": 3e-3, "batch_size": 4},
            "layer_map": {
                "evaluations": 3,
                "sequences": 8,
                "tasks": [str(weather_csv)],
                "task_examples": 24,
                "task_epochs": 0.5,
                "task_max_length": 16,
            },
        }
        overrides = {name.replace("__", "."): value for name, value in changed.items()}
        settings = settings_from_dict(apply_overrides(common, overrides))
        with open_run(tmp_path / "run", settings):
            pass
        run = RunDirectory(path=tmp_path / "run")
        return open_text_bench(settings, run, talk, Accelerator(cpu=True))

    return make


def test_the_best_map_is_found_once_a_depth(open_bench, talk, monkeypatch):
    bench = open_bench()
    genes = searched_map(bench, SHAPE)
    told = read_layer_maps(bench.run)["2"]
    best = max(told["maps"], key=lambda one: one["fitness"])
    assert list(genes) == told["best"] == best["genes"]
    assert told["judge"].startswith("distilling on 8 sequences of the corpus and fine-tuning on")
    assert "Best of 3 layer maps" in "".join(talk.said)

    said = len(talk.said)
    monkeypatch.setattr(TextJudge, "__call__", None)  # nobody is judged again
    assert searched_map(bench, SHAPE) == genes
    assert searched_map(bench, SMALLER) == genes  # of the same depth
    assert len(talk.said) == said
    assert read_layer_maps(bench.run)["2"]["architecture_label"] == SHAPE.label


def test_every_map_has_the_same_first_weights_text_order_and_seed(open_bench, monkeypatch):
    bench, seen = open_bench(), []
    distil = map_judges.distil_on_text

    def watching(bench, student, examples, **given):
        weights = {name: one.clone() for name, one in student.state_dict().items()}
        seen.append((weights, examples, given["epochs"], given["seed"]))
        return distil(bench, student, examples, **given)

    monkeypatch.setattr(map_judges, "distil_on_text", watching)
    searched_map(bench, SHAPE)
    first, examples, epochs, seed = seen[0]
    assert len(seen) == 3
    for weights, others, *rest in seen[1:]:
        assert all(torch.equal(first[name], weights[name]) for name in first)
        assert (others is examples, rest) == (True, [epochs, seed])


def test_the_same_map_is_judged_the_same(open_bench):
    bench = open_bench()
    one, again = (TextJudge(bench=bench, architecture=SHAPE)((1, 4)) for _ in range(2))
    assert one == again


def test_the_proxy_corpus_is_a_tenth_spread_over_all(open_bench):
    bench = open_bench(layer_map__sequences=None)
    chosen = TextJudge(bench=bench, architecture=SHAPE).examples
    total = len(bench.examples)
    assert len(chosen) == total // 10
    rows = bench.examples.input_ids.reshape(total, 16)
    places = [place * total // len(chosen) for place in range(len(chosen))]
    assert (chosen.input_ids.reshape(-1, 16) == rows[places]).all()
    everything = open_bench(layer_map__sequences=10_000)
    assert len(TextJudge(bench=everything, architecture=SHAPE).examples) == total


def test_more_seeds_are_more_fine_tunings_of_one_distillation(open_bench, monkeypatch):
    bench, count = open_bench(layer_map__seeds=3), []
    distil = map_judges.distil_on_text
    monkeypatch.setattr(
        map_judges, "distil_on_text", lambda *a, **k: count.append(1) or distil(*a, **k)
    )
    found = TextJudge(bench=bench, architecture=SHAPE)((2, 4))
    [scores] = found.attributes["by_seed"].values()
    assert (len(count), len(scores)) == (1, 3)
    assert found.fitness == pytest.approx(sum(scores) / 3)


def test_a_killed_judgement_keeps_the_fine_tunings_that_were_done(open_bench, monkeypatch):
    bench, count = open_bench(layer_map__seeds=3), []
    judge = TextJudge(bench=bench, architecture=SHAPE)
    finetune = map_judges.finetuned_score

    def counted(*given, **others):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return finetune(*given, **others)

    monkeypatch.setattr(map_judges, "finetuned_score", counted)
    with pytest.raises(KeyboardInterrupt):
        judge((2, 4))
    assert len(count) == 3
    again = judge((2, 4))
    assert len(count) == 4  # the one that was stopped alone
    assert not list(bench.run.work.glob("layer-map/**/*.json"))  # it is recorded elsewhere now
    assert judge((2, 4)) == again
    assert len(count) == 7


def test_scores_of_something_else_are_not_taken_for_its_own(tmp_path):
    file = tmp_path / "2" / "1-2.json"
    kept = KeptScores(file, "one")
    assert [kept.score("task", lambda: 0.1), kept.score("task", lambda: 0.2)] == [0.1, 0.1]
    assert KeptScores(file, "one").score("task", lambda: 0.3) == 0.1
    assert KeptScores(file, "other").score("task", lambda: 0.4) == 0.4
    assert kept.several("two", lambda: (0.1, 2.0)) == [0.1, 2.0]
    assert KeptScores(file, "one").several("two", lambda: (0.3, 4.0)) == [0.1, 2.0]
    kept.clear()
    kept.clear()
    assert KeptScores(file, "one").score("task", lambda: 0.5) == 0.5


def test_a_map_that_fails_does_not_win_and_none_left_is_an_error(open_bench, monkeypatch):
    bench = open_bench()
    distil = map_judges.distil_on_text

    def failing(bench, student, examples, *, layer_map, **given):
        if layer_map in broken:
            raise TrainingError("loss is not finite at step 3")
        return distil(bench, student, examples, layer_map=layer_map, **given)

    monkeypatch.setattr(map_judges, "distil_on_text", failing)
    broken = {(2, 4)}  # uniform, the first
    assert searched_map(bench, SHAPE) not in broken
    [first, *_] = read_layer_maps(bench.run)["2"]["maps"]
    assert (first["state"], first["reason"]) == ("failed", "loss is not finite at step 3")

    broken = {(gene,) for gene in range(5)}
    one = BertArchitecture(layers=1, hidden_size=32, heads=4, ffn_size=64)
    with pytest.raises(RunError, match="none of 3 layer maps could be judged; the first: loss is"):
        searched_map(bench, one)
    assert read_layer_maps(bench.run).keys() == {"1", "2"}


def test_a_map_that_takes_too_long_fails_alone(open_bench):
    bench = open_bench(search__candidate_seconds=1e-9)
    with pytest.raises(
        RunError, match=r"none of 3 layer maps could be judged; .*time.*new run directory"
    ):
        searched_map(bench, SHAPE)


def test_what_is_made_once_for_all_maps_is_the_time_of_none(open_bench, monkeypatch):
    """The teacher's signals, which the first map of a layer makes, and first weights."""
    bench, order = open_bench(), []
    deadline, cached = map_judges._deadline, general.cached_teacher
    monkeypatch.setattr(map_judges, "_deadline", lambda one: order.append("limit") or deadline(one))
    monkeypatch.setattr(
        general, "cached_teacher", lambda *a, **k: order.append("signals") or cached(*a, **k)
    )
    judge = TextJudge(bench=bench, architecture=SHAPE)
    judge((1, 4))
    judge((2, 3))
    assert order == ["signals", "limit", "signals"] * 2  # the second time from the cache


def test_maps_that_taught_nothing_are_said_to_be_ranked_by_chance(open_bench, talk, monkeypatch):
    monkeypatch.setattr(map_judges, "finetuned_score", lambda *_, **__: 0.1)
    searched_map(open_bench(), SHAPE)
    assert "hardly taught" in talk.said[-1]
    assert "layer_map.task_epochs" in talk.said[-1]


def test_what_is_written_is_plain_and_whole(open_bench):
    bench = open_bench()
    searched_map(bench, SHAPE)
    text = (bench.run.path / "layer_maps.json").read_text()
    found = json.loads(text)["depths"]["2"]
    assert found["named"] == {"uniform": [2, 4], "last": [0, 4]}
    assert [one["number"] for one in found["maps"]] == [0, 1, 2]
    assert (found["size"], found["evaluations"]) == (19, 3)


@pytest.mark.parametrize(
    ("distill", "with_empty"),
    [
        ({"logit_weight": 0, "attention_weight": 1}, False),
        ({"logit_weight": 0, "hidden_weight": 1}, False),
        ({"logit_weight": 0, "attention_weight": 1, "embeddings": True}, False),
        ({"logit_weight": 0, "hidden_weight": 1, "embeddings": True}, True),
        ({"logit_weight": 1, "attention_weight": 1}, True),
        ({"logit_weight": 0, "label_weight": 1, "hidden_weight": 1}, True),
    ],
)
def test_the_empty_map_is_tried_where_it_leaves_something_to_learn(distill, with_empty):
    settings = settings_from_dict({"distill": {**distill, "layer_map": "search"}})
    space = map_space(settings, SHAPE, 4)
    assert ((0, 0) in space) is with_empty
    assert space.size() == 18 + with_empty


def test_the_strategy_is_that_of_the_settings_and_begins_with_the_rules():
    settings = settings_from_dict(
        {"recipe": "layer-map", "layer_map": {"strategy": "random", "any_order": True}}
    )
    space = map_space(settings, SHAPE, 6)
    assert space.any_order
    strategy = map_strategy(settings, space)
    assert isinstance(strategy, RandomMaps)
    assert strategy.ask(2) == [(3, 6), (0, 6)] == list(named_maps(space).values())
    assert map_strategy(settings_from_dict({}), space).ask(2) == [(3, 6), (0, 6)]


def test_the_recipe_is_on_text_unless_a_task_judges():
    assert is_map_of_text(settings_from_dict({"recipe": "layer-map"}))
    on_task = settings_from_dict({"recipe": "layer-map", "layer_map": {"judge": "task"}})
    assert not is_map_of_text(on_task)
    assert not is_map_of_text(settings_from_dict({"recipe": "general"}))
    assert on_task.distill.logit_weight == 1  # its head learns from outputs
    assert settings_from_dict({"recipe": "layer-map"}).distill.logit_weight == 0


def test_other_examples_of_a_proxy_task_are_refused_until_all_maps_are_judged(
    open_bench, weather_rows, tmp_path, monkeypatch
):
    table = tmp_path / "weather.csv"

    def write(rows):
        table.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in rows)]))

    write(weather_rows)
    bench = open_bench(layer_map__tasks=[str(table)])
    judge, judged = TextJudge.__call__, []

    def stopped(self, genes):
        if len(judged) == 1:
            raise KeyboardInterrupt
        judged.append(genes)
        return judge(self, genes)

    with monkeypatch.context() as patch:
        patch.setattr(TextJudge, "__call__", stopped)
        with pytest.raises(KeyboardInterrupt):
            searched_map(bench, SHAPE)
    write([(f"{text} today", label) for text, label in weather_rows])
    message = r"judged layer maps on other examples of .*weather\.csv \(layer_map\.tasks\)"
    with pytest.raises(RunError, match=message):
        searched_map(bench, SHAPE)
    write(weather_rows)
    best = searched_map(bench, SHAPE)
    table.unlink()
    assert searched_map(bench, SHAPE) == best  # nothing is left to judge


def test_too_few_examples_of_a_proxy_task_are_told_before_anything_is_trained(
    open_bench, monkeypatch
):
    trained = []
    monkeypatch.setattr(map_judges, "distil_on_text", lambda *a, **k: trained.append(1))
    with pytest.raises(DataError, match="1 examples of proxy task"):
        searched_map(open_bench(layer_map__task_examples=1), SHAPE)
    assert not trained


def shape(layers):
    return BertArchitecture(layers=layers, hidden_size=32, heads=4, ffn_size=64)


@pytest.mark.parametrize(
    ("students", "trainings"),
    [
        # From 4 teacher layers to one: 5 maps; to two: 1 + 2 * 4 + 10 = 19; to three: more than
        # the 20 that are judged at most. Each takes two seeds.
        (3, 2 * (5 + 19 + 20)),
        (2, 2 * (19 + 20)),
        (1, 2 * 20),
    ],
)
def test_every_depth_that_can_win_is_searched_and_no_map_twice(students, trainings):
    settings = settings_from_dict(
        {
            "distill": {"hidden_weight": 1.0, "layer_map": "search"},
            "layer_map": {"evaluations": 20, "seeds": 2},
            "final": {"students": students},
        }
    )
    shapes = [shape(layers) for layers in (1, 2, 3, 3, 2)]
    assert map_trainings(settings, shapes, 4) == trainings
    assert map_trainings(settings_from_dict({}), shapes, 4) == 0


def test_the_teacher_is_asked_once_for_all_maps(open_bench):
    bench, passes = open_bench(), []
    bench.teacher.register_forward_hook(lambda *_: passes.append(1))
    judge = TextJudge(bench=bench, architecture=SHAPE)
    judge((1, 2))
    judge((3, 4))
    asked = len(passes)
    assert asked > 0
    for genes in ((1, 4), (2, 3), (0, 1)):
        judge(genes)
    assert len(passes) == asked  # all its layers lie in the cache by now


def test_a_killed_judgement_on_a_task_keeps_the_seeds_that_were_done(tmp_path, monkeypatch):
    settings = settings_from_dict(
        {"recipe": "layer-map", "layer_map": {"judge": "task", "seeds": 3}}
    )
    bench = SimpleNamespace(
        run=SimpleNamespace(work=tmp_path),
        settings=settings,
        teacher_hash="t",
        task=SimpleNamespace(name="glue/x", metrics=("accuracy",)),
        data=SimpleNamespace(validation=None),
    )
    done = []

    def judged_seed(self, genes, seed, deadline):
        done.append(seed)
        if done == [0, 1]:
            raise KeyboardInterrupt
        return 0.5 + seed / 10, 1.0

    monkeypatch.setattr(map_judges.TaskJudge, "_begun", lambda *_: None)
    monkeypatch.setattr(map_judges.TaskJudge, "_score_and_loss", judged_seed)
    monkeypatch.setattr(map_judges.TaskJudge, "constant", 0.5)
    judge = map_judges.TaskJudge(bench=bench, architecture=SHAPE)
    with pytest.raises(KeyboardInterrupt):
        judge((2, 4))
    found = judge((2, 4))
    assert done == [0, 1, 1, 2]
    assert found.attributes["by_seed"] == {"glue/x": [0.5, 0.6, 0.7]}
    assert not list(tmp_path.rglob("*.json"))


def test_the_seeds_of_a_judgement_that_failed_are_forgotten(tmp_path):
    file = tmp_path / "1-2.json"
    kept = KeptScores(file, "one")
    kept.score("seed 0", lambda: 0.1)
    with pytest.raises(KeyboardInterrupt), kept.until_judged():
        raise KeyboardInterrupt
    assert file.exists()
    with pytest.raises(TrainingError), kept.until_judged():
        raise TrainingError("loss is not finite at step 3")
    assert not file.exists()
