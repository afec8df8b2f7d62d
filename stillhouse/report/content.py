"""What the page shows beside its tables: pictures with axes to choose, drawings, downloads."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.report.axes import Chooser, draw, script_data
from stillhouse.report.chain_points import PLACE as CHAINS_PLACE
from stillhouse.report.chain_points import choose_chains
from stillhouse.report.course import choose_course
from stillhouse.report.csv_tables import downloads
from stillhouse.report.drawing import Json
from stillhouse.report.flash import draw_flash
from stillhouse.report.front_axes import choose_front
from stillhouse.report.gather import Contents
from stillhouse.report.genes import draw_genes
from stillhouse.report.models import draw_architectures
from stillhouse.report.subnets import choose_subnets
from stillhouse.report.supernet_losses import draw_losses


def figures(contents: Contents) -> dict[str, Json]:
    """The figures of this module's parts by their place."""
    choosers = _choosers(contents)
    found: dict[str, Json] = {
        place: draw(choosers[place], is_small=is_small)
        for place, is_small in _DRAWN_HERE.items()
        if place in choosers
    }
    flash = draw_flash(contents)
    if flash is not None:
        found["flash"] = flash
    return {**found, **draw_genes(contents.map_searches), **draw_losses(contents.loss_curves)}


def variables(contents: Contents) -> Mapping[str, object]:
    """What the templates are given of it."""
    choosers = {place: one for place, one in _choosers(contents).items() if one.has_choice}
    return {
        "choosers": choosers,
        "axes_data": script_data(choosers) if choosers else None,
        "gallery": draw_architectures(contents),
        "downloads": downloads(contents),
    }


_DRAWN_HERE = {"course": True, "hypervolume": True, CHAINS_PLACE: False}
"""Figures that are nothing but their choosers, and whether they stand side by side."""


def _choosers(contents: Contents) -> dict[str, Chooser]:
    return {
        **choose_front(contents),
        **choose_subnets(contents),
        **choose_chains(contents),
        **choose_course(contents),
    }
