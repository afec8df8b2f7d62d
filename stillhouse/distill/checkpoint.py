"""Training checkpoints that resume to the same numbers, in safetensors and JSON only.

Each checkpoint is a folder written aside, synced and renamed; its JSON file is written last inside
it and marks it complete. The newest complete one is taken; older ones go when a newer is complete.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from stillhouse.errors import TrainingError
from stillhouse.files import folder_written_aside

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

COMPLETE_FILE = "complete.json"
BEST_FILE = "best.safetensors"


class BestWeights:
    """The scores of a training's evaluations, and the weights of the best; of equals the first.

    Attributes:
        scores: Score by the optimiser steps that were done, in their order.
        weights: Copies on the processor; empty before the first evaluation.
    """

    def __init__(self) -> None:
        """Begins without any evaluation."""
        self.scores: dict[int, float] = {}
        self.weights: dict[str, Tensor] = {}

    @property
    def step(self) -> int | None:
        """Optimiser steps after which the model was best."""
        return max(self.scores, key=lambda step: self.scores[step], default=None)

    @property
    def count_since(self) -> int:
        """Evaluations since the best one."""
        return 0 if self.step is None else sum(step > self.step for step in self.scores)

    def offer(self, step: int, score: float, modules: nn.Module) -> None:
        """Notes the score after `step` steps, and keeps the weights if it is the best so far."""
        self.scores[step] = score
        if self.step == step:
            self.weights = {
                name: tensor.detach().to("cpu", copy=True).contiguous()
                for name, tensor in modules.state_dict().items()
            }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFolder:
    """A place for the checkpoints of one training.

    Attributes:
        path: Folder that holds `step-<n>` folders.
        fingerprint: Names what the training depends on; a checkpoint of another is ignored.
        every_s: Seconds between two checkpoints.
    """

    path: Path
    fingerprint: str
    every_s: float = 30.0

    def save(
        self,
        step: int,
        modules: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: BestWeights | None = None,
    ) -> None:
        """Writes the state after `step` optimiser steps and removes older checkpoints."""
        final = self.path / f"step-{step}"
        with folder_written_aside(final) as aside:
            # Copied, since tied weights share memory, which safetensors refuses.
            weights = {
                name: t.detach().clone(memory_format=torch.contiguous_format)
                for name, t in modules.state_dict().items()
            }
            save_file(weights, aside / "weights.safetensors")
            moments, groups = _flatten_optimizer(optimizer)
            save_file({**moments, **_random_state()}, aside / "optimizer.safetensors")
            state = {"step": step, "fingerprint": self.fingerprint, "groups": groups}
            if best is not None and best.weights:
                save_file(best.weights, aside / BEST_FILE)
                state["scores"] = list(best.scores.items())
            (aside / COMPLETE_FILE).write_text(json.dumps(state))
        for other in self.path.iterdir():
            if other != final:
                shutil.rmtree(other, ignore_errors=True)

    def load(
        self,
        modules: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: BestWeights | None = None,
    ) -> int:
        """Restores the newest complete checkpoint in place.

        Returns:
            Optimiser steps already done; 0 where there is nothing to restore.
        """
        newest = self._newest()
        if newest is None:
            return 0
        state = json.loads((newest / COMPLETE_FILE).read_text())
        modules.load_state_dict(load_file(newest / "weights.safetensors"))
        tensors = load_file(newest / "optimizer.safetensors")
        _restore_random_state(tensors)
        _restore_optimizer(optimizer, tensors, state["groups"])
        if best is not None and "scores" in state:
            best.scores = {int(step): float(score) for step, score in state["scores"]}
            best.weights = load_file(newest / BEST_FILE)
        return int(state["step"])

    def clear(self) -> None:
        """Removes all checkpoints of the training; one that is half removed is none any more."""
        for marker in self.path.glob(f"step-*/{COMPLETE_FILE}"):
            marker.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _newest(self) -> Path | None:
        complete = []
        for marker in self.path.glob(f"step-*/{COMPLETE_FILE}"):
            state = json.loads(marker.read_text())
            if state["fingerprint"] == self.fingerprint:
                complete.append((int(state["step"]), marker.parent))
        return max(complete)[1] if complete else None


def _flatten_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    state = optimizer.state_dict()
    tensors = {
        f"state.{index}.{name}": value.detach().contiguous()
        for index, entry in state["state"].items()
        for name, value in entry.items()
    }
    return tensors, state["param_groups"]


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("state."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    if len(groups) != len(optimizer.param_groups):
        raise TrainingError(
            f"checkpoint has {len(groups)} parameter groups, the training "
            f"{len(optimizer.param_groups)}: delete the checkpoint folder to start again"
        )
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _random_state() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_state(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
