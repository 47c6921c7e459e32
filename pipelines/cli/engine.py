"""The run of a build's graph on its engine, and its failures in a user's words."""

import logging
import os
from collections.abc import Sequence

from pipelines.cli import logs
from pipelines.cli.commands import PROGRAM, CommandError
from pipelines.errors import InternalError
from pipelines.formatting import printable
from pipelines.messages import LOGGER, say, warn


def complain(message: str) -> None:
    """Print and log an error."""
    say(f"{PROGRAM}: error: {printable(message)}", logging.ERROR)


def report_interruption() -> None:
    """Print and log that Ctrl-C ended the command."""
    warn(f"{PROGRAM}: interrupted")


def choose(workers: int, beam_arguments: Sequence[str], worker_log: str = os.devnull):
    """Return Beam's runner and options, as `runners.choose` does."""
    from pipelines.building import runners

    return runners.choose(workers, beam_arguments, worker_log)


def run(planned, workers: int, beam_arguments: Sequence[str]):
    """Run the graph and return Beam's result, or None if the job is submitted without waiting."""
    from pipelines.building import dataflow, graph, runners, worker_processes
    from pipelines.cli import progress

    def begun(result) -> None:
        if page := dataflow.page(result, options):
            say(f"build: job page: {page}")

    def ended(message: str) -> None:
        error = log.last_error()
        complain(_stopped(f"{message} ({error})" if error else message, log.keep()))

    def interrupted() -> None:
        log.remove()
        report_interruption()

    with worker_processes.engine_log(logs.formatter()) as log:
        runner, options = choose(workers, beam_arguments, log.path)
        name = runner if isinstance(runner, str) else type(runner).__name__
        LOGGER.info("building %s with %s, %d workers", planned.out, name, workers)
        try:
            with (
                runners.end_with_workers(ended),
                runners.interruptible(workers, interrupted),
                progress.watching(planned.out, planned.stems),
            ):
                result = graph.run(planned, runner, options, begun)
                return result if runners.waits(options) else None
        except Exception as error:  # Engines wrap a worker's exception in their own types.
            cause = runners.cause(error)
            if runners.is_fault(cause):
                raise InternalError(f"{cause} (finished shards are kept)") from error
            LOGGER.info("the engine's exception", exc_info=error)
            raise CommandError(_stopped(cause, log.keep(error))) from None


def totals(result):
    """Return this run's beam_metrics.Totals, or None if it built nothing or has no metrics."""
    from pipelines.building import beam_metrics

    try:
        return beam_metrics.totals(result)
    except Exception:  # The snapshot is built even if the engine cannot report its metrics.
        LOGGER.warning("the engine reports no metrics", exc_info=True)
        return None


def _stopped(cause: str, log: str) -> str:
    return (
        f"the build stopped: {cause}. Finished shards are kept: fix the cause and run the same "
        f"command again (the traceback is in {log})"
    )
