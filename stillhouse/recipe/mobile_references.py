"""Hand-crafted MobileBERTs beside what a search finds: judged as its trials, or distilled in full.

Source: MobileBERT and MobileBERT-tiny (Sun et al., ACL 2020), which AutoDistill has to beat, in
the proportions of the teacher at hand.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from stillhouse.errors import DeviceError
from stillhouse.files import write_text_atomically
from stillhouse.recipe.competitors import keep_competitors
from stillhouse.recipe.flash import flash_distil
from stillhouse.recipe.mobile_final import Finalist, costs, finish_student
from stillhouse.recipe.mobile_nursery import METRIC
from stillhouse.recipe.mobile_shapes import mobilebert_named
from stillhouse.search.trial import CandidateFailed
from stillhouse.space.published import autodistill_references

if TYPE_CHECKING:
    from pathlib import Path

    from stillhouse.recipe.mobile_nursery import MobileNursery
    from stillhouse.space.mobilebert import MobileBertArchitecture

REFERENCES_FILE = "references.json"

_SHOWN = (
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_how",
    "speedup",
    "parameters",
    "size_mb",
    "flops_fraction",
    "within_limit",
)


def judge_references(nursery: MobileNursery) -> None:
    """Times and flash distils each hand-crafted MobileBERT as a candidate, within limits or not.

    What the device cannot time, and what cannot be trained, is told and left out. All of it lands
    in `references.json`; what an earlier start settled stays.
    """
    file = nursery.run.path / REFERENCES_FILE
    settled: dict[str, list[dict[str, Any]]] = {"points": [], "left_out": []}
    if file.exists():
        settled = json.loads(file.read_text(encoding="utf-8"))
    known = {one["name"] for several in settled.values() for one in several}
    for name, architecture in autodistill_references(nursery.teacher_architecture).items():
        if name in known:
            continue
        try:
            point = _judge(nursery, name, architecture)
        except (DeviceError, CandidateFailed) as error:
            nursery.narrator.say(f"{name} is left out of the comparison: {error}")
            settled["left_out"].append({"name": name, "reason": str(error)})
        else:
            nursery.narrator.say(
                f"{name} ({architecture.label}): {METRIC} {point['quality']:.4f}, "
                f"{point['latency_ms']:.3g} ms, judged as the candidates were."
            )
            settled["points"].append(point)
        write_text_atomically(file, json.dumps(settled, indent=2) + "\n")


def _judge(
    nursery: MobileNursery, name: str, architecture: MobileBertArchitecture
) -> dict[str, Any]:
    known = costs(nursery, architecture)  # first, for the device may not know it
    seconds = nursery.settings.search.candidate_seconds
    judgement = flash_distil(
        nursery,
        f"reference-{name}",
        architecture,
        deadline=None if seconds is None else time.monotonic() + seconds,
    )
    return {
        "name": name,
        "label": architecture.label,
        "architecture": architecture.to_dict(),
        "metric": METRIC,
        "quality": judgement.quality,
        **judgement.attributes,
        **{key: known[key] for key in _SHOWN},
    }


def train_competitors(nursery: MobileNursery) -> None:
    """Distils what was given with `compare` in full, as the winners of the search were."""

    def finish(name: str, called: str) -> Path:
        architecture = mobilebert_named(name, nursery.teacher_architecture)
        finalist = Finalist(
            name=called,
            architecture=architecture,
            how=f"a MobileBERT that was given ({name}), distilled layer by layer",
            facts={"name": name, "trial": None, "flash_quality": None},
        )
        return finish_student(nursery, finalist)

    keep_competitors(nursery.run, nursery.settings.compare, finish, other_kind="hand-crafted")
