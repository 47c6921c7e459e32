"""Code blocks of the documentation's pages."""

import pathlib
import re
import textwrap
import types

ROOT = pathlib.Path(__file__).parents[2]


def of(page: pathlib.Path, language: str) -> list[str]:
    """Return a page's blocks of a language, also those within lists, without their indent."""
    found = re.finditer(
        rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.DOTALL | re.M
    )
    return [textwrap.dedent(block[2]) for block in found]


def module(name: str, source: str, page: pathlib.Path) -> types.ModuleType:
    """Return a module of a block's code."""
    made = types.ModuleType(name)
    exec(compile(source, page.name, "exec"), made.__dict__)
    return made


def pages() -> list[pathlib.Path]:
    """Return the pages of the documentation, without those that `make docs` writes."""
    docs = ROOT / "docs"
    built = (docs / "build", docs / "generated")
    found = sorted(docs.rglob("*.md"))
    return [page for page in found if not any(folder in page.parents for folder in built)]
