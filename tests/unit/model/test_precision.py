import pytest
import torch

from stillhouse.errors import SettingsError
from stillhouse.model import precision
from stillhouse.model.precision import autocast, bfloat16_helps, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("helps", "automatic"), [(True, "bfloat16"), (False, "float32")])
def test_automatic_precision_follows_the_hardware(monkeypatch, helps, automatic):
    monkeypatch.setattr(precision, "bfloat16_helps", lambda device: helps)
    assert resolve_precision("auto", CPU) == automatic
    assert resolve_precision("float32", CPU) == "float32"


def test_bfloat16_is_refused_without_hardware(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_helps", lambda device: device.type == "cuda")
    assert resolve_precision("bfloat16", torch.device("cuda")) == "bfloat16"
    with pytest.raises(SettingsError, match="cpu here has no bfloat16 hardware"):
        resolve_precision("bfloat16", CPU)


def test_only_processors_and_cuda_devices_are_asked():
    assert isinstance(bfloat16_helps(CPU), bool)
    assert bfloat16_helps(torch.device("meta")) is False


@pytest.mark.parametrize(
    ("wanted", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_matrix_products_have_the_precision(wanted, dtype):
    with autocast(CPU, wanted):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_float32_region_inside_a_bfloat16_one_holds():
    with autocast(CPU, "bfloat16"), autocast(CPU, "float32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
