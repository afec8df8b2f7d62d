"""Tasks from datasets of the Hugging Face hub, or from folders that `datasets` can load.

Their names begin with `hf:` and go on as `NAME`, `OWNER/NAME` or the path of a folder, each
perhaps with `:CONFIG`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets

from stillhouse.data.table import load_columns
from stillhouse.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillhouse.data.examples import Source

HUB_PREFIX = "hf:"
TRAIN_SPLIT = "train"
DEV_SPLITS = ("validation", "test")
"""Splits that serve as dev set where none is named, the first that there is."""


def check_hub_name(name: str, *, called: str) -> None:
    """Refuses a name that names no dataset.

    Args:
        name: Begins with `hf:`.
        called: The setting that has it, for the error.

    Raises:
        SettingsError: If nothing stands where dataset or configuration should.
    """
    dataset, colon, config = name.removeprefix(HUB_PREFIX).partition(":")
    if not dataset or (colon and not config) or ":" in config:
        raise SettingsError(
            f"{called} {name!r} names no dataset; write hf:NAME, hf:OWNER/NAME or hf:./FOLDER, "
            "each perhaps with :CONFIG"
        )


def load_hub(
    name: str, *, dev: str | None, text: Sequence[str], label: str | None, metric: str | None
) -> Source:
    """Loads a task from a dataset; code that a dataset brings is never run.

    Args:
        name: Such as `hf:imdb`, `hf:OWNER/NAME:CONFIG` or `hf:./folder`.
        dev: Split of dev examples; `None` takes `validation`, else `test`, else holds 10 % of the
            training examples out.
        text: As for `load_columns`.
        label: As for `load_columns`.
        metric: The user's metric; decides between classes and numbers where it is given.

    Raises:
        DataError: If the dataset cannot be loaded, or lacks a split or a column.
    """
    splits = _load(name)
    if TRAIN_SPLIT not in splits:
        raise DataError(
            f"{name} has no split {TRAIN_SPLIT!r} to learn from, only {_listed(splits)}; name "
            "another dataset or configuration"
        )
    if dev is not None and dev not in splits:
        raise DataError(f"{name} has no split {dev!r} for the dev set, only {_listed(splits)}")
    usual = next((split for split in DEV_SPLITS if split in splits), None)
    return load_columns(
        splits[TRAIN_SPLIT],
        None if (dev or usual) is None else splits[dev or usual],
        text=text,
        label=label,
        metric=metric,
        names=(f"{name}, split {TRAIN_SPLIT}", f"{name}, split {dev or usual}"),
    )


def _load(name: str) -> datasets.DatasetDict:
    dataset, _, config = name.removeprefix(HUB_PREFIX).partition(":")
    try:
        return datasets.load_dataset(dataset, config or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if "scripts are no longer supported" in str(error):
            raise DataError(
                f"{name} is a program that makes a dataset, and code of others is never run; name "
                "a copy of it in Parquet files, on the hub or in a folder (hf:./FOLDER)"
            ) from error
        raise DataError(
            f"cannot load {name} ({error}); check the name, go online once so that it is "
            "downloaded and kept, or give a folder that `datasets` can load as hf:./FOLDER"
        ) from error


def _listed(splits: datasets.DatasetDict) -> str:
    return ", ".join(repr(split) for split in splits)
