"""The command that profiles a device: latencies predicted from few measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.screen import narrator, print_line, print_table, resumable
from stillhouse.device.kinds import MEASURED
from stillhouse.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from stillhouse.device.profile import Profile

MODELS = {
    "linear": "linear",
    "sum": "linear, and a Gaussian process on what that leaves",
    "process": "a Gaussian process",
}


@answers
def profile(
    *,
    space: Annotated[
        str,
        typer.Option(
            help="default, kd-nas, kd-nas-wide, autodistil, autodistill or nas-bert.",
            autocompletion=completion.spaces,
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            help=f"Where to measure: {', '.join(MEASURED)}.",
            autocompletion=completion.one_of(*MEASURED),
        ),
    ],
    out_file: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The profile, a .json file for --device of search.",
            autocompletion=completion.paths,
        ),
    ],
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Hub id or folder of a checkpoint that gives the space its proportions; "
            "BERT-base if not given.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, int8 or int8-static, as the device has.",
            autocompletion=completion.values_of("device.precision"),
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Examples in one request.")] = 1,
    length: Annotated[int, typer.Option(help="Tokens of each example.")] = 128,
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; all physical cores if not given.")
    ] = None,
    points: Annotated[int, typer.Option(help="Architectures to measure.")] = 60,
    seed: Annotated[int, typer.Option(help="Of their choice.")] = 0,
) -> Answer:
    """Fit a predictor of latencies to a few measurements.

    Measures some architectures of a space, and tells by cross-validation how well it predicts the
    others.

    Writes the file of --out; the same command again resumes what Ctrl-C stopped.

    Next: the file is a device for every search of that space on this machine, --device kd-nas.json.

    Examples:
        The space of KD-NAS in ONNX Runtime
            stillhouse profile --space kd-nas --device onnxruntime-cpu --points 60
            --out kd-nas.json
    """
    if device not in MEASURED:
        raise SettingsError(
            f"--device must be one that is measured ({', '.join(MEASURED)}), got {device!r}"
            f"{did_you_mean(device, list(MEASURED))}"
        )
    from stillhouse import api  # noqa: PLC0415  torch loads after parsing
    from stillhouse.recipe.profile_job import ProfileJob  # noqa: PLC0415  loads torch
    from stillhouse.recipe.profiling import points_path  # noqa: PLC0415  loads torch
    from stillhouse.run.settings import settings_from_dict  # noqa: PLC0415  loads torch

    workload = {"batch": batch, "length": length, "threads": threads, "precision": precision}
    settings: dict[str, Any] = {"device": {"kind": device, **workload}}
    job = ProfileJob(
        space=cast("Any", space),  # the job checks it
        device=settings_from_dict(settings).device,
        teacher=teacher,
        points=points,
        seed=seed,
    )
    with resumable(points_path(out_file)):
        made = api.run_profile_job(job, out_file, narrator())
    told = {
        "path": out_file,
        "space": made.subject.space,
        "device": made.subject.fingerprint.device,
        "workload": made.subject.fingerprint.workload,
        "measured": made.errors.count,
        "errors": made.errors,
        "noise_fraction": made.noise_fraction,
        "model": made.choice.kind,
        "cost_s": made.cost_s,
    }
    return Answer(
        told=told,
        show=lambda: _show(made),
        done=f"Use it: stillhouse search --device {out_file} with the other options of the search",
    )


def _show(profile: Profile) -> None:
    errors, subject = profile.errors, profile.subject
    table = Table(title=f"Profile of {subject.space}", show_header=False)
    rows = {
        "device": subject.fingerprint.device,
        "workload": subject.fingerprint.workload.label,
        "proportions": subject.teacher,
        "measured": f"{errors.count} architectures in {profile.cost_s:,.0f} s",
        "noise of a measurement": f"± {profile.noise_fraction:.1%}",
        "mean error": f"{errors.mape_fraction:.1%}",
        "95th percentile": f"{errors.p95_fraction:.1%}",
        "Spearman": f"{errors.spearman:.3f}",
        "model": MODELS[profile.choice.kind],
    }
    for name, told in rows.items():
        table.add_row(name, told)
    print_table(table)
    print_line("Errors are those of cross-validation: each fifth is predicted from the others.")
