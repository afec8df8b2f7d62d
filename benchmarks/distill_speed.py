"""Time of a whole distillation job: stillhouse against a transformers.Trainer subclass, on SST-2.

Both start from texts and a fine-tuned teacher in memory and end with a trained student; tokenising
and stillhouse's cache building are inside the time. The Trainer asks the teacher in `compute_loss`
under `inference_mode`, pads dynamically and groups by length. Same first weights, learning rate,
schedule, batch size, loss. Every job runs in its own process, for its peak memory.

    python -m benchmarks.distill_speed --small     # about 40 minutes on 2 cores; resumes
    python -m benchmarks.distill_speed --full      # all of SST-2; resumes
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset, disable_progress_bars
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from benchmarks.common import (
    Records,
    glue_folder,
    heading,
    read_report_set,
    teacher_run,
)
from stillhouse.data.encoding import encode
from stillhouse.distill.loop import TrainSettings, train
from stillhouse.distill.teacher import cached_teacher
from stillhouse.distill.terms import LogitTerm
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.model.predict import predict
from stillhouse.model.students import build_student, initialise_student, student_config
from stillhouse.model.teachers import hash_weights, load_model, load_tokenizer
from stillhouse.space.architecture import parse_architecture
from stillhouse.space.counts import count_flops

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEARNING_RATE = 3e-4
BATCH_SIZE = 32
MAX_LENGTH = 128
SHAPE = "layers=3"
CANDIDATES = (
    "layers=1", "layers=2", "layers=3", "layers=2,ffn_size=768", "layers=3,ffn_size=768",
    "layers=2,hidden_size=192", "layers=3,hidden_size=192", "layers=4,hidden_size=192",
    "layers=2,hidden_size=288", "layers=3,hidden_size=288",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job to time.

    Attributes:
        side: `ours`, `trainer` (library defaults) or `trainer-eager` (plain attention).
        precision: Arithmetic.
        epochs: Passes over the examples.
        seed: Order of the examples.
        examples: Sentences of the training set.
        many: Distil the ten candidate shapes instead of the one student.
    """

    side: str
    precision: str
    epochs: int
    seed: int
    examples: int
    many: bool = False


def jobs(size: str) -> list[Job]:
    """Lists the jobs of a size, the most telling first."""
    examples = 3_200 if size == "small" else 60_000
    sides = ("ours", "trainer")
    precisions = ("float32", "bfloat16")
    listed = [
        Job(side=side, precision=precision, epochs=3, seed=0, examples=examples)
        for precision in precisions
        for side in sides
    ]
    listed.append(
        Job(side="trainer-eager", precision="bfloat16", epochs=3, seed=0, examples=examples)
    )
    listed += [
        Job(side=side, precision=precision, epochs=1, seed=0, examples=examples, many=True)
        for precision in precisions
        for side in sides
    ]
    for seed in (1, 2):
        listed.append(
            Job(side="ours", precision="bfloat16", epochs=3, seed=seed, examples=examples)
        )
        listed.append(
            Job(side="trainer", precision="float32", epochs=3, seed=seed, examples=examples)
        )
    listed += [
        Job(side=side, precision=precision, epochs=epochs, seed=0, examples=examples)
        for epochs in (1, 5)
        for precision in precisions
        for side in sides
    ]
    return listed


def train_texts(count: int) -> list[str]:
    """Takes the first sentences of a seeded shuffle of the training set."""
    lines = (glue_folder() / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.split("\t")[0] for line in lines]
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[index] for index in order]


def students(teacher: PreTrainedModel, job: Job) -> list[PreTrainedModel]:
    """Builds the students of a job, cut from the teacher."""
    built = []
    for text in CANDIDATES if job.many else (SHAPE,):
        shape = parse_architecture(text, like=architecture_of(teacher.config))
        student = build_student(student_config(shape, teacher.config), seed=0)
        initialise_student(student, teacher, "slices")
        built.append(student)
    return built


def run_ours(
    job: Job,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    made: list[PreTrainedModel],
) -> None:
    """Distils with stillhouse."""
    encoded = encode(Dataset.from_dict({"text_a": texts}), tokenizer, max_length=MAX_LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        signals = cached_teacher(
            teacher,
            encoded,
            frozenset(),
            directory=Path(folder),
            teacher_hash=hash_weights(teacher),
            precision=job.precision,  # type: ignore[arg-type]
            limit_gb=8,
        )
        settings = TrainSettings(
            epochs=job.epochs,
            learning_rate=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            precision=job.precision,  # type: ignore[arg-type]
            seed=job.seed,
        )
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        for student in made:
            train(
                student, encoded, [LogitTerm()], settings, accelerator=accelerator, teacher=signals
            )


def run_trainer(
    job: Job,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    made: list[PreTrainedModel],
) -> None:
    """Distils with a Trainer subclass that asks the teacher at every step."""

    class DistilTrainer(Trainer):
        """KL(teacher ‖ student) on the logits."""

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,  # noqa: FBT001, FBT002  the library's signature
            **_: Any,
        ) -> Any:
            with torch.inference_mode():
                target = teacher(**inputs).logits
            output = model(**inputs)
            loss = torch.nn.functional.kl_div(
                output.logits.float().log_softmax(-1),
                target.clone().float().log_softmax(-1),
                log_target=True,
                reduction="batchmean",
            )
            return (loss, output) if return_outputs else loss

    data = Dataset.from_dict({"text": texts}).map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=MAX_LENGTH),
        batched=True,
        remove_columns=["text"],
    )
    for student in made:
        if job.side == "trainer-eager":
            student.set_attn_implementation("eager")
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=job.epochs,
                per_device_train_batch_size=BATCH_SIZE,
                learning_rate=LEARNING_RATE,
                warmup_steps=0.06,
                weight_decay=0.01,
                max_grad_norm=1.0,
                bf16=job.precision == "bfloat16",
                train_sampling_strategy="group_by_length",
                seed=job.seed,
                use_cpu=not torch.cuda.is_available(),
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
            )
            DistilTrainer(
                model=student,
                args=arguments,
                train_dataset=data,
                data_collator=DataCollatorWithPadding(tokenizer),
                processing_class=tokenizer,
            ).train()


def useful_flops(
    job: Job, teacher: PreTrainedModel, made: list[PreTrainedModel], lengths: np.ndarray[Any, Any]
) -> float:
    """Counts the operations that the job needs: one teacher pass, forward and backward passes."""
    sizes, counts = np.unique(lengths, return_counts=True)

    def forward(model: PreTrainedModel) -> float:
        shape = architecture_of(model.config)
        each = [count_flops(shape, ends_of(model.config), length=int(size)) for size in sizes]
        return float(np.dot(each, counts))

    return forward(teacher) + sum(3 * job.epochs * forward(student) for student in made)


def run_job(job: Job, teacher_folder: Path, out: Path) -> None:
    """Runs one job in this process and writes its figures and the report set's logits."""
    disable_progress_bars()
    teacher, _ = load_model(str(teacher_folder))
    teacher.requires_grad_(requires_grad=False)
    tokenizer = load_tokenizer(str(teacher_folder))
    texts = train_texts(job.examples)
    made = students(teacher, job)
    report_texts, labels = read_report_set()
    report = encode(Dataset.from_dict({"text_a": report_texts}), tokenizer, max_length=MAX_LENGTH)
    lengths = encode(Dataset.from_dict({"text_a": texts}), tokenizer, max_length=MAX_LENGTH).lengths
    start_s = time.perf_counter()
    (run_ours if job.side == "ours" else run_trainer)(job, teacher, tokenizer, texts, made)
    wall_s = time.perf_counter() - start_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    right = []
    for student in made:
        student.set_attn_implementation("sdpa")
        right.append((predict(student, report).argmax(axis=1) == labels).tolist())
    flops = useful_flops(job, teacher, made, lengths)
    result = {"wall_s": wall_s, "peak_mb": peak_mb, "flops": flops, "right": right}
    out.write_text(json.dumps(result))


def matmul_peak(precision: str) -> float:
    """Measures the best rate of a 2,048-square matrix product, in operations a second."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    left, right = (torch.randn(2048, 2048, dtype=dtype) for _ in range(2))
    best_s = float("inf")
    for _ in range(12):
        start_s = time.perf_counter()
        left @ right
        best_s = min(best_s, time.perf_counter() - start_s)
    return 2 * 2048**3 / best_s


def accuracy_difference(ours: list[Any], theirs: list[Any]) -> tuple[float, float, float]:
    """Compares mean accuracies over seeds, in points, with a bootstrap over seeds and examples."""
    first, second = (np.array([record["right"][0] for record in side]) for side in (ours, theirs))
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        examples = generator.integers(first.shape[1], size=first.shape[1])
        a = first[generator.integers(len(first), size=len(first))][:, examples].mean()
        b = second[generator.integers(len(second), size=len(second))][:, examples].mean()
        draws.append(a - b)
    low, high = np.quantile(draws, (0.025, 0.975))
    return 100 * (first.mean() - second.mean()), 100 * low, 100 * high


def print_table(done: dict[Job, dict[str, Any]]) -> None:
    """Prints the figures of all finished jobs."""
    peaks = {precision: matmul_peak(precision) for precision in ("float32", "bfloat16")}
    print("matmul peak: " + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in peaks.items()))
    print(
        f"{'job':<34}{'side':<15}{'precision':<11}{'wall s':>8}{'of peak':>9}"
        f"{'peak MB':>9}{'acc':>8}"
    )
    for job, record in done.items():
        name = f"{len(CANDIDATES)} candidates" if job.many else f"1 student, {job.epochs} epochs"
        name = f"{name}, seed {job.seed}, n={job.examples}"
        share = record["flops"] / record["wall_s"] / peaks[job.precision]
        accuracy = float(np.mean(record["right"]))
        print(
            f"{name:<34}{job.side:<15}{job.precision:<11}{record['wall_s']:>8.1f}{share:>9.1%}"
            f"{record['peak_mb']:>9.0f}{accuracy:>8.4f}"
        )


def print_ratios(done: dict[Job, dict[str, Any]]) -> None:
    """Prints each of our jobs, in the precision that a user gets, beside the Trainer's forms."""
    print("\nstillhouse in bfloat16 (its default here) against the Trainer:")
    for job, record in done.items():
        if job.side != "ours" or job.precision != "bfloat16" or job.seed:
            continue
        for side in ("trainer", "trainer-eager"):
            for precision in ("float32", "bfloat16"):
                other = done.get(Job(**{**asdict(job), "side": side, "precision": precision}))
                if other is not None:
                    name = "10 candidates" if job.many else f"{job.epochs} epochs"
                    ratio = other["wall_s"] / record["wall_s"]
                    print(f"  {name:<14} {side:<14} {precision:<9} {ratio:.2f}x as fast")
    ours = [r for j, r in done.items() if _is_seed_job(j, "ours", "bfloat16")]
    theirs = [r for j, r in done.items() if _is_seed_job(j, "trainer", "float32")]
    if len(ours) == len(theirs) > 1:
        gap, low, high = accuracy_difference(ours, theirs)
        within = low > -1 and high < 1
        print(
            f"\naccuracy, ours bfloat16 less Trainer float32, {len(ours)} seeds, "
            f"n = {len(ours[0]['right'][0])}: {gap:+.2f} points (95 % interval {low:+.2f} to "
            f"{high:+.2f}): {'equal within 1 point' if within else 'not resolved within 1 point'}"
        )


def _is_seed_job(job: Job, side: str, precision: str) -> bool:
    return (job.side, job.precision, job.epochs, job.many) == (side, precision, 3, False)


def main() -> None:
    """Runs what is missing, prints everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="3,200 sentences")
    parser.add_argument("--full", action="store_true", help="60,000 sentences")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        run_job(Job(**json.loads(arguments.job)), teacher_run(), arguments.out)
        return
    heading("benchmarks.distill_speed")
    records = Records("distill_speed")
    teacher_run()
    done: dict[Job, dict[str, Any]] = {}
    for job in jobs("full" if arguments.full else "small"):
        record = records.find(asdict(job))
        if record is None and not arguments.table:
            out = records.folder / "job.json"
            command = [sys.executable, "-m", __spec__.name, "--job", json.dumps(asdict(job))]
            subprocess.run([*command, "--out", str(out)], check=True)
            record = records.add(asdict(job), json.loads(out.read_text()))
            print(f"done: {job} {record['wall_s']:.1f} s", file=sys.stderr, flush=True)
        if record is not None:
            done[job] = record
    print_table(done)
    print_ratios(done)
    if not arguments.full:
        print("\nsmall: 3,200 of 67,349 sentences; times scale, accuracies are of little training")


if __name__ == "__main__":
    main()
