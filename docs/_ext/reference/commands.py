"""Reference of the two programs, from their argument parsers."""

import argparse
import os

from reference.markdown import block, entry, escaped


def pipelines() -> str:
    """Return the commands of svilm-pipelines."""
    from pipelines.cli.arguments import parsers

    return _program(parsers()[0])


def trainer() -> str:
    """Return the commands of svilm-train."""
    from trainer.cli.main import _parser

    return _program(_parser())


def _program(parser: argparse.ArgumentParser) -> str:
    os.environ["COLUMNS"] = "90"  # width of usage lines
    return "\n".join(
        _command(name, command)
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, command in action.choices.items()
    )


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"## {name}\n", f"{escaped(parser.description or '')}\n", block(parser.format_usage())]
    for group in parser._action_groups:
        actions = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
        ]
        if actions:
            title = {"positional arguments": "Arguments", "options": "Options"}
            parts.append(f"### {name}: {title.get(group.title or '', group.title)}\n")
            parts += [_argument(parser, action) for action in actions]
    if parser.epilog:
        parts += [f"### {name}: notes\n", block(parser.epilog)]
    return "\n".join(parts)


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    text = formatter._expand_help(action) if action.help else ""
    if text:
        text = text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
    needed = "Required." if action.required and action.option_strings else ""
    values = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    terms = [f"{option} {values}".strip() for option in action.option_strings]
    if not terms:
        terms = [formatter._format_args(action, action.dest)]
    term = ", ".join(f"`{one}`" for one in terms)
    return entry(term, f"{escaped(text)} {needed}".strip() or "No help text.")
