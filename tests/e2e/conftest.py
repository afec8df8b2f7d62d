"""Settings of tiny runs: so little training that candidates differ in quality."""

import gc
import subprocess
import sys

import pytest

from stillhouse import api

RUNNER = """
import runpy
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "stillhouse", "onnx"):
            raise ImportError(name + " is not to be imported")

sys.meta_path.insert(0, Refusal())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="session", autouse=True)
def quick_collections():
    """Spares each collection of garbage, of which a search makes many, the way through torch."""
    assert api  # it is imported first, and torch with it
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def table_settings(weather_table):
    """Latencies from a table and seconds of training, as a settings mapping."""
    return {
        "device": {"kind": "table", "table": str(weather_table)},
        "search": {"epochs": 1.0},
        "distill": {"precision": "float32"},
        "final": {"students": 2, "epochs": 2.0},
    }


@pytest.fixture(scope="session")
def teacher_options(weather_teacher_folder, weather_csv, weather_table):
    """The same task and teacher on the command line."""
    return [
        "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--set", "device.kind=table", "--set", f"device.table={weather_table}",
        "--set", "distill.precision=float32",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def infer():
    """Runs an exported folder's example where torch, transformers and stillhouse cannot be had."""

    def run(folder, *texts):
        process = subprocess.run(
            [sys.executable, "-I", "-c", RUNNER, str(folder / "infer.py"), *texts],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert process.returncode == 0, process.stderr
        return [line.split("\t") for line in process.stdout.splitlines()]

    return run
