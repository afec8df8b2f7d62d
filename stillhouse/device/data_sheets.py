"""The file of data sheets as it is; the names in it are known without loading much."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def data_sheets() -> Mapping[str, Mapping[str, Any]]:
    """Reads the data sheets by chip, not checked: `chips.py` does that, and loads pydantic."""
    text = (files("stillhouse.device") / "chips.yaml").read_text(encoding="utf-8")
    sheets: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)
    return sheets
