"""The arguments and the output of `svilm-train study`."""

import argparse
from functools import partial
from typing import Any

from trainer.cli import logs
from trainer.cli.arguments import add_allow_seen, add_settings, count, on_disk
from trainer.cli.outputs import STUDY, check_folder
from trainer.configs import PRESETS
from trainer.errors import ExitCode
from trainer.progress import say

_EPILOG = """\
losses  table 6: the contrastive loss alone, with grounding, with temporal grouping, with both
data    table 5: one variant a --data NAME=SNAPSHOT[,SNAPSHOT…]
frames  table 12: one variant a --frames N

Each variant is pre-trained with each seed and measured without further training (--test), by
fine-tuning (--finetune) or on its frozen features (--localise): a folder each in OUT, and there
table.md (mean ± standard deviation over seeds, and differences between variants within a seed),
study.png and figures.json. The same command resumes where it was stopped (Ctrl-C: exit status 75);
with more seeds or tasks it adds them.

examples:
  svilm-train study losses --preset tiny --snapshot runs/train --test runs/test --out runs/losses
  svilm-train study losses --preset paper --snapshot gs://clips/videocc --test snapshots/msrvtt \\
      --finetune qa=msvd-qa,snapshots/msvd-train,snapshots/msvd-test \\
      --finetune action=ucf101,snapshots/ucf1-train,snapshots/ucf1-test \\
      --localise activitynet,snapshots/anet-train,snapshots/anet-val,activity_net.v1-3.min.json \\
      --seeds 1 --out runs/table6
  svilm-train study data --preset paper --data videocc=gs://clips/videocc --test snapshots/msrvtt \\
      --data both=gs://clips/videocc,gs://clips/activitynet --seeds 1 --out runs/data
  svilm-train study frames --preset tiny --frames 8 --frames 12 --snapshot runs/train \\
      --test runs/test --task retrieval --out runs/frames
"""


def add_study(commands: Any) -> None:
    """Add the command `svilm-train study`."""
    parser = commands.add_parser(
        "study",
        help="train and measure variants of a run, over seeds: tables 5, 6, 12",
        description="Reruns one of the paper's studies on any snapshot.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=partial(_study, parser))
    parser.add_argument("study", choices=("losses", "data", "frames"), help="what varies")
    parser.add_argument("--preset", required=True, choices=PRESETS, help="as of pretrain")
    parser.add_argument(
        "--snapshot",
        action="append",
        default=[],
        metavar="DIR",
        help="clips to train on, of losses and frames; may be repeated, as of pretrain",
    )
    parser.add_argument(
        "--data", action="append", default=[], metavar="NAME=DIR[,DIR…]", help="a variant of data"
    )
    parser.add_argument(
        "--frames",
        action="append",
        default=[],
        type=count(1),
        metavar="N",
        help="a variant of frames; snapshots must have as many",
    )
    parser.add_argument("--test", metavar="DIR", help="clips to be evaluated on, as pre-trained")
    parser.add_argument("--truth", metavar="JSONL", help="of the test clips, as of evaluate")
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        choices=("retrieval", "windows", "pointing"),
        help="of --test, which to report; may be repeated; pointing wants --truth (default: all "
        "that can be)",
    )
    parser.add_argument(
        "--finetune",
        action="append",
        default=[],
        metavar="TASK=PRESET,TRAIN,TEST",
        help="fine-tune on the snapshot TRAIN, as `svilm-train finetune` does, and report the "
        "task's figure on TEST; may be repeated",
    )
    parser.add_argument(
        "--localise",
        action="append",
        default=[],
        metavar="PRESET,TRAIN,TEST,TRUTH",
        help="train and test `svilm-train localise` on features of the snapshots TRAIN and TEST; "
        "may be repeated",
    )
    add_allow_seen(parser, "measure")
    parser.add_argument("--seeds", type=count(1), default=3, metavar="N", help="default: 3")
    parser.add_argument("--max-steps", type=count(1), metavar="N", help="of each run")
    add_settings(parser, "every run's configuration")
    parser.add_argument("--out", type=on_disk, required=True, metavar="DIR", help="folder")


def _study(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    import json

    from trainer.ablation import measures, run, summary

    if wrong := _wrong(arguments):
        parser.error(wrong)
    check_folder(arguments, "out", STUDY)
    variants = _variants(arguments)
    pretrain = ["--preset", arguments.preset]
    pretrain += [word for setting in arguments.settings for word in ("--set", setting)]
    if arguments.max_steps:
        pretrain += ["--max-steps", str(arguments.max_steps)]
    measured = [measures.finetuned(asked) for asked in arguments.finetune]
    measured += [measures.localised(asked) for asked in arguments.localise]
    if arguments.test:
        measured.insert(0, measures.zero_shot(arguments.test, arguments.truth, arguments.task))
    columns = [measure.name for measurement in measured for measure in measurement.measures]
    if twice := [name for name in columns if columns.count(name) > 1]:
        parser.error(f"{twice[0]} is asked for twice")
    seeds = list(range(arguments.seeds))
    study = run.Study(
        variants, seeds, tuple(pretrain), measured, arguments.allow_seen, logs.options(arguments)
    )
    out = arguments.out
    if stopped := run.run(study, out):
        say(f"study: stopped in {stopped}; the same command goes on")
        return ExitCode.RUN_AGAIN
    figures = run.figures(study, out)
    title = f"study of {arguments.study}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    bases = {variant.name: variant.base for variant in variants if variant.base}
    table = summary.table(figures, bases, title)
    (out / "figures.json").write_text(
        json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    (out / "table.md").write_text(table + "\n", encoding="utf-8")
    summary.plot(figures, title).savefig(out / "study.png")
    print(f"{table}\n\nstudy: table.md, study.png and figures.json in {out}")
    return 0


def _wrong(arguments: argparse.Namespace) -> str:
    """Return an error for a missing or unsupported option. Empty if the options are valid."""
    wants = {"losses": ("snapshot",), "data": ("data",), "frames": ("snapshot", "frames")}
    for option in ("snapshot", "data", "frames"):
        needed, given = option in wants[arguments.study], bool(getattr(arguments, option))
        if needed and not given:
            return f"the study of {arguments.study} wants --{option}"
        if given and not needed:
            return f"--{option} is not for the study of {arguments.study}"
    if len(set(arguments.frames)) < len(arguments.frames):
        return "--frames names a number twice: name each once"
    for option in ("task", "truth"):
        if getattr(arguments, option) and not arguments.test:
            return f"--{option} wants --test"
    if not (arguments.test or arguments.finetune or arguments.localise):
        return "nothing is measured: give --test, --finetune or --localise"
    if "pointing" in arguments.task and not arguments.truth:
        return "--task pointing wants --truth"
    if arguments.truth and arguments.task and "pointing" not in arguments.task:
        return "--truth is for --task pointing: leave it out"
    return ""


def _variants(arguments: argparse.Namespace) -> list[Any]:
    from trainer.ablation import variants

    match arguments.study:
        case "losses":
            return variants.losses(arguments.snapshot)
        case "data":
            return variants.data(arguments.data)
        case _:
            return variants.frames(arguments.snapshot, arguments.frames)
