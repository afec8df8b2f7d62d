import shutil

import pytest
import torch

from stillhouse.device import inventory, runtimes
from stillhouse.device.inventory import default_kind, take_inventory
from stillhouse.device.kinds import MEASURED
from stillhouse.device.runtimes import program_of, why_unusable


def test_every_kind_is_listed_with_what_it_takes():
    here = take_inventory()
    assert [one.name for one in here.devices] == list(MEASURED)
    by_name = {one.name: one for one in here.devices}
    assert by_name["cpu"].missing is None
    assert by_name["cpu"].program == f"PyTorch {torch.__version__}"
    assert by_name["onnxruntime-cpu"].precisions == ("float32", "int8", "int8-static")
    assert by_name[here.default].missing is None
    assert here.processor
    assert here.threads >= 1
    assert (len(here.cuda) > 0) == torch.cuda.is_available()


def test_without_the_extras_only_pytorch_is_left(monkeypatch):
    def no_version(package):
        if package == "torch":
            return "9.9"
        raise runtimes.PackageNotFoundError(package)

    monkeypatch.setattr("stillhouse.device.kinds.find_spec", lambda _: None)
    monkeypatch.setattr(runtimes, "version", no_version)
    by_name = {one.name: one for one in take_inventory().devices}
    assert by_name["onnxruntime-cpu"].program == "ONNX Runtime"
    assert by_name["cpu"].program == "PyTorch 9.9"
    assert by_name["openvino-cpu"].missing == (
        "onnx, onnxscript, onnxruntime, openvino not installed: pip install 'stillhouse[openvino]'"
    )
    assert by_name["onnxruntime-cuda"].missing.endswith("pip install 'stillhouse[onnx-gpu]'")


def test_the_version_may_be_that_of_the_package_for_cuda(monkeypatch):
    def version(package):
        if package == "onnxruntime-gpu":
            return "1.99"
        raise runtimes.PackageNotFoundError(package)

    monkeypatch.setattr(runtimes, "version", version)
    assert program_of("ONNX Runtime") == "ONNX Runtime 1.99"


@pytest.mark.parametrize(("has_cuda", "default"), [(False, "cpu"), (True, "cuda")])
def test_the_default_is_cuda_where_there_is_any(monkeypatch, has_cuda, default):
    monkeypatch.setattr(inventory.torch.cuda, "is_available", lambda: has_cuda)
    assert default_kind() == default


def test_compiling_needs_the_compiler_that_torch_would_take(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "finds no C++ compiler (no-such-compiler): install one" in why_unusable("compiled-cpu")
    assert why_unusable("cpu") is None
    there = tmp_path / "compiler"
    there.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(there))
    monkeypatch.setattr(runtimes.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "needs the headers of Python" in why_unusable("compiled-cpu")
    (tmp_path / "Python.h").touch()
    assert why_unusable("compiled-cpu") is None


def test_compiling_for_cuda_needs_triton(monkeypatch):
    monkeypatch.setattr(runtimes.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(runtimes, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert why_unusable("compiled-cuda") == "triton not installed: pip install triton"
    monkeypatch.setattr(runtimes, "find_spec", lambda name: name)
    assert why_unusable("compiled-cuda") is None
