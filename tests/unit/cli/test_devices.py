import json

import pytest

from stillhouse import api
from stillhouse.device.data_sheets import data_sheets
from stillhouse.device.kinds import MEASURED
from stillhouse.device.latency import Workload, summarise
from stillhouse.recipe.measuring import Chain, MeasuredRow, Measurements


@pytest.mark.parametrize("command", ["devices", "measure"])
def test_the_commands_explain_themselves(run_cli, command):
    code, out, _ = run_cli(command, "--help")
    assert code == 0
    assert f"Usage: stillhouse {command}" in out


def lines_of(out, word):
    return [line for line in out.splitlines() if word in line]


def test_the_table_lists_every_device_and_the_lines_below_the_others(run_cli):
    code, out, _ = run_cli("devices")
    assert code == 0
    for name, kind in MEASURED.items():
        [line] = lines_of(out, f" {name} ")
        assert ", ".join(kind.precisions) in line
    assert "yes; the default (auto)" in out
    assert "physical cores" in out
    assert "CUDA devices: " in out
    for name in (*data_sheets(), "FILE.csv", "FILE.json"):
        assert name in out


def test_without_the_extras_the_command_that_brings_them_is_told(run_cli, monkeypatch):
    monkeypatch.setattr("stillhouse.device.kinds.find_spec", lambda _: None)
    code, out, _ = run_cli("devices")
    assert code == 0
    [line] = lines_of(out, " onnxruntime-cpu ")
    assert "no: onnx, onnxscript, onnxruntime not installed" in line
    told = " ".join(out.replace("│", " ").split())
    assert "pip install 'stillhouse[onnx]'" in told
    assert "pip install 'stillhouse[openvino]'" in told
    [line] = lines_of(out, " cpu ")
    assert "yes" in line


def latency(ms, workload):
    return summarise([ms] * 20, device="a machine", workload=workload)


def row(**more):
    workload = more.pop("workload", Workload(length=32, batch=4, threads=1))
    known = {"latency": latency(2.0, workload), "size_mb": 14.25, "peak_memory_mb": 90.5}
    return MeasuredRow(device="cpu", workload=workload, **{**known, **more})


@pytest.fixture
def measured(monkeypatch):
    """Puts rows in the place of measuring; gives what was asked for."""
    asked = {}

    def put(*steps, then=None):
        def measure(model, *, on_row, **more):
            asked.update(more, model=model)
            for step in steps:
                on_row(step)
            if then is not None:
                raise then
            return steps[-1]

        monkeypatch.setattr(api, "measure", measure)
        return asked

    return put


def found(*rows, against=None, chains=()):
    return Measurements(
        model="runs/[1]", against=against, processor="a chip", rows=rows, chains=chains
    )


def test_lists_are_split_and_handed_on(run_cli, measured):
    asked = measured(found(row()))
    code, _, _ = run_cli(
        *("measure", "runs/1", "--device", "cpu, onnxruntime-cpu", "--precision", "float32,int8"),
        *("--batch", "1,8", "--length", "32,128", "--threads", "2", "--padding", "0.25"),
        *("--no-memory", "--seconds", "0.5", "--against", "T"),
    )
    assert code == 0
    assert (asked["model"], asked["against"]) == ("runs/1", "T")
    settings = asked["settings"]
    assert settings.devices == ("cpu", "onnxruntime-cpu")
    assert settings.precisions == ("float32", "int8")
    assert (settings.batches, settings.lengths, settings.threads) == ((1, 8), (32, 128), 2)
    assert (settings.padding_fraction, settings.has_memory, settings.longest_s) == (
        0.25,
        False,
        0.5,
    )


def test_a_model_alone_has_no_column_of_a_teacher(run_cli, measured):
    measured(found(row()))
    code, out, _ = run_cli("measure", "runs/1")
    assert code == 0
    assert "runs/[1] on a chip" in out
    [line] = lines_of(out, "float32")
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[:4] == ["cpu", "float32", "4", "32"]
    assert cells[4:] == ["2.00", "2.00 to 2.00", "2.00", "2000.0", "14.2", "90.5"]
    assert "teacher" not in out
    assert "noisy" not in out


def test_beside_a_teacher_the_ratio_and_the_whole_chain_are_told(run_cli, measured):
    workload = Workload(length=32, precision="int8", threads=1)
    one = row(workload=workload, teacher=latency(9.0, workload))
    chain = Chain(row=row(workload=workload, teacher=latency(12.0, workload)), teacher_mb=57.0)
    measured(found(one, against="T", chains=(chain,)))
    _, out, _ = run_cli("measure", "runs/1", "--against", "T")
    [line] = lines_of(out, "│ int8")
    assert [cell.strip() for cell in line.split("│")][-3:-1] == ["9.00", "4.50"]
    assert "The whole chain at batch 1, length 32, from the teacher in PyTorch float32" in out
    [line] = lines_of(out, "cpu, int8:")
    assert "6.00 times faster (12.00 to 2.00 ms), 4.00 times smaller (57.0 to 14.2 MB)" in line


def test_a_noisy_row_is_marked_and_the_note_below_says_after_how_many_attempts(run_cli, measured):
    calm = row(teacher=latency(9.0, Workload(length=32)), noise_fraction=0.05, attempts=2)
    noisy = row(teacher=latency(9.0, Workload(length=32)), noise_fraction=0.21, attempts=3)
    measured(found(calm, noisy, against="T"))
    _, out, _ = run_cli("measure", "runs/1", "--against", "T")
    first, second = lines_of(out, "float32")
    assert "noisy" not in first
    assert "4.50 ± 21% noisy (1)" in second
    [note] = lines_of(out, "attempts")
    assert note.startswith("(1) noisy: after 3 attempts the figure is known to the ± beside it")


def test_what_has_no_figure_tells_why_below_and_once(run_cli, measured):
    lacking = [
        row(
            workload=Workload(length=length, precision="int8"),
            latency=None,
            problem="cpu has no int8",
        )
        for length in (32, 64)
    ]
    long = row(latency=None, workload=Workload(length=600), problem="length 600 is above 512")
    no_memory = row(peak_memory_mb=None, memory_problem="ended by SIGKILL")
    measured(found(*lacking, no_memory, long))
    code, out, _ = run_cli("measure", "runs/1")
    assert code == 0
    [line] = lines_of(out, "int8  ")
    assert [cell.strip() for cell in line.split("│")][3:6] == ["all", "all", "- (1)"]
    notes = [line for line in out.splitlines() if line.startswith("(")]
    assert notes == ["(1) cpu has no int8", "(2) ended by SIGKILL", "(3) length 600 is above 512"]


def test_no_figure_at_all_is_a_failure(run_cli, measured):
    measured(found(row(latency=None, problem="no room")))
    code, out, _ = run_cli("measure", "runs/1")
    assert code == 1
    assert "(1) no room" in out


def test_the_file_is_written_after_every_row_and_ctrl_c_keeps_them(run_cli, measured, tmp_path):
    measured(found(row()), found(row(), row()), then=KeyboardInterrupt())
    file = tmp_path / "figures.json"
    code, out, err = run_cli("measure", "runs/1", "--out", file)
    assert code == 130
    assert len(lines_of(out, "float32")) == 2
    assert "Stopped" in err
    data = json.loads(file.read_text(encoding="utf-8"))
    assert [one["latency"]["median_ms"] for one in data["rows"]] == [2.0, 2.0]
    assert data["rows"][0]["peak_memory_mb"] == 90.5


def test_ctrl_c_before_the_first_row(run_cli, measured):
    measured(then=KeyboardInterrupt())
    code, out, err = run_cli("measure", "runs/1")
    assert (code, out) == (130, "")
    assert "Stopped" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--device", "onnxruntime-cp"), "did you mean 'onnxruntime-cpu'"),
        (("--device", "phone-cpu"), "tells latencies of what does not run here"),
        (("--batch", "1,many"), "--batch must be whole numbers with commas between"),
        (("--length", "0"), "--length must be at least 1, got 0"),
        (("--batch", ","), "--batch names nothing, got ','; leave it out for its default"),
        (("--device", ""), "--device names nothing, got ''"),
        (("--out", "no/such/folder/x.json"), "--out: there is no folder no/such/folder"),
        (("--device", "cpu", "--precision", "int8"), "nothing of this can be measured: cpu has no"),
    ],
)
def test_what_is_impossible_is_one_message(run_cli, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli("measure", "runs/1", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert told in err


def test_a_real_checkpoint(run_cli, weather_teacher_folder, tmp_path):
    file = tmp_path / "figures.json"
    code, out, _ = run_cli(
        *("measure", weather_teacher_folder, "--device", "cpu", "--length", "8,16"),
        *("--no-memory", "--seconds", "0", "--out", file),
    )
    assert code == 0
    assert len(lines_of(out, "float32")) == 2
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [one["latency"]["runs"] for one in rows] == [20, 20]
    assert [one["workload"]["length"] for one in rows] == [8, 16]
