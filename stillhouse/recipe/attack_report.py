"""What a job of attacks found, as it is printed and kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.evaluate.attack_scores import AttackDifference, AttackScores, Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackedModel:
    """How a model stood the attack with synonyms.

    Attributes:
        model: Folder or hub id.
        scores: The figures.
    """

    model: str
    scores: AttackScores


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModels:
    """A model beside the first one.

    Attributes:
        model: Folder or hub id.
        less: The first one, whose figures were taken from those of `model`.
        difference: What is left.
    """

    model: str
    less: str
    difference: AttackDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvGlueAccuracy:
    """Accuracy of a model on a section of AdvGLUE.

    Attributes:
        model: Folder or hub id.
        section: Of the file.
        perturbed: On all its examples.
        perturbed_with_original: On those whose text before the perturbation is told; `None` where
            there are none.
        originals: On these with that text.
    """

    model: str
    section: str
    perturbed: Figure
    perturbed_with_original: Figure | None = None
    originals: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackReport:
    """All that a job found.

    Attributes:
        folder: Where it is kept.
        task: Name of the task.
        texts: Texts attacked.
        without_synonyms: Those of them in which no word has a synonym; they count as robust where
            the model was right.
        conditions: What the attack was, a sentence each.
        models: In the order of the job.
        differences: Each model but the first beside the first.
        adv_glue: By section, models in the order of the job.
    """

    folder: Path
    task: str
    texts: int = 0
    without_synonyms: int = 0
    conditions: tuple[str, ...] = ()
    models: tuple[AttackedModel, ...] = ()
    differences: tuple[ComparedModels, ...] = ()
    adv_glue: tuple[AdvGlueAccuracy, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for a file."""
        return asdict(self) | {"folder": str(self.folder)}
