"""What all pages are made of: templates, the package's own sources, data for its scripts."""

from __future__ import annotations

import json
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from stillhouse.report.drawing import DARK, Json


def template(name: str) -> Template:
    """A template of this package, with what every page has: looks, plotly.js, dark colours."""
    environment = Environment(
        loader=PackageLoader("stillhouse.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["in_script"] = in_script
    return environment.get_template(
        name,
        globals={
            "css": own_source("page.css") + own_source("pictures.css") + own_source("print.css"),
            "page_js": own_source("page.js"),
            "plotly_js": Markup(get_plotlyjs()),  # the library's own source, no input
            "dark": DARK,
        },
    )


def own_source(name: str) -> Markup:
    """A style sheet or a script that is part of this package, which no text of a run reaches."""
    return Markup((files("stillhouse.report") / name).read_text(encoding="utf-8"))


def in_script(data: Json) -> Markup:
    """Data inside an element `script`, which nothing but `<` can end or change.

    Jinja's own `tojson` is for attributes as well and makes a figure of many points a third longer.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
