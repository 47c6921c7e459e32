"""Vocabulary check: report docstrings, comments and messages that break the rules of plain English.

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
# More of them, in messages and help texts.
MESSAGE_WORDS = WORDS | {
    r"\bwants?\b": "requires",
    r"\bmend(s|ed)?\b": "fix, correct, repair",
    r"\banew\b": "again",
    r"\bthere (is|are) none\b": "name the missing thing",
    r"\bsee that\b": "check that",
    r"\bas it (is|was|stands)\b": "unchanged",
    r"\bfor ever\b": "without end",
    r"\btaken for\b": "read as",
}
# Folders whose string literals are checked, too.
MESSAGE_FOLDERS = ("pipelines", "protos", "svilm", "deploy", "trainer", "benchmarks")
# Calls whose strings are stored in snapshots, so that a change would change the bytes.
STORED = {"RowError", "Failure", "reject", "_reject"}


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


def messages(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string literal of several words, except docstrings."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        if isinstance(child, ast.Call) and getattr(child.func, "id", None) in STORED:
            continue
        literal = child.value if isinstance(child, ast.Constant) else None
        if isinstance(literal, str) and len(literal.split()) > 1:
            yield getattr(child, "lineno", 1), literal
        yield from messages(child)


def faults(path: pathlib.Path) -> Iterator[str]:
    """Yield a line for each fault of a file."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = [(line, text, "docstring") for line, text in docstrings(tree)]
    found += [(line, text, "comment") for line, text in comments(source)]
    if path.parts[0] in MESSAGE_FOLDERS:
        found += [(line, text, "message") for line, text in messages(tree)]
    for line, text, kind in sorted(found):
        if kind == "docstring" and (opening := OPENINGS.match(text)):
            yield f"{path}:{line}: a docstring opens with {opening[0]!r}: begin with a verb or noun"
        for word, instead in (MESSAGE_WORDS if kind == "message" else WORDS).items():
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
