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
from trainer.cli import cache_arguments, logs, standard_streams
from trainer.cli.ablation import add_study
from trainer.cli.arguments import add_settings, count, is_value, on_disk, settings_of
from trainer.cli.columns import add_columns, add_near_duplicates
from trainer.cli.commands import add_evaluate, add_report
from trainer.cli.export_commands import add_embed, add_export, add_import
from trainer.cli.exposure import add_exposure
from trainer.cli.figures import add_figures
from trainer.cli.localisation import add_localise
from trainer.cli.outputs import RUN, check_folder
from trainer.cli.plan import add_plan
from trainer.cli.search import add_index, add_search
from trainer.cli.serve import add_serve
from trainer.cli.signing import add_signing
from trainer.cli.tasks import add_finetune
from trainer.cli.training_arguments import add_loop, begin_loop, check_loop
from trainer.configs import PRESETS, published
from trainer.configs.overrides import OverrideError, overridden, override
from trainer.errors import ExitCode, UserError, report_internal_error
from trainer.progress import LOGGER, PRINTED, say, warn

PROGRAM = "svilm-train"

_PRETRAIN_EPILOG = """\
RUN gets config.json, vocab.txt, metrics.jsonl (one JSON object per logged step), tensorboard/ and
checkpoints/. The same command resumes the run from its last checkpoint, bit for bit. Settings that
would change the training are refused. With --set average_decay=0.999, an EMA of the parameters is
saved too, and all other commands use it. Objects in a bucket cannot be appended to, so there the
metrics and events are rewritten every 30 s and with each checkpoint.

Ctrl-C or SIGTERM, the signal of a preemption, finishes the current step, saves a checkpoint and
stops. A second signal stops at once. All processes stop after the same step. Exit status:
  0   training is complete
  75  preempted after saving: run the same command again; or another command is writing to RUN:
      run the same command when it has ended
  1   failed, and would fail again: see the message
  2   invalid command line
  70  internal error: the message names the file of its traceback
Other codes: a process was killed (130, 137, 143) or lost its peers (134). The same command
resumes from the last checkpoint.

A step with a non-finite loss or gradient stops the run and logs its clips in bad_steps.jsonl. With
--set on_bad_step=skip, it makes no update instead. spike.loss_factor and spike.gradient_norm define
spikes, which are handled in the same way. The last checkpoint_keep checkpoints are kept. Multiples
of checkpoint_keep_every are kept permanently.

On Linux, commands that train restart themselves once with glibc's allocator tuned (huge pages,
freed memory kept). SVILM_KEEP_ALLOCATOR=1 or a GLIBC_TUNABLES of your own prevents it.

--set sets any field of the configuration, by its name in config.json:
  --set batch=64 --set video.width=128 --set video.grouping_after=2,4 --set input.flip=false

examples:
  svilm-train pretrain --preset tiny --snapshot snapshots/train --out runs/first
  svilm-train pretrain --preset small --snapshot snapshots/train --out runs/small \\
      --video-weights videomae-small-finetuned-kinetics --text-weights all-MiniLM-L6-v2
  svilm-train pretrain --preset paper --snapshot snapshots/videocc --out runs/paper \\
      --video-weights vivit-b-16x2-kinetics400 --text-weights bert-base-uncased
  svilm-train pretrain --preset paper --out runs/both --set input.weights=1,20 \\
      --snapshot gs://clips/videocc --snapshot gs://clips/activitynet
  svilm-train pretrain --preset tiny --snapshot snapshots/train --out runs/filtered \\
      --column score.safetensors --where 'score > 0.3' --set input.weights_column=score
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
        option, _, _ = arg_string.partition("=")
        if option not in self._option_string_actions and is_value(arg_string):
            return None
        return super()._parse_optional(arg_string)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        values = super()._get_values(action, arg_strings)
        if action.option_strings and isinstance(action, argparse._StoreAction):
            given = " ".join(map(repr, arg_strings))
            if action in self._given:  # argparse would silently keep the last one.
                name = action.option_strings[0]
                self.error(
                    f"{name} is given twice ({self._given[action]} and {given}): give it once"
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
        child_python.hide_working_folder()
    with contextlib.ExitStack() as logging_until_the_end:
        try:
            try:
                arguments = _parser().parse_args(argv)
                if argv is None and arguments.trains:
                    start_with_malloc_tuned()
                logging_until_the_end.enter_context(logs.configured(arguments, argv))
                with cache_arguments.used(arguments):
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
                say(f"{PROGRAM}: error: {error}: pip install 'svilm[trainer]'", logging.ERROR)
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
        warn(f"{PROGRAM}: JAX_ENABLE_X64 is ignored: models are float32")


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
        description="Trains S-ViLM on snapshots of captioned clips, evaluates it and uses it.",
        epilog=f"`{PROGRAM} COMMAND --help` describes a command, with examples.",
        allow_abbrev=False,
    )
    version = importlib.metadata.version("svilm")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version}")
    parser.set_defaults(trains=False, cache=None, cache_size=None)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_pretrain(commands)
    add_finetune(commands)
    add_evaluate(commands)
    add_index(commands)
    add_search(commands)
    add_serve(commands)
    add_report(commands)
    add_figures(commands)
    add_export(commands)
    add_import(commands)
    add_embed(commands)
    add_columns(commands)
    add_near_duplicates(commands)
    add_exposure(commands)
    add_plan(commands)
    add_localise(commands)
    add_signing(commands)
    add_study(commands)
    for name, command in commands.choices.items():
        logs.add(command)
        if name in cache_arguments.COMMANDS:
            cache_arguments.add(command)
    return parser


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}: check its permissions and the free space"
    return " ".join(str(error).split())


# --- pretrain ---


def add_pretrain(commands: Any) -> None:
    """Add the command `svilm-train pretrain`."""
    parser = commands.add_parser(
        "pretrain",
        help="pre-train a model on snapshots, or resume a run",
        description="Pre-trains S-ViLM on snapshots, or resumes an interrupted run.",
        epilog=_PRETRAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_pretrain, misused=parser.error)
    parser.add_argument(
        "--preset",
        required=True,
        choices=PRESETS,
        help="sizes and recipe. tiny: for Shapes, minutes on two cores; small: ViT-S/16×2 and "
        "MiniLM, 16 frames of 224² pixels, batch 256, for one GPU of 24 GB and published weights "
        "(--video-weights, --text-weights); base-16: ViT-B/16×2 and BERT-base, 16 frames, batch "
        "1024, for 8 GPUs; paper: the same with 32 frames, for a pod; paper-large: ViT-L/16×2 and "
        "BERT-large; paper-huge: ViT-H/14×2 and BERT-large",
    )
    parser.add_argument(
        "--snapshot",
        required=True,
        action="append",
        metavar="DIR",
        help="a snapshot of `svilm-pipelines build`, on a disk, gs://BUCKET/FOLDER or "
        "s3://BUCKET/FOLDER; may be repeated to train on a mixture, with input.weights (default: "
        "each clip once an epoch)",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="EXPR",
        help="train on the clips for which this expression over columns is true, such as 'score > "
        "0.3 and cluster != 7'; repeat it to give one for each --snapshot, '' for all clips "
        "(default: all clips)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FILE",
        help="a column of a snapshot (`svilm-train columns`) that --where or input.weights_column "
        "names; may be repeated, in any order (default: none)",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="RUN",
        help="folder of the run, new or to resume, on a disk or gs://BUCKET/FOLDER; all processes "
        "must have access to it",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="a BERT vocab.txt or tokenizer.json, with the settings in its folder (default: that "
        "of --text-weights or --start-from, else at most text.vocabulary WordPieces trained on the "
        "snapshot's captions and prompts)",
    )
    parser.add_argument(
        "--video-weights",
        type=on_disk,
        metavar="PATH",
        help="initialize the video encoder, and set its sizes, from a ViViT, VideoMAE, ViT, "
        "DINOv2, CLIP or SigLIP checkpoint in the Hugging Face layout (a folder with config.json "
        "and model.safetensors), or from scenic's ViViT file (default: random)",
    )
    parser.add_argument(
        "--text-weights",
        type=on_disk,
        metavar="DIR",
        help="initialize the text encoder, and set its sizes, from a BERT or MiniLM checkpoint "
        "(a folder with vocab.txt or tokenizer.json) (default: random)",
    )
    parser.add_argument(
        "--start-from",
        metavar="RUN",
        help="initialize from the last checkpoint of another run of the same sizes, on a disk or "
        "gs://BUCKET/FOLDER (default: random)",
    )
    parser.add_argument(
        "--max-steps",
        type=count(1),
        metavar="N",
        help="number of steps of the run and of the learning rate schedule (default: the preset's "
        "epochs)",
    )
    add_loop(parser)
    add_settings(parser)


def _pretrain(arguments: argparse.Namespace) -> int:
    check_loop(arguments)
    settings = [*settings_of(arguments, "max_steps"), *_where(arguments)]
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
    if lost := overridden(settings, config, configured):
        raise UsageError(f"--set: {lost[0]}, as set by the starting weights: leave it out")
    if not loop.pretrain(
        config,
        arguments.snapshot,
        arguments.out,
        arguments.vocabulary,
        start,
        monitoring,
        arguments.column,
    ):
        say(f"pretrain: saved; the same command resumes {arguments.out}")
        return ExitCode.RUN_AGAIN
    print(f"pretrain: {arguments.out} is complete")
    return 0


def _where(arguments: argparse.Namespace) -> list[str]:
    """Return the setting of `input.where` that --where gives."""
    if not arguments.where:
        return []
    if any(setting.partition("=")[0].strip() == "input.where" for setting in arguments.settings):
        arguments.misused("--where and --set input.where both set it: leave one out")
    if any("," in expression for expression in arguments.where):
        arguments.misused("--where has a comma, which no expression has: repeat --where instead")
    return [f"input.where={','.join(arguments.where)}"]
