"""NAS-BERT: blocks trained apart on the teacher's states, shrunk, and put together from a table.

Source: Xu et al., "NAS-BERT: Task-Agnostic and Adaptive-Size BERT Compression with Neural
Architecture Search", KDD 2021, arXiv 2105.14444. What differs here: hidden sizes are in the
proportions of the teacher at hand; latencies are differences of whole chains, timed beside the
teacher; complete models are compared by their loss at masked words; a chosen one is measured as a
whole before it is believed to be within its limit.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product
from typing import TYPE_CHECKING

from stillhouse.recipe.chain_blocks import train_blocks
from stillhouse.recipe.chain_memory import bound_memory
from stillhouse.recipe.chain_nursery import (
    load_chain_teacher,
    open_chain_nursery,
    open_operations,
    set_up_chains,
    time_operations,
)
from stillhouse.recipe.chain_rows import block_row, open_rows
from stillhouse.recipe.chain_selection import select_students
from stillhouse.recipe.chain_table import ChainTable
from stillhouse.recipe.mlm_nursery import refuse_other_origin, with_mlm_head
from stillhouse.recipe.served import say_how_far_served
from stillhouse.run.device_settings import LimitSettings
from stillhouse.space.chain import ChainBlock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from accelerate import Accelerator

    from stillhouse.device.operations import OperationTable
    from stillhouse.recipe.chain_nursery import ChainNursery, ChainSetup
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings

ASKS = ("limits", "select", "pretrain", "finetune", "task")
"""Settings that another selection in the same run may change: its table stays as it is."""

SCORED = (
    "the masked-word loss of complete students is that of {}, too; losses of blocks are told "
    "unquantised"
)
"""What is said where the device is of 8 bits."""

DEFAULT_BUDGET = LimitSettings(speedup=2.0)
"""Asked for where no limit is given."""


def search_chains(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> list[Path]:
    """Makes the table of blocks that the run has not, and chooses a student for each budget.

    Args:
        settings: The run's settings; see `ASKS` for what may differ from an earlier start.
        run: The run directory; workers but the main one write only what they trained into it.
        narrator: Told what is decided on the way.
        accelerator: Device and workers.

    Returns:
        Folders of the selected, one for each budget; none on workers but the main one.

    Raises:
        TeacherError: If the teacher cannot be loaded.
        SettingsError: If no teacher is named, or something is set that does not go with it.
        SpaceError: If the blocks do not divide the teacher's layers.
        RunError: If the teacher's weights are not those that the run began with.
        DataError: If the corpus is too small or has changed.
        DeviceError: If the device runs no operation, or no student is within a limit.
    """
    setup = set_up_chains(settings, load_chain_teacher(settings.teacher.model))
    is_main, budgets = accelerator.is_main_process, _budgets(settings, narrator)
    measured = None
    if is_main and run.is_untouched:  # an impossible limit is told before hours of tokenising
        with run.timed("operations"):
            measured = time_operations(setup, narrator)
        _refuse_hopeless(setup, measured, budgets, measures_memory=True)
    nursery = open_chain_nursery(setup, run, narrator, accelerator)
    if is_main:
        _note_start(nursery)
    with (
        run.timed("operations") if is_main else nullcontext(),
        accelerator.main_process_first(),  # it measures, the others read
    ):
        operations = open_operations(nursery, measured)
    _refuse_hopeless(nursery, operations, budgets)
    with run.timed("teacher's head") if is_main else nullcontext():
        nursery = with_mlm_head(nursery, nursery.text)
    with run.timed("blocks") if is_main else nullcontext():
        supernets = train_blocks(nursery, operations)
    if not accelerator.is_main_process:
        return []
    with run.timed("search"):
        rows = open_rows(nursery, operations, supernets)
        return select_students(nursery, operations, rows, supernets, budgets)


def _budgets(settings: RunSettings, narrator: Narrator) -> tuple[LimitSettings, ...]:
    if not settings.limits:
        narrator.say(
            "No limit given: looking for a student of twice the teacher's speed (--limit)."
        )
    return settings.limits or (DEFAULT_BUDGET,)


def _refuse_hopeless(
    setup: ChainSetup | ChainNursery,
    operations: OperationTable,
    budgets: Sequence[LimitSettings],
    *,
    measures_memory: bool = False,
) -> None:
    """Looks for a budget that even blocks of a single operation exceed, before hours of work.

    Args:
        setup: The space, and the device that tells memory.
        operations: Their latencies.
        budgets: To look at.
        measures_memory: Whether to measure that of the smallest student where it is limited; later
            in a run a noisy measurement must not refuse what was begun.

    Raises:
        DeviceError: If there is one; it names the nearest student.
    """
    space = setup.space
    smallest = [
        ChainBlock(hidden_size=size, operations=(kind,))
        for size, kind in product(space.block.hidden_sizes, space.block.operations)
        if (kind, size) in operations.latency_ms  # the device runs it
    ]
    rows = [
        block_row(setup, operations, place, block, loss=0.0)
        for place, block in product(range(space.blocks), smallest)
    ]
    table = ChainTable(setup, operations, rows)
    for limits in budgets:
        table.select(limits, count=1)
    allowed_mb = [one.memory_mb for one in budgets if one.memory_mb is not None]
    if measures_memory and allowed_mb:
        bound_memory(setup, table, min(allowed_mb))


def _note_start(nursery: ChainNursery) -> None:
    """Writes what the run stands on; refuses another teacher or corpus than it began with."""
    run, corpus = nursery.run, nursery.corpus
    run.write_provenance(nursery.settings, refuse_other_origin(nursery))
    say_how_far_served(nursery.settings.device, nursery.narrator, SCORED)
    space, block = nursery.space, nursery.space.block
    run.update_state(
        {
            "status": "running",
            "task": f"corpus {nursery.settings.corpus.name}",
            "teacher": nursery.teacher.encoder.name,
            "space_size": str(space.size),
        }
    )
    sizes = ", ".join(str(size) for size in block.hidden_sizes)
    nursery.narrator.say(
        f"{space.blocks} blocks of at most {block.most_operations} operations at hidden sizes "
        f"{sizes}: {space.size:.3g} students; corpus of {len(corpus.train):,} sequences of "
        f"{corpus.train.length} tokens, {len(corpus.held_out):,} held out."
    )
