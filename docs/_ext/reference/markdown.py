"""Plain text as Markdown."""

import re
import textwrap

_CODE = re.compile(r"(`[^`]+`)")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~$#])")


def escaped(text: str) -> str:
    """Escape Markdown's special characters, except in code between backticks."""
    parts = _CODE.split(text)
    return "".join(p if _CODE.fullmatch(p) else _SPECIAL.sub(r"\\\1", p) for p in parts)


def block(text: str) -> str:
    """Return a text as a literal block."""
    return f"```text\n{text.rstrip()}\n```\n"


def entry(term: str, *paragraphs: str) -> str:
    """Return an entry of a definition list."""
    first, *rest = [paragraph for paragraph in paragraphs if paragraph]
    return "\n\n".join([f"{term}\n: {first}", *(textwrap.indent(one, "  ") for one in rest)]) + "\n"


def prose(comment: str) -> str:
    """Return a comment's text, in which lines that are indented are a literal block."""
    out, literal = [], []
    for line in [*comment.splitlines(), ""]:
        if line.startswith("  "):
            literal.append(line)
            continue
        if literal:
            out += ["", block(textwrap.dedent("\n".join(literal)))]
            literal = []
        out.append(escaped(line))
    return "\n".join(out).strip()
