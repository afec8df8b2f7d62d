"""Parts that a user hands over as objects: used in place of what settings name, or refused."""

import pytest

import stillhouse
from stillhouse import OptunaStrategy, OwnParts
from stillhouse.device.latency import Comparison, told
from stillhouse.errors import DeviceError, RunError, SettingsError, TeacherError
from stillhouse.model import anatomy
from stillhouse.search.samplers import make_sampler
from stillhouse.space.search_space import Dimension, SearchSpace

SPACE = SearchSpace(
    (
        Dimension("layers", (1,)),
        Dimension("hidden_size", (16, 32)),
        Dimension("heads", (2,)),
        Dimension("ffn_size", (16,)),
    )
)


class Narrowest:
    """Proposes the narrowest students first."""

    def __init__(self, space, seed):
        self.left = sorted(space, key=lambda one: one.hidden_size)
        self.told = []

    def ask(self, count):
        asked, self.left = self.left[:count], self.left[count:] or self.left
        return asked

    def tell(self, trials):
        self.told += trials


class Bench:
    """A device that takes a millisecond a layer, and three for the teacher."""

    name = "bench"

    def compare(self, architecture, workload):
        student, teacher = (
            told(ms, how="table", device=self.name, workload=workload)
            for ms in (float(architecture.layers), 3.0)
        )
        return Comparison(student=student, teacher=teacher)

    def peak_memory_mb(self, architecture, workload):
        raise DeviceError("the bench tells no memory")


class Constant:
    """A term whose value is its weight's factor, and which counts how often it is read."""

    weight = 2.0
    reads_teacher = False
    projection = None
    student_layers = teacher_layers = frozenset()
    student_attention = teacher_attention = frozenset()

    def __init__(self):
        self.read = 0

    def __call__(self, student, teacher, batch):
        self.read += 1
        return student.logits.sum() * 0 + 1.0


@pytest.fixture
def search(weather_teacher_folder, weather_csv, tmp_path):
    def run(own, **more):
        settings = {"final": {"students": 1, "epochs": 0.5}, "distill": {"precision": "float32"}}
        return stillhouse.search(
            teacher=str(weather_teacher_folder),
            task=str(weather_csv),
            limit={"latency_ms": 2.0},
            candidates=2,
            settings=settings | more.pop("settings", {}),
            own=own,
            run=tmp_path / "run",
            **more,
        )

    return run


def test_strategy_space_device_and_terms_of_ones_own_make_the_search(search):
    made = []

    def terms(student, teacher):
        assert (student.num_hidden_layers, teacher.num_hidden_layers) == (1, 2)
        made.append(Constant())
        return made[-1:]

    own = OwnParts(strategy=Narrowest, space=SPACE, device=Bench(), terms=terms)
    found = search(own)
    assert [trial.architecture.hidden_size for trial in found.trials] == [16, 32]
    assert {trial.latency_ms for trial in found.trials} == {1.0}
    assert found.students[0].metrics["device"] == "bench"
    assert found.students[0].metrics["teacher_latency_ms"] == 3.0
    assert len(made) == 3  # two candidates and a student
    assert all(term.read > 0 for term in made)
    # 2 × 1 of the own term, and what is left to learn of the teacher.
    assert all(trial.attributes["proxy_loss"] > 2.0 for trial in found.trials)

    again = search(own)  # a complete run is read, and other parts are refused all the same
    assert [trial.number for trial in again.trials] == [0, 1]


def test_a_run_is_not_resumed_with_other_parts(search, tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    def stopping(space, seed):
        raise Stop

    with pytest.raises(Stop):
        search(OwnParts(strategy=stopping, space=SPACE, device=Bench()))
    with pytest.raises(RunError, match=r"made with own parts \(strategy .*stopping.*own parts \("):
        search(OwnParts(strategy=Narrowest, space=SPACE, device=Bench()))
    with pytest.raises(RunError, match="now with no own parts"):
        search(OwnParts())


@pytest.mark.parametrize("recipe", ["autodistil", "nas-bert", "autodistill", "layer-map"])
def test_recipes_without_a_task_refuse_them(search, recipe):
    with pytest.raises(SettingsError, match=rf"own parts \(space\).*{recipe} has no use"):
        stillhouse.search(recipe=recipe, own=OwnParts(space=SPACE))


def test_a_strategy_beside_the_controller_is_refused(search):
    def tpe(space, seed):
        return OptunaStrategy(space, make_sampler("tpe"), seed)

    with pytest.raises(SettingsError, match=r"cannot stand beside search\.strategy = controller"):
        search(OwnParts(strategy=tpe), recipe="kd-nas")


def test_a_family_is_added_once(monkeypatch):
    monkeypatch.setattr(anatomy, "FAMILIES", dict(anatomy.FAMILIES))
    stillhouse.add_family("ernie", anatomy.BERT)
    stillhouse.add_family("ernie", anatomy.BERT)
    assert anatomy.FAMILIES["ernie"] is anatomy.BERT
    with pytest.raises(TeacherError, match="'ernie' has another anatomy already"):
        stillhouse.add_family("ernie", anatomy.ROBERTA)
