"""Vocabulary check: report docstrings and comments that break the rules of plain English.

python tests/check_english.py FOLDER...
"""

import ast
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator

# First words that leave out the verb, or put the subject last.
OPENINGS = re.compile(r"(Of|What|Whether|Which|Where|As|Those|Whose)\b")
# Homely words, and the term to write instead.
WORDS = {
    r"\btells?\b|\btold\b": "report, state, say",
    r"\bgoes on\b|\bgo on\b": "continue, resume",
    r"\bbehind one another\b": "concatenated",
    r"\bby hand\b": "manually",
    r"\btheirs\b|\bours\b": "name the thing",
    r"\blook at\b|\blooks at\b": "check, read",
}


# Code in prose: names between backticks, names of arguments, doctests.
CODE = re.compile(r"`[^`]*`|^\s*\w+:|^\s*(?:>>>|\.\.\.).*(?:\n(?!\s*$).*)*", re.MULTILINE)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def faults(path: pathlib.Path) -> Iterator[str]:
    """Yield a line for each fault of a file."""
    source = path.read_text(encoding="utf-8")
    found = [(line, text, True) for line, text in docstrings(ast.parse(source))]
    found += [(line, text, False) for line, text in comments(source)]
    for line, text, docstring in sorted(found):
        if docstring and (opening := OPENINGS.match(text)):
            yield f"{path}:{line}: a docstring opens with {opening[0]!r}: begin with a verb or noun"
        for word, instead in WORDS.items():
            if homely := re.search(word, CODE.sub("", text)):
                yield f"{path}:{line}: {homely[0]!r}: write {instead}"


def main() -> int:
    """Check all Python files of some folders; return 1 if any has a fault."""
    lines = [
        line
        for folder in sys.argv[1:]
        for path in sorted(pathlib.Path(folder).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
        for line in faults(path)
    ]
    print("\n".join(lines) or "english: no fault")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
