"""Attacking checkpoints: which texts, under which constraints, and what comes of it.

Letters in names: N texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.adv_glue import adv_glue_sections, read_adv_glue
from stillhouse.data.glue import GLUE_TASKS
from stillhouse.data.task import load_task
from stillhouse.errors import DataError, RunError, SettingsError
from stillhouse.evaluate.attack import TEXTS_AT_ONCE, Attack, Outcome, Target, attack_targets
from stillhouse.evaluate.attack_constraints import (
    STOP_WORDS,
    USUAL_SIMILARITY,
    CheckpointTagger,
    Constraint,
    EncoderSimilarity,
    ListedParts,
    TaggedParts,
    read_stop_words,
)
from stillhouse.evaluate.attack_scores import Figure, compare_attacks, score_attack, share
from stillhouse.evaluate.synonyms import MOST_SYNONYMS, read_synonyms
from stillhouse.files import hash_file, held_alone, write_text_atomically
from stillhouse.model.teachers import hash_weights
from stillhouse.recipe.attack_folder import (
    OUTCOMES_FILE,
    RESULT_FILE,
    TEXTS_FILE,
    OutcomesFile,
    refuse_other,
    side_by_side,
)
from stillhouse.recipe.attack_report import (
    AdvGlueAccuracy,
    AttackedModel,
    AttackReport,
    ComparedModels,
)
from stillhouse.recipe.victims import NO_UNKNOWN, Victim, load_victim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.data.adv_glue import AdvGlueSection
    from stillhouse.data.examples import Examples
    from stillhouse.data.metric_names import TaskKind
    from stillhouse.data.task import Task, TaskSettings
    from stillhouse.evaluate.synonyms import Synonyms
    from stillhouse.run.progress import Narrator

_WHY_NOT: Mapping[TaskKind, str] = {
    "multi_label": "its examples have any number of labels, and no single one can be flipped",
    "scores": "it is a regression, which has no label that could be flipped",
    "tags": "every word has a label of its own, and so might the word that replaces it",
    "spans": "its answers are parts of the text, which the attack would change",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintSettings:
    """What restricts replacements.

    Attributes:
        stop_words: File of words that are never replaced, one a line; by default `STOP_WORDS`.
        parts_of_speech: `.tsv` file of synonyms, whose `pos` word and synonym must share.
        pos_tagger: Checkpoint that tags words with universal parts of speech.
        similarity: Checkpoint of an encoder that compares texts.
        least_similarity: What it must find, at most 1.
    """

    stop_words: Path | None = None
    parts_of_speech: Path | None = None
    pos_tagger: str | None = None
    similarity: str | None = None
    least_similarity: float = USUAL_SIMILARITY

    def __post_init__(self) -> None:
        """Refuses a number that nothing asks for.

        Raises:
            SettingsError: If there is a least similarity but nothing that tells similarity.
        """
        if self.similarity is None and self.least_similarity != USUAL_SIMILARITY:
            raise SettingsError(
                "a least similarity needs an encoder that tells it; name one as --similarity"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackJob:
    """What is attacked, and how.

    Attributes:
        models: Checkpoint folders or hub ids, fine-tuned on the task; all are attacked on the same
            texts, and each is compared with the first.
        task: The task; its dev set is attacked.
        synonyms: Synonym file; without it only AdvGLUE is evaluated.
        constraints: What restricts replacements.
        examples: Most dev examples that are attacked, drawn by chance.
        seed: Of that draw, and of the resamples of intervals.
        adv_glue: AdvGLUE's `dev_ann.json`, to evaluate the task's examples in it as well.
        at_once: Texts whose attack is under way at a time.
    """

    models: tuple[str, ...]
    task: TaskSettings
    synonyms: Path | None = None
    constraints: ConstraintSettings = field(default_factory=ConstraintSettings)
    examples: int = 200
    seed: int = 0
    adv_glue: Path | None = None
    at_once: int = TEXTS_AT_ONCE

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            SettingsError: If there is nothing to attack, or nothing to attack with.
        """
        if not self.models:
            raise SettingsError("an attack needs a model; name at least one checkpoint")
        if self.synonyms is None and self.adv_glue is None:
            raise SettingsError(
                "an attack needs a synonym file (--synonyms FILE), AdvGLUE's dev_ann.json "
                "(--adv-glue FILE), or both"
            )
        if self.synonyms is None and self.constraints != ConstraintSettings():
            raise SettingsError(
                "stop words, parts of speech and similarity restrict an attack with synonyms, but "
                "no synonym file is given (--synonyms FILE)"
            )
        for name, value in (("examples", self.examples), ("at_once", self.at_once)):
            if value < 1:
                raise SettingsError(f"{name} is at least 1, but is {value}")


def attack_checkpoints(job: AttackJob, out: Path, narrator: Narrator) -> AttackReport:
    """Attacks checkpoints with synonyms, evaluates them on AdvGLUE, or both.

    Every finished text is kept at once, so that the same job again goes on where one was stopped;
    more `examples` may be asked for then.

    Args:
        job: What to do.
        out: Folder for `attack.json`, `adversarial.tsv` (the texts side by side, replaced words in
            double square brackets) and what is kept on the way.
        narrator: Told the progress.

    Raises:
        SettingsError: If the task cannot be attacked, or a constraint's checkpoint does not fit.
        DataError: If a file is broken, a model is not one of the task, or no text has a synonym.
        TeacherError: If a checkpoint cannot be loaded.
        RunError: If the folder holds another attack, or another process works there.
    """
    sections = _sections(job)
    task = None if job.synonyms is None else load_task(job.task)
    if task is None:
        names = GLUE_TASKS[job.task.name.removeprefix("glue/")].label_names
    else:
        _refuse_unlike(task)
        names = task.label_names
    victims = [load_victim(name, names, max_length=job.task.max_length) for name in job.models]
    out.mkdir(parents=True, exist_ok=True)
    refusal = RunError(f"{out} is in use by another attack: wait for it, or give another --out")
    with held_alone(out / ".lock", refusal):
        report = AttackReport(folder=out, task=job.task.name)
        if task is not None:
            report = _attack_all(job, task, victims, out, narrator)
        accuracies = tuple(_on_adv_glue(victim, one) for one in sections for victim in victims)
        report = replace(report, adv_glue=accuracies)
        text = json.dumps(report.to_dict(), indent=2, allow_nan=False)
        write_text_atomically(out / RESULT_FILE, f"{text}\n")
    return report


def choose_targets(task: Task, *, most: int, seed: int) -> list[Target]:
    """Draws dev examples; with a larger `most` the same and more.

    Args:
        task: With one label an example.
        most: How many, at most.
        seed: Of the draw.
    """
    columns = task.dev.with_format(None)[:]
    texts = zip(*(columns[name] for name in ("text_a", "text_b") if name in columns), strict=True)
    targets = [
        Target(key=key, texts=pair, label=label)
        for key, (pair, label) in enumerate(zip(texts, columns["label"], strict=True))
    ]
    drawn = np.random.default_rng(seed).permutation(len(targets))[:most]
    return [targets[place] for place in sorted(drawn)]


def _refuse_unlike(task: Task) -> None:
    """Refuses tasks without one label a text.

    Raises:
        SettingsError: Saying why.
    """
    if task.kind != "classes":
        raise SettingsError(
            f"task {task.name} cannot be attacked: {_WHY_NOT[task.kind]}. Give a task with one "
            "class a text"
        )


def _attack_all(
    job: AttackJob, task: Task, victims: Sequence[Victim], out: Path, narrator: Narrator
) -> AttackReport:
    assert job.synonyms is not None
    synonyms = read_synonyms(job.synonyms)
    stop_file = job.constraints.stop_words
    stop_words = STOP_WORDS if stop_file is None else read_stop_words(stop_file)
    constraints = _constraints(job.constraints)
    attacks = [
        Attack(
            synonyms=synonyms,
            unknown=victim.unknown,
            constraints=constraints,
            stop_words=stop_words,
        )
        for victim in victims
    ]
    targets = choose_targets(task, most=job.examples, seed=job.seed)
    hopeless = sum(not attacks[0].can_change(target) for target in targets)
    if hopeless == len(targets):
        raise DataError(
            f"none of {hopeless} texts of {task.name} has a word with a synonym in {job.synonyms}: "
            "give a synonym file of the texts' language"
        )
    refuse_other(out, _subject(job, task, victims, synonyms, stop_words))
    file = OutcomesFile(out / OUTCOMES_FILE)
    found = [
        _outcomes(number, victim, targets, attacks[number - 1], file, narrator, job.at_once)
        for number, victim in enumerate(victims, start=1)
    ]
    file.settle()
    names = [victim.name for victim in victims]
    write_text_atomically(out / TEXTS_FILE, side_by_side(names, targets, found, task.label_names))
    return AttackReport(
        folder=out,
        task=task.name,
        texts=len(targets),
        without_synonyms=hopeless,
        conditions=_conditions(synonyms, constraints, stop_file, victims),
        models=tuple(
            AttackedModel(model=name, scores=score_attack(outcomes, seed=job.seed))
            for name, outcomes in zip(names, found, strict=True)
        ),
        differences=tuple(
            ComparedModels(
                model=name,
                less=names[0],
                difference=compare_attacks(outcomes, found[0], seed=job.seed),
            )
            for name, outcomes in zip(names[1:], found[1:], strict=True)
        ),
    )


def _constraints(settings: ConstraintSettings) -> tuple[Constraint, ...]:
    """Makes the constraints, cheap ones first."""
    made: list[Constraint] = []
    if settings.parts_of_speech is not None:
        made.append(ListedParts(settings.parts_of_speech))
    if settings.pos_tagger is not None:
        made.append(TaggedParts(CheckpointTagger(settings.pos_tagger), settings.pos_tagger))
    if settings.similarity is not None:
        made.append(EncoderSimilarity(settings.similarity, threshold=settings.least_similarity))
    return tuple(made)


def _conditions(
    synonyms: Synonyms,
    constraints: Sequence[Constraint],
    stop_file: Path | None,
    victims: Sequence[Victim],
) -> tuple[str, ...]:
    """Tells what the attack was, and where it was not the official one."""
    unknown = ", ".join(dict.fromkeys(victim.unknown for victim in victims))
    stop = "scikit-learn's" if stop_file is None else f"those of {stop_file.name}"
    lines = [
        "TextFooler, its decisions and its count of queries as in the official code",
        f"synonyms: at most {MOST_SYNONYMS} a word from {synonyms.path.name}",
        f"importance: a word blanked by {unknown}, where the official code writes {NO_UNKNOWN}",
        f"stop words: {stop}, where the official code has a list of its own",
        *(constraint.told for constraint in constraints),
    ]
    kinds = {type(constraint) for constraint in constraints}
    if not kinds & {ListedParts, TaggedParts}:
        lines.append("part of speech: not restricted, where the official code tags it with NLTK")
    if EncoderSimilarity not in kinds:
        lines.append(
            "similarity: not restricted, where the official code asks for 0.7 by the Universal "
            "Sentence Encoder; the first synonym of the file that flips the label is taken"
        )
    return tuple(lines)


def _subject(
    job: AttackJob,
    task: Task,
    victims: Sequence[Victim],
    synonyms: Synonyms,
    stop_words: frozenset[str],
) -> dict[str, Any]:
    """Describes what outcomes are of."""
    parts = job.constraints.parts_of_speech
    return {
        "models": {
            str(number): {"name": victim.name, "weights_sha256": hash_weights(victim.model)}
            for number, victim in enumerate(victims, start=1)
        },
        "task": {"name": task.name, "dev_sha256": _sha256(task.dev.with_format(None)[:])},
        "synonyms": {"file": synonyms.path.name, "sha256": synonyms.sha256},
        "constraints": {
            "stop_words_sha256": _sha256(sorted(stop_words)),
            "parts_of_speech_sha256": None if parts is None else hash_file(parts),
            "pos_tagger": job.constraints.pos_tagger,
            "similarity": job.constraints.similarity,
            "least_similarity": job.constraints.least_similarity,
        },
        "seed": job.seed,
        "max_length": job.task.max_length,
    }


def _outcomes(
    number: int,
    victim: Victim,
    targets: Sequence[Target],
    attack: Attack,
    file: OutcomesFile,
    narrator: Narrator,
    at_once: int,
) -> list[Outcome]:
    """Attacks the texts that no earlier start has finished; returns the outcomes of all."""
    known = file.outcomes(number)
    left = [target for target in targets if target.key not in known]
    done = len(targets) - len(left)
    if done:
        narrator.say(f"{done} of {len(targets)} texts are attacked already.")
    narrator.begin(f"Attacking {victim.name}", len(targets))
    try:
        for outcome in attack_targets(left, victim.answer, attack, at_once=at_once):
            file.add(number, outcome)
            done += 1
            narrator.advance(done)
    finally:
        narrator.end()
    known = file.outcomes(number)
    return [known[target.key] for target in targets]


def _sections(job: AttackJob) -> list[AdvGlueSection]:
    """Reads the task's sections of AdvGLUE, none where it is not asked for."""
    if job.adv_glue is None:
        return []
    return [read_adv_glue(job.adv_glue, name) for name in adv_glue_sections(job.task.name)]


def _on_adv_glue(victim: Victim, section: AdvGlueSection) -> AdvGlueAccuracy:
    right_N = _right(victim, section.perturbed)
    accuracy = AdvGlueAccuracy(
        model=victim.name, section=section.name, perturbed=_accuracy(right_N)
    )
    if not section.with_original:
        return accuracy
    return replace(
        accuracy,
        perturbed_with_original=_accuracy(right_N[list(section.with_original)]),
        originals=_accuracy(_right(victim, section.originals)),
    )


def _right(victim: Victim, examples: Examples) -> NDArray[np.bool_]:
    """Tells which of the examples a model answers right."""
    columns = [examples.text_a, *([] if examples.text_b is None else [examples.text_b])]
    answers_N = victim.answer(list(zip(*columns, strict=True))).argmax(axis=1)
    right_N: NDArray[np.bool_] = answers_N == np.array(examples.labels)
    return right_N


def _accuracy(right_N: NDArray[np.bool_]) -> Figure:
    return share(int(right_N.sum()), len(right_N))


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
