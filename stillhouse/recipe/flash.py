"""Progressive transfer of a MobileBERT: short, to judge a candidate, and long, to finish it.

Source: flash distillation of AutoDistill (Zhang et al. 2022, arXiv 2201.08539), "a much shorter
period of progressive knowledge transfer". How much shorter the paper does not say; 5 % of the
regular steps are our choice. A candidate has learnt no words of its own then, so the teacher's head
reads its last states, through the projection that the transfer trained; that is ours, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stillhouse.distill.attention import attention_rule
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.masked_lm import BorrowedHead
from stillhouse.distill.steps import run_steps
from stillhouse.distill.transfer import TransferLesson, TransferStep
from stillhouse.distill.transfer_losses import EVEN_MIX, MOBILEBERT_MIX
from stillhouse.recipe.candidates import failing_alone
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.served_words import score_words
from stillhouse.search.loop import Judgement

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import MobileBertForMaskedLM

    from stillhouse.recipe.mobile_nursery import MobileNursery
    from stillhouse.space.architecture import Architecture

MIXES = {"mobilebert": MOBILEBERT_MIX, "even": EVEN_MIX}


def judge_by_flash(nursery: MobileNursery, number: int, architecture: Architecture) -> Judgement:
    """Distils a candidate briefly, with its whole budget, and scores it on held-out text.

    Raises:
        CandidateFailed: If it runs out of memory or time, or its loss is not finite.
    """
    return flash_judge(nursery, number, architecture)(nursery.halving.rungs)


def flash_judge(
    nursery: MobileNursery, number: int, architecture: Architecture
) -> Callable[[int], Judgement]:
    """Returns what judges a candidate at a rung of the settings, counted from 1.

    Every rung is a flash distillation from the start: one has a phase for each layer, so that it
    cannot go on where a shorter one ended. The time of a candidate runs from now, over all rungs.
    """
    seconds, halving = nursery.settings.search.candidate_seconds, nursery.halving
    deadline = None if seconds is None else time.monotonic() + seconds

    def judge_at(rung: int) -> Judgement:
        name = f"trial-{number:04d}"
        return flash_distil(
            nursery,
            name if rung == halving.rungs else f"{name}-rung-{rung}",
            architecture,
            share=halving.share(rung),
            deadline=deadline,
        )

    return judge_at


def flash_distil(
    nursery: MobileNursery,
    name: str,
    architecture: Architecture,
    *,
    share: float = 1.0,
    deadline: float | None = None,
) -> Judgement:
    """Distils a student briefly and scores it on held-out text, as the device serves its encoder.

    All students read the same text in the same order, with the same seed and schedule.

    Args:
        nursery: Teacher, text and settings.
        name: Such as `trial-0012`; names its curves.
        architecture: What is built and distilled.
        share: Of the budget of the settings, above 0, at most 1.
        deadline: `time.monotonic()` after which it fails, or `None`.

    Raises:
        CandidateFailed: If it runs out of memory or time, its loss is not finite, or it cannot be
            written in 8 bits for a device that serves it so.
    """
    steps_a_layer = nursery.flash_steps_a_layer(architecture, share)
    with failing_alone():
        student = nursery.build(architecture)
        step = transfer(nursery, student, name, steps_a_layer=steps_a_layer, deadline=deadline)
        head = nursery.teacher.head
        assert head is not None  # `with_mlm_head` gave it one
        scored = score_words(
            nursery,
            BorrowedHead(student=student, projection=step.last_projection, head=head),
            [nursery.judging_text],
        )
    [score] = scored.scores
    return Judgement(
        quality=score.accuracy_fraction,
        attributes={
            "cross_entropy_nats": score.cross_entropy_nats,
            "quality_precision": scored.precision,
            "flash_steps": steps_a_layer * len(step.parts),
            "attention_rule": attention_rule(
                architecture.heads, nursery.teacher_architecture.heads
            ),
        },
    )


def transfer(
    nursery: MobileNursery,
    student: MobileBertForMaskedLM,
    name: str,
    *,
    steps_a_layer: int,
    deadline: float | None = None,
    keeps_checkpoints: bool = False,
) -> TransferStep:
    """Trains a student's layers one after the other, in place.

    Args:
        nursery: Teacher, text and settings.
        student: Fresh.
        name: Names its curves and checkpoints.
        steps_a_layer: Length of each phase.
        deadline: `time.monotonic()` after which it stops with an error, or `None`.
        keeps_checkpoints: Whether a transfer that was interrupted goes on where it was.

    Returns:
        The step, which holds the projections.
    """
    wanted, run = nursery.settings.transfer, nursery.run
    lesson = TransferLesson(
        teacher=nursery.teacher.encoder.model,
        mix=MIXES[wanted.mix],
        steps_a_layer=steps_a_layer,
        precision=nursery.precision,
    )
    step = TransferStep(student, lesson, nursery.text_of(wanted.batch_size), nursery.accelerator)
    checkpoint = None
    if keeps_checkpoints:
        checkpoint = CheckpointFolder(
            path=run.work / "transfer" / name,
            fingerprint=f"{nursery.corpus.fingerprint} {wanted} {steps_a_layer}",
        )
    with watched(
        nursery.narrator,
        run.tensorboard / name,
        f"Transfer to {name.replace('-', ' ')}",
        checkpoint=checkpoint,
        deadline=deadline,
        tokens_a_step=step.tokens,
    ) as watch:
        run_steps(
            step.modules,
            step,
            step.schedule(learning_rate=wanted.learning_rate, weight_decay=wanted.weight_decay),
            accelerator=nursery.accelerator,
            parameters=step.parts,
            watch=watch,
        )
    return step
