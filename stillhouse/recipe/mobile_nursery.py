"""What all MobileBERTs of an AutoDistill run share, and how one is built, weighed and scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stillhouse.distill.masked_lm import hidden_tokens
from stillhouse.errors import DataError, SettingsError
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.model.mobilebert import build_mobilebert, mobilebert_config
from stillhouse.recipe.mlm_nursery import MlmNursery, load_corpus_teacher, open_mlm_nursery
from stillhouse.recipe.space import with_given
from stillhouse.space.counts import count_flops, count_parameters
from stillhouse.space.mobilebert import MobileBertArchitecture
from stillhouse.space.published import autodistill_for

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import MobileBertForMaskedLM, PreTrainedConfig

    from stillhouse.data.packing import PackedSet
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import LimitSettings, RunSettings
    from stillhouse.space.architecture import Architecture, BertArchitecture
    from stillhouse.space.counts import Ends
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

    @property
    def ends(self) -> Ends:
        """Embeddings of a bare encoder; it has no outputs."""
        return replace(ends_of(self.teacher_config), labels=0)

    def flash_steps_a_layer(self, architecture: Architecture) -> int:
        """Steps of one layer of a candidate; at least one."""
        wanted = self.settings.transfer
        steps = wanted.flash_fraction * (wanted.steps + self.settings.pretrain.steps)
        return max(1, round(steps / architecture.layers))

    def steps_a_layer(self, architecture: Architecture) -> int:
        """Steps of one layer of a student that is distilled in full."""
        return self.settings.transfer.steps // architecture.layers

    def parameters(self, architecture: Architecture) -> int:
        """Counts the parameters of a bare student."""
        return count_parameters(architecture, self.ends).total

    def flops_fraction(self, architecture: Architecture) -> float:
        """Tells a student's operations at the workload's length as a share of the teacher's."""
        length = self.workload.length
        teacher = count_flops(self.teacher_architecture, self.ends, length=length)
        return count_flops(architecture, self.ends, length=length) / teacher

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
    """Loads the teacher, prepares the corpus and settles space and limits; trains nothing.

    Raises:
        TeacherError: If the teacher cannot be loaded, or a MobileBERT cannot follow it.
        SettingsError: If no teacher is named, or something is set that does not go with it.
        SpaceError: If the dimensions given are none of this space.
        DataError: If the corpus is too small or has changed.
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
    _check_steps(settings, max(one.layers for one in space))
    shared = open_mlm_nursery(
        settings,
        run,
        narrator,
        teacher,
        accelerator,
        config_of=lambda shape: mobilebert_config(shape, config),
    )
    _check_held_out(shared)
    return MobileNursery(**vars(shared), space=space)


def _check_steps(settings: RunSettings, layers: int) -> None:
    if settings.transfer.steps < layers:
        raise SettingsError(
            f"transfer.steps must be at least one for each of the {layers} layers, got "
            f"{settings.transfer.steps}"
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
