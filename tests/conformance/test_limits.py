"""Every limit in every recipe, on a made-up device: applied, and told of what was finished.

A limit lies between what two architectures of a space cost, so that it lets one of them pass.
"""

import json
from dataclasses import fields, replace

import pytest
from transformers import AutoConfig

import stillhouse
from stillhouse import api
from stillhouse.device.latency import Comparison, Latency, Workload
from stillhouse.errors import DeviceError
from stillhouse.recipe import autodistil, mlm_nursery, open_workbench, scoring
from stillhouse.recipe.candidates import screen_candidate
from stillhouse.recipe.final import student_metrics
from stillhouse.recipe.mobile_final import costs
from stillhouse.recipe.mobile_nursery import MobileNursery, screen_mobilebert
from stillhouse.recipe.selection import Scales
from stillhouse.recipe.single import student_of
from stillhouse.recipe.task_search import check_limits_can_be_met
from stillhouse.report.limits_table import lines_of
from stillhouse.run.device_settings import LimitSettings
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict
from stillhouse.search.trial import TrialState
from stillhouse.space.mobilebert import MobileBertArchitecture
from stillhouse.space.search_space import Dimension, SearchSpace

LIMITS = tuple(one.name for one in fields(LimitSettings))
TEACHER_MS = 30.0
BASE_MB = 100.0
WORK = {"M": 3.0, "F": 5.0, "S3": 1.0, "S5": 1.2, "S7": 1.4}


def work_of(architecture):
    """Something that grows with an architecture of any family."""
    if hasattr(architecture, "blocks"):
        return sum(
            block.hidden_size * WORK[kind]
            for block in architecture.blocks
            for kind in block.operations
        )
    inner = getattr(architecture, "bottleneck_size", architecture.ffn_size)
    return architecture.layers * (architecture.hidden_size + inner)


class Chip:
    """Runs whatever it is asked, in a time and a memory that grow with the architecture."""

    name = "chip"

    def compare(self, architecture, workload):
        ms = 0.1 + work_of(architecture) / 100
        return Comparison(student=latency(ms, workload), teacher=latency(TEACHER_MS, workload))

    def peak_memory_mb(self, architecture, workload):
        assert workload.length == 16
        return BASE_MB + work_of(architecture)


def latency(ms, workload):
    return Latency(
        median_ms=ms,
        low_ms=0.95 * ms,
        high_ms=1.05 * ms,
        p10_ms=ms,
        p90_ms=ms,
        runs=20,
        how="measured",
        device="chip",
        workload=workload,
    )


@pytest.fixture(autouse=True, scope="module")
def chip():
    with pytest.MonkeyPatch.context() as patch:
        for room in (open_workbench, mlm_nursery, autodistil):
            patch.setattr(room, "resolve_device", lambda *_, **__: Chip())
        # Resampling the dev set for each student's interval takes longer than all else.
        patch.setattr(scoring, "bootstrap", lambda *_, **__: (0.0, 1.0))
        yield


def counted(metrics, name):
    """What is held against a limit, by its definition; a speed-up as a latency."""
    if name in ("latency_ms", "speedup"):
        return metrics["latency_high_ms"]
    return metrics["parameters"] / 1e6 if name == "params_m" else metrics[name]


def limit_at(name, value):
    return TEACHER_MS / value if name == "speedup" else value


def between(name, small, large):
    """A limit that a small student meets and a large one does not."""
    return limit_at(name, (counted(small, name) + counted(large, name)) / 2)


def excess(metrics, name, bound):
    return counted(metrics, name) / limit_at(name, bound) - 1


def check_told(metrics, limits, *, is_met):
    """What a finished student says of its limits, in its file and in words."""
    over = {name: excess(metrics, name, bound) for name, bound in limits.items()}
    assert {name: amount <= 0 for name, amount in over.items()} == dict.fromkeys(limits, is_met)
    assert metrics["limits"] == limits
    assert metrics["violations"] == pytest.approx(over)
    assert metrics["within_limit"] is is_met
    assert metrics["memory_mb"] > BASE_MB  # known of every finished student
    lines = lines_of("1", metrics)
    assert [line.is_met for line in lines] == [is_met] * len(limits)
    assert "not known" not in [line.value for line in lines]
    hows = dict.fromkeys(("latency_ms", "speedup", "memory_mb"), "measured")
    assert [line.how for line in lines] == [hows.get(name, "counted") for name in limits]


def rows_of_page(page):
    """The rows of the table of limits."""
    text = page.read_text(encoding="utf-8").split("<h2>Limits</h2>")[1].split("</table>")[0]
    return text.split("<tr>")[2:]


# A search on a task, and students that are given: two shapes, one twice as deep as the other.


def shape(layers):
    return f"layers={layers},hidden_size=16,heads=1,ffn_size=32"


@pytest.fixture(scope="module")
def task_settings(weather_teacher_folder, weather_csv):
    return {
        "teacher": {"model": str(weather_teacher_folder)},
        "task": {"name": str(weather_csv)},
        "space": {
            "layers": [1, 2],
            "hidden_size": [16],
            "head_size": [16],
            "ffn_ratio": [2.0],
            "size_fraction": 1.0,
        },
        "search": {"epochs": 0.2, "candidates": 2},
        "distill": {"precision": "float32"},
        "device": {"length": 16},
        "final": {"students": 1, "epochs": 0.2},
    }


@pytest.fixture(scope="module")
def bench(task_settings, tmp_path_factory):
    settings = settings_from_dict(task_settings)
    with open_run(tmp_path_factory.mktemp("bench") / "run", settings) as run:
        yield open_workbench.open_workbench(settings, run, LoggingNarrator())


@pytest.fixture(scope="module")
def given(bench):
    """The small and the large shape with their first weights, as `distill` takes them."""
    return [student_of(bench, shape(layers), called="student")[0] for layers in (1, 2)]


@pytest.fixture(scope="module")
def free(bench, given):
    """What the two cost."""
    return [student_metrics(bench, LimitSettings(), student)[0] for student in given]


@pytest.mark.parametrize("name", LIMITS)
def test_a_candidate_on_a_task(bench, free, name):
    small, large = SearchSpace(
        (
            Dimension("layers", (1, 2)),
            Dimension("hidden_size", (16,)),
            Dimension("head_size", (16,)),
            Dimension("ffn_size", (32,)),
            Dimension("activation", ("gelu",)),
        )
    ).enumerate()
    bound = between(name, *free)
    limits = LimitSettings(**{name: bound})
    met, missed = (screen_candidate(bench, limits, one) for one in (small, large))
    assert met.violations == {name: pytest.approx(excess(free[0], name, bound))}
    assert missed.violations == {name: pytest.approx(excess(free[1], name, bound))}
    assert met.violations[name] < 0 < missed.violations[name]
    assert ("memory_mb" in met.attributes) is (name == "memory_mb")
    space = SearchSpace(tuple(Dimension(key, (value,)) for key, value in dimensions_of(large)))
    with pytest.raises(DeviceError, match=rf"even the smallest of the space .* is over {name}="):
        check_limits_can_be_met(bench, space, limits)


def dimensions_of(architecture):
    names = ("layers", "hidden_size", "head_size", "ffn_size", "activation")
    return [(name, getattr(architecture, name)) for name in names]


@pytest.mark.parametrize("name", LIMITS)
def test_a_finished_student_of_a_task(bench, given, free, name):
    limits = {name: between(name, *free)}
    for student, is_met in zip(given, (True, False), strict=True):
        told, _ = student_metrics(bench, LimitSettings(**limits), student)
        check_told(told, limits, is_met=is_met)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["plain", "kd-nas"])
def test_all_limits_of_a_search_on_a_task(task_settings, free, tmp_path, recipe):
    """Together, and with a competitor that is over all of them."""
    limits = {name: between(name, *free) for name in LIMITS}
    found = stillhouse.search(
        recipe=recipe,
        settings={**task_settings, "compare": [shape(2)]},
        limit=limits,
        run=tmp_path / "run",
    )
    trials = {trial.architecture.layers: trial for trial in found.trials}
    assert trials[1].state is TrialState.COMPLETE
    assert trials[1].attributes["memory_mb"] == free[0]["memory_mb"]
    assert all(t.state is TrialState.INFEASIBLE for n, t in trials.items() if n == 2)
    [student], [rival] = found.students, found.competitors
    check_told(student.metrics, limits, is_met=True)
    check_told(rival.metrics, limits, is_met=False)
    rows = rows_of_page(found.report)
    assert [">1</span>" in row for row in rows] == [True] * len(LIMITS) + [False] * len(LIMITS)
    assert ["met by" in row for row in rows] == [True] * len(LIMITS) + [False] * len(LIMITS)
    assert [">c1</span>" in row for row in rows] == ["missed by" in row for row in rows]


def test_a_given_student_says_before_its_training_what_it_is_over(task_settings, free, tmp_path):
    said = []

    class Talk(LoggingNarrator):
        def say(self, text):
            said.append(text)

    met, missed = LIMITS[::2], LIMITS[1::2]
    limits = {name: 1.1 * counted(free[0], name) for name in met}
    limits |= {name: limit_at(name, counted(free[0], name) / 1.25) for name in missed}
    own = {name: one for name, one in task_settings.items() if name not in ("space", "search")}
    settings = settings_from_dict({**own, "student": shape(1), "limit": limits})
    told = api.run_distill_job(settings, tmp_path / "run", Talk()).metrics
    over = {name: amount for name, amount in told["violations"].items() if amount > 0}
    assert over == pytest.approx(dict.fromkeys(missed, 0.25))
    assert told["within_limit"] is False
    warned = [text for text in said if "it is distilled all the same" in text]
    assert [text.split(" is over ")[1].split("=")[0] for text in warned] == [
        name for name in told["limits"] if name in missed
    ]
    rows = rows_of_page(tmp_path / "run" / "report.html")
    assert ["missed by 25.0 %" in row for row in rows] == [n in missed for n in told["limits"]]


# Recipes on plain text.


@pytest.fixture(scope="module")
def text_settings(weather_encoder_folder, weather_text):
    return {
        "teacher": {"model": str(weather_encoder_folder)},
        "corpus": {"name": str(weather_text), "length": 16, "held_out": 12},
        "distill": {"precision": "float32"},
        "mlm": {"head_steps": 2},
        "device": {"length": 16},
    }


def below(metrics, name):
    """A limit that a student is just over."""
    return limit_at(name, 0.999 * counted(metrics, name))


@pytest.fixture(scope="module")
def family(text_settings, tmp_path_factory):
    """A trained family, with its student without a limit to speak of."""
    settings = {
        **text_settings,
        "supernet": {"spaces": ["tiny"], "steps": 1, "batch_size": 4, "runners_up": 1},
    }
    path = tmp_path_factory.mktemp("family") / "run"

    def search(**limits):
        return stillhouse.search(recipe="autodistil", settings=settings, run=path, limit=limits)

    [best] = search(params_m=1000.0).students
    return search, best.metrics


def check_chosen(found, best, limits):
    [student] = found.students
    assert student.metrics["architecture"] != best["architecture"]
    check_told(student.metrics, limits, is_met=True)
    rows = rows_of_page(found.report)[-len(limits) :]
    assert all("met by" in row and f">{student.path.name}</span>" in row for row in rows)


@pytest.mark.parametrize("name", LIMITS)
def test_a_search_of_supernets(family, name):
    search, best = family
    limits = {name: below(best, name)}
    found = search(**limits)
    check_chosen(found, best, limits)
    told = json.loads((found.path / "family.json").read_text())["searches"][-1]
    assert told["limits"] == told["costs"]["limits"] == limits
    assert told["costs"]["violations"] == found.students[0].metrics["violations"]


def test_all_limits_of_a_search_of_supernets(family):
    search, best = family
    limits = {name: below(best, name) for name in LIMITS}
    check_chosen(search(**limits), best, limits)


def test_a_student_of_two_searches_tells_the_limits_of_the_last(family):
    search, best = family
    first, second = {"memory_mb": 1.2 * best["memory_mb"]}, {"latency_ms": 1e6, "params_m": 1000.0}
    for limits in (first, second, first):
        [student] = search(**limits).students
        assert student.metrics["architecture"] == best["architecture"]
        check_told(student.metrics, limits, is_met=True)


@pytest.fixture(scope="module")
def chains(text_settings, tmp_path_factory):
    """A table of blocks, with the student that it gives without a limit to speak of."""
    path = tmp_path_factory.mktemp("chains") / "run"
    settings = {
        **text_settings,
        "limits": [{"speedup": 0.001}],
        "blocks": {
            "count": 2,
            "operations": 2,
            "hidden_sizes": [16, 24],
            "steps_per_epoch": 1,
            "warm_epochs": 0,
            "bins": 4,
            "bins_by": "size",
            "sampled": 60,
            "kept": 3,
            "dev_batches": 1,
            "batch_size": 4,
        },
        "select": {"candidates": 5},
    }
    [best] = stillhouse.search(recipe="nas-bert", settings=settings, run=path).students
    return path, best.metrics


def select(path, **limits):
    return api.run_select_job(path, [limits], LoggingNarrator())


@pytest.mark.parametrize("name", LIMITS)
def test_a_selection_of_chains(chains, name):
    path, best = chains
    limits = {name: below(best, name)}
    check_chosen(select(path, **limits), best, limits)


def test_all_limits_of_a_selection_of_chains(chains):
    path, best = chains
    limits = {name: below(best, name) for name in LIMITS}
    check_chosen(select(path, **limits), best, limits)


@pytest.mark.parametrize("name", LIMITS)
def test_a_search_of_chains_refuses_the_impossible_at_once(
    text_settings, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(mlm_nursery, "prepare_corpus", lambda *_, **__: pytest.fail("tokenised"))
    bound = {"memory_mb": BASE_MB}.get(name, limit_at(name, 1e-9))
    with pytest.raises(DeviceError, match=name):
        stillhouse.search(
            recipe="nas-bert", settings=text_settings, run=tmp_path / "run", limit={name: bound}
        )


MOBILE = MobileBertArchitecture(
    layers=4,
    hidden_size=16,
    bottleneck_size=16,
    ffn_count=1,
    heads=4,
    ffn_size=32,
    embedding_size=8,
)


@pytest.mark.parametrize("name", LIMITS)
def test_a_mobilebert(weather_encoder_folder, name):
    config = AutoConfig.from_pretrained(weather_encoder_folder)
    small, large = replace(MOBILE, hidden_size=8, bottleneck_size=8), MOBILE

    def nursery(limits):
        made = object.__new__(MobileNursery)
        vars(made).update(
            settings=settings_from_dict({"recipe": "autodistill", "limit": limits}),
            device=Chip(),
            workload=Workload(length=16),
            scales=Scales(config, LimitSettings(**limits), Chip(), Workload(length=16)),
        )
        return made

    loose = nursery({"memory_mb": 1e6})
    free = [costs(loose, one) for one in (small, large)]
    limits = {name: between(name, *free)}
    asked = nursery(limits)
    for architecture, known, is_met in zip((small, large), free, (True, False), strict=True):
        screening = screen_mobilebert(asked.scales, asked.limits, architecture)
        over = {name: pytest.approx(excess(known, name, limits[name]))}
        assert screening.violations == over
        told = costs(asked, architecture)
        assert (told["limits"], told["violations"]) == (limits, over)
        assert told["within_limit"] is is_met is (told["violations"][name] < 0)


@pytest.mark.slow
def test_all_limits_of_a_search_of_mobileberts(text_settings, tmp_path):
    settings = {
        **text_settings,
        "space": {"hidden_size": [8, 16], "bottleneck_size": [8], "ffn_count": [1]},
        "search": {"candidates": 1, "strategy": "random"},
        "transfer": {"steps": 4, "flash_fraction": 1.0, "batch_size": 2},
        "pretrain": {"steps": 1, "batch_size": 2},
        "final": {"students": 1},
    }
    limits = {**dict.fromkeys(LIMITS, 1e9), "speedup": 1e-3}
    first = stillhouse.search(
        recipe="autodistill",
        settings={**settings, "space": {**settings["space"], "hidden_size": [8]}},
        limit=limits,
        run=tmp_path / "small",
    )
    small = first.students[0].metrics
    check_told(small, limits, is_met=True)
    limits = {name: limit_at(name, 1.001 * counted(small, name)) for name in LIMITS}
    found = stillhouse.search(
        recipe="autodistill", settings=settings, limit=limits, run=tmp_path / "run"
    )
    over = {t.architecture.hidden_size for t in found.trials if t.state is TrialState.INFEASIBLE}
    assert over <= {16}
    check_told(found.students[0].metrics, limits, is_met=True)
    assert all("met by" in row for row in rows_of_page(found.report))
