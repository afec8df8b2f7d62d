"""What a profile is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from stillhouse.device.kinds import MEASURED
from stillhouse.device.predictor import LEAST_ROWS
from stillhouse.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from stillhouse.run.device_settings import DeviceSettings

SpaceName: TypeAlias = Literal[
    "default", "kd-nas", "kd-nas-wide", "autodistil", "autodistill", "nas-bert"
]


SPACES: tuple[SpaceName, ...] = get_args(SpaceName)


BERT_BASE = "BERT-base"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileJob:
    """What to measure.

    Attributes:
        space: Where the architectures are from.
        device: Where they run, one that is measured, and for which workload; its length is given.
        teacher: Hub id or folder of a checkpoint in whose proportions the space is, of which only
            the configuration is read; `None` for BERT-base.
        points: How many to measure, at most.
        seed: Of their choice.
        longest_s: Time after which one measurement ends even if its interval is still wide.
    """

    space: SpaceName
    device: DeviceSettings
    teacher: str | None = None
    points: int = 60
    seed: int = 0
    longest_s: float = 3.0

    def __post_init__(self) -> None:
        """Refuses what is no space or no device here, and too few points."""
        if self.space not in SPACES:
            raise SettingsError(
                f"--space must be one of {', '.join(SPACES)}, got {self.space!r}"
                f"{did_you_mean(self.space, SPACES)}"
            )
        if self.device.kind not in MEASURED:
            raise SettingsError(
                f"--device must be one that is measured ({', '.join(MEASURED)}), got "
                f"{self.device.kind!r}"
            )
        if self.points < LEAST_ROWS:
            raise SettingsError(
                f"--points must be at least {LEAST_ROWS}, from which errors can be told, got "
                f"{self.points}"
            )
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"--seed must be at least 0 and below 2³², got {self.seed}")
