"""A small teacher of masked words: the lower half of all-MiniLM-L6-v2 with fewer pieces.

The checkpoint knows sentences and has no head for masked words. Its first three layers are kept,
its vocabulary is cut to the pieces that Wikipedia has most, and the whole learns masked words on a
text that no student sees.

    python -m benchmarks.mlm_teacher --small   # 2,400 steps
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForMaskedLM,
    BertTokenizerFast,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from benchmarks.common import WORK, enwiki_folder, heading, minilm_folder
from stillhouse.files import folder_written_aside

COUNTED_LINES = 20_000
"""Documents whose pieces are counted."""


@dataclass(frozen=True, kw_only=True)
class TeacherSize:
    """How a teacher is made.

    Attributes:
        layers: First layers that are kept.
        vocabulary: Pieces that are kept.
        steps: Of learning masked words.
        batch: Sequences a step.
        length: Tokens of a sequence.
    """

    layers: int = 3
    vocabulary: int = 8_192
    steps: int = 2_400
    batch: int = 16
    length: int = 64
    learning_rate: float = 1e-3


def text_for_teacher() -> Path:
    """The file that the teacher learns masked words on."""
    return min(enwiki_folder().glob("*.txt"))


def text_for_students() -> Path:
    """The file that students learn and are judged on."""
    return max(enwiki_folder().glob("*.txt"))


def mlm_teacher(size: TeacherSize) -> str:
    """Returns the teacher's folder; it is made once."""
    steps = f"{size.steps}x{size.batch}x{size.length}"
    folder = WORK / f"mlm-teacher-{size.layers}-{size.vocabulary}-{steps}"
    if not folder.exists():
        small = WORK / f"minilm-{size.layers}-{size.vocabulary}"
        if not small.exists():
            cut(size, small)
        teach(size, small, folder)
    return str(folder)


def cut(size: TeacherSize, folder: Path) -> None:
    """Writes the checkpoint with fewer layers and pieces.

    Special pieces and single characters all stay; what is left out falls apart into shorter ones.
    """
    model = AutoModel.from_pretrained(minilm_folder())
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    ids = tokenizer.get_vocab()
    pieces = sorted(ids, key=ids.__getitem__)
    lines = text_for_teacher().read_text(encoding="utf-8").splitlines()[:COUNTED_LINES]
    counts: Counter[str] = Counter()
    for encoded in tokenizer(lines, add_special_tokens=False, verbose=False)["input_ids"]:
        counts.update(pieces[token] for token in encoded)
    special = set(tokenizer.all_special_tokens)
    always = {piece for piece in pieces if piece in special or len(piece.removeprefix("##")) == 1}
    frequent = [piece for piece, _ in counts.most_common() if piece not in always]
    kept = sorted({*always, *frequent[: size.vocabulary - len(always)]}, key=ids.__getitem__)
    place = kept.index("[PAD]")
    words = torch.nn.Embedding(len(kept), model.config.hidden_size, padding_idx=place)
    words.weight.data = model.get_input_embeddings().weight.data[[ids[piece] for piece in kept]]
    model.set_input_embeddings(words)
    model.encoder.layer = model.encoder.layer[: size.layers]
    model.config.num_hidden_layers = size.layers
    model.config.vocab_size, model.config.pad_token_id = len(kept), place
    with folder_written_aside(folder) as aside:
        model.save_pretrained(aside)
        (aside / "vocab.txt").write_text("".join(f"{piece}\n" for piece in kept))
        BertTokenizerFast.from_pretrained(aside).save_pretrained(aside)


def teach(size: TeacherSize, start: Path, folder: Path) -> None:
    """Trains all weights on masked words and writes the model with its head."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = BertForMaskedLM.from_pretrained(start, attn_implementation="eager")
    arguments = TrainingArguments(
        output_dir=str(folder.with_suffix(".work")),
        max_steps=size.steps,
        per_device_train_batch_size=size.batch,
        learning_rate=size.learning_rate,
        warmup_steps=size.steps // 10,
        weight_decay=0.01,
        use_cpu=not torch.cuda.is_available(),
        bf16=True,
        logging_steps=100,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=0)
    Trainer(
        model=model,
        args=arguments,
        train_dataset=sequences(size, tokenizer),
        data_collator=collator,
        processing_class=tokenizer,
    ).train()
    with folder_written_aside(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def sequences(size: TeacherSize, tokenizer: BertTokenizerFast) -> Dataset:
    """Packs as much text as the steps read into sequences of one length."""
    inner = size.length - 2
    wanted = size.steps * size.batch
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    tokens: list[int] = []
    with text_for_teacher().open(encoding="utf-8") as file:
        for line in file:
            tokens += tokenizer(line, add_special_tokens=False, verbose=False)["input_ids"]
            if len(tokens) >= wanted * inner:
                break
    rows = [
        [begin, *tokens[place : place + inner], end]
        for place in range(0, min(len(tokens) - inner, wanted * inner), inner)
    ]
    return Dataset.from_dict({"input_ids": rows})


def main() -> None:
    """Makes the teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the only size there is")
    parser.parse_args()
    heading("benchmarks.mlm_teacher")
    print(mlm_teacher(TeacherSize()))


if __name__ == "__main__":
    main()
