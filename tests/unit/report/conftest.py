"""A synthetic run directory, written by hand, with hostile names in every text."""

import csv
import json
from pathlib import Path

import pytest

HOSTILE = "<script>alert(1)</script>"
HEADER = (
    "number,state,quality,latency_ms,reason,repeat_of,cost_s,parameters,"
    "family,layers,hidden_size,heads,ffn_size,activation\n"
)
SUBNET_COLUMNS = ("architecture", "loss", "parameters", "flops", "flops_fraction", "length")


def trial(number, state, quality="", latency="", reason="", repeat_of="", shape=(2, 128, 2, 512)):
    layers, hidden, heads, ffn = shape
    described = ("bert", layers, hidden, heads, ffn, "gelu")
    return (number, state, quality, latency, reason, repeat_of, 12.5, 398_000, *described)


TRIALS = (
    trial(0, "complete", 0.70, 1.0, shape=(1, 64, 2, 256)),
    trial(1, "complete", 0.80, 2.0),
    trial(2, "complete", 0.75, 3.0, shape=(3, 64, 2, 256)),  # beaten by trial 1 in both
    trial(3, "complete", 0.80, 2.0, repeat_of=1),
    trial(4, "infeasible", "", 7.5, "latency_ms 50 % over", shape=(4, 256, 4, 1024)),
    trial(5, "failed", "", 2.5, f"out of memory {HOSTILE}", shape=(4, 128, 2, 512)),
    trial(6, "failed", "", "", f"out of memory {HOSTILE}", shape=(4, 192, 4, 512)),
    trial(7, "complete", 0.83, 4.0, shape=(4, 192, 4, 768)),
    trial(8, "running", shape=(4, 64, 2, 256)),
)


def student(rank, quality, latency_ms, *, within_limit=True):
    return {
        "metric": "accuracy",
        "quality": quality,
        "quality_search": quality + 0.01,
        "quality_low": quality - 0.03,
        "quality_high": quality + 0.03,
        "quality_count": 660,
        "teacher_quality": 0.84,
        "teacher_quality_search": 0.85,
        "quality_fraction": quality / 0.84,
        "latency_ms": latency_ms,
        "latency_low_ms": latency_ms * 0.9,
        "latency_high_ms": latency_ms * 1.1,
        "teacher_latency_ms": 8.0,
        "speedup": 8.0 / latency_ms,
        "latency_128_ms": latency_ms * 3,
        "teacher_latency_128_ms": 20.0,
        "speedup_128": 20.0 / latency_ms / 3,
        "parameters": 1_234_567,
        "parameters_encoder": 398_000,
        "size_mb": 4.9,
        "device": "cpu <b>bold</b>",
        "workload": {"batch": 1, "length": 64, "precision": "float32", "threads": 2},
        "architecture": {
            "family": "bert",
            "layers": 2,
            "hidden_size": 128,
            "heads": 2,
            "ffn_size": 512,
            "activation": "gelu",
        },
        "initialisation": {"kind": "slices", "layers": [1, 3]},
        "trial": rank,
        "within_limit": within_limit,
        "cost_s": 60.0,
    }


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def agreement(spearman, kendall, count):
    return {"spearman": spearman, "kendall": kendall, "count": count, "reason": ""}


def episode(number, predicted, rewards, **changes):
    described = {
        "number": number,
        "epsilon": 1.0 - 0.5 * number,
        "trials": [2 * number, 2 * number + 1],
        "random": 2 - number,
        "exploited": number,
        "failed": 0,
        "infeasible": 3,
        "best_reward": max(rewards, default=None),
        "predicted": predicted,
        "rewards": rewards,
        "correlation": None,
        "trained_on": 2 * number,
    }
    return described | changes


def controller(**changes):
    described = {
        "settings": {
            "name": "default",
            "episodes": 3,
            "per_episode": 2,
            "learning_rate": 0.01,
            "passes": 60,
        },
        "episodes": [
            episode(0, [0.11, 0.12], [0.81, 0.84]),
            episode(1, [0.42, 0.43], [0.85, 0.86], correlation=0.77),
            episode(2, [0.51], [0.91]),
        ],
        "random_share": 0.625,
        "correlation": {**estimate(0.61, 0.38, 0.79), "count": 45},
        "has_learnt": True,
        "verdict": f"It ranks candidates {HOSTILE}.",
        "reward": {"target_ms": 5.0, "alpha": -0.06, "quality": "task"},
    }
    return described | changes


def trained_twice(trial, role, proxy, final):
    return {
        "trial": trial,
        "label": f"trial {HOSTILE}",
        "role": role,
        "proxy": proxy,
        "final": final,
        "latency_ms": 2.1,
    }


def proxy_final(**changes):
    described = {
        "metric": "accuracy",
        "set": "search-validation",
        "points": [
            trained_twice(7, "winner", 0.83, 0.86),
            trained_twice(1, "winner", 0.80, 0.87),
            trained_twice(2, "control", 0.75, 0.78),
        ],
        "agreement": agreement(estimate(0.74, 0.41, 0.92), estimate(0.58, 0.27, 0.83), 14),
        "regret": 0.01,
        "noise": {
            "seeds": [0, 1],
            "pairs": [[0.83, 0.82], [0.75, 0.761]],
            "agreement": agreement(estimate(0.81, 0.52, 0.96), estimate(0.66, 0.33, 0.88), 12),
        },
    }
    return described | changes


def competitor(**changes):
    described = {
        "name": f"layers=3 {HOSTILE}",
        "label": f"3 × 384 {HOSTILE}",
        "kind": "shape",
        "quality": 0.798,
        "quality_low": 0.768,
        "quality_high": 0.818,
        "quality_search": 0.805,
        "latency_ms": 3.2,
        "latency_low_ms": 3.1,
        "latency_high_ms": 3.4,
        "speedup": 2.5,
        "parameters": 17_300_000,
        "size_mb": 66.1,
        "within_limit": True,
        "folder": "competitors/1",
    }
    return described | changes


def shape(layers, hidden=128, head_size=32):
    """Heads that are not free have no size of their own."""
    free = {} if head_size is None else {"head_size": head_size}
    sizes = {"layers": layers, "hidden_size": hidden, "heads": 2, **free, "ffn_size": 512}
    return {"family": "bert", **sizes, "activation": "gelu"}


def subnet(space, layers, loss, share):
    return {
        "space": space,
        "architecture": shape(layers),
        "architecture_label": HOSTILE,
        "relation_loss": loss,
        "parameters": 1_000_000 * layers,
        "flops": int(share * 1.4e9),
        "flops_fraction": share,
    }


def reference(name, quality, latency_ms, **changes):
    described = {
        "name": name,
        "label": f"4 × 32 {HOSTILE}",
        "quality": quality,
        "latency_ms": latency_ms,
        "latency_low_ms": latency_ms * 0.9,
        "latency_high_ms": latency_ms * 1.1,
        "latency_how": "predicted",
        "speedup": 8.0 / latency_ms,
        "parameters": 1_500_000,
        "size_mb": 6.0,
        "flops_fraction": 0.25,
        "within_limit": True,
    }
    return described | changes


def references(**changes):
    """One that trials 1 and 7 beat in neither or one, and one that trial 1 beats in both."""
    described = {
        "points": [
            reference("MobileBERT", 0.82, 3.0),
            reference("MobileBERT-tiny", 0.78, 2.5, within_limit=False),
        ],
        "left_out": [{"name": f"Other {HOSTILE}", "reason": "the table has no such row"}],
    }
    return described | changes


def family(**changes):
    described = {
        "searches": [
            {
                "limits": {"flops_fraction": 0.3},
                "student": "1",
                "best": subnet("small", 4, 4.05, 0.25),
                "runners_up": [subnet("small", 3, 4.25, 0.2), subnet("tiny", 2, 5.75, 0.05)],
            },
            {
                "limits": {"params_m": 2.5, "latency_ms": 3.0},
                "student": "2",
                "best": subnet("tiny", 2, 5.75, 0.05),
                "runners_up": [],
            },
        ]
    }
    return described | changes


def family_student(space, layers, loss, share, latency_ms):
    """Metrics of a student without a task."""
    return {
        **subnet(space, layers, loss, share),
        "latency_ms": latency_ms,
        "latency_low_ms": latency_ms * 0.9,
        "latency_high_ms": latency_ms * 1.1,
        "latency_how": "measured",
        "teacher_latency_ms": 8.0,
        "speedup": 8.0 / latency_ms,
        "device": "cpu <b>bold</b>",
        "workload_label": "batch 1, length 64",
        "parameters_encoder": 398_000,
        "teacher_parameters": 22_700_000,
        "size_mb": 4.9,
        "initialisation": {"kind": "supernet", "layers": [0, 2]},
        "limits": {"flops_fraction": 0.3},
        "within_limit": True,
        "held_out_sequences": 40,
    }


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_trials(run):
    with (run / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER)
        csv.writer(file).writerows(TRIALS)


def write_subnets(folder, rows):
    """Rows of (layers, loss, share of the teacher's FLOPs)."""
    with (folder / "subnets.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(SUBNET_COLUMNS)
        for layers, loss, share in rows:
            counts = (1_000_000 * layers, int(share * 1.4e9), share, 64)
            writer.writerow((json.dumps(shape(layers)), loss, *counts))


def write_supernet(run, space, rows):
    folder = run / "supernets" / space
    facts = {"students": len(rows), "steps": 6000, "tokens": 3_072_000, "loss": 4.6591}
    write_json(folder / "supernet.json", {**facts, "wall_s": 8040.0})
    write_subnets(folder, rows)


def write_run_json(run, **changes):
    summary = {
        "status": "complete",
        "started": "2026-01-02T03:04:05+00:00",
        "wall_s": 431.0,
        "phases_s": {"teacher": 100.0, "search": 250.0, "final": 81.0},
        "space_size": 120,
        "grid_size": 160,
        "limits": {"latency_ms": 5.0},
        "task": f"data {HOSTILE}.csv",
        "teacher": "org/teacher",
    }
    write_json(run / "run.json", summary | changes)


def write_settings(run):
    (run / "settings.yaml").write_text(
        "task:\n  name: data.csv\n  text: [a, b]\nlimit:\n  latency_ms: 5.0\n"
        "provenance:\n  versions:\n    torch: 2.13.0\n",
        encoding="utf-8",
    )


@pytest.fixture
def interrupted_run(tmp_path) -> Path:
    """A run stopped during its search: no students, no teacher metrics, no trials.csv."""
    run = tmp_path / "stopped"
    run.mkdir()
    write_settings(run)
    write_run_json(run, status="interrupted", wall_s=None, phases_s={"teacher": 100.0})
    return run


@pytest.fixture
def distill_run(tmp_path) -> Path:
    """One student, no search."""
    run = tmp_path / "plain"
    run.mkdir()
    write_settings(run)
    write_run_json(run, limits={}, space_size=None, grid_size=None, phases_s={"final": 81.0})
    write_json(run / "students/1/metrics.json", student(1, 0.81, 1.6) | {"within_limit": None})
    return run


@pytest.fixture
def full_run(tmp_path) -> Path:
    """A finished search with two students."""
    run = tmp_path / "finished"
    run.mkdir()
    write_settings(run)
    write_run_json(run)
    write_trials(run)
    write_json(
        run / "teacher/metrics.json",
        {"metric": "accuracy", "quality": 0.84, "quality_search": 0.85, "latency_ms": 8.0,
         "parameters": 4_400_000, "architecture": HOSTILE},
    )  # fmt: skip
    write_json(run / "students/1/metrics.json", student(1, 0.819, 1.6))
    write_json(run / "students/2/metrics.json", student(2, 0.825, 6.4, within_limit=False))
    write_json(run / "students/10/metrics.json", student(10, 0.74, 0.8))
    return run


@pytest.fixture
def checked_run(full_run) -> Path:
    """A finished search of the controller, with its proxy checked and two competitors."""
    write_json(full_run / "controller.json", controller())
    write_json(full_run / "proxy_final.json", proxy_final())
    write_json(
        full_run / "competitors.json",
        {"points": [competitor(), competitor(kind="checkpoint", latency_ms=2.2, quality=0.77)]},
    )
    return full_run


@pytest.fixture
def referenced_run(full_run) -> Path:
    """A finished search with hand-crafted references, one of them left out."""
    write_json(full_run / "references.json", references())
    return full_run


@pytest.fixture
def weighed_run(referenced_run) -> Path:
    """The same, searched for size as well.

    Trial 2 is beaten in quality and latency, but smaller; a new trial 9 is beaten by it in all.
    """
    write_run_json(
        referenced_run,
        objectives=["quality", "latency_ms", "size_mb"],
        hypervolume={
            "reference": {"quality": 0.0, "latency_ms": 8.0, "size_mb": 16.0},
            "by_trial": [0.1, 0.25],
        },
    )
    sizes_mb = {0: 5.0, 1: 8.0, 2: 4.0, 7: 12.0, 9: 6.0}
    rows = [*TRIALS, trial(9, "complete", 0.74, 3.5, shape=(3, 64, 2, 512))]
    with (referenced_run / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER.replace("\n", ",size_mb,flops_fraction\n"))
        csv.writer(file).writerows([*row, sizes_mb.get(row[0], ""), 0.5] for row in rows)
    return referenced_run


@pytest.fixture
def family_run(tmp_path) -> Path:
    """Supernets of two spaces, searched twice: no task, no trials, no quality."""
    run = tmp_path / "family"
    run.mkdir()
    (run / "settings.yaml").write_text("recipe: autodistil\n", encoding="utf-8")
    write_run_json(
        run,
        task=f"corpus {HOSTILE}",
        limits={"params_m": 2.5, "latency_ms": 3.0},
        phases_s={"supernets": 16_080.0, "search": 81.0},
    )
    write_json(run / "family.json", family())
    write_supernet(run, "small", [(3, 4.25, 0.2), (4, 4.05, 0.25), (5, 3.95, 0.4)])
    write_supernet(run, "tiny", [(1, 6.5, 0.03), (2, 5.75, 0.05)])
    write_json(run / "students/1/metrics.json", family_student("small", 4, 4.05, 0.25, 3.2))
    write_json(run / "students/2/metrics.json", family_student("tiny", 2, 5.75, 0.05, 0.8))
    return run


@pytest.fixture
def describe():
    """How each file is described, to be written with changes."""
    return {
        "controller.json": controller,
        "proxy_final.json": proxy_final,
        "family.json": family,
        "references.json": references,
        "episode": episode,
    }


@pytest.fixture
def rewrite():
    """Writes a file of a run directory anew."""
    return write_json


OPERATIONS = (
    "operation,hidden_size,latency_ms,refused",
    "teacher,,8.0,",
    "M,64,0.2,",
    "M,128,0.4,",
    "S3,64,0.1,",
    f'S3,128,,"no kernel, {HOSTILE}"',
    "ends,64,0.05,",
    "ends,128,0.1,",
)
BLOCKS = (
    "block,hidden_size,operations,parameters,flops,latency_ms,loss",
    "1,64,M S3,30000,2000000,0.3,0.5",
    "1,128,M,70000,4000000,0.4,0.4",
    "2,64,M,20000,1500000,0.2,0.9",
    "2,128,M M,140000,8000000,0.8,0.7",
)


def chain(*blocks):
    """A chain of (hidden size, operations) with embeddings of 64."""
    described = [{"hidden_size": size, "operations": names.split()} for size, names in blocks]
    rest = {"head_size": 32, "ffn_ratio": 4, "activation": "gelu"}
    return {"family": "chain", "embedding_size": 64, "blocks": described, **rest}


def proposal(mlm_loss, block_loss, predicted_ms, *blocks):
    return {
        "architecture": chain(*blocks),
        "architecture_label": HOSTILE,
        "block_loss": block_loss,
        "mlm_loss": mlm_loss,
        "predicted_latency_ms": predicted_ms,
    }


def selected(limits, **changes):
    described = {
        **proposal(6.25, 1.4, 0.75, (64, "M S3"), (64, "M")),
        "latency_ms": 0.8,
        "latency_low_ms": 0.7,
        "latency_high_ms": 0.9,
        "latency_how": "measured",
        "teacher_latency_ms": 8.0,
        "speedup": 10.0,
        "device": "cpu <b>bold</b>",
        "workload_label": "batch 1, length 64",
        "parameters": 2_050_000,
        "size_mb": 8.2,
        "flops": 3_500_000,
        "flops_fraction": 0.025,
        "limits": limits,
        "within_limit": True,
        "runners_up": [proposal(6.5, 1.3, 0.7, (128, "M"), (64, "M"))],
    }
    return described | changes


def bin_record(epoch, place, dropped, alive):
    counts = {"sampled": 2 * dropped, "dropped": dropped, "alive": alive}
    return {"epoch": epoch, "bin": place, **counts, "border_loss": 0.5}


def shrinking(**changes):
    """Of 60 candidates: 20 of another bin, 10 beyond the largest, 25 beaten, 5 left."""
    described = {
        "alive": [3, 8, 11, 20, 41],
        "left_in_bins": [2, 0, 3],
        "left_out": {"other_latency_bin": 20, "beyond_largest": 10},
        "records": [bin_record(3, 0, 10, 10), bin_record(3, 2, 7, 3), bin_record(5, 0, 8, 2)],
    }
    return described | changes


def write_block(run, number, **changes):
    folder = run / f"supernets/block-{number}"
    write_json(folder / "shrinking.json", shrinking(**changes))
    write_json(folder / "supernet.json", {"steps": 600, "tokens": 153_600, "loss": 0.3125})


@pytest.fixture
def chain_run(tmp_path) -> Path:
    """Two shrunk blocks, two budgets served, and one of the two students pre-trained."""
    run = tmp_path / "chains"
    run.mkdir()
    (run / "settings.yaml").write_text(
        "recipe: nas-bert\nblocks:\n  warm_epochs: 3\n  sampled: 20\n  kept: 3\n"
        "  bins_by: size_and_latency\n",
        encoding="utf-8",
    )
    write_run_json(run, task=f"corpus {HOSTILE}", limits={}, phases_s={"blocks": 300.0})
    head = {"accuracy_fraction": 0.4, "cross_entropy_nats": 3.5, "chosen_count": 270}
    write_json(run / "mlm/mlm.json", {"is_trained_here": True, **head})
    (run / "operations.csv").write_text("\n".join(OPERATIONS), encoding="utf-8")
    (run / "blocks.csv").write_text("\n".join(BLOCKS), encoding="utf-8")
    write_block(run, 1)
    write_block(run, 2, left_out=None, left_in_bins=None)
    write_json(run / "selected/1/selected.json", selected({"params_m": 2.5, "latency_ms": 1.0}))
    big = proposal(5.5, 1.1, 1.25, (128, "M"), (128, "M M"))
    write_json(run / "selected/2/selected.json", selected({"speedup": 3.0}, **big))
    learnt = {
        "mlm_accuracy_fraction": 0.25,
        "mlm_cross_entropy_nats": 4.75,
        "mlm_count": 270,
        "teacher_mlm_accuracy_fraction": 0.4,
        "teacher_parameters": 22_700_000,
        "initialisation": {"kind": "scratch", "layers": []},
        "pretrain": {"steps": 4000, "tokens": 8_192_000},
    }
    write_json(run / "students/1/metrics.json", selected({"params_m": 2.5}) | learnt)
    return run
