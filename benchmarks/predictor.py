"""Latencies predicted from few measurements against measurement, beside FLOPs.

For each of three families a space in MiniLM's proportions is profiled as `stillhouse profile` does:
architectures that it chooses are timed in turn with one of the middle, and the ratio to it is what
counts. The predictor is fitted to these, and so are a line through FLOPs and one through layers ×
FLOPs, by relative error. What is reported are unseen architectures: as many from each third of the
range of latencies that the predictor tells, drawn evenly within a third by a fixed seed. Families
are measured in turn, so that a busy hour does not meet one of them alone.

    python -m benchmarks.predictor --small     # 30 architectures to fit, 30 to report, of a family
    python -m benchmarks.predictor --full      # 60 and 60
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from benchmarks.common import Records, heading, minilm_folder
from benchmarks.operation_sum import RESAMPLES, THIRDS, spearman
from stillhouse.device.calibration import calibrate
from stillhouse.device.features import features_of
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.predicted import MOST_ERROR_FRACTION, bare_ends, build_profiled
from stillhouse.device.predictor import LatencyPredictor, fit_predictor
from stillhouse.device.profile import AnyArchitecture
from stillhouse.device.runtimes import Runtime, make_runtime
from stillhouse.errors import SpaceError
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.count import true_flops
from stillhouse.recipe.profile_job import ProfileJob, SpaceName
from stillhouse.recipe.profile_sample import Sample, architectures_of, choose_architectures
from stillhouse.recipe.profiling import teacher_config
from stillhouse.run.device_settings import DeviceSettings

SPACES: dict[str, SpaceName] = {"bert": "kd-nas", "mobilebert": "autodistill", "chain": "nas-bert"}
METHODS = ("predictor", "FLOPs", "layers × FLOPs")
MOST_MAPE_FRACTION, LEAST_SPEARMAN, MOST_OF_FLOPS = 0.05, 0.98, 0.5
SAID = {True: "yes", False: "no"}
REPORTED_SEED = 1
"""Of the architectures that are reported, and of the chains that they are drawn from."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A space that is profiled.

    Attributes:
        name: Of the family.
        sample: What is measured to fit.
        pool: Unseen architectures.
        device: Measures in turn with the reference.
        records: What is measured already.
    """

    name: str
    sample: Sample
    pool: tuple[AnyArchitecture, ...]
    device: MeasuredDevice
    records: Records

    def measured(self, architecture: AnyArchitecture, workload: Workload) -> Mapping[str, Any]:
        """The ratio to the reference and what belongs to it; what is recorded is read."""
        job = {"family": self.name, "architecture": architecture.key}
        known = self.records.find(job)
        if known is not None:
            return known
        comparison = self.device.compare(architecture, workload)
        facts = {
            "ratio": 1 / comparison.speedup,
            "reference_ms": comparison.teacher.median_ms,
            "noise_fraction": comparison.noise_fraction,
        }
        return self.records.add(job, facts)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A family whose predictor is fitted.

    Attributes:
        family: The family.
        predictor: Fitted to what was measured.
        measured: Milliseconds of what it was fitted to.
        reference_ms: The reference's, the median over these measurements.
        reported: Unseen architectures with their thirds, the thirds in turn.
    """

    family: Family
    predictor: LatencyPredictor
    measured: NDArray[np.float64]
    reference_ms: float
    reported: Sequence[tuple[str, AnyArchitecture]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out for the reported architectures of a family.

    Attributes:
        thirds: Of each architecture.
        measured: Its milliseconds.
        told: The same by method.
    """

    thirds: NDArray[np.str_]
    measured: NDArray[np.float64]
    told: Mapping[str, NDArray[np.float64]]

    def errors(self, method: str, third: str = "all") -> NDArray[np.float64]:
        """Absolute relative errors in a third."""
        return np.abs(self.told[method] / self.measured - 1)[self.places(third)]

    def places(self, third: str) -> NDArray[np.intp]:
        """Where a third is."""
        return np.flatnonzero((self.thirds == third) | (third == "all"))


def open_family(
    name: str, count: int, config: PreTrainedConfig, runtime: Runtime, workload: Workload
) -> Family:
    """Chooses what is measured, and makes what measures it."""
    device = DeviceSettings(kind="onnxruntime-cpu", length=workload.length, threads=1)
    job = ProfileJob(space=SPACES[name], device=device, teacher=minilm_folder(), points=count)
    sample = choose_architectures(job, config, workload)
    seen = {one.key for one in sample.chosen}
    everything = architectures_of(SPACES[name], architecture_of(config), seed=REPORTED_SEED)
    return Family(
        name=name,
        sample=sample,
        pool=tuple(one for one in everything if one.key not in seen),
        device=MeasuredDevice(
            runtime,
            teacher=build_profiled(sample.reference, config),
            build=partial(build_profiled, teacher=config),
        ),
        records=Records(f"predictor_{workload.batch}x{workload.length}"),
    )


def fit(family: Family, count: int, config: PreTrainedConfig, workload: Workload) -> Fitted:
    """Fits the predictor to measurements that are there, and draws what is reported."""
    found = [family.measured(one, workload) for one in family.sample.chosen]
    reference_ms = float(np.median([one["reference_ms"] for one in found]))
    measured = np.array([one["ratio"] * reference_ms for one in found])
    predictor = fit_predictor(family.sample.features, measured, seed=0)
    told = predictor.predict(features_of(family.pool, bare_ends(config), workload)).latency_ms
    return Fitted(
        family=family,
        predictor=predictor,
        measured=measured,
        reference_ms=reference_ms,
        reported=of_each_third(family.pool, told, count),
    )


def of_each_third(
    pool: Sequence[AnyArchitecture], told: NDArray[np.float64], count: int
) -> list[tuple[str, AnyArchitecture]]:
    """Draws as many architectures from each third of the range of latencies, the thirds in turn."""
    borders = np.linspace(told.min(), told.max(), len(THIRDS) + 1)
    thirds = np.clip(np.searchsorted(borders, told, side="right") - 1, 0, len(THIRDS) - 1)
    order = np.random.default_rng(REPORTED_SEED).permutation(len(pool))
    each = count // len(THIRDS)
    found = [[n for n in order if thirds[n] == third][:each] for third in range(len(THIRDS))]
    if min(map(len, found)) < each:
        raise SpaceError("the space has too few architectures for every third of the latencies")
    return [
        (third, pool[n])
        for together in zip(*found, strict=True)
        for third, n in zip(THIRDS, together, strict=True)
    ]


def compare(fitted: Fitted, config: PreTrainedConfig, workload: Workload) -> Outcome:
    """Tells the reported architectures by every method, beside their measurements."""
    family, shapes = fitted.family, [shape for _, shape in fitted.reported]
    found = [family.measured(shape, workload) for shape in shapes]
    predicted = fitted.predictor.predict(features_of(shapes, bare_ends(config), workload))
    measured = np.array([one["ratio"] * fitted.reference_ms for one in found])
    fraction = predicted.standard_error_ms / predicted.latency_ms
    inside = np.abs(measured - predicted.latency_ms) < 1.96 * predicted.standard_error_ms
    errors = fitted.predictor.errors
    print(
        f"\n{family.name}: fitted to {len(fitted.measured)} of {family.sample.count:,} "
        f"{SPACES[family.name]} architectures, {fitted.measured.min():.2f} to "
        f"{fitted.measured.max():.2f} ms (model: {fitted.predictor.choice.kind}; cross-validation: "
        f"mean error {errors.mape_fraction:.1%}, p95 {errors.p95_fraction:.1%}, Spearman "
        f"{errors.spearman:.3f})\n"
        f"  {inside.mean():.0%} of the unseen are inside their 95 % interval; "
        f"{(fraction > MOST_ERROR_FRACTION).mean():.0%} would be measured instead; median noise of "
        f"a ratio ± {np.median([one['noise_fraction'] for one in found]):.1%}"
    )
    told = {METHODS[0]: predicted.latency_ms}
    for method, power in zip(METHODS[1:], (0, 1), strict=True):
        known, asked = (
            [
                true_flops(one, config, length=workload.length, bare=True) * one.layers**power
                for one in several
            ]
            for several in (family.sample.chosen, shapes)
        )
        told[method] = calibrate(known, fitted.measured).apply(asked)
    return Outcome(
        thirds=np.array([third for third, _ in fitted.reported]), measured=measured, told=told
    )


def print_outcome(outcome: Outcome) -> None:
    """Prints every method in every third."""
    print("  third    n  method          MAPE                      p95     Spearman")
    for third in (*THIRDS, "all"):
        places = outcome.places(third)
        drawn = np.random.default_rng(0).integers(len(places), size=(RESAMPLES, len(places)))
        for method in METHODS:
            errors = outcome.errors(method, third)
            low, high = np.quantile(errors[drawn].mean(axis=1), (0.025, 0.975))
            mape = f"{errors.mean():.1%} ({low:.1%} to {high:.1%})"
            ranks = spearman(outcome.told[method][places], outcome.measured[places])
            print(
                f"  {third:7}{len(places):3}  {method:14}  {mape:24}  "
                f"{np.quantile(errors, 0.95):6.1%}  {ranks}"
            )


def print_targets(outcomes: Mapping[str, Outcome]) -> None:
    """Prints what was asked for, by family."""
    print("\nfamily      MAPE <= 5 %  Spearman >= 0.98  better than FLOPs in  MAPE / FLOPs' <= 0.5")
    for name, outcome in outcomes.items():
        mape, of_flops = (float(outcome.errors(method).mean()) for method in METHODS[:2])
        ranks = spearman(outcome.told[METHODS[0]], outcome.measured)
        better = [
            third
            for third in THIRDS
            if outcome.errors(METHODS[0], third).mean() < outcome.errors(METHODS[1], third).mean()
        ]
        told = (
            f"{mape:.1%} {SAID[mape <= MOST_MAPE_FRACTION]}",
            f"{ranks.split()[0]} {SAID[float(ranks.split()[0]) >= LEAST_SPEARMAN]}",
            f"{len(better)} of {len(THIRDS)} thirds",
            f"{mape / of_flops:.2f} {SAID[mape <= MOST_OF_FLOPS * of_flops]}",
        )
        print(f"{name:12}{told[0]:13}{told[1]:18}{told[2]:22}{told[3]}")


def main() -> None:
    """Measures, fits, predicts and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="count", action="store_const", const=30, default=30)
    parser.add_argument("--full", dest="count", action="store_const", const=60)
    parser.add_argument("--count", type=int, help="to fit, and to report, of each family")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    heading("benchmarks.predictor")
    config = teacher_config(minilm_folder())
    workload = Workload(length=given.length, batch=given.batch, threads=1)
    runtime = make_runtime("onnxruntime-cpu")
    print(f"{runtime.name}; {workload.label}; {given.count} architectures each")
    families = [open_family(name, given.count, config, runtime, workload) for name in SPACES]
    for place in range(given.count):
        for family in families:
            family.measured(family.sample.chosen[place], workload)
    fitted = [fit(family, given.count, config, workload) for family in families]
    for together in zip(*(one.reported for one in fitted), strict=True):
        for one, (_, shape) in zip(fitted, together, strict=True):
            one.family.measured(shape, workload)
    outcomes = {}
    for one in fitted:
        outcomes[one.family.name] = compare(one, config, workload)
        print_outcome(outcomes[one.family.name])
    print_targets(outcomes)


if __name__ == "__main__":
    main()
