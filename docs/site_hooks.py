"""What the site makes of the documents: pages from other places, links to them, pictures inline.

The documents are written to be read in the repository as well, so they link to files beside the
folder `docs`. The site has a page for each of these.
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import inspect
import posixpath
import re
import typing
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import stillhouse
from stillhouse.cli.setting_names import explained
from stillhouse.run import settings as settings_module

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
BESIDE = {
    "contributing.md": "CONTRIBUTING.md",
    "results.md": "RESULTS.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site that are documents beside the folder."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r'<p><img alt="([^"]*)" src="([^"]+\.svg)" */?></p>')
LANGUAGES = {".py": "python", ".yaml": "yaml", ".csv": "text", ".toml": "toml"}
TESTED = re.compile(r"^<!-- test: .*? -->\n", flags=re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made: documents beside the folder, and sources."""
    made = {page: (REPOSITORY / source).read_text("utf-8") for page, source in BESIDE.items()}
    written = {path.relative_to(DOCS).as_posix(): path for path in DOCS.rglob("*.md")}
    texts = {page: path.read_text("utf-8") for page, path in written.items()} | made
    sources = {
        target
        for page, text in texts.items()
        for target in _targets(page, text)
        if _is_source(target)
    }
    made |= {source_page(target): _source_text(target) for target in sources}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Leads links to files beside the folder to their pages, and names the public names."""
    here = page.file.src_uri
    markdown = TESTED.sub("", markdown)
    if here == "api.md":
        markdown = with_names(markdown)
    if here == "settings.md":
        markdown = with_settings(markdown)
    return "".join(
        part if part.startswith("```") else LINK.sub(lambda found: _led(here, found), part)
        for part in FENCE.split(markdown)
    )


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Puts pictures into the page, where they follow its colours."""

    def inline(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), found[2]))
        drawn = (DOCS / path).read_text("utf-8")
        named = html.escape(html.unescape(found[1]), quote=True)
        drawn = drawn.replace("<svg ", f'<svg role="img" aria-label="{named}" ', 1)
        return f'<div class="picture-scroll" tabindex="0">{drawn}</div>'

    return PICTURE.sub(inline, content)


def source_page(target: str) -> str:
    """Names the page of a file or folder of the repository."""
    return f"source/{target.rstrip('/')}.md"


def with_names(markdown: str) -> str:
    """Writes out the reference of the public names, which the page groups in comments.

    Raises:
        PluginError: If one is missing on the page.
    """
    grouped = re.findall(r"^<!-- names: (.*?) -->$", markdown, flags=re.MULTILINE)
    told = {name for group in grouped for name in group.split()}
    missing = set(stillhouse.__all__) - told
    if missing:
        raise PluginError(f"docs/api.md leaves out {', '.join(sorted(missing))}")

    def written(found: re.Match[str]) -> str:
        return "\n\n".join(f"::: {_home(name)}" for name in found[1].split())

    return re.sub(r"^<!-- names: (.*?) -->$", written, markdown, flags=re.MULTILINE)


def _home(name: str) -> str:
    """Returns where a public name, or one with its module (`errors.DataError`), is at home."""
    module, _, inside = name.rpartition(".")
    if module:
        try:
            home = importlib.import_module(f"stillhouse.{module}")
        except ModuleNotFoundError as error:
            raise PluginError(f"docs/api.md names {name}, whose module is missing") from error
        if getattr(getattr(home, inside, None), "__module__", None) == home.__name__:
            return f"stillhouse.{name}"
    if name not in stillhouse.__all__:
        raise PluginError(f"docs/api.md names {name}, which is not public")
    home = getattr(stillhouse, name)
    if hasattr(home, "__path__"):
        return str(home.__name__)
    return f"{home.__module__}.{home.__qualname__}"


def _targets(page: str, text: str) -> list[str]:
    """Returns the files of the repository that a page links to, as paths from its root."""
    prose = FENCE.sub("", text)
    return [_resolved(page, link) for link, _ in LINK.findall(prose)]


def _resolved(page: str, link: str) -> str:
    folder = "" if page in BESIDE else posixpath.join("docs", posixpath.dirname(page))
    return posixpath.normpath(posixpath.join(folder, link))


def _is_source(target: str) -> bool:
    inside = target.startswith("docs/") or target in (*BESIDE.values(), "README.md")
    return not inside and (REPOSITORY / target).exists()


def _led(page: str, found: re.Match[str]) -> str:
    target, anchor = _resolved(page, found[1]), found[2] or ""
    pages = {source: page for page, source in BESIDE.items()} | {"README.md": "index.md"}
    if target in pages:
        new = pages[target]
    elif _is_source(target):
        new = source_page(target)
    elif page in BESIDE:
        new = target.removeprefix("docs/")
    else:
        return found[0]
    return posixpath.relpath(new, posixpath.dirname(page) or ".") + anchor


def _source_text(target: str) -> str:
    path = REPOSITORY / target
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {target}\n\n"
    if path.is_dir():
        return head + "\n".join(f"- `{one.name}`" for one in sorted(path.iterdir())) + "\n"
    text = path.read_text("utf-8")
    fence = "`" * 4
    return f"{head}{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text}\n{fence}\n"


def with_settings(markdown: str) -> str:
    """Writes out all settings from their classes: names, defaults, meaning.

    Raises:
        PluginError: If a setting is nowhere explained.
    """
    kind = settings_module.RunSettings
    lines = ["## The run itself", *_HEAD]
    sections = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default_factory):
            sections.append((field.name, field.default_factory))
        else:
            lines.append(_row(field.name, field, kind, _beneath(kind)[field.name]))
    for name, section in sections:
        lines += ["", f"## {name}", "", _summary(section), *_HEAD]
        told = explained(inspect.getdoc(section) or "")
        for field in dataclasses.fields(section):
            if field.name not in told:
                raise PluginError(f"{section.__name__} does not say what {field.name} is")
            lines.append(_row(f"{name}.{field.name}", field, section, told[field.name]))
    return markdown.replace("<!-- settings -->", "\n".join(lines))


_HEAD = ["", "| setting | default | what |", "| --- | --- | --- |"]


def _row(name: str, field: dataclasses.Field[Any], kind: type, told: str) -> str:
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    choices = _choices(typing.get_type_hints(kind)[field.name])
    more = f" One of {', '.join(f'`{one}`' for one in choices)}." if choices else ""
    spelt = told.replace("|", "\\|").replace("\n", " ")
    return f"| `{name}` | {_spelt(default)} | {spelt}{more} |"


def _spelt(value: object) -> str:
    """Spells a default as a settings file has it."""
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`[{', '.join(map(str, value))}]`"
        case _:
            return f"`{value}`"


def _choices(hint: Any) -> list[str]:
    """Lists the words that a setting may be, where it is one of some words."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(one) for one in typing.get_args(hint)]
    inner = [one for one in typing.get_args(hint) if one is not type(None)]
    return [word for one in inner for word in _choices(one)]


def _summary(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0]


def _beneath(kind: type) -> dict[str, str]:
    """Returns what stands beneath the fields of a class, as strings of their own."""
    path = Path(str(settings_module.__file__))
    text = path.read_text("utf-8").partition(f"class {kind.__name__}")[2]
    found = re.findall(
        r'^    (\w+): [^\n]*\n    """(.*?)"""$', text, flags=re.MULTILINE | re.DOTALL
    )
    return {"seed": "Decides everything that is drawn by chance."} | {
        name: " ".join(told.split()) for name, told in found
    }
