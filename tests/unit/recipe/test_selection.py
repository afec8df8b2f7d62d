"""Choosing among four subnets of a teacher of 4 layers of 32, timed by a made-up chip."""

from dataclasses import replace

import pytest

from stillhouse.device.latency import Comparison, Latency, Workload
from stillhouse.errors import DeviceError
from stillhouse.model.encoders import build_encoder
from stillhouse.model.students import student_config
from stillhouse.recipe.selection import Scales, best_within, first_within, refuse_hopeless
from stillhouse.recipe.supernets import ScoredSubnet
from stillhouse.run.device_settings import LimitSettings
from stillhouse.space.architecture import BertArchitecture

WORKLOAD = Workload(length=16)
TEACHER_MS = 12.0


def shape(layers, hidden_size=16, heads=2, ffn_size=32):
    return BertArchitecture(
        layers=layers, hidden_size=hidden_size, heads=heads, head_size=8, ffn_size=ffn_size
    )


LARGE, WIDE, DEEP, SMALL = shape(4, 32, 4, 128), shape(2, 32, 4, 64), shape(4), shape(1)
PARAMETERS = {LARGE: 54368, WIDE: 20640, DEEP: 10416, SMALL: 3744}
"""With 50 words, 24 positions, 2 token types: 76·D + 2·D for embeddings, D² + D for the pooler, and
for each layer 4·D·A + 3·A + D, 2·D·F + F + D and 4·D, where A is 8 times the heads."""

GOOD_TO_BAD = (LARGE, DEEP, WIDE, SMALL)


class Chip:
    """Takes 1 ms a layer, and half as long again at width 32; remembers what it was asked.

    Files have a byte a parameter and 1 kB more; memory is 1 MB at each unit of the FFN's width.
    """

    name = "chip"

    def __init__(self, spread_ms=0.0, has_file=False):
        self.asked, self.weighed = [], []
        self._spread_ms, self._has_file = spread_ms, has_file

    def compare(self, architecture, workload):
        assert replace(workload, precision="float32") == WORKLOAD
        self.asked.append(architecture)
        ms = architecture.layers * (1.5 if architecture.hidden_size == 32 else 1.0)
        return Comparison(
            student=self._latency(ms),
            teacher=self._latency(TEACHER_MS),
            file_mb=(PARAMETERS[architecture] + 1000) / 1e6 if self._has_file else None,
        )

    def peak_memory_mb(self, architecture, workload):
        self.weighed.append(architecture)
        return float(architecture.ffn_size)

    def _latency(self, ms):
        return Latency(
            median_ms=ms,
            low_ms=ms,
            high_ms=ms + self._spread_ms,
            p10_ms=ms,
            p90_ms=ms,
            runs=9,
            how="measured",
            device=self.name,
            workload=WORKLOAD,
        )


@pytest.fixture
def chip():
    return Chip()


@pytest.fixture
def config(tiny_config):
    return tiny_config(
        "bert",
        num_hidden_layers=4,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=128,
    )


@pytest.fixture
def weigh(config, chip):
    """Makes scales for some limits."""

    def make(device=chip, workload=WORKLOAD, **limits):
        return Scales(config, LimitSettings(**limits), device, workload)

    return make


def scored(*architectures, space="tiny"):
    """Subnets of rising loss, told in another order."""
    subnets = [
        ScoredSubnet(space=space, architecture=one, loss=1.0 + place)
        for place, one in enumerate(architectures)
    ]
    return subnets[1:] + subnets[:1]


def shapes(subnets):
    return [subnet.architecture for subnet in subnets]


@pytest.mark.parametrize("one", GOOD_TO_BAD)
def test_parameters_by_hand(weigh, one):
    assert weigh().cost(one).parameters == PARAMETERS[one]


FREE = BertArchitecture(layers=3, hidden_size=16, heads=3, head_size=8, ffn_size=40)


@pytest.mark.parametrize("model", ["bert", "roberta"])
@pytest.mark.parametrize("one", [FREE, SMALL, LARGE])
def test_costs_are_those_of_the_encoder_that_is_built(tiny_config, chip, model, one):
    teacher = tiny_config(
        model, num_hidden_layers=4, hidden_size=32, num_attention_heads=4, intermediate_size=128
    )
    scales = Scales(teacher, LimitSettings(), chip, WORKLOAD)
    built = build_encoder(student_config(one, teacher), seed=0)
    assert scales.cost(one).parameters == sum(p.numel() for p in built.parameters())


def test_costs_are_shares_of_the_teachers(weigh):
    scales = weigh()
    whole, half = scales.cost(LARGE), scales.cost(replace(LARGE, layers=2))
    assert whole.flops_fraction == 1.0
    pooler = 2 * 32 * 32
    assert half.flops - pooler == (whole.flops - pooler) / 2
    assert half.flops_fraction == half.flops / whole.flops


@pytest.mark.parametrize(
    ("limits", "best"),
    [
        ({}, LARGE),
        ({"parameters": 54368}, LARGE),
        ({"parameters": 54367}, DEEP),
        ({"parameters": 10415}, SMALL),
        ({"params_m": 0.0105}, DEEP),
        ({"params_m": 0.0104}, SMALL),
        ({"size_mb": 0.041664}, DEEP),  # 4 bytes each
        ({"size_mb": 0.0416}, SMALL),
        ({"flops_fraction": 0.999}, DEEP),
        ({"flops_fraction": 0.1}, SMALL),
        ({"latency_ms": 5.0}, DEEP),
        ({"latency_ms": 3.9}, WIDE),
        ({"speedup": 3.0}, DEEP),  # 12 / 3 = 4 ms
        ({"speedup": 3.5}, WIDE),  # 3.43 ms
        ({"memory_mb": 127.9}, DEEP),
        ({"memory_mb": 64, "latency_ms": 3.9}, WIDE),
        ({"memory_mb": 63.9, "latency_ms": 3.9}, SMALL),
        ({"latency_ms": 3.9, "parameters": 20639}, SMALL),
        ({"speedup": 3.5, "flops_fraction": 0.3, "params_m": 1.0}, SMALL),
    ],
)
def test_the_lowest_loss_within_every_limit_wins(weigh, limits, best):
    [found] = best_within(scored(*GOOD_TO_BAD), weigh(**limits), 1)
    assert found.architecture == best


def test_runners_up_come_by_their_loss(weigh):
    subnets = scored(*GOOD_TO_BAD)
    assert shapes(best_within(subnets, weigh(), 3)) == [LARGE, DEEP, WIDE]
    assert shapes(best_within(subnets, weigh(latency_ms=3.9), 9)) == [WIDE, SMALL]
    assert [one.loss for one in best_within(subnets, weigh(latency_ms=3.9), 9)] == [3.0, 4.0]


def test_of_equal_losses_the_first_told_wins(weigh):
    subnets = [ScoredSubnet(space="tiny", architecture=one, loss=1.0) for one in GOOD_TO_BAD]
    assert shapes(best_within(subnets, weigh(), 4)) == list(GOOD_TO_BAD)
    assert shapes(best_within(subnets[::-1], weigh(), 2)) == [SMALL, WIDE]


def test_the_same_shape_of_two_spaces_is_two_subnets(weigh, chip):
    subnets = [
        ScoredSubnet(space=space, architecture=DEEP, loss=loss)
        for space, loss in (("base", 2.0), ("small", 1.0))
    ]
    found = best_within(subnets, weigh(latency_ms=5.0), 2)
    assert [one.space for one in found] == ["small", "base"]
    assert chip.asked == [DEEP]


def test_quality_on_a_task_goes_before_the_loss(weigh):
    subnets = [
        replace(subnet, quality=quality)
        for subnet, quality in zip(scored(*GOOD_TO_BAD), (0.5, 0.9, 0.7, 0.6), strict=True)
    ]
    found = best_within(subnets, weigh(), 4)
    assert [one.quality for one in found] == [0.9, 0.7, 0.6, 0.5]


def test_nothing_is_timed_where_no_limit_asks_for_it(weigh, chip):
    best_within(scored(*GOOD_TO_BAD), weigh(parameters=20_640, flops_fraction=0.5), 4)
    assert chip.asked == []


def test_what_is_over_another_limit_is_not_timed(weigh, chip):
    best_within(scored(*GOOD_TO_BAD), weigh(latency_ms=9.0, parameters=20_000), 4)
    assert chip.asked == [DEEP, SMALL]


def test_no_more_are_timed_than_are_wanted(weigh, chip):
    best_within(scored(*GOOD_TO_BAD), weigh(latency_ms=9.0), 2)
    assert chip.asked == [LARGE, DEEP]


def test_what_is_as_large_as_one_that_was_too_slow_is_not_timed(weigh, chip):
    subnets = scored(DEEP, LARGE, WIDE, replace(DEEP, ffn_size=64), SMALL)
    found = best_within(subnets, weigh(latency_ms=3.5), 9)
    assert shapes(found) == [WIDE, SMALL]
    assert chip.asked == [DEEP, WIDE, SMALL]  # wider, but not as deep


def test_every_subnet_is_timed_once(weigh, chip):
    scales = weigh(speedup=3.0)
    for _ in range(2):
        assert shapes(best_within(scored(*GOOD_TO_BAD), scales, 9)) == [DEEP, WIDE, SMALL]
    scales.comparison(SMALL)
    assert sorted(chip.asked, key=GOOD_TO_BAD.index) == list(GOOD_TO_BAD)


def test_a_subnet_that_was_timed_is_told_by_its_own_time(weigh):
    scales = weigh(latency_ms=2.0)
    assert scales.over(DEEP) == scales.over(DEEP) == {"latency_ms": pytest.approx(1.0)}
    assert scales.over(LARGE) == {"latency_ms": float("inf")}


def test_a_latency_that_may_be_above_the_limit_is_above_it(weigh):
    unsure = Chip(spread_ms=0.2)  # 1 ms for the small one, but perhaps 1.2 ms
    [found] = best_within(scored(*GOOD_TO_BAD), weigh(unsure, latency_ms=1.3), 1)
    assert found.architecture == SMALL
    with pytest.raises(DeviceError, match=r"over latency_ms by 9%"):
        best_within(scored(*GOOD_TO_BAD), weigh(Chip(spread_ms=0.2), latency_ms=1.1), 1)


@pytest.mark.parametrize(
    ("limits", "over"),
    [
        ({"parameters": 1872}, "parameters by 100%"),
        ({"params_m": 0.001872}, "params_m by 100%"),
        ({"size_mb": 0.007488}, "size_mb by 100%"),
        ({"flops_fraction": 0.01}, r"flops_fraction by \d+%"),
        ({"latency_ms": 0.5}, "latency_ms by 100%"),
        ({"speedup": 24.0}, "speedup by 100%"),  # 0.5 ms
        ({"latency_ms": 0.5, "speedup": 16.0}, "latency_ms by 100%, speedup by 33%"),
        ({"parameters": 1872, "latency_ms": 0.5}, "parameters by 100%"),
        ({"memory_mb": 16}, "memory_mb by 100%"),
        ({"memory_mb": 16, "latency_ms": 0.5}, "latency_ms by 100%"),
    ],
)
def test_a_limit_below_the_smallest_names_it_and_what_to_do(weigh, limits, over):
    subnets = scored(LARGE, DEEP, space="base") + scored(WIDE, SMALL)
    message = (
        rf"even the smallest of base, tiny \(1 × 16, 2 heads, FFN 32, gelu; 0\.00 M parameters, "
        rf"0\.\d+ of the teacher's FLOPs\) is over {over}\. Loosen the limit, or search spaces of "
        r"smaller students \(supernet\.spaces\) in another run directory"
    )
    with pytest.raises(DeviceError, match=message):
        best_within(subnets, weigh(**limits), 1)


def test_hope_is_lost_only_where_the_smallest_of_every_space_is_over(weigh, chip):
    spaces = {"base": [LARGE, DEEP], "tiny": [WIDE, SMALL]}
    refuse_hopeless(spaces, weigh(parameters=PARAMETERS[SMALL]))
    refuse_hopeless(spaces, weigh(latency_ms=1.0))
    with pytest.raises(DeviceError, match=r"smallest of base, tiny .* is over parameters by"):
        refuse_hopeless(spaces, weigh(parameters=PARAMETERS[SMALL] - 1))
    chip.asked.clear()
    with pytest.raises(DeviceError, match="is over latency_ms by 11%"):
        refuse_hopeless(spaces, weigh(latency_ms=0.9))
    assert set(chip.asked) == {DEEP, SMALL}


def test_memory_is_measured_only_of_what_is_within_all_else_and_wanted(weigh, chip):
    scales = weigh(latency_ms=3.9, memory_mb=200)
    assert shapes(best_within(scored(*GOOD_TO_BAD), scales, 1)) == [WIDE]
    assert (chip.asked, chip.weighed) == ([LARGE, DEEP, WIDE], [WIDE])
    best_within(scored(*GOOD_TO_BAD), weigh(latency_ms=9.0), 4)
    assert chip.weighed == [WIDE]


def test_memory_alone_is_measured_without_latency(weigh, chip):
    assert shapes(best_within(scored(*GOOD_TO_BAD), weigh(memory_mb=40), 9)) == [DEEP, SMALL]
    assert (chip.asked, chip.weighed) == ([], [LARGE, DEEP, WIDE, SMALL])


def test_what_is_as_large_as_one_that_needed_too_much_is_not_measured(weigh, chip):
    subnets = scored(WIDE, LARGE, replace(WIDE, ffn_size=96), DEEP)
    scales = weigh(memory_mb=50)
    assert shapes(best_within(subnets, scales, 9)) == [DEEP]
    assert chip.weighed == [WIDE, DEEP]
    assert scales.over(LARGE) == {"memory_mb": float("inf")}
    assert scales.over(WIDE) == {"memory_mb": pytest.approx(0.28)}


IN_8_BITS = replace(WORKLOAD, precision="int8")


def test_in_8_bits_the_size_is_the_files_where_there_is_one(weigh, chip):
    limit = {"size_mb": 0.0109}  # DEEP has 10,416 bytes of parameters and 11,416 in its file
    loose = weigh(workload=IN_8_BITS, **limit)
    assert shapes(best_within(scored(*GOOD_TO_BAD), loose, 9)) == [DEEP, SMALL]
    chip = Chip(has_file=True)
    files = weigh(chip, workload=IN_8_BITS, **limit)
    assert shapes(best_within(scored(*GOOD_TO_BAD), files, 9)) == [SMALL]
    assert chip.asked == [DEEP, SMALL]  # others are over by their parameters alone
    assert files.known(SMALL).size_mb == pytest.approx(0.004744)


def test_in_float32_no_file_is_written_for_the_size(weigh):
    chip = Chip(has_file=True)
    scales = weigh(chip, size_mb=0.041664)
    assert shapes(best_within(scored(*GOOD_TO_BAD), scales, 1)) == [DEEP]
    assert chip.asked == []


def test_some_are_drawn_without_measuring_the_rest(weigh, chip):
    drawn = [ScoredSubnet(space="tiny", architecture=one, loss=1.0) for one in GOOD_TO_BAD[::-1]]
    found = first_within(drawn, weigh(latency_ms=3.9), 2)
    assert shapes(found) == [SMALL, WIDE]
    assert chip.asked == [SMALL, WIDE]
    assert shapes(first_within(drawn, weigh(latency_ms=3.9), 4)) == [SMALL, WIDE]


def test_what_was_chosen_is_known_in_full(weigh, chip):
    known = weigh().finished(SMALL)
    assert (known.memory_mb, known.parameters) == (32.0, PARAMETERS[SMALL])
    assert known.comparison.student.median_ms == 1.0
    assert (chip.asked, chip.weighed) == ([SMALL], [SMALL])


def test_a_device_that_cannot_tell_memory_is_silent_but_for_a_limit(weigh):
    class Sheet(Chip):
        def peak_memory_mb(self, architecture, workload):
            raise DeviceError("a data sheet tells no memory")

    assert weigh(Sheet()).finished(SMALL).memory_mb is None
    with pytest.raises(DeviceError, match="tells no memory"):
        refuse_hopeless({"tiny": [SMALL]}, weigh(Sheet(), memory_mb=1e6))


def test_the_best_is_within_its_limit_as_it_is_measured(weigh, chip, predicting):
    device = predicting(chip)  # LARGE takes 6 ms, DEEP 4 and WIDE 3: half of that is predicted
    scales = weigh(device, latency_ms=3.5)
    assert shapes(best_within(scored(*GOOD_TO_BAD), scales, 2)) == [WIDE, SMALL]
    assert device.finished == [LARGE, DEEP, WIDE]  # and no runner-up
    assert scales.over(DEEP) == {"latency_ms": pytest.approx(4 / 3.5 - 1)}
    told = scales.finished(WIDE).comparison
    assert (told.student.how, told.student.median_ms) == ("measured", 3.0)
    assert (told.predicted.how, told.predicted.median_ms) == ("predicted", 1.5)
    assert device.finished == [LARGE, DEEP, WIDE]


def test_where_none_is_within_as_it_is_measured_the_smallest_is_named(weigh, chip, predicting):
    with pytest.raises(DeviceError, match=r"even the smallest .* is over latency_ms by 11%"):
        best_within(scored(*GOOD_TO_BAD), weigh(predicting(chip), latency_ms=0.9), 1)


def test_a_student_that_was_never_timed_is_measured_when_it_is_finished(weigh, chip, predicting):
    device = predicting(chip)
    scales = weigh(device, parameters=PARAMETERS[LARGE])
    assert shapes(best_within(scored(*GOOD_TO_BAD), scales, 1)) == [LARGE]
    assert (device.finished, scales.known(LARGE).comparison) == ([], None)
    assert scales.finished(LARGE).comparison.student.how == "measured"
    assert device.finished == [LARGE]


def test_a_predicted_file_is_weighed_before_a_student_of_8_bits_is_chosen(weigh, predicting):
    device = predicting(Chip(has_file=True))
    scales = weigh(device, workload=IN_8_BITS, size_mb=0.0109)  # DEEP: 10,416 bytes, 11,416 in all
    assert shapes(best_within(scored(*GOOD_TO_BAD), scales, 1)) == [SMALL]
    assert device.finished == [DEEP, SMALL]
    assert scales.finished(SMALL).size_mb == pytest.approx(0.004744)
