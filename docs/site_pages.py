"""A hook of MkDocs: adds to the site the pages outside docs/, the files that pages link to, and the list of problems."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from dlhealth.engine.load import load_rules
from dlhealth.model import Layer

PROJECT = Path(__file__).parent.parent
TOP = {page.name: "index.md" if page.name == "README.md" else page.name for page in PROJECT.glob("*.md")}
"""The pages at the top of the project, with their names on the site."""
LINK = re.compile(r"(?P<literal>```.*?```|`[^`\n]*`)|\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", re.DOTALL)
FILES = "files"
"""The directory of the site with the linked files that are no pages."""

UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the section of the problems: the indexes, then the pages by layer."""
    rules = load_rules("/nonexistent").rules
    layers = {layer.value: [f"rules/{r.id}.md" for r in rules if r.layer is layer] for layer in Layer}
    indexes = {page.stem for page in (PROJECT / "docs/rules").glob("*.md")} - {r.id for r in rules}
    problems: list[Any] = [f"rules/{name}.md" for name in sorted(indexes)]
    problems += [{layer: pages} for layer, pages in layers.items() if pages]
    config.nav = [{"Problems": problems} if "Problems" in entry else entry for entry in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    sources = {PROJECT / name: made for name, made in TOP.items()}
    for source, made in sources.items():
        files.append(File.generated(config, made, content=source.read_text()))
    pages = [*sources, *(PROJECT / "docs").rglob("*.md")]
    for target in sorted({linked for page in pages for linked in linked_files(page)}):
        _add(files, config, target)
    return files


def _add(files: Files, config: MkDocsConfig, target: Path) -> None:
    name = place_of(target)
    if target.is_dir():
        inside = sorted(p for p in target.rglob("*") if p.is_file())
        for path in inside:
            _add(files, config, path)
        here = os.path.dirname(name)
        listed = "".join(f"- [{p.relative_to(target)}]({os.path.relpath(place_of(p), here)})\n" for p in inside)
        files.append(File.generated(config, name, content=f"{UNSEARCHED}# {target.name}\n\n{listed}"))
    elif not files.get_file_from_path(name):
        files.append(File.generated(config, name, content=target.read_bytes()))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links lead to where the targets are on the site."""
    source = source_of(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = link["target"]
        if not target or "://" in target or not source:
            return link[0]
        name = place_of((source.parent / target).resolve())
        return f"]({os.path.relpath(name, os.path.dirname(page.file.src_uri) or '.')}{link['anchor'] or ''})"

    return LINK.sub(moved, markdown)


def source_of(name: str) -> Path | None:
    """The file of the project that a page of the site is made from; None for a list of files."""
    for top, made in TOP.items():
        if made == name:
            return PROJECT / top
    return None if name.startswith(f"{FILES}/") else PROJECT / "docs" / name


def place_of(path: Path) -> str:
    """The name on the site of a file of the project."""
    relative = path.relative_to(PROJECT)
    if relative.name in TOP and relative.parent == Path():
        return TOP[relative.name]
    if relative.parts[0] == "docs" and path.is_file():
        return str(relative.relative_to("docs"))
    return f"{FILES}/{relative}" if path.is_file() else f"{FILES}/{relative}/index.md"


def linked_files(page: Path) -> set[Path]:
    """The files and directories that a page links to and that are not on the site by themselves."""
    targets = {m["target"] for m in LINK.finditer(page.read_text()) if m["target"] and "://" not in m["target"]}
    paths = {(page.parent / target).resolve() for target in targets}
    return {path for path in paths if place_of(path).startswith(f"{FILES}/") and path.exists()}
