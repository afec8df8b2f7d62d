"""Cross-view training of a BiLSTM beside a fine-tuned encoder: CoNLL-2000 chunks, few tags and all.

The tagger learns from a part of the training sentences, and reads the rest of them and English
Wikipedia without tags, or not; all-MiniLM-L6-v2 is fine-tuned on the same sentences. Each is scored
on the official test sentences, which chose nothing. Seconds and energy are those of the training on
this machine, its evaluations on held-out sentences included; the pre-training of MiniLM, which is
not ours to measure, is not in them. Taggers take equally many steps on tags; with other text as
many again on that.

    python -m benchmarks.cross_view --small    # 500 steps on tags, 3 seeds
    python -m benchmarks.cross_view --full     # 6,000 steps on tags, 3 seeds
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import (
    WORK,
    Records,
    enwiki_folder,
    glue_folder,
    heading,
    interval,
    minilm_folder,
    spread,
)
from stillhouse.api import run_cross_view_job, run_finetune_job
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import RunError
from stillhouse.files import write_text_atomically
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
TOKEN = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")
WORDS = range(4, 61)
"""Of a sentence of Wikipedia that is read."""
FRACTIONS = (0.1, 1.0)
TAGGERS = {"tags alone": 0.0, "tags and other text": 1.0}
PRETRAINING = "that of BERT-base took 1,507 kWh (Strubell et al. 2019, table 3, with PUE)"
ENCODER = "fine-tuned MiniLM"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is read and trained.

    Attributes:
        steps: Of a tagger on sentences with tags.
        wiki: Sentences of Wikipedia.
        seeds: Of the taggers, by fraction of the tags.
        encoder_seeds: The same of the encoder.
        epochs: Passes of the encoder, by fraction.
    """

    steps: int
    batch_size: int
    evaluate_every: int
    average: float
    wiki: int
    seeds: Mapping[float, int]
    encoder_seeds: Mapping[float, int]
    epochs: Mapping[float, float]
    max_train: int | None = None


SMALL = Size(
    steps=500,
    batch_size=32,
    evaluate_every=50,
    average=0.98,
    wiki=20_000,
    seeds={0.1: 3, 1.0: 3},
    encoder_seeds={0.1: 3, 1.0: 3},
    epochs={0.1: 5.0, 1.0: 2.0},
)
FULL = Size(
    steps=6_000,
    batch_size=64,
    evaluate_every=500,
    average=0.998,
    wiki=400_000,
    seeds={0.1: 3, 1.0: 3},
    encoder_seeds={0.1: 3, 1.0: 3},
    epochs={0.1: 10.0, 1.0: 4.0},
)


def wiki_sentences(count: int) -> Iterator[list[str]]:
    """Cuts Wikipedia into sentences and words, roughly as the Wall Street Journal's are cut."""
    left = count
    for path in sorted(enwiki_folder().glob("*.txt")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                for sentence in SENTENCE_END.split(line.strip()):
                    words = TOKEN.findall(sentence)
                    if len(words) in WORDS and left:
                        left -= 1
                        yield words
                if not left:
                    return


def wiki_file(count: int) -> Path:
    """Writes these sentences, a line each, or finds them written."""
    path = WORK / "cross_view" / f"wiki-{count}.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{' '.join(words)}\n" for words in wiki_sentences(count))
        write_text_atomically(path, text)
    return path


def task_of(**more: Any) -> dict[str, Any]:
    """The task, with its test sentences for the report."""
    folder = glue_folder().parent / "tagging" / "conll2000"
    return {
        "name": f"conll:{folder / 'train.txt'}",
        "dev": f"conll:{folder / 'test.txt'}",
        "max_length": 128,
        **more,
    }


def train_tagger(size: Size, way: str, fraction: float, seed: int) -> dict[str, Any]:
    """Trains one tagger, or finds it trained."""
    weight = TAGGERS[way]
    unlabelled = {"unlabelled": str(wiki_file(size.wiki))} if weight else {}
    settings = settings_from_dict(
        {
            "task": task_of(max_train=size.max_train, **unlabelled),
            "cross_view": {
                "labels_fraction": fraction,
                "unlabelled_weight": weight,
                "steps": size.steps * (2 if weight else 1),
                "batch_size": size.batch_size,
                "unlabelled_batch_size": size.batch_size,
                "evaluate_every": size.evaluate_every * (2 if weight else 1),
                "average": size.average,
            },
            "seed": seed,
        }
    )
    name = f"{'text' if weight else 'tags'}-{fraction:g}-{seed}"
    run = WORK / "cross_view" / f"{size.steps}-{size.max_train or 'all'}" / name
    return scored(run_cross_view_job(settings, run, LoggingNarrator()).metrics, run)


def train_encoder(size: Size, fraction: float, seed: int) -> dict[str, Any]:
    """Fine-tunes the encoder on the sentences whose tags the taggers read."""
    total = len(load_task(TaskSettings(**task_of(max_train=size.max_train))).train)
    settings = settings_from_dict(
        {
            "task": task_of(max_train=round(fraction * total)),
            "finetune": {
                "model": minilm_folder(),
                "learning_rates": [2e-4],
                "epochs": size.epochs[fraction],
                "batch_size": 16,
            },
            "seed": seed,
        }
    )
    epochs = size.epochs[fraction]
    run = (
        WORK / "cross_view" / f"encoder-{size.max_train or 'all'}" / f"{fraction:g}-{epochs}-{seed}"
    )
    return scored(run_finetune_job(settings, run, LoggingNarrator()).metrics, run)


def scored(told: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """What is recorded of a finished run."""
    names = ("quality", "quality_low", "quality_high")
    return {**{name: told[name] for name in names}, "cost": training_cost(run)}


def training_cost(run: Path) -> dict[str, Any]:
    """Seconds of a run's training, and their share of the energy of the whole run.

    Raises:
        RunError: If an older version trained it, wholly or in part, and counted no cost.
    """
    state = json.loads((run / "run.json").read_text())
    if "cost" not in state or state["cost"].get("is_partial"):
        raise RunError(
            f"{run} was begun by a version that did not count costs: remove this folder and give "
            "the same command again"
        )
    cost, seconds = state["cost"], state["phases_s"]["training"]
    energy_wh = cost["energy_wh"] * seconds / cost["seconds"]
    return {"seconds": seconds, "energy_wh": energy_wh, "how": cost["how"]}


def job_of(records: Records, size: Size, way: str, fraction: float, seed: int) -> dict[str, Any]:
    """Does one job, or finds it done."""
    job = {
        "way": way,
        "fraction": fraction,
        "seed": seed,
        "steps": size.steps if way in TAGGERS else size.epochs[fraction],
        "size": {
            name: str(value) for name, value in asdict(size).items() if not name.endswith("seeds")
        },
    }
    found = records.find(job)
    if found is not None:
        return found
    if way in TAGGERS:
        return records.add(job, train_tagger(size, way, fraction, seed))
    return records.add(job, train_encoder(size, fraction, seed))


def told(found: Sequence[Mapping[str, Any]]) -> str:
    """One way at one fraction: score, seconds and energy."""
    scores = [one["quality"] for one in found]
    seconds = sum(one["cost"]["seconds"] for one in found) / len(found)
    energy_wh = sum(one["cost"]["energy_wh"] for one in found) / len(found)
    if len(found) > 1:
        quality = f"{spread(scores)} over {len(found)} seeds"
    else:
        low, high = found[0]["quality_low"], found[0]["quality_high"]
        quality = f"{scores[0]:.4f} ({low:.4f} to {high:.4f}) over sentences, one seed"
    return f"entity F1 {quality}; {seconds:,.0f} s, {energy_wh:.2f} Wh a training"


def compare(name: str, one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """The difference of two ways, with the same seeds."""
    gaps = [a["quality"] - b["quality"] for a, b in zip(one, other, strict=False)]
    if len(gaps) == 1:
        return f"  {name}: {gaps[0]:+.4f}, one seed; small: not evidence"
    mean, low, high = interval(gaps)
    verdict = "" if low > 0 or high < 0 else "; small: not evidence"
    return f"  {name}: {mean:+.4f} ({low:+.4f} to {high:+.4f}, {len(gaps)} seeds){verdict}"


def main() -> None:
    """Trains and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    size = parser.parse_args().size
    heading("benchmarks.cross_view")
    run(size)


def run(size: Size) -> None:
    """Does all jobs and prints what they found."""
    print(
        f"{size.steps:,} steps of {size.batch_size} sentences with tags, and as many on other "
        f"text: the rest of the training sentences, and {size.wiki:,} of Wikipedia\n"
    )
    records = Records("cross_view")
    for fraction in FRACTIONS:
        print(f"{fraction:.0%} of the tags")
        found = {}
        for way in (*TAGGERS, ENCODER):
            seeds = size.seeds if way in TAGGERS else size.encoder_seeds
            found[way] = [
                job_of(records, size, way, fraction, seed) for seed in range(seeds[fraction])
            ]
            print(f"  {way}: {told(found[way])}", flush=True)
        plain, text = (found[way] for way in TAGGERS)
        print(compare("other text less tags alone", text, plain))
        print(compare("other text less the encoder", text, found[ENCODER]), flush=True)
        print(f"  energy: {found[ENCODER][0]['cost']['how']}", flush=True)
        print(f"  the encoder's pre-training is not in its cost: {PRETRAINING}\n", flush=True)


if __name__ == "__main__":
    main()
