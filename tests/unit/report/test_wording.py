import json
import shutil

import pytest

from stillhouse.report import chain_wording, check_wording, outcome, wording, write_report
from stillhouse.report.gather import gather


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (8.24, "8.2 s"),
        (185, "3 min 05 s"),
        (59.99, "1 min 00 s"),
        (3599.8, "1 h 00 min"),
        (8040, "2 h 14 min"),
    ],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (12, "12"), (352_000, "352 k"), (4_400_000, "4.4 M"), (999_999, "1.0 M")],
)
def test_counts(value, text):
    assert wording.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.613, "0.61 ms"), (9.999, "10.0 ms"), (12.34, "12.3 ms"), (340, "340 ms"),
     (0.06957, "0.0696 ms"), (0.0000123, "0.0000123 ms"), (0.0, "0.00 ms")],
)  # fmt: skip
def test_milliseconds(value, text):
    assert wording.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0422, "0.042 MB"), (4.94, "4.9 MB"), (438.1, "438.1 MB")]
)
def test_sizes(value, text):
    assert wording.megabytes(value) == text


def test_objectives_carry_their_names_and_units():
    assert wording.objectives(["quality", "latency_ms", "size_mb"]) == "quality, latency and size"
    assert wording.objectives(["reward"]) == "reward"
    assert wording.objective_value("flops_fraction", 0.125) == "12.5 %"
    assert wording.objective_value("latency_ms", 2.0) == "2.00 ms"


def test_a_latency_that_was_not_timed_has_no_interval(full_run, rewrite):
    told = {"latency_ms": 2.0, "latency_low_ms": 2.0, "latency_high_ms": 2.0}
    rewrite(full_run / "students/1/metrics.json", told)

    first, second, _ = gather(full_run).students

    assert wording.latency_interval(first.figures) == ""
    assert wording.latency_interval(second.figures) == "5.76 ms to 7.04 ms"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_ms", 2.5, "latency ≤ 2.5 ms"),
        ("parameters", 12_000_000, "parameters ≤ 12,000,000"),
        ("speedup", 2.0, "speed-up ≥ 2×"),
        ("share", 0.5, "share ≤ 0.5"),
        ("params_m", 2.5, "parameters ≤ 2.5 M"),
        ("flops_fraction", 0.07, "FLOPs ≤ 7 % of the teacher’s"),
    ],
)
def test_limits_carry_their_units(name, value, text):
    assert wording.limit(name, value) == text


def test_students_in_8_bits_have_a_score_before(full_run, rewrite):
    assert wording.served(gather(full_run).students) == ""
    before = {"served_precision": "int8-static", "quality_before_8_bits": 0.9126}
    rewrite(full_run / "students/2/metrics.json", before)  # the others are of an older version
    told = wording.served(gather(full_run).students)
    assert told.startswith("Trials and students are scored in int8-static, as they are served; ")
    assert "; the teacher is not. Before that, in float32, on dev: student 2 0.913." in told

    words = {**before, "metric": "masked_lm_accuracy"}
    rewrite(full_run / "students/2/metrics.json", words)
    told = wording.served(gather(full_run).students)
    assert "; neither the teacher nor the head that tells masked words is. Before" in told
    assert "on held-out text: student 2 0.913." in told


def test_chains_in_8_bits_tell_which_losses_are(chain_run, rewrite):
    before = gather(chain_run)
    assert "int8" not in chain_wording.chain_latencies(before.chains.selected)
    assert "int8" not in outcome.outcome(before)
    file = chain_run / "selected/2/selected.json"
    rewrite(file, {**json.loads(file.read_text()), "served_precision": "int8"})
    shutil.copytree(chain_run / "students/1", chain_run / "students/2")
    after = gather(chain_run)
    told = chain_wording.chain_latencies(after.chains.selected)
    assert told.startswith(chain_wording.chain_latencies(before.chains.selected))
    assert told.endswith(
        "Masked-word losses of complete models are those in int8; losses of blocks, and their "
        "sums, are told unquantised."
    )
    assert "it tells 25.0 % of masked words right in int8 (teacher" in outcome.outcome(after)


def test_moments_are_told_to_the_minute():
    assert wording.moment("2026-01-02T03:04:05.6+00:00") == "2026-01-02 03:04 UTC"
    assert wording.moment("yesterday") == "yesterday"


def test_the_winner_is_the_first_in_rank_within_the_limit(full_run):
    (full_run / "students/1/metrics.json").unlink()

    assert outcome.winner(gather(full_run).students).rank == 10


def test_the_outcome_says_what_the_winner_keeps_and_gains(full_run):
    sentence = outcome.outcome(gather(full_run))

    assert "97.5 % of the teacher’s accuracy (0.819 of 0.840 on dev)" in sentence
    assert "1.60 ms, 5.0× as fast" in sentence
    assert "that meets the limit (latency ≤ 5 ms)" in sentence


def test_the_outcome_admits_a_limit_that_no_student_met(full_run):
    for rank in (1, 10):
        (full_run / f"students/{rank}/metrics.json").unlink()

    assert "does not meet the limit (latency ≤ 5 ms)" in outcome.outcome(gather(full_run))


def test_an_interrupted_run_says_how_to_go_on(interrupted_run):
    assert "Run the same command again" in outcome.outcome(gather(interrupted_run))


def test_latencies_say_how_they_are_known(distill_run):
    path = distill_run / "students/1/metrics.json"
    told = '{"latency_how": "measured", "device": "a chip", "workload_label": "batch 1"}'
    path.write_text(told, encoding="utf-8")

    assert wording.measured_how(gather(distill_run)) == "measured; a chip; batch 1"


@pytest.mark.parametrize(
    ("regret", "told"),
    [
        (None, ""),
        (0.0, "Regret: none."),
        (0.0004, "Regret: less than 0.1 points of accuracy."),
        (0.0123, "Regret: 1.2 points of accuracy."),
    ],
)
def test_regret_is_told_in_points(checked_run, rewrite, describe, regret, told):
    rewrite(checked_run / "proxy_final.json", describe["proxy_final.json"](regret=regret))

    sentence = check_wording.regret(gather(checked_run).proxy_check)

    assert sentence.startswith(told)
    assert bool(sentence) == bool(told)


def test_a_noise_ceiling_of_too_few_trials_is_not_read(checked_run, rewrite, describe):
    check = describe["proxy_final.json"]()
    check["noise"]["agreement"] = {"kendall": None, "spearman": None, "count": 2}
    rewrite(checked_run / "proxy_final.json", check)

    read = gather(checked_run).proxy_check

    assert check_wording.noise_ceiling(read).startswith("Too few trials were judged twice")
    assert check_wording.silence(read.noise.agreement) == "too few to say (n = 2)"


def test_a_reward_of_hidden_states_says_so(checked_run, rewrite, describe):
    reward = {"target_ms": 4.0, "alpha": -0.1, "quality": "hidden"}
    rewrite(checked_run / "controller.json", describe["controller.json"](reward=reward))

    told = check_wording.reward(gather(checked_run).controller, "accuracy")

    assert told == "(1 less hidden-state loss) × (latency ÷ 4.00 ms) to the power −0.1"


@pytest.mark.parametrize(
    ("correlation", "told"),
    [
        ({"count": 5}, "too few to say (n = 5)"),
        ({"count": 30}, "none, for one side is all the same (n = 30)"),
        (
            {"value": -0.04, "low": -0.31, "high": 0.2, "count": 45},
            "−0.04 (95 % interval −0.31 to 0.20, n = 45)",
        ),
    ],
)
def test_what_a_controller_learnt_is_never_a_bare_number(
    checked_run, rewrite, describe, correlation, told
):
    rewrite(checked_run / "controller.json", describe["controller.json"](correlation=correlation))

    assert check_wording.learnt_correlation(gather(checked_run).controller) == told


def test_the_outcome_of_a_family_is_its_last_search(family_run):
    contents = gather(family_run)
    sentence = outcome.outcome(contents)

    assert sentence.startswith("2 searches have been made; the last for parameters ≤ 2.5 M, lat")
    assert "chose student 2 (2 × 128, 2 heads of 32, FFN 512, gelu): 2.00 M parameters" in sentence
    assert "5.0 % of the teacher’s FLOPs, answers in 0.80 ms, 10.0× as fast" in sentence
    assert outcome.headline(contents).rank == 2


def test_one_search_of_a_family_is_told_as_one(family_run, rewrite, describe):
    searches = describe["family.json"]()["searches"][:1]
    rewrite(family_run / "family.json", {"searches": searches})

    sentence = outcome.outcome(gather(family_run))

    assert sentence.startswith("The search for FLOPs ≤ 30 % of the teacher’s chose student 1 (")


def test_a_family_without_its_student_tells_what_is_known(family_run):
    (family_run / "students/2/metrics.json").unlink()

    assert "5.0 % of the teacher’s FLOPs. Only" in outcome.outcome(gather(family_run))


@pytest.mark.parametrize(
    ("kind", "text"),
    [("M", "attention"), ("S7", "convolution of 7"), ("ends", "embeddings, pooler"), ("X", "")],
)
def test_operations_in_words(kind, text):
    assert chain_wording.operation(kind) == text


def test_bins_by_size_alone_are_said_to_be_so():
    assert "by size alone" in chain_wording.shrinking_of((("blocks.bins_by", "size"),))
    assert chain_wording.shrinking_of(()) == ""


def test_a_head_that_the_teacher_brought_is_not_said_to_be_trained(chain_run, rewrite):
    rewrite(chain_run / "mlm/mlm.json", {"is_trained_here": False, "accuracy_fraction": 0.4})

    head = gather(chain_run).chains.head

    assert chain_wording.head_origin(head) == "The teacher brought its own head for masked words."
    assert chain_wording.head_origin(None) == ""


def test_predicted_latencies_say_so_and_how_well(distill_run):
    path = distill_run / "students/1/metrics.json"
    told = {
        "latency_ms": 2.0,
        "latency_low_ms": 1.8,
        "latency_high_ms": 2.2,
        "latency_how": "predicted",
        "device": "a chip, predicted from 60 measurements with a mean error of 3.0%",
        "workload_label": "batch 1",
    }
    path.write_text(json.dumps(told), encoding="utf-8")
    contents = gather(distill_run)

    (student,) = contents.students
    assert wording.latency_interval(student.figures) == "predicted, 1.80 ms to 2.20 ms"
    assert wording.measured_how(contents) == (
        "measured, but where it says predicted; a chip, predicted from 60 measurements with a mean "
        "error of 3.0%; batch 1"
    )
    assert wording.prediction(student.figures) == ""


@pytest.mark.parametrize(
    ("predicted_ms", "error_fraction", "told"),
    [(3.1, -0.03125, "predicted 3.10 ms, 3.1 % too short"), (4.0, 0.25, "too long")],
)
def test_what_was_predicted_stands_beside_what_was_measured(
    distill_run, predicted_ms, error_fraction, told
):
    path = distill_run / "students/1/metrics.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    more = {
        "latency_ms": 3.2,
        "latency_how": "measured",
        "latency_predicted_ms": predicted_ms,
        "latency_predicted_error_fraction": error_fraction,
        "device": "a chip",
    }
    path.write_text(json.dumps(known | more), encoding="utf-8")
    (student,) = gather(distill_run).students

    assert told in wording.prediction(student.figures)
    page = write_report(distill_run).read_text(encoding="utf-8")
    assert f"<small>{wording.prediction(student.figures)}</small>" in page
    assert "Latency: measured; a chip" in page


def test_candidates_of_a_profile_are_told_apart_from_finished_students(full_run):
    path = full_run / "students/1/metrics.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    more = {"latency_predicted_ms": 2.0, "latency_predicted_error_fraction": 0.25}
    path.write_text(json.dumps(known | more), encoding="utf-8")

    told = wording.measured_how(gather(full_run))

    assert told.startswith("predicted for candidates, measured for teacher and students; ")
