import random
import warnings

import numpy as np
import pytest
from seqeval import metrics as seqeval
from sklearn import metrics as sklearn_metrics

from stillhouse.data.answers import TagGold
from stillhouse.errors import DataError, SettingsError, TrainingError
from stillhouse.evaluate.metrics import bootstrap, constant_quality, paired_bootstrap, score
from stillhouse.evaluate.tagging import label_table

METRICS = ("entity_f1", "entity_precision", "entity_recall", "tag_accuracy")
KINDS = ("NP", "VP", "person-name")


def iob1(kind, length, before):
    return ["B" if kind == before else "I", *"I" * (length - 1)]


def iob2(kind, length, before):
    return ["B", *"I" * (length - 1)]


def iobes(kind, length, before):
    return ["S"] if length == 1 else ["B", *"I" * (length - 2), "E"]


def bilou(kind, length, before):
    return ["U"] if length == 1 else ["B", *"I" * (length - 2), "L"]


def bmes(kind, length, before):
    return ["S"] if length == 1 else ["B", *"M" * (length - 2), "E"]


def names_of(scheme):
    marks = sorted({mark for length in range(1, 4) for mark in scheme("", length, "")} | {"B"})
    return ["O", *(f"{mark}-{kind}" for kind in KINDS for mark in marks)]


def chunks_of(draw):
    """A sentence as lengths of chunks with their types; `None` for words outside."""
    return [(draw.choice([*KINDS, None]), draw.randint(1, 4)) for _ in range(draw.randint(0, 7))]


def written(chunks, scheme):
    tags, before = [], None
    for kind, length in chunks:
        marks = ["O"] * length if kind is None else scheme(kind, length, before)
        tags += marks if kind is None else [f"{mark}-{kind}" for mark in marks]
        before = kind
    return tags


def changed(tags, names, draw, share=0.3):
    """Puts other tags at random places, whether they fit their neighbours or not."""
    return [draw.choice(names) if draw.random() < share else tag for tag in tags]


def by_seqeval(right, given):
    return {
        "entity_f1": seqeval.f1_score(right, given, zero_division=0),
        "entity_precision": seqeval.precision_score(right, given, zero_division=0),
        "entity_recall": seqeval.recall_score(right, given, zero_division=0),
        "tag_accuracy": seqeval.accuracy_score(right, given),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scheme", [iob1, iob2, iobes])
def test_chunks_are_counted_as_seqeval_counts_them(scheme, seed, tagged):
    draw, names = random.Random(seed), names_of(scheme)
    right = [written(chunks_of(draw), scheme) for _ in range(30)]
    given = [changed(tags, names, draw) for tags in right]
    scores = score(METRICS, *tagged(right, given, names))
    assert list(scores) == list(METRICS)
    assert scores == pytest.approx(by_seqeval(right, given))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scheme", [bilou, bmes])
def test_marks_that_seqeval_does_not_know_stand_for_those_that_it_knows(scheme, seed, tagged):
    draw = random.Random(seed)
    right = [chunks_of(draw) for _ in range(30)]
    given = [
        [
            (draw.choice([*KINDS, None]) if draw.random() < 0.3 else kind, length)
            for kind, length in one
        ]
        for one in right
    ]
    ours, theirs = ([written(one, scheme) for one in part] for part in (right, given))
    scores = score(METRICS, *tagged(ours, theirs, names_of(scheme)))
    known = [[written(one, iobes) for one in part] for part in (right, given)]
    expected = by_seqeval(*known)
    assert scores["entity_f1"] > 0
    assert scores == pytest.approx(expected)


def test_seqeval_itself_loses_chunks_of_bilou():
    tags = [["B-NP", "L-NP", "U-NP", "U-NP", "B-NP", "L-NP"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = seqeval.classification_report(tags, tags, output_dict=True)
    assert found["NP"]["support"] < 4


def test_tags_without_a_type_are_chunks(tagged):
    right, given = [["B", "I", "O", "B"]], [["B", "I", "O", "O"]]
    scores = score(METRICS[:3], *tagged(right, given, ["O", "B", "I"]))
    assert scores == pytest.approx(
        {"entity_f1": 2 / 3, "entity_precision": 1.0, "entity_recall": 0.5}
    )


def test_without_any_chunk_the_chunk_metrics_are_zero(tagged):
    silent = [["O", "O"], ["O"]]
    scores = score(METRICS, *tagged(silent, silent, ["O", "B-NP"]))
    assert scores == {**dict.fromkeys(METRICS[:3], 0.0), "tag_accuracy": 1.0}
    assert label_table(*tagged(silent, silent, ["O", "B-NP"])) == []


def test_a_word_whose_tag_nobody_knows_is_left_out():
    gold = TagGold(
        offsets=np.array([0, 4]), tags_P=np.array([-100, 0, -1, 1]), names=("NOUN", "VERB")
    )
    logits = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert score(("tag_accuracy",), logits, gold) == {"tag_accuracy": 0.5}


@pytest.mark.parametrize("scheme", [iob2, iobes])
def test_the_table_is_seqevals(scheme, tagged):
    draw, names = random.Random(0), names_of(scheme)
    right = [written(chunks_of(draw), scheme) for _ in range(40)]
    given = [changed(tags, names, draw) for tags in right]
    report = seqeval.classification_report(right, given, output_dict=True, zero_division=0)
    expected = {name: row for name, row in report.items() if not name.endswith(" avg")}
    rows = label_table(*tagged(right, given, names))
    assert [row.label for row in rows] == list(expected) == sorted(KINDS)
    for row in rows:
        theirs = expected[row.label]
        assert row.to_dict() == {
            "label": row.label,
            "precision": pytest.approx(theirs["precision"]),
            "recall": pytest.approx(theirs["recall"]),
            "f1": pytest.approx(theirs["f1-score"]),
            "support": theirs["support"],
        }


def test_the_table_of_plain_tags_is_scikit_learns(tagged):
    draw, names = random.Random(1), ["VERB", "NOUN", "ADJ", "never", "ADV"]
    used = [name for name in names if name != "never"]
    right = [[draw.choice(used[:3]) for _ in range(draw.randint(1, 9))] for _ in range(20)]
    given = [changed(tags, used, draw) for tags in right]
    rows = label_table(*tagged(right, given, names))
    assert [row.label for row in rows] == used  # ADV occurs among the given tags alone
    flat = [[tag for tags in part for tag in tags] for part in (right, given)]
    report = sklearn_metrics.classification_report(*flat, output_dict=True, zero_division=0)
    for row in rows:
        assert row.f1 == pytest.approx(report[row.label]["f1-score"])
        assert row.precision == pytest.approx(report[row.label]["precision"])
        assert row.recall == pytest.approx(report[row.label]["recall"])
        assert row.support == report[row.label]["support"]


@pytest.mark.parametrize("metric", METRICS)
def test_the_best_constant_tag_is_the_best_of_all(metric, tagged):
    draw, names = random.Random(3), names_of(iob2)
    right = [written([*chunks_of(draw), ("NP", 1)], iob2) for _ in range(20)]
    every = [tagged(right, [[name] * len(tags) for tags in right], names) for name in names]
    best = max(score([metric], logits, gold)[metric] for logits, gold in every)
    assert best > 0
    assert constant_quality(metric, every[0][1], classes=len(names)) == pytest.approx(best)


def test_the_interval_draws_whole_sentences(tagged):
    draw, names = random.Random(4), names_of(iob2)
    right = [written([*chunks_of(draw), ("VP", 2)], iob2) for _ in range(25)]
    given = [changed(tags, names, draw) for tags in right]
    drawn = np.random.default_rng(7)
    spread = []
    for _ in range(50):
        chosen = drawn.integers(25, size=25)
        spread.append(
            seqeval.f1_score([right[one] for one in chosen], [given[one] for one in chosen])
        )
    expected = np.quantile(spread, [0.025, 0.975])
    interval = bootstrap("entity_f1", *tagged(right, given, names), seed=7, resamples=50)
    assert interval == pytest.approx(expected)


def test_taggers_are_compared_in_pairs(tagged):
    draw, names = random.Random(5), names_of(iob2)
    right = [written([*chunks_of(draw), ("VP", 2)], iob2) for _ in range(200)]
    good, worse = ([changed(tags, names, draw, share) for tags in right] for share in (0.1, 0.4))
    (logits_a, gold), (logits_b, _) = tagged(right, good, names), tagged(right, worse, names)
    difference, low, high = paired_bootstrap("entity_f1", logits_a, logits_b, gold, 0, 200)
    assert difference == pytest.approx(
        seqeval.f1_score(right, good) - seqeval.f1_score(right, worse)
    )
    assert 0 < low < difference < high


def gold_of(tags, names=("O", "B-NP"), offsets=None):
    tags = np.array(tags)
    return TagGold(
        offsets=np.array([0, len(tags)]) if offsets is None else np.array(offsets),
        tags_P=tags,
        names=tuple(names),
    )


@pytest.mark.parametrize(
    ("metric", "logits", "gold", "error", "message"),
    [
        ("accuracy", np.eye(2), gold_of([0, 1]), SettingsError, "choose one of entity_f1"),
        ("entity_f1", np.eye(2), gold_of([0, 1], ["NOUN", "VERB"]), SettingsError, "tag_accuracy"),
        ("tag_accuracy", np.eye(3), gold_of([0, 1]), DataError, r"shape \[2, 2\]"),
        ("tag_accuracy", np.zeros((3, 2)), gold_of([0, 1]), DataError, r"got \[3, 2\]"),
        ("tag_accuracy", np.eye(2), gold_of([-1, -100]), DataError, "labelled sentences only"),
        ("tag_accuracy", np.eye(2), gold_of([0, 2]), DataError, "0 to 1"),
        ("tag_accuracy", np.eye(2), gold_of([0], offsets=[0, 2]), DataError, "there are 1"),
        ("tag_accuracy", np.zeros((0, 2)), gold_of([], offsets=[0]), DataError, "at least one"),
        ("tag_accuracy", np.full((2, 2), np.nan), gold_of([0, 1]), TrainingError, "diverged"),
    ],
)
def test_tags_that_cannot_be_scored_are_refused(metric, logits, gold, error, message):
    with pytest.raises(error, match=message):
        score((metric,), logits, gold)


def sentences_of(path, column):
    """Reads one column of every sentence of a file."""
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    lines = [[line.split() for line in block.split("\n")] for block in blocks]
    return [[fields[column] for fields in block] for block in lines]


@pytest.mark.data
def test_real_chunks_are_scored_as_seqeval_scores_them(data_folder, tagged):
    right = sentences_of(data_folder("tagging/conll2000/test.txt"), 2)
    assert len(right) == 2_012
    names = sorted({tag for tags in right for tag in tags})
    draw = random.Random(0)
    given = [changed(tags, names, draw, 0.1) for tags in right]
    logits, gold = tagged(right, given, names)
    scores = score(METRICS, logits, gold)
    assert scores == pytest.approx(by_seqeval(right, given))
    low, high = bootstrap("entity_f1", logits, gold, seed=0)
    assert low < scores["entity_f1"] < high


@pytest.mark.data
def test_real_parts_of_speech_are_scored_as_seqeval_scores_them(data_folder, tagged):
    right = sentences_of(data_folder("tagging/conll2000/test.txt"), 1)
    names = sorted({tag for tags in right for tag in tags})
    draw = random.Random(0)
    given = [changed(tags, names, draw, 0.1) for tags in right]
    logits, gold = tagged(right, given, names)
    expected = seqeval.accuracy_score(right, given)
    assert score(("tag_accuracy",), logits, gold)["tag_accuracy"] == pytest.approx(expected)
