"""What all MobileBERTs of an AutoDistill run share, and how one is built, weighed and scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.predicted import PredictedDevice
from stillhouse.distill.masked_lm import hidden_tokens
from stillhouse.errors import DataError, SettingsError
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.mobilebert import build_mobilebert, mobilebert_config
from stillhouse.recipe.candidates import screening_of
from stillhouse.recipe.limits import weigh
from stillhouse.recipe.mlm_nursery import (
    MlmNursery,
    load_corpus_teacher,
    open_mlm_nursery,
    set_up_mlm,
)
from stillhouse.recipe.mobile_shapes import mobilebert_named
from stillhouse.recipe.searching import refuse_hopeless
from stillhouse.recipe.selection import Scales
from stillhouse.recipe.space import with_given
from stillhouse.search.halving import Halving
from stillhouse.space.mobilebert import MobileBertArchitecture
from stillhouse.space.published import autodistill_for

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import MobileBertForMaskedLM, PreTrainedConfig

    from stillhouse.data.packing import PackedSet
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.search.loop import Screening
    from stillhouse.space.architecture import Architecture, BertArchitecture
    from stillhouse.space.search_space import SearchSpace

FEWEST_HELD_OUT = 2
METRIC = "masked_lm_accuracy"
"""What students are judged by: the share of masked tokens of held-out text that are told right."""
RECIPE = "autodistill"


@dataclass(frozen=True, kw_only=True)
class MobileNursery(MlmNursery):
    """What all students of a run share.

    Attributes:
        space: Where to search.
    """

    space: SearchSpace

    @property
    def limits(self) -> LimitSettings:
        """What a student must stay within; none is needed, for latency is an objective."""
        return self.settings.limit

    @property
    def judging_text(self) -> PackedSet:
        """Held-out sequences that everything is chosen on."""
        return self.corpus.held_out.part(0, len(self.corpus.held_out) // 2)

    @property
    def report_text(self) -> PackedSet:
        """Held-out sequences that chose nothing."""
        count = len(self.corpus.held_out)
        return self.corpus.held_out.part(count // 2, count)

    @property
    def teacher_config(self) -> PreTrainedConfig:
        """The teacher's configuration."""
        config: PreTrainedConfig = self.teacher.encoder.model.config
        return config

    @property
    def teacher_architecture(self) -> BertArchitecture:
        """Shape of the teacher."""
        return architecture_of(self.teacher_config)

    @cached_property
    def scales(self) -> Scales:
        """Weighs bare students."""
        return Scales(self.teacher_config, self.limits, self.device, self.workload)

    @property
    def halving(self) -> Halving:
        """How the budget of a candidate grows."""
        wanted = self.settings.transfer
        return Halving(rungs=wanted.rungs, reduction=wanted.reduction)

    def flash_steps_a_layer(self, architecture: Architecture, share: float = 1.0) -> int:
        """Steps of one layer of a candidate with a share of its budget; at least one."""
        steps = share * flash_steps(self.settings)
        return max(1, round(steps / architecture.layers))

    def steps_a_layer(self, architecture: Architecture) -> int:
        """Steps of one layer of a student that is distilled in full."""
        return self.settings.transfer.steps // architecture.layers

    def parameters(self, architecture: Architecture) -> int:
        """Counts the parameters of a bare student."""
        return self.scales.cost(architecture).parameters

    def flops_fraction(self, architecture: Architecture) -> float:
        """Tells a student's operations at the workload's length as a share of the teacher's."""
        return self.scales.cost(architecture).flops_fraction

    def build(self, architecture: Architecture) -> MobileBertForMaskedLM:
        """Builds a student with the first weights that it always has, where it is trained."""
        assert isinstance(architecture, MobileBertArchitecture)
        student = build_mobilebert(
            mobilebert_config(
                architecture, self.teacher_config, dropout=self.settings.pretrain.dropout
            ),
            self.teacher.encoder.model,
            seed=self.settings.seed,
        )
        student.to(self.accelerator.device)
        return student


def open_mobile_nursery(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> MobileNursery:
    """Loads the teacher, settles space and limits and prepares the corpus; trains nothing.

    In a run that is not begun the smallest student is weighed, before hours of tokenising; later a
    noisy measurement must not refuse what was begun.

    Raises:
        TeacherError: If the teacher cannot be loaded, or a MobileBERT cannot follow it.
        SettingsError: If no teacher is named, or something is set that does not go with it.
        SpaceError: If the dimensions given are none of this space, or a shape breaks a rule.
        DeviceError: If even the smallest student is over a limit, or its latency, or that of a
            given one to compare, cannot be told.
        DataError: If the corpus is missing, too small or has changed.
    """
    if settings.corpus.held_out < FEWEST_HELD_OUT:
        raise SettingsError(
            f"corpus.held_out must be at least {FEWEST_HELD_OUT}, got {settings.corpus.held_out}: "
            "one half of that text chooses students, the other is for the report"
        )
    teacher = load_corpus_teacher(settings.teacher.model, recipe=RECIPE)
    config = teacher.encoder.model.config
    space = with_given(autodistill_for(architecture_of(config)), settings.space)
    smallest = space.smallest()
    assert isinstance(smallest, MobileBertArchitecture)
    mobilebert_config(smallest, config)  # refuses a teacher that none can follow
    given = [mobilebert_named(name, architecture_of(config)) for name in settings.compare]
    _check_steps(settings, max(one.layers for one in (*space, *given)))
    setup = set_up_mlm(settings, teacher, config_of=lambda shape: mobilebert_config(shape, config))
    if run.is_untouched:
        scales = Scales(config, settings.limit, setup.device, setup.workload)
        _refuse_hopeless(scales, settings.limit, smallest)
        if not isinstance(setup.device, MeasuredDevice | PredictedDevice):  # which can time any
            for one in given:
                setup.device.compare(one, setup.workload)
    shared = open_mlm_nursery(setup, run, narrator, accelerator)
    _check_held_out(shared)
    return MobileNursery(**vars(shared), space=space)


def flash_steps(settings: RunSettings) -> float:
    """Tells the steps of a candidate's whole budget, over all layers."""
    wanted = settings.transfer
    return wanted.flash_fraction * (wanted.steps + settings.pretrain.steps)


def screen_mobilebert(
    scales: Scales, limits: LimitSettings, architecture: Architecture
) -> Screening:
    """Tells a candidate's latency, size and distance from every limit, before any training.

    Raises:
        DeviceError: If the device cannot tell its latency, or its memory where that is limited.
    """
    cost = scales.cost(architecture)
    weighed = weigh(
        scales.device,
        architecture,
        scales.workload,
        limits,
        parameters=cost.parameters,
        flops_fraction=cost.flops_fraction,
    )
    return screening_of(weighed, limits)


def _refuse_hopeless(scales: Scales, limits: LimitSettings, smallest: Architecture) -> None:
    refuse_hopeless(
        smallest,
        screen_mobilebert(scales, limits, smallest),
        limits,
        device=scales.device,
        workload=scales.workload,
    )


def _check_steps(settings: RunSettings, layers: int) -> None:
    if settings.transfer.steps < layers:
        raise SettingsError(
            f"transfer.steps must be at least one for each of the {layers} layers, got "
            f"{settings.transfer.steps}"
        )
    wanted, steps = settings.transfer, flash_steps(settings)
    shortest = steps / wanted.reduction ** (wanted.rungs - 1)
    if wanted.rungs > 1 and shortest < layers:
        raise SettingsError(
            f"transfer.rungs = {wanted.rungs} with transfer.reduction = {wanted.reduction} leaves "
            f"the shortest judgement {shortest:.1f} of {steps:.0f} flash steps, fewer than one for "
            f"each of the {layers} layers: take fewer rungs, or raise transfer.flash_fraction"
        )


def _check_held_out(nursery: MlmNursery) -> None:
    """Refuses a corpus of which so little is held out that nothing could be told of students."""
    count = len(nursery.corpus.held_out)
    held_out = nursery.corpus.held_out
    halves = held_out.part(0, count // 2), held_out.part(count // 2, count)
    if not all(hidden_tokens(half, nursery.masker) for half in halves):
        raise DataError(
            f"{count} sequences of {nursery.settings.corpus.name} are held out, a tenth of it at "
            "most, and in half of them no token is hidden: give more text"
        )
