"""Chains: students with one operation per layer, made of blocks of one hidden size each.

Identity is no operation here. A block with fewer operations than it may have is simply shorter, so
an identity in the middle cannot be written, and no two blocks compute the same function.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import index as whole
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import ACTIVATIONS

KERNELS = {"S3": 3, "S5": 5, "S7": 7}
"""Tokens that the depthwise convolutions of each separable convolution span."""

OPERATIONS = ("M", "F", *KERNELS)
"""Self-attention of many heads, feed-forward, and separable convolutions."""

_KEYS = ("family", "embedding_size", "blocks", "head_size", "ffn_ratio", "activation")
_BLOCK_KEYS = ("hidden_size", "operations")
_MOST_LISTED = 20_000_000  # rows of `columns`; they take some 350 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainBlock:
    """Operations of one width, one after the other.

    Attributes:
        hidden_size: Width of every operation.
        operations: Names among `OPERATIONS`, first to last; at least one.
    """

    hidden_size: int
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the width and the names.

        Raises:
            SpaceError: The width is not a positive whole number, there is no operation, or one is
                unknown.
        """
        _check_whole("hidden_size", self.hidden_size)
        _check_tuple("operations", self.operations)
        for operation in self.operations:
            check_operation(operation)

    @property
    def key(self) -> str:
        """Short name that two blocks share only if they are equal, as 192-M-F-S3."""
        return "-".join((str(self.hidden_size), *self.operations))

    @property
    def label(self) -> str:
        """Readable name for tables and plots, as 192: M F S3."""
        return f"{self.hidden_size}: {' '.join(self.operations)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainArchitecture:
    """A whole chain: embeddings, then blocks; a linear bridge leads from one width to another.

    Where neighbouring blocks have one width, they compute what a single longer one would, and yet
    are other architectures: blocks are what is searched and trained.

    Attributes:
        embedding_size: Width of the embeddings.
        blocks: First to last; at least one. Every width is a multiple of `head_size`.
        head_size: Width of one attention head; a block has hidden size / head size of them.
        ffn_ratio: Width inside feed-forward operations in multiples of the hidden size.
        activation: Non-linearity of the feed-forward operations, one of `ACTIVATIONS`.
    """

    embedding_size: int
    blocks: tuple[ChainBlock, ...]
    head_size: int = 64
    ffn_ratio: int = 4
    activation: str = "gelu"
    family: ClassVar[Literal["chain"]] = "chain"

    def __post_init__(self) -> None:
        """Check every rule once, so that no reader has to.

        Raises:
            SpaceError: A size is not a positive whole number, there is no block, the width of one
                is no multiple of the head size, or the activation is unknown.
        """
        _check_whole("embedding_size", self.embedding_size)
        _check_tuple("blocks", self.blocks)
        _check_inside(self.head_size, self.ffn_ratio, self.activation)
        _check_widths([block.hidden_size for block in self.blocks], self.head_size)

    @property
    def layers(self) -> int:
        """Number of operations of all blocks together."""
        return sum(len(block.operations) for block in self.blocks)

    @property
    def key(self) -> str:
        """Name that two architectures share only if they are equal; fit for a file name."""
        blocks = "_".join(
            f"{block.hidden_size}-{''.join(block.operations)}" for block in self.blocks
        )
        return (
            f"{self.family}-e{self.embedding_size}-k{self.head_size}-f{self.ffn_ratio}"
            f"-{self.activation}_{blocks}"
        )

    @property
    def label(self) -> str:
        """Readable name for tables and plots."""
        blocks = " | ".join(block.label for block in self.blocks)
        return (
            f"embeddings {self.embedding_size} | {blocks}, heads of {self.head_size}, "
            f"FFN × {self.ffn_ratio}, {self.activation}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain data that `chain_from_dict` reads."""
        return {
            "family": self.family,
            "embedding_size": self.embedding_size,
            "blocks": [
                {"hidden_size": block.hidden_size, "operations": list(block.operations)}
                for block in self.blocks
            ],
            "head_size": self.head_size,
            "ffn_ratio": self.ffn_ratio,
            "activation": self.activation,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpace:
    """All blocks of some widths with 1 to `most_operations` operations, in a fixed order.

    They come by hidden size as given, then shorter ones first, then as words over the operations
    as given. `len` fails beyond what the interpreter can hold; `size` does not.

    Attributes:
        hidden_sizes: Distinct widths.
        operations: Distinct names among `OPERATIONS`.
        most_operations: Operations of the longest blocks.
    """

    hidden_sizes: tuple[int, ...]
    operations: tuple[str, ...] = OPERATIONS
    most_operations: int = 6

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpaceError: A list is empty or repeats itself, a size is not a positive whole number, or
                an operation is unknown.
        """
        _check_distinct("hidden_sizes", self.hidden_sizes)
        for hidden_size in self.hidden_sizes:
            _check_whole("each of hidden_sizes", hidden_size)
        _check_distinct("operations", self.operations)
        for operation in self.operations:
            check_operation(operation)
        _check_whole("most_operations", self.most_operations)

    @property
    def size(self) -> int:
        """Number of blocks."""
        return len(self.hidden_sizes) * self._per_width

    def __len__(self) -> int:
        """Return the number of blocks, as `size` does."""
        return self.size

    def __iter__(self) -> Iterator[ChainBlock]:
        """Yield every block once, in order."""
        for hidden_size in self.hidden_sizes:
            for length in self._lengths:
                for operations in product(self.operations, repeat=length):
                    yield ChainBlock(hidden_size=hidden_size, operations=operations)

    def __getitem__(self, index: int) -> ChainBlock:
        """Return the block at a place of the order.

        Args:
            index: 0 to size - 1.

        Raises:
            SpaceError: There is no such place.
        """
        if not 0 <= index < self.size:
            raise SpaceError(f"the index of a block must be 0 to {self.size - 1}, got {index}")
        place, rest = divmod(whole(index), self._per_width)
        for length in self._lengths:
            if rest < self._words(length):
                break
            rest -= self._words(length)
        digits = []
        for _ in range(length):
            rest, digit = divmod(rest, len(self.operations))
            digits.append(digit)
        return ChainBlock(
            hidden_size=self.hidden_sizes[place],
            operations=tuple(self.operations[digit] for digit in reversed(digits)),
        )

    def index(self, block: ChainBlock) -> int:
        """Return the place of a block in the order.

        Raises:
            SpaceError: The block is not in the space.
        """
        known = set(block.operations) <= set(self.operations)
        length = len(block.operations)
        if block.hidden_size not in self.hidden_sizes or not known or length > self.most_operations:
            raise SpaceError(
                f"a block has one of the hidden sizes {self.hidden_sizes} and at most "
                f"{self.most_operations} of the operations {', '.join(self.operations)}, "
                f"got {block.key}"
            )
        word = 0
        for operation in block.operations:
            word = word * len(self.operations) + self.operations.index(operation)
        shorter = sum(self._words(other) for other in range(1, length))
        return self.hidden_sizes.index(block.hidden_size) * self._per_width + shorter + word

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Return all blocks as arrays, a row each, in order.

        Returns:
            Index of the hidden size, `[N]`; indices of the operations, `[N, most_operations]`,
            with -1 behind the last one of a shorter block.

        Raises:
            SpaceError: The space is too large to be listed.
        """
        if self.size > _MOST_LISTED:
            raise SpaceError(
                f"a space of at most {_MOST_LISTED:,} blocks can be listed, got {self.size:,}; "
                f"divide the network into more blocks, so that each has fewer operations than "
                f"{self.most_operations}"
            )
        words = np.full((self._per_width, self.most_operations), -1, dtype=np.int8)
        start = 0
        for length in self._lengths:
            rows = slice(start, start + self._words(length))
            number = np.arange(self._words(length))
            for place in reversed(range(length)):
                number, words[rows, place] = np.divmod(number, len(self.operations))
            start = rows.stop
        widths = len(self.hidden_sizes)
        return np.repeat(np.arange(widths), self._per_width), np.tile(words, (widths, 1))

    @property
    def _lengths(self) -> range:
        return range(1, self.most_operations + 1)

    @property
    def _per_width(self) -> int:
        return sum(self._words(length) for length in self._lengths)

    def _words(self, length: int) -> int:
        words: int = len(self.operations) ** length
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSpace:
    """All chains of so many blocks, each of them any of one `BlockSpace`.

    Attributes:
        block: What a block may be.
        blocks: Number of blocks.
        embedding_sizes: Distinct widths of the embeddings; the search of blocks leaves them alone.
        head_size: Width of one attention head; every hidden size is a multiple of it.
        ffn_ratio: Width inside feed-forward operations in multiples of the hidden size.
        activation: Non-linearity of the feed-forward operations, one of `ACTIVATIONS`.
    """

    block: BlockSpace
    blocks: int
    embedding_sizes: tuple[int, ...]
    head_size: int
    ffn_ratio: int = 4
    activation: str = "gelu"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpaceError: A size is not a positive whole number, the embedding sizes are none or
                repeat themselves, a hidden size is no multiple of the head size, or the activation
                is unknown.
        """
        _check_whole("blocks", self.blocks)
        _check_distinct("embedding_sizes", self.embedding_sizes)
        for embedding_size in self.embedding_sizes:
            _check_whole("each of embedding_sizes", embedding_size)
        _check_inside(self.head_size, self.ffn_ratio, self.activation)
        _check_widths(self.block.hidden_sizes, self.head_size)

    @property
    def size(self) -> int:
        """Number of chains of one embedding size."""
        chains: int = self.block.size**self.blocks
        return chains

    def architecture(self, blocks: Sequence[ChainBlock], embedding_size: int) -> ChainArchitecture:
        """Put blocks together.

        Args:
            blocks: As many as the space says, each of them one of `block`.
            embedding_size: One of the choices.

        Raises:
            SpaceError: The result would not be in the space.
        """
        if len(blocks) != self.blocks:
            raise SpaceError(f"a chain of this space has {self.blocks} blocks, got {len(blocks)}")
        if embedding_size not in self.embedding_sizes:
            raise SpaceError(
                f"embedding_size must be one of {self.embedding_sizes}, got {embedding_size!r}"
            )
        for block in blocks:
            self.block.index(block)  # refuses a foreign one
        return ChainArchitecture(
            embedding_size=embedding_size,
            blocks=tuple(blocks),
            head_size=self.head_size,
            ffn_ratio=self.ffn_ratio,
            activation=self.activation,
        )


def chain_from_dict(data: Mapping[str, object]) -> ChainArchitecture:
    """Build the architecture that `ChainArchitecture.to_dict` described.

    Args:
        data: Exactly the keys of `to_dict`.

    Returns:
        The validated architecture.

    Raises:
        SpaceError: A key is missing or unknown, the family is another, or a value breaks a rule.
    """
    _check_keys("a chain", data, _KEYS)
    if data["family"] != ChainArchitecture.family:
        raise SpaceError(f"family must be {ChainArchitecture.family!r}, got {data['family']!r}")
    return ChainArchitecture(
        embedding_size=_check_whole("embedding_size", data["embedding_size"]),
        blocks=tuple(_block_from_dict(block) for block in _check_list("blocks", data["blocks"])),
        head_size=_check_whole("head_size", data["head_size"]),
        ffn_ratio=_check_whole("ffn_ratio", data["ffn_ratio"]),
        activation=str(data["activation"]),
    )


def check_operation(operation: object) -> None:
    """Refuse what is no operation.

    Raises:
        SpaceError: The name is not among `OPERATIONS`.
    """
    if operation not in OPERATIONS:
        raise SpaceError(f"an operation is one of {', '.join(OPERATIONS)}, got {operation!r}")


def _block_from_dict(data: object) -> ChainBlock:
    if not isinstance(data, Mapping):
        raise SpaceError(f"a block must have the keys {', '.join(_BLOCK_KEYS)}, got {data!r}")
    _check_keys("a block", data, _BLOCK_KEYS)
    return ChainBlock(
        hidden_size=_check_whole("hidden_size", data["hidden_size"]),
        operations=tuple(str(name) for name in _check_list("operations", data["operations"])),
    )


def _check_keys(what: str, data: Mapping[str, object], expected: tuple[str, ...]) -> None:
    missing = [name for name in expected if name not in data]
    unknown = [str(name) for name in data if name not in expected]
    if missing or unknown:
        raise SpaceError(
            f"{what} has the keys {', '.join(expected)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )


def _check_list(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise SpaceError(f"{name} must be a list, got {value!r}")
    return value


def _check_whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpaceError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _check_tuple(name: str, values: object) -> None:
    if not isinstance(values, tuple) or not values:
        raise SpaceError(f"{name} must be a tuple of at least one, got {values!r}")


def _check_distinct(name: str, values: tuple[object, ...]) -> None:
    _check_tuple(name, values)
    if len(set(values)) < len(values):
        raise SpaceError(f"the values of {name} must be distinct, got {values}; merge them")


def _check_inside(head_size: int, ffn_ratio: int, activation: str) -> None:
    _check_whole("head_size", head_size)
    _check_whole("ffn_ratio", ffn_ratio)
    if activation not in ACTIVATIONS:
        raise SpaceError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def _check_widths(hidden_sizes: Sequence[int], head_size: int) -> None:
    for hidden_size in hidden_sizes:
        if hidden_size % head_size:
            nearest = max(1, round(hidden_size / head_size)) * head_size
            raise SpaceError(
                f"the hidden size of a block must be a multiple of head_size {head_size}, got "
                f"{hidden_size}; the nearest is {nearest}"
            )
