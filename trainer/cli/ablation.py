"""The arguments and the output of `svilm-train study`."""

import argparse
import itertools
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
data    table 5: one variant per --data NAME=SNAPSHOT[,SNAPSHOT…]
frames  table 12: one variant per --frames N

Each variant is pre-trained with each seed, then evaluated zero-shot (--test), by fine-tuning
(--finetune) or on its frozen features (--localise). OUT gets one folder per variant, and:
  table.md        mean ± standard deviation over seeds, and differences between variants per seed
  study.png       the same as a plot
  figures.json    every value
  snapshots.json  the snapshots, by the sha256 of their manifests; a changed one is refused
Ctrl-C stops the ablation (exit status 75), and the same command resumes it. With more seeds or
tasks, the same command adds them.

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
        help="run an ablation: train and evaluate variants over seeds (tables 5, 6, 12)",
        description="Runs one of the paper's ablations on any snapshot.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=partial(_study, parser))
    parser.add_argument("study", choices=("losses", "data", "frames"), help="the ablation")
    parser.add_argument(
        "--preset", required=True, choices=PRESETS, help="sizes and recipe: see pretrain"
    )
    parser.add_argument(
        "--snapshot",
        action="append",
        default=[],
        metavar="DIR",
        help="training clips, for losses and frames; may be repeated",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=DIR[,DIR…]",
        help="a variant for data: its name and training snapshots; may be repeated",
    )
    parser.add_argument(
        "--frames",
        action="append",
        default=[],
        type=count(1),
        metavar="N",
        help="a variant for frames: frames per clip, as built into the snapshot; may be repeated",
    )
    parser.add_argument("--test", metavar="DIR", help="test clips for zero-shot evaluation")
    parser.add_argument("--truth", metavar="JSONL", help="ground truth of --test: see evaluate")
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        choices=("retrieval", "windows", "pointing"),
        help="a zero-shot task to report; may be repeated; pointing needs --truth (default: all "
        "that the options allow)",
    )
    parser.add_argument(
        "--finetune",
        action="append",
        default=[],
        metavar="TASK=PRESET,TRAIN,TEST",
        help="fine-tune a task on the snapshot TRAIN with `svilm-train finetune`, and report its "
        "metric on TEST; may be repeated",
    )
    parser.add_argument(
        "--localise",
        action="append",
        default=[],
        metavar="PRESET,TRAIN,TEST,TRUTH",
        help="train `svilm-train localise` on features of TRAIN and test it on TEST; may be "
        "repeated",
    )
    add_allow_seen(parser, "evaluate")
    parser.add_argument(
        "--seeds", type=count(1), default=3, metavar="N", help="number of seeds (default: 3)"
    )
    parser.add_argument(
        "--max-steps", type=count(1), metavar="N", help="steps per run (default: the preset's)"
    )
    add_settings(parser, "every run's configuration")
    parser.add_argument("--out", type=on_disk, required=True, metavar="OUT", help="output folder")


def _study(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    import json

    from trainer.ablation import measures, run, summary

    if wrong := _wrong(arguments):
        parser.error(wrong)
    check_folder(arguments, "out", STUDY)
    variants = _variants(arguments)
    own = {"seed"} | {
        setting.partition("=")[0]
        for variant in variants
        for option, setting in itertools.pairwise(variant.options)
        if option == "--set"
    }
    if taken := [word for word in arguments.settings if word.partition("=")[0].strip() in own]:
        parser.error(f"--set {taken[0]}: the study sets this field itself: leave it out")
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
        parser.error(f"two options report {twice[0]}: leave one out")
    seeds = list(range(arguments.seeds))
    study = run.Study(
        variants, seeds, tuple(pretrain), measured, arguments.allow_seen, logs.options(arguments)
    )
    out = arguments.out
    if stopped := run.run(study, out):
        say(f"study: stopped in {stopped}; the same command resumes it")
        return ExitCode.RUN_AGAIN
    figures = run.figures(study, out)
    title = f"ablation of {arguments.study}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    bases = {variant.name: variant.base for variant in variants if variant.base}
    table = summary.table(figures, bases, title)
    (out / "figures.json").write_text(
        json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    of = "; ".join(
        f"{folder} (manifest sha256 {manifest[:12]})"
        for folder, manifest in run.read_snapshots(out).items()
    )
    table = f"{table}\n\nSnapshots: {of}\n"
    (out / "table.md").write_text(table, encoding="utf-8")
    summary.plot(figures, title).savefig(out / "study.png")
    print(f"{table}\nstudy: table.md, study.png and figures.json in {out}")
    return 0


def _wrong(arguments: argparse.Namespace) -> str:
    """Return an error for a missing or unsupported option. Empty if the options are valid."""
    required = {"losses": ("snapshot",), "data": ("data",), "frames": ("snapshot", "frames")}
    for option in ("snapshot", "data", "frames"):
        needed, given = option in required[arguments.study], bool(getattr(arguments, option))
        if needed and not given:
            return f"study {arguments.study} requires --{option}"
        if given and not needed:
            return f"study {arguments.study} does not use --{option}: leave it out"
    if len(set(arguments.frames)) < len(arguments.frames):
        return "--frames has a duplicate: give each number once"
    for option in ("task", "truth"):
        if getattr(arguments, option) and not arguments.test:
            return f"--{option} requires --test"
    if not (arguments.test or arguments.finetune or arguments.localise):
        return "nothing to evaluate: give --test, --finetune or --localise"
    if "pointing" in arguments.task and not arguments.truth:
        return "--task pointing requires --truth"
    if arguments.truth and arguments.task and "pointing" not in arguments.task:
        return "--truth applies only to --task pointing: leave it out"
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
