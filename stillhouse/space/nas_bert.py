"""NAS-BERT's search space, as published and scaled to another teacher, and its networks.

Source: Xu et al., KDD 2021, arXiv 2105.14444.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import BlockSpace, ChainArchitecture, ChainBlock, ChainSpace

_TEACHER = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)
_BLOCKS = 4
_HIDDEN_SIZES = (128, 192, 256, 384, 512)
_EMBEDDING_SIZES = (64, 128, 256, 384, 512)  # those of the published networks
_EMBEDDING_STEP = 8
_OPERATIONS_PER_LAYER = 2  # as a teacher's layer is attention and feed-forward
_TABLE_FRACTION = Fraction(1, 2)

# Name: embedding size, then hidden size and operations of each block.
_PUBLISHED: dict[str, tuple[int, tuple[tuple[int, str], ...]]] = {
    "60M": (
        512,
        (
            (512, "S3 M M S7 F F"),
            (512, "F M M S7 F F"),
            (512, "M S5 M F S3 F"),
            (512, "M M S5 F F F"),
        ),
    ),
    "55M": (512, ((512, "F S5 M F M F S7 M S7 M F S5 S3 M S5 S5 F F F M M S5 F"),)),
    "50M": (384, ((512, "F S5 M F S5 F S7 M S7 F F S3 M S5 S7 F M F M S5 M F"),)),
    "45M": (384, ((512, "S3 M S7 F S5 F S7 M S7 M F S7 S3 M S7 S3 F M F M S3 S7 F"),)),
    "40M": (384, ((512, "S3 M S5 M S5 F S5 M S7 F F S3 M S5 S5 S3 F S7 M M F"),)),
    "35M": (256, ((512, "S3 S7 M S7 S3 F M S5 S7 S5 S3 M S5 S5 S3 F S7 M M F"),)),
    "30M": (256, ((512, "S3 M S5 S7 F S5 M S7 S5 F S3 S5 M F S3 S7 M S3 F S5"),)),
    # The seventh operation at 512 is printed without its kernel, as "S512": S5 is our choice.
    "25M": (256, ((384, "S3 M S5 S3 S3 S5"), (512, "S7 S5 M F F M S5 M M F"))),
    "20M": (128, ((384, "S3 M S5 S3 S3 S5"), (512, "M F F M"), (384, "S3 S5 M S5 S3 S5"))),
    "15M": (
        128,
        (
            (384, "S3 M S5 S3 S3 S5"),
            (384, "S5 S5 M S5 S5 S7"),
            (384, "M S5 S5 S5 S5 S5"),
            (384, "S3 S5 M S5 S3 S5"),
        ),
    ),
    "10M": (128, ((384, "S3 S5 M S3 S3 M S7 M S3 S7 M S3"),)),
    "5M": (64, ((192, "S3 S7 M S7 S7 M S3 M S7 S5 M S3"),)),
}


def nas_bert() -> ChainSpace:
    """Return NAS-BERT's space: 4 blocks of 97,650 each, for teachers of 12 layers of 768.

    The 26 candidates of a layer are five operations at five hidden sizes, and identity, which
    stands at the end of a block only. Inside a block all layers share one hidden size.
    """
    return nas_bert_for(_TEACHER, blocks=_BLOCKS)


def nas_bert_for(teacher: BertArchitecture, *, blocks: int) -> ChainSpace:
    """Return NAS-BERT's space in the proportions of another teacher.

    Hidden and embedding sizes are the published fractions of the width of a teacher of 768,
    rounded to whole teacher heads and to multiples of 8, halves up, at least one; values that meet
    are merged. A block has at most twice as many operations as the teacher's layers that it
    replaces, and feed-forward operations are four times as wide inside as outside.

    Args:
        teacher: The teacher's architecture; its activation is kept.
        blocks: Number of blocks; it divides the teacher's layers.

    Returns:
        The space; the published one for the published teacher and 4 blocks.

    Raises:
        SpaceError: The blocks do not divide the teacher's layers.
    """
    _check_divides(blocks, teacher.layers)
    head_size = min(teacher.head_size, teacher.hidden_size)  # free heads may be wider
    return ChainSpace(
        block=BlockSpace(
            hidden_sizes=_scaled(_HIDDEN_SIZES, teacher.hidden_size, step=head_size),
            most_operations=_OPERATIONS_PER_LAYER * teacher.layers // blocks,
        ),
        blocks=blocks,
        embedding_sizes=_scaled(_EMBEDDING_SIZES, teacher.hidden_size, step=_EMBEDDING_STEP),
        head_size=head_size,
        activation=teacher.activation,
    )


def nas_bert_architectures() -> dict[str, ChainArchitecture]:
    """Return the twelve networks that NAS-BERT's paper prints, 60M to 5M.

    The names are nominal sizes; `chain_counts` has the true ones. The paper does not print where
    blocks end. They end here where the hidden size changes, and every six operations in 60M and
    15M, whose 24 operations fill four blocks; longer blocks stand for several ones of one width.
    One operation of 25M is our choice, S5, as its kernel is not printed.
    """
    return {
        name: ChainArchitecture(
            embedding_size=embedding_size,
            blocks=tuple(
                ChainBlock(hidden_size=hidden_size, operations=tuple(operations.split()))
                for hidden_size, operations in blocks
            ),
        )
        for name, (embedding_size, blocks) in _PUBLISHED.items()
    }


def embedding_size_for(space: ChainSpace, *, vocab_size: int, params_limit: int | None) -> int:
    """Choose the width of the embeddings for a size limit.

    It is the largest choice whose word table takes at most half of the parameters, or the smallest
    if none does. The rule is ours: the paper states none. With a vocabulary of 50,265 it chooses
    the embedding sizes of ten of the twelve published networks, and narrower ones for 25M and 10M.

    Args:
        space: Its embedding sizes are the choices.
        vocab_size: Rows of the word table.
        params_limit: Most parameters that the whole student may have; None for any number.

    Returns:
        One of the embedding sizes; the largest without a limit.
    """
    if params_limit is None:
        return max(space.embedding_sizes)
    most = params_limit * _TABLE_FRACTION
    fitting = [size for size in space.embedding_sizes if vocab_size * size <= most]
    return max(fitting, default=min(space.embedding_sizes))


def _check_divides(blocks: int, layers: int) -> None:
    choices = [count for count in range(1, layers + 1) if layers % count == 0]
    if blocks in choices:
        return
    below = [count for count in choices if count < blocks]
    above = [count for count in choices if count > blocks]
    nearest = " or ".join(str(count) for count in (*below[-1:], *above[:1]))
    raise SpaceError(
        f"the number of blocks must divide the teacher's {layers} layers, got {blocks}; "
        f"the nearest that does is {nearest}"
    )


def _scaled(values: Sequence[int], width: int, *, step: int) -> tuple[int, ...]:
    """Scale to a teacher of `width` and round to multiples of `step`, halves up, at least one."""
    steps = (Fraction(value * width, _TEACHER.hidden_size * step) for value in values)
    counts = (math.floor(item + Fraction(1, 2)) for item in steps)
    return tuple(sorted({max(1, count) * step for count in counts}))
