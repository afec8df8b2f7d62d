"""The tables that are part of the package, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import ClassVar, final

import yaml
from pydantic import ConfigDict, TypeAdapter

from stillhouse.benchmark.share import front_shares
from stillhouse.errors import DataError, did_you_mean
from stillhouse.search.recorded import RecordedRow, RecordedTable, read_recorded
from stillhouse.search.replay import replay
from stillhouse.search.strategy import Strategy
from stillhouse.search.trial import Trial
from stillhouse.space.architecture import Architecture
from stillhouse.space.search_space import SearchSpace

TABLES = Path(__file__).with_name("tables")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a table records and how it was made, for people.

    Attributes:
        title: What it is, in a line.
        students: Which architectures.
        teacher: What they learnt from.
        data: What they learnt on.
        training: What one training was.
        quality: What the column quality tells.
        latency_ms: What the column latency_ms tells.
        machine: What it was recorded on.
        recorded: Day of the recording.
        program: What records it again.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    title: str
    students: str
    teacher: str
    data: str
    training: str
    quality: str
    latency_ms: str
    machine: str
    recorded: date
    program: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkTable:
    """A recorded table with its name and its story.

    Attributes:
        name: What `load` takes.
        about: What it records and how it was made.
        recorded: The table, as all that replays takes it.
    """

    name: str
    about: About
    recorded: RecordedTable = field(repr=False)

    @property
    def rows(self) -> Mapping[Architecture, tuple[RecordedRow, ...]]:
        """Every architecture with its trainings: scores and latencies, one row a seed."""
        return self.recorded.rows

    def quality(self, architecture: Architecture) -> float:
        """Return the mean quality over the recorded seeds.

        Raises:
            DataError: The architecture is not in the table.
        """
        return self.recorded.quality(architecture)

    def latency_ms(self, architecture: Architecture) -> float:
        """Return the latency.

        Raises:
            DataError: The architecture is not in the table.
        """
        return self.recorded.latency_ms(architecture)

    def trials(self) -> list[Trial]:
        """Return every architecture as a complete trial of its mean figures."""
        return self.recorded.trials()

    def space(self) -> SearchSpace:
        """Return the search space of the table's architectures."""
        return self.recorded.space()

    def replay(self, strategy: Strategy, *, candidates: int, seed: int) -> list[Trial]:
        """Play a search against the table instead of training.

        Args:
            strategy: Fresh; searches over `space()`.
            candidates: How many architectures to try, at most; repeats are not counted.
            seed: Says which of its recorded trainings each architecture shows, at least 0; the
                same for every strategy.

        Returns:
            All trials by number, repeats included, with the figures that the strategy saw.

        Raises:
            ValueError: The strategy proposes what is not in the table.
        """
        return replay(strategy, self.recorded, candidates=candidates, seed=seed)

    def front_shares(self, trials: Sequence[Trial]) -> list[float]:
        """Return the share of the table's hypervolume that is found after each tried architecture.

        Args:
            trials: Of a replay, by number.

        Returns:
            As `front_shares` of this room says: true figures, 0..1.

        Raises:
            DataError: A trial's architecture is not in the table.
        """
        return front_shares(self.recorded, trials)


def names() -> list[str]:
    """Return the names of all tables."""
    return sorted(path.stem for path in TABLES.glob("*.csv"))


def load(name: str) -> BenchmarkTable:
    """Return a table.

    Args:
        name: One of `names()`.

    Raises:
        DataError: There is none of that name.
    """
    known = names()
    if name not in known:
        raise DataError(
            f"a benchmark table is one of {', '.join(known) or 'none'}, got {name!r}"
            f"{did_you_mean(name, known)}"
        )
    story = yaml.safe_load((TABLES / f"{name}.yaml").read_text(encoding="utf-8"))
    return BenchmarkTable(
        name=name,
        about=TypeAdapter(About).validate_python(story),
        recorded=read_recorded(TABLES / f"{name}.csv"),
    )
