"""Main program of svilm-pipelines: a thin layer over the modules that implement the commands."""

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence

from pipelines.cli import (
    append,
    build,
    engine,
    logs,
    sandbox_messages,
    standard_streams,
    tag_commands,
)
from pipelines.cli.commands import COMMANDS, PROGRAM, CommandError, file_error
from pipelines.errors import ExitCode, UserError, report_internal_error
from pipelines.formatting import format_bytes
from pipelines.messages import LOGGER, PRINTED
from pipelines.processes import child_python
from protos.contract import ContractError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code (errors.py)."""
    if argv is None:
        standard_streams.prepare()
        child_python.hide_working_folder()
    with contextlib.ExitStack() as logging_until_the_end:
        try:
            try:
                return _command(argv, logging_until_the_end)
            finally:
                sys.stdout.flush()  # while its errors can still be reported
        except (UserError, ContractError) as error:
            engine.complain(str(error))
            return error.exit_code if isinstance(error, UserError) else ExitCode.FAILED
        except OSError as error:
            engine.complain(file_error(error))
            return ExitCode.FAILED
        except KeyboardInterrupt:
            engine.report_interruption()
            return ExitCode.INTERRUPTED
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and not _is_own(error.name or ""):
                engine.complain(f"{error}: pip install 'svilm[pipelines]'")
                return ExitCode.FAILED
            LOGGER.critical("internal error", exc_info=error, extra=PRINTED)
            return report_internal_error(PROGRAM, error)


# Arguments that name a version: its folder or CORPUS@TAG.
_SNAPSHOTS = ("snapshot", "old", "new", "retry_rejects")


def _version(path: str) -> str:
    from pipelines.snapshots import tags

    return tags.resolve(path)


def _is_own(module: str) -> bool:
    return module.startswith(("pipelines", "protos"))


def _command(argv: Sequence[str] | None, logging_until_the_end: contextlib.ExitStack) -> int:
    from pipelines.cli.arguments import parsers

    parser, build_parser = parsers()
    arguments, rest = parser.parse_known_args(argv)
    logging_until_the_end.enter_context(logs.configured(arguments, argv))
    for name in _SNAPSHOTS:
        if "@" in (getattr(arguments, name, None) or ""):
            setattr(arguments, name, _version(getattr(arguments, name)))
    if "@" in "".join(getattr(arguments, "snapshots", ())):
        arguments.snapshots = [_version(path) for path in arguments.snapshots]
    if arguments.command == "build":
        return build.build(arguments, rest, build_parser)
    if arguments.command == "append":
        return append.append(arguments, rest, build_parser)
    if rest:
        parser.error(f"unrecognised arguments {' '.join(rest)}: remove them")
    commands = COMMANDS | tag_commands.COMMANDS | {"corpus": _corpus, "estimate": _estimate}
    return commands[arguments.command](arguments)


def _corpus(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from pipelines.cli.progress import Progress
    from pipelines.shapes import corpus
    from pipelines.snapshots import run_lock
    from pipelines.storage import storage

    if storage.in_bucket(arguments.out):
        raise CommandError(
            f"a corpus cannot be written to the bucket {arguments.out}: name a folder on a disk"
        )
    progress = Progress("corpus", "clips")
    began = time.monotonic()
    try:
        with run_lock.held(arguments.out):
            summary = corpus.write(
                Path(arguments.out),
                train_clips=arguments.train_clips,
                test_clips=arguments.test_clips,
                seed=arguments.seed,
                workers=arguments.workers,
                tasks=arguments.tasks,
                progress=progress.update,
            )
    finally:
        progress.close()
    print(
        f"corpus: {summary.train_clips:,} + {summary.test_clips:,} clips in {summary.videos:,} "
        f"videos, {format_bytes(summary.video_bytes)}, {time.monotonic() - began:.1f} s "
        f"→ {arguments.out}"
    )
    return 0


def _estimate(arguments: argparse.Namespace) -> int:
    build.refuse_contradictions(arguments)
    sandbox_messages.check(arguments.decoder, arguments.require_sandbox)

    from pipelines.building import estimate
    from pipelines.cli.progress import Progress

    with build.usable_inputs(arguments):
        planned, _ = build.make_plan(arguments)
        rows = estimate.read(planned, arguments.sample)
        if not rows.drawn:
            raise CommandError(
                f"all {rows.rows:,} rows are rejected before decoding: check --annotations and the "
                "filters"
            )
        progress = Progress("estimate", "videos")
        try:
            tried = estimate.build_sample(planned, rows.drawn, progress.update)
        finally:
            progress.close()
    for line in estimate.lines(rows, tried, arguments.workers, arguments.price):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
