"""Memory while a text corpus is prepared and read: after half of it, and after the whole.

python -m benchmarks.corpus_memory --small
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from transformers import AutoTokenizer

from benchmarks.common import enwiki_folder, heading, minilm_folder
from stillhouse.data.corpus import CorpusSettings, prepare_corpus

BATCH_SIZE = 64
MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one process measured.

    Attributes:
        text_mb: Size of the text files.
        store_mb: Size of the prepared corpus.
        sequences: Of 128 tokens.
        tokens: Without special ones.
        prepare_s: Time of the preparation.
        prepare_mb: Peak of resident memory while preparing, less that before.
        read_mb: Own memory after an epoch of shuffled batches, less that before; pages of the
            memory map, which the system takes back when it needs them, are not counted.
    """

    text_mb: float
    store_mb: float
    sequences: int
    tokens: int
    prepare_s: float
    prepare_mb: float
    read_mb: float


def measure(texts: str) -> Reading:
    """Prepares a folder of texts and reads it once, to be called in a process of its own."""
    process = psutil.Process()
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    with tempfile.TemporaryDirectory() as folder:
        rss = process.memory_info().rss
        start_s = time.perf_counter()
        corpus = prepare_corpus(CorpusSettings(name=texts), tokenizer, Path(folder) / "store")
        prepare_s = time.perf_counter() - start_s
        prepare_mb = (peak_rss() - rss) / MB
        before = own_memory(process)
        for step in range(len(corpus.train) // BATCH_SIZE):
            corpus.train.batch(corpus.train.plan(batch_size=BATCH_SIZE, seed=0, step=step))
        return Reading(
            text_mb=size_mb(Path(texts)),
            store_mb=size_mb(Path(folder) / "store"),
            sequences=len(corpus.train) + len(corpus.held_out),
            tokens=corpus.token_count,
            prepare_s=prepare_s,
            prepare_mb=prepare_mb,
            read_mb=(own_memory(process) - before) / MB,
        )


def peak_rss() -> int:
    """Reads the peak of this program alone; getrusage counts its parent's before the start, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not tell the peak of resident memory")


def own_memory(process: psutil.Process) -> int:
    """Resident bytes that belong to no file."""
    info = process.memory_info()
    return int(info.rss - info.shared)


def size_mb(folder: Path) -> float:
    """Adds up a folder's files, in 10⁶ bytes."""
    return sum(path.stat().st_size for path in folder.iterdir()) / MB


def link_texts(folder: Path, files: list[Path]) -> None:
    """Fills a folder with links to text files; one may occur several times."""
    folder.mkdir()
    for number, file in enumerate(files):
        (folder / f"{number:03}.txt").symlink_to(file.resolve())


def main() -> None:
    """Prints a line for half of the corpus and one for the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the corpus once")
    parser.add_argument("--full", action="store_true", help="the corpus five times over")
    files = sorted(enwiki_folder().glob("*.txt")) * (5 if parser.parse_args().full else 1)
    heading("benchmarks.corpus_memory")
    print(
        f"{'part':<7}{'text MB':>9}{'store MB':>10}{'sequences':>11}{'tokens':>12}{'tokens/s':>10}"
        f"{'peak growth MB':>16}{'growth reading MB':>19}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for part, count in (("half", len(files) // 2), ("whole", len(files))):
            link_texts(Path(folder) / part, files[:count])
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                one = pool.apply(measure, (str(Path(folder) / part),))
            print(
                f"{part:<7}{one.text_mb:>9.1f}{one.store_mb:>10.1f}{one.sequences:>11,}"
                f"{one.tokens:>12,}{one.tokens / one.prepare_s:>10,.0f}{one.prepare_mb:>16.1f}"
                f"{one.read_mb:>19.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
