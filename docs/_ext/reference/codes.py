"""Reference of reject codes, exit codes and files, from the tables and docstrings of the code."""

import enum
import inspect
import re

from reference.markdown import block, entry, escaped


def rejects() -> str:
    """Return the reason codes of rejects by stage."""
    from pipelines.sources import reject_reasons

    parts = []
    for line in inspect.getsource(reject_reasons).splitlines():
        if stage := re.fullmatch(r'\s*# stage "(\w+)": (.*)', line):
            parts.append(f"## Stage {stage[1]}: {escaped(stage[2])}\n")
        elif (code := re.match(r'\s*"(\w+)":', line)) and code[1] in reject_reasons.REASONS:
            meaning = reject_reasons.REASONS[code[1]]
            parts.append(entry(f"`{code[1]}`", escaped(f"{meaning[0].upper()}{meaning[1:]}.")))
    return "\n".join(parts)


def exit_codes() -> str:
    """Return the exit codes of both programs."""
    from pipelines.errors import ExitCode as OfPipelines
    from trainer.errors import ExitCode as OfTrainer

    return "\n".join(
        [
            *("## svilm-pipelines\n", *_members(OfPipelines)),
            *("## svilm-train\n", *_members(OfTrainer)),
        ]
    )


def _members(codes: type[enum.IntEnum]) -> list[str]:
    source = inspect.getsource(codes)
    lines = []
    for member in codes:
        comment = re.search(rf"^    {member.name} = [^#\n]*(?:# (.*))?$", source, re.MULTILINE)
        meaning = (comment and comment[1]) or ""
        name = member.name.replace("_", " ").capitalize()
        lines.append(entry(f"`{member.value}`", f"{name}{': ' if meaning else ''}{meaning}."))
    return lines


def run_files() -> str:
    """Return the files of a run's folder."""
    from trainer.runs import run_folder

    return block(inspect.getdoc(run_folder) or "")


def feature_files() -> str:
    """Return the files that `svilm-train embed` writes."""
    from trainer.inference import features

    return block(inspect.getdoc(features) or "")


def column_files() -> str:
    """Return the format of columns, and the grammar of expressions over them."""
    from trainer.data import columns, where

    return "\n".join(block(inspect.getdoc(module) or "") for module in (columns, where))


def index_files() -> str:
    """Return the files that `svilm-train index` writes."""
    from trainer.index import files

    return block(inspect.getdoc(files) or "")
