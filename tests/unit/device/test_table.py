import pytest

from stillhouse.device.latency import Workload
from stillhouse.device.table import TableDevice, read_table
from stillhouse.errors import DeviceError

WORKLOAD = Workload(length=64, batch=2)


@pytest.fixture
def write(tmp_path):
    def write_table(text):
        path = tmp_path / "phone.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write_table


def test_rows_are_looked_up_by_architecture(shape):
    device = TableDevice(
        name="phone",
        latency_ms={"bert-1x16-a2-f32-gelu": 4.0, "bert-2x16-a2-f32-gelu": 7.5, "teacher": 30.0},
    )
    comparison = device.compare(shape(layers=2), WORKLOAD)
    student = comparison.student
    assert [student.low_ms, student.median_ms, student.high_ms] == [7.5] * 3
    assert [student.p10_ms, student.p90_ms] == [7.5] * 2
    assert (student.runs, student.how, student.device) == (0, "table", "phone")
    assert comparison.teacher.median_ms == 30.0
    assert comparison.speedup == 4.0


@pytest.mark.parametrize(
    ("rows", "missing"),
    [({"teacher": 30.0}, "bert-3x16-a2-f32-gelu"), ({"bert-3x16-a2-f32-gelu": 9.0}, "teacher")],
)
def test_a_missing_row_is_named(shape, rows, missing):
    device = TableDevice(name="phone", latency_ms=rows)
    with pytest.raises(DeviceError, match=f"'phone' has no row '{missing}'"):
        device.compare(shape(layers=3), WORKLOAD)


def test_a_file_is_read(write, shape):
    path = write("latency_ms,note,architecture\n12.5,,teacher\n3.25,quick,bert-1x16-a2-f32-gelu\n")
    device = read_table(path)
    assert device.name == "phone"
    assert device.latency_ms == {"teacher": 12.5, "bert-1x16-a2-f32-gelu": 3.25}
    assert device.compare(shape(), WORKLOAD).student.median_ms == 3.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"lacks the columns \['architecture', 'latency_ms'\]"),
        ("architecture,ms\nteacher,3\n", r"lacks the columns \['latency_ms'\]"),
        ("architecture,latency_ms\nbert-1x16-a2-f32-gelu,3\n", "lacks the row 'teacher'"),
        ("architecture,latency_ms\nteacher,3\na,fast\n", "line 3: .* got 'fast'"),
        ("architecture,latency_ms\nteacher,0\n", "line 2: .* got '0'"),
        ("architecture,latency_ms\nteacher,-1\n", "line 2: .* got '-1'"),
        ("architecture,latency_ms\nteacher,nan\n", "line 2: .* got 'nan'"),
        ("architecture,latency_ms\nteacher,inf\n", "line 2: .* got 'inf'"),
        ("architecture,latency_ms\nteacher\n", "line 2: .* got None"),
    ],
)
def test_bad_files_are_refused(write, text, message):
    with pytest.raises(DeviceError, match=message):
        read_table(write(text))


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(DeviceError, match=r"absent\.csv cannot be read .*No such file"):
        read_table(tmp_path / "absent.csv")


def test_a_folder_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(DeviceError, match="cannot be read"):
        read_table(tmp_path)
    path = tmp_path / "latin.csv"
    path.write_bytes("architecture,latency_ms,größe\nteacher,3,1\n".encode("latin-1"))
    with pytest.raises(DeviceError, match="cannot be read as UTF-8 text"):
        read_table(path)


def test_spreadsheet_exports_are_read(write):
    """Spreadsheets write a byte order mark and their own line ends."""
    path = write("\ufeffarchitecture,latency_ms\r\nteacher,3.5\r\n")
    assert read_table(path).latency_ms == {"teacher": 3.5}
