"""Operations, latencies and blocks of chains in words."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.report import wording
from stillhouse.report.chains import ENDS_ROW, Head, Selected

PROFILED = "predicted, then measured"
CHAIN_LATENCIES = {
    "measured": (
        "Predicted latency is the sum of the operations’, and only proposes: a measured model must "
        "be within its limit itself. Each was timed in turn with the teacher, whose latency here "
        "is the median over the timings of operations: where a machine’s speed drifts, compare "
        "speed-ups, not milliseconds."
    ),
    "analytic": (
        "Predicted latency is the sum of the operations’, and only proposes: a model must be "
        "within its limit as a whole. Nothing was timed: whole models, operations and the teacher "
        "are all told from the chip’s data sheet, without spread."
    ),
    wording.PREDICTED: (
        "Predicted latency is the sum of the operations’, and only proposes: a model must be "
        "within its limit as a whole. That of a whole model is told by the device’s profile, and "
        "its interval is that of 95 % for what a measurement would find; models unlike the "
        "profile’s and the teacher were timed."
    ),
    PROFILED: (
        "Latency in the column of predictions is the sum of the operations’, and only proposes: a "
        "model must be within its limit as a whole, first by the device’s profile and then as it "
        "is measured, in turn with the profile’s reference, whose milliseconds all others are in."
    ),
    "sum of operations": (
        "Latency is the predicted one, the sum of the operations’: the device’s table knows these "
        "and the teacher, and no model as a whole."
    ),
}


def chain_latencies(selected: Sequence[Selected]) -> str:
    """How latencies of selected chains are known, and their losses: one device has all of them."""
    hows = [one.figures.latency_how for one in selected]
    if any(wording.prediction(one.figures) for one in selected):
        hows.insert(0, PROFILED)
    told = next(filter(None, map(CHAIN_LATENCIES.get, hows)), "")
    return " ".join(filter(None, (told, _chain_losses(selected))))


def _chain_losses(selected: Sequence[Selected]) -> str:
    """Which losses are told in 8 bits; empty where students are not served so."""
    precisions = (one.figures.served_precision for one in selected)
    precision = next(filter(None, precisions), "")
    if not precision:
        return ""
    return (
        f"Masked-word losses of complete models are those in {precision}; losses of blocks, and "
        "their sums, are told unquantised."
    )


OPERATION_NAMES = {"M": "attention", "F": "feed-forward", ENDS_ROW: "embeddings, pooler"}


def operation(kind: str) -> str:
    """An operation of a chain in words; empty for one that this version does not know."""
    if kind[:1] == "S" and kind[1:].isdecimal():
        return f"convolution of {kind[1:]}"
    return OPERATION_NAMES.get(kind, "")


def head_origin(head: Head | None) -> str:
    """Where the teacher's head for masked words comes from; empty if that is unknown."""
    if head is None or head.is_trained_here is None:
        return ""
    if head.is_trained_here:
        return (
            "The teacher had no head for masked words: one was trained for this run, while the "
            "teacher’s body stayed as it is."
        )
    return "The teacher brought its own head for masked words."


def shrinking_of(settings: Sequence[tuple[str, str]]) -> str:
    """How the candidates of the blocks were thinned out, as far as known."""
    said = dict(settings)
    parts = []
    if said.get("blocks.bins_by") == "size":
        parts.append("Bins are by size alone; latency plays its part when students are selected.")
    elif "blocks.bins_by" in said:
        parts.append(
            "A candidate was dropped at once if its latency lies in another bin than its size."
        )
    if {"blocks.warm_epochs", "blocks.sampled", "blocks.kept"} <= set(said):
        parts.append(
            f"Warm epochs, without a comparison: {said['blocks.warm_epochs']}. Then the worse half "
            f"of up to {said['blocks.sampled']} candidates of each bin went after every epoch, "
            f"until {said['blocks.kept']} were left in it."
        )
    return " ".join(parts)
