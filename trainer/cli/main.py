"""The command line of svilm-train. The modules that it calls do the work."""

import argparse
import contextlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from trainer import child_python
from trainer.cli import logs, standard_streams
from trainer.cli.ablation import add_study
from trainer.cli.arguments import add_settings, count, is_value, on_disk, settings_of
from trainer.cli.commands import add_evaluate, add_report, add_search
from trainer.cli.export_commands import add_embed, add_export
from trainer.cli.figures import add_figures
from trainer.cli.localisation import add_localise
from trainer.cli.outputs import RUN, check_folder
from trainer.cli.plan import add_plan
from trainer.cli.tasks import add_finetune
from trainer.cli.training_arguments import add_loop, begin_loop, check_loop
from trainer.configs import PRESETS, published
from trainer.configs.overrides import OverrideError, override, overruled
from trainer.errors import ExitCode, UserError, report_internal_error
from trainer.progress import LOGGER, PRINTED, say, warn

PROGRAM = "svilm-train"

_PRETRAIN_EPILOG = """\
RUN is then the run: config.json, vocab.txt, metrics.jsonl (a JSON object a logged step),
tensorboard/ and checkpoints/. With average_decay (say 0.999) a moving average of the parameters
is kept too, and all commands use that. In a bucket, whose objects cannot be appended to, metrics
and events are written anew each half a minute and with each checkpoint. The same command again
continues it from its last checkpoint, as if it had never stopped; with settings that would train it
otherwise it is refused.

Ctrl-C or SIGTERM, which is also how a pod announces preemption, ends the step under way, saves a
checkpoint and stops; a second one stops at once. All processes stop after the same step. Exit
status:
  0   trained to the end
  75  stopped by such a signal, and saved: the same command continues; or another command was
      writing to RUN: the same command again when that one has ended
  1   failed, and will again: see the message
  2   wrong usage
  70  a fault in svilm: the message names the file of its traceback
Other codes: a process was killed (130, 137, 143) or lost its peers (134). The same command
continues from the last checkpoint.

A step whose loss or gradient is not finite stops the run, with its clips in bad_steps.jsonl, or
makes no update with --set on_bad_step=skip. spike.loss_factor and spike.gradient_norm define
spikes, which are handled alike. The last checkpoint_keep checkpoints are kept. Multiples of
checkpoint_keep_every are kept permanently.

On Linux, commands that train restart themselves once with glibc's allocator tuned (huge pages,
freed memory kept). SVILM_KEEP_ALLOCATOR=1, or a GLIBC_TUNABLES of yours, prevents it.

Any field of the configuration can be set, by its name in config.json:
  --set batch=64 --set video.width=128 --set video.grouping_after=2,4 --set input.flip=false

examples:
  svilm-train pretrain --preset tiny --snapshot snapshots/train --out runs/first
  svilm-train pretrain --preset small --snapshot snapshots/train --out runs/small \\
      --video-weights videomae-small-finetuned-kinetics --text-weights all-MiniLM-L6-v2
  svilm-train pretrain --preset paper --snapshot snapshots/videocc --out runs/paper \\
      --video-weights vivit-b-16x2-kinetics400 --text-weights bert-base-uncased
  svilm-train pretrain --preset paper --out runs/both --set input.weights=1,20 \\
      --snapshot gs://clips/videocc --snapshot gs://clips/activitynet
"""


class UsageError(UserError):
    """A command line that cannot be understood."""

    exit_code = ExitCode.MISUSED


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._given: dict[argparse.Action, str] = {}  # A parser reads one command line.

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def _parse_optional(self, arg_string: str) -> Any:
        if arg_string not in self._option_string_actions and is_value(arg_string):
            return None
        return super()._parse_optional(arg_string)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        values = super()._get_values(action, arg_strings)
        if action.option_strings and isinstance(action, argparse._StoreAction):
            given = " ".join(map(repr, arg_strings))
            if action in self._given:  # argparse would silently keep the last one.
                name = action.option_strings[0]
                self.error(
                    f"{name} is given twice, {self._given[action]} and {given}: give it once"
                )
            self._given[action] = given
        return values


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
      An exit code (errors.py). It is 75 if the same command is to be run again: training was
      asked to stop and did, or another command was writing to the folder.
    """
    if argv is None:
        standard_streams.prepare()
        switch_64_bits_off()
        child_python.keep_to_it()
    with contextlib.ExitStack() as logging_until_the_end:
        try:
            try:
                arguments = _parser().parse_args(argv)
                if argv is None and arguments.trains:
                    start_with_malloc_tuned()
                logging_until_the_end.enter_context(logs.configured(arguments, argv))
                return arguments.command(arguments)
            finally:
                sys.stdout.flush()  # while its errors can still be reported
        except (UserError, OSError) as error:
            option = "--set: " if isinstance(error, OverrideError) else ""
            say(f"{PROGRAM}: error: {option}{_one_line(error)}", logging.ERROR)
            return error.exit_code if isinstance(error, UserError) else ExitCode.FAILED
        except KeyboardInterrupt:
            warn(f"{PROGRAM}: interrupted")
            return ExitCode.INTERRUPTED
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and not _is_own(error.name or ""):
                missing = f"{error}: pip install '.[trainer]' from the sources"
                say(f"{PROGRAM}: error: {missing}", logging.ERROR)
                return ExitCode.FAILED
            LOGGER.critical("internal error", exc_info=error, extra=PRINTED)
            return report_internal_error(PROGRAM, error)


def _is_own(module: str) -> bool:
    return module.startswith(("trainer", "protos"))


def switch_64_bits_off() -> None:
    """Keep JAX at 32-bit numbers, the type of checkpoints and their figures.

    From Python, where JAX may be imported already, training refuses 64 bits.
    """
    if os.environ.get("JAX_ENABLE_X64", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        os.environ["JAX_ENABLE_X64"] = "0"
        warn(f"{PROGRAM}: JAX_ENABLE_X64 is ignored: models are of float32")


def start_with_malloc_tuned() -> None:
    """Restart this program with glibc's memory in huge pages, kept when it is freed.

    A step on a CPU allocates gigabytes anew, and small pages took a third of its time. The kernel
    clears memory that was returned to it before each reuse: a tenth of the time of reading.
    SVILM_KEEP_ALLOCATOR=1 and any GLIBC_TUNABLES of the user prevent the restart.
    """
    if os.environ.get("SVILM_KEEP_ALLOCATOR", "") not in ("", "0"):
        return
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        values = {
            "hugetlb": 1,
            # Bytes. Setting either threshold stops glibc from adjusting both.
            "mmap_threshold": 2**25,  # glibc's maximum; larger blocks are returned
            "trim_threshold": 2**32,
        }
        os.environ["GLIBC_TUNABLES"] = ":".join(
            f"glibc.malloc.{name}={value}" for name, value in values.items()
        )
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Trains S-ViLM on snapshots of captioned clips, and uses what it learned.",
        epilog=f"`{PROGRAM} COMMAND --help` explains a command and gives an example.",
        allow_abbrev=False,
    )
    version = importlib.metadata.version("svilm")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version}")
    parser.set_defaults(trains=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_pretrain(commands)
    add_finetune(commands)
    add_evaluate(commands)
    add_search(commands)
    add_report(commands)
    add_figures(commands)
    add_export(commands)
    add_embed(commands)
    add_plan(commands)
    add_localise(commands)
    add_study(commands)
    for command in commands.choices.values():
        logs.add(command)
    return parser


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}: see that it may be used and has room"
    return " ".join(str(error).split())


# --- pretrain ---


def add_pretrain(commands: Any) -> None:
    """Add the command `svilm-train pretrain`."""
    parser = commands.add_parser(
        "pretrain",
        help="train a model on a snapshot, or continue to",
        description="Trains S-ViLM on a snapshot, or continues a run that was interrupted.",
        epilog=_PRETRAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_pretrain, misused=parser.error)
    parser.add_argument(
        "--preset",
        required=True,
        choices=PRESETS,
        help="sizes and recipe to start from. tiny: for Shapes, minutes on two cores; small: "
        "ViT-S/16×2 and MiniLM, 16 frames of 224² pixels, batch 256, for one GPU of 24 GB and "
        "published weights to start from (--video-weights, --text-weights); base-16: ViT-B/16×2 "
        "and BERT-base, 16 frames, batch 1024, for 8 GPUs; paper: the same with 32 frames, for a "
        "pod; paper-large: ViT-L/16×2 and BERT-large; paper-huge: ViT-H/14×2 and BERT-large",
    )
    parser.add_argument(
        "--snapshot",
        required=True,
        action="append",
        metavar="DIR",
        help="what `svilm-pipelines build` wrote, on a disk, gs://BUCKET/FOLDER or "
        "s3://BUCKET/FOLDER; repeat it to train on several together, each clip once an epoch or as "
        "often as input.weights says",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="RUN",
        help="folder of the run, new or to be continued, on a disk or gs://BUCKET/FOLDER; several "
        "processes must all reach it",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="BERT's vocab.txt or tokenizer.json, with the settings that are beside it (default: "
        "that of --text-weights or --start-from, else WordPieces trained on the snapshot's "
        "captions and prompts, text.vocabulary of them at most)",
    )
    parser.add_argument(
        "--video-weights",
        type=on_disk,
        metavar="PATH",
        help="start the video encoder from a ViViT or VideoMAE checkpoint in the Hugging Face "
        "layout (a folder of config.json and model.safetensors), or from the file that scenic "
        "saves a ViViT in, and take its sizes",
    )
    parser.add_argument(
        "--text-weights",
        type=on_disk,
        metavar="DIR",
        help="start the text encoder from a BERT checkpoint (with vocab.txt or "
        "tokenizer.json), and take its sizes",
    )
    parser.add_argument(
        "--start-from",
        metavar="RUN",
        help="start from the last checkpoint of another run of the same sizes, on a disk or "
        "gs://BUCKET/FOLDER",
    )
    parser.add_argument(
        "--max-steps",
        type=count(1),
        metavar="N",
        help="stop after N steps, the learning rate's schedule ending there (default: as many as "
        "the preset's epochs have)",
    )
    add_loop(parser)
    add_settings(parser)


def _pretrain(arguments: argparse.Namespace) -> int:
    check_loop(arguments)
    settings = settings_of(arguments, "max_steps")
    config = override(PRESETS[arguments.preset], settings)
    check_folder(arguments, "out", RUN)

    from trainer.distributed import multihost
    from trainer.runs import run_folder
    from trainer.runs.run_path import run_path
    from trainer.training import loop
    from trainer.training.initialization import Start

    out = run_path(arguments.out)
    earlier = run_path(arguments.start_from) if arguments.start_from else None
    monitoring = begin_loop(arguments)
    start = Start(arguments.video_weights, arguments.text_weights, earlier)
    origin = run_folder.read_origin(out, start.options())
    configured = origin.configure(config) if origin else start.configure(config)
    missing = published.describe_missing(
        arguments.preset, video=bool(start.video or earlier), text=bool(start.text or earlier)
    )
    if missing and origin is None and multihost.is_first():
        warn(f"{PROGRAM}: {missing}")
    if lost := overruled(settings, config, configured):
        raise UsageError(f"--set: {lost[0]}, as the starting weights have it: leave it out")
    if not loop.pretrain(
        config, arguments.snapshot, arguments.out, arguments.vocabulary, start, monitoring
    ):
        say(f"pretrain: saved; the same command continues {arguments.out}")
        return ExitCode.RUN_AGAIN
    print(f"pretrain: {arguments.out} is trained to its end")
    return 0
