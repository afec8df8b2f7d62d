"""What stands in the way of a comparison, and what a reader must know who believes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stillhouse.errors import RunError
from stillhouse.report import wording
from stillhouse.report.comparing import ComparedRun, Method, differing
from stillhouse.report.comparison_costs import OF_DEVICE, CostName, Limit
from stillhouse.report.trials import TrialRow, trained

TRAINED = ("complete", "stopped", "failed")
"""States of trials that a training was spent on."""
NEARLY = 0.1
"""Budgets that differ by a smaller fraction are as good as equal."""
MOST_NAMED = 5
"""Settings that one sentence names, at most."""
SHORT = 12
"""Of a hash, what is told."""


def spent(trials: Sequence[TrialRow]) -> list[TrialRow]:
    """The trials that count against a budget, in their order: neither repeats nor over a limit."""
    return [one for one in trials if one.state in TRAINED and one.repeat_of is None]


def search_seconds(run: ComparedRun) -> float:
    """Time that a run's candidates took, in seconds."""
    return sum(one.cost_s or 0.0 for one in spent(run.contents.trials))


def refuse_incomparable(
    runs: Sequence[ComparedRun], by: CostName, limits: Sequence[Limit] = ()
) -> None:
    """Refuses runs that no table can hold together.

    Args:
        runs: All of them.
        by: The cost that quality is set against.
        limits: That the user asked for.

    Raises:
        RunError: Naming what differs between which runs, and what can be compared instead.
    """
    for run in runs:
        _refuse_without_quality(run)
    _refuse_other(runs, "metric", lambda run: run.metric, "Compare runs of one metric")
    if not all(run.dev_sha256 for run in runs):
        way = "Students of different tasks have no score in common"
        _refuse_other(runs, "task", lambda run: run.contents.task, way)
    _refuse_other(
        runs,
        "dev set (SHA-256)",
        lambda run: (run.dev_sha256 or "")[:SHORT],
        "Give the runs the same examples for reports (task.dev)",
    )
    _refuse_other(
        runs,
        "number of dev examples",
        lambda run: wording.whole(_dev_count(run)) if _dev_count(run) else "",
        "Give the runs the same examples for reports (task.dev)",
    )
    if by == "latency_ms" or any(name in OF_DEVICE for limit in limits for name in limit):
        for run in runs:
            _refuse_untimed(run)
        way = (
            "Latencies of these have nothing in common; compare by what no device tells: --by "
            "size_mb, --by params_m or --by flops_fraction, with limits (--limit) of the same"
        )
        _refuse_other(runs, "device", _device, way)
        _refuse_other(runs, "workload", _workload, way)


def _refuse_without_quality(run: ComparedRun) -> None:
    contents = run.contents
    if contents.family is not None or contents.chains is not None or not contents.has_task:
        raise RunError(
            f"{run.path} has no task: its students are chosen by losses on text, which are on "
            "scales of their own. Fine-tune the students that you mean on one task, each with "
            "`stillhouse finetune STUDENT --task TASK --run runs/NAME`, and compare these runs "
            "(--by size_mb)"
        )
    if not run.models and not trained(contents.trials):
        raise RunError(
            f"{run.path} holds nothing to compare yet ({contents.status}): neither a judged trial "
            "nor a finished student. Give the command that began it again, and compare then"
        )


def _refuse_untimed(run: ComparedRun) -> None:
    times = [one.figures.latency_ms for one in run.models]
    times += [row.latency_ms for row in run.contents.trials]
    if all(time is None for time in times):
        raise RunError(
            f"{run.path} tells no latency: a fine-tuned model is not timed. Compare by what needs "
            "no device: --by size_mb or --by params_m, with limits (--limit) of the same"
        )


def _refuse_other(
    runs: Sequence[ComparedRun], what: str, tell: Callable[[ComparedRun], str], way: str
) -> None:
    told = [(run, tell(run)) for run in runs]
    known = [(run, value) for run, value in told if value]
    for run, value in known[1:]:
        first, wanted = known[0]
        if value != wanted:
            raise RunError(
                f"{first.path} and {run.path} differ in their {what}: {wanted} and {value}. {way}."
            )


def _dev_count(run: ComparedRun) -> float | None:
    return next((one.figures.quality_count for one in run.models), None)


def _device(run: ComparedRun) -> str:
    return next((one.figures.device for one in run.models), run.contents.teacher.device)


def _workload(run: ComparedRun) -> str:
    return next((one.figures.workload for one in run.models), run.contents.teacher.workload)


def unequal(methods: Sequence[Method], *, no_volumes: str = "") -> list[str]:
    """Sentences on what is not equal between methods that are compared all the same.

    Budgets come first.

    Args:
        methods: All of them.
        no_volumes: Why hypervolumes are not compared at equal budgets; empty where they are.
    """
    runs = [run for method in methods for run in method.runs]
    told = [
        _budgets(methods, no_volumes),
        _optimistic(runs),
        _apart(methods, "Passes over the examples in the final distillation", _final_epochs, ""),
        _apart(methods, "Passes over the proxy examples in the search", _proxy_epochs, ""),
        _apart(methods, "Candidates were judged on", _proxy, " proxy examples"),
        _apart(methods, "The limits were", _limits, ""),
        _data(runs),
        _teachers(runs),
        _apart(methods, "The arithmetic of scores is", _precision, ""),
        _apart(methods, "Candidates were judged by", _judged_by, ""),
    ]
    told += [_status(run) for run in runs]
    told += [_seeds(method) for method in methods]
    told.append(_answers(runs))
    told += [f"{run.path}: {note}" for run in runs for note in run.notes]
    return [sentence for sentence in told if sentence]


def _budgets(methods: Sequence[Method], no_volumes: str) -> str:
    """Candidates and seconds of the searches, where they are not nearly equal."""
    runs = [run for method in methods for run in method.runs if run.contents.trials]
    counts = [len(spent(run.contents.trials)) for run in runs]
    seconds = [search_seconds(run) for run in runs]
    if not any(counts) or (_near(counts) and _near(seconds)):
        return ""
    parts = []
    for method in (one for one in methods if any(run.contents.trials for run in one.runs)):
        tried = [len(spent(run.contents.trials)) for run in method.runs]
        took = [wording.duration(search_seconds(run)) for run in method.runs]
        parts.append(f"{method.name} {_range(tried)} ({wording.listed(took)})")
    volumes = (
        f"No hypervolumes are compared at equal budgets, for {no_volumes}"
        if no_volumes
        else "Hypervolumes are compared at the smallest of these budgets, too"
    )
    return (
        f"The searches had unequal budgets, in trained candidates (and their time): "
        f"{'; '.join(parts)}. {volumes}; "
        "finished students come from all that each search tried."
    )


def _optimistic(runs: Sequence[ComparedRun]) -> str:
    named = [str(run.path) for run in runs if any(one.is_optimistic for one in run.models)]
    if not named:
        return ""
    return (
        f"Dev chose the epoch in {wording.listed(named)} (--stop_on dev): the scores there are "
        "optimistic, which no interval tells."
    )


def _near(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= NEARLY * max(values)


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _apart(
    methods: Sequence[Method], lead: str, tell: Callable[[ComparedRun], str], unit: str
) -> str:
    """A sentence on what methods have that differs between them; empty where it does not."""
    values: Mapping[str, list[str]] = {
        method.name: list(dict.fromkeys(filter(None, map(tell, method.runs)))) for method in methods
    }
    known = {tuple(value) for value in values.values() if value}
    if len(known) < 2:  # noqa: PLR2004
        return ""
    parts = [f"{name} {' and '.join(value)}" for name, value in values.items() if value]
    return f"{lead}: {'; '.join(parts)}{unit}."


def _final_epochs(run: ComparedRun) -> str:
    return run.settings.get("final.epochs", "") if run.contents.students else ""


def _proxy_epochs(run: ComparedRun) -> str:
    return run.settings.get("search.epochs", "") if run.contents.trials else ""


def _proxy(run: ComparedRun) -> str:
    return run.settings.get("search.proxy_examples", "") if run.contents.trials else ""


def _judged_by(run: ComparedRun) -> str:
    return run.contents.trial_quality if run.contents.trials else ""


def _limits(run: ComparedRun) -> str:
    return wording.limits(run.contents) or "none"


def _precision(run: ComparedRun) -> str:
    return next((one.figures.served_precision for one in run.models), "")


def _data(runs: Sequence[ComparedRun]) -> str:
    hashes = {run.provenance.get("data_sha256", "") for run in runs} - {""}
    if len(hashes) < 2:  # noqa: PLR2004
        return ""
    if all(run.dev_sha256 for run in runs):
        return "The runs learnt from different examples; those for reports are the same."
    return (
        "The runs stand on different data (SHA-256 in their settings.yaml), and not all of them "
        "kept the fingerprint of dev: that dev is the same is taken from its name and number."
    )


def _teachers(runs: Sequence[ComparedRun]) -> str:
    hashes = {run.provenance.get("teacher_sha256", "") for run in runs} - {""}
    if len(hashes) < 2:  # noqa: PLR2004
        return ""
    names = dict.fromkeys(run.contents.teacher_name or "unnamed" for run in runs)
    known = [run.contents.teacher.quality for run in runs]
    qualities = [value for value in known if value is not None]
    reach = (
        f", {wording.quality(min(qualities))} to {wording.quality(max(qualities))} on "
        f"{runs[0].contents.report_set}"
        if qualities
        else ""
    )
    which = (
        f"different teachers ({', '.join(names)}{reach})"
        if len(names) > 1
        else f"teachers of different weights, fine-tuned anew in each run{reach}"
    )
    return f"The runs distil {which}: what follows is of teacher and search together."


def _status(run: ComparedRun) -> str:
    status = run.contents.status
    if status == "complete":
        return ""
    return f"{run.path} is not complete ({status}): it stands here with what it has so far."


def _seeds(method: Method) -> str:
    """What makes runs of one method other than seeds of it."""
    if len(method.runs) == 1:
        return ""
    seeds = [run.seed for run in method.runs]
    if apart := differing(method.runs):
        more = len(apart) - MOST_NAMED
        named = ", ".join(apart[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"The runs of {method.name} differ in more than their seed: {named}."
    if len(set(seeds)) < len(seeds):
        return (
            f"Runs of {method.name} have the same seed ({', '.join(seeds)}): their spread is the "
            "machine's chance, not that of seeds."
        )
    return ""


def _answers(runs: Sequence[ComparedRun]) -> str:
    lacking = [
        str(run.path) for run in runs if run.models and any(m.answers is None for m in run.models)
    ]
    if not lacking:
        return ""
    return (
        f"No answers on dev are kept in {wording.listed(lacking)} (older versions and some jobs "
        "keep none): differences from there are told by the intervals of both sides alone, "
        "unpaired, which resolves less."
    )
