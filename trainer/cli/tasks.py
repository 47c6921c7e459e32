"""The commands of downstream tasks: `finetune` and `evaluate --task`."""

import argparse
import json
from typing import Any

from trainer import progress
from trainer.cli.arguments import add_settings, count, refuse_ignored, settings_of
from trainer.cli.outputs import RUN, check_folder, written
from trainer.cli.training_arguments import add_loop, begin_loop, check_loop
from trainer.errors import ExitCode

# Literal names, so that only commands of tasks import their modules. Tests compare the two.
TASKS = ("action", "localisation", "qa", "retrieval", "spatiotemporal")
TRAINED = ("action", "qa", "retrieval", "spatiotemporal")

_FINETUNE_EPILOG = """\
Presets, of the paper's tables 8 to 10 unless they are for Shapes; of AVA it has none, those are
SlowFast's settings:
  retrieval       msrvtt, shapes
  qa              msrvtt-qa, msvd-qa, shapes
  action          ucf101, hmdb51 and, with a frozen encoder, ucf101-linear, hmdb51-linear;
                  shapes, shapes-linear
  spatiotemporal  ava, shapes
The model and its input are the pre-trained run's; --set changes any field of the configuration, and
task.FIELD one of the task's own (trainer/tasks/TASK/task.py has them, with their reasons):
  --set task.frozen=true      trains the head alone, on the encoders as they are
  --set task.fusion=linear    (qa) the product of two projections instead of BUTD's attention
  --set task.feature=tokens   (action) classifies the mean video token instead of the group tokens'

RUN2 is then a run as `svilm-train pretrain --out` makes them, with task.json beside: the same
command continues it, Ctrl-C or SIGTERM saves it and ends with status 75, and `evaluate --task`,
`embed`, `search` take it.

examples:
  svilm-train finetune --task retrieval --preset msrvtt --run runs/paper \\
      --snapshot snapshots/msrvtt-9k --out runs/retrieval
  svilm-train finetune --task qa --preset msvd-qa --run runs/paper --snapshot snapshots/msvd-qa \\
      --answers train_qa.json val_qa.json test_qa.json --out runs/qa
  svilm-train finetune --task spatiotemporal --preset ava --run runs/paper \\
      --snapshot snapshots/ava-train --out runs/ava
  svilm-train evaluate --task qa --run runs/qa --snapshot snapshots/msvd-qa-test \\
      --write-predictions answers.json
"""

EVALUATE_EPILOG = """
With --task, a downstream task is measured instead, by its benchmark's rules: a run of `svilm-train
finetune` (retrieval: any run) on a test snapshot, or with --predictions a file alone, no model
needed:
  retrieval  similarities: .npy of captions in rows and videos in columns, both in the truth's
             order, or .csv with a header video_id,sentence,VIDEO,VIDEO,… and a row a caption, in
             any order; truth MSRVTT_JSFUSION_test.csv (1k-A) or MSRVTT_data.json (full): average
             ranks for ties, and additionally optimistic ranks
  qa         answers, a JSON array (or JSON Lines) of {"question_id", "answer"}; truth
             test_qa.json: exact match over all of the questions, and by their first word
  action     .csv, video_id,label or video_id,CLASS,CLASS,… with probabilities, a row a clip or
             crop; or .json, {"results": {video_id: [{"label", "score"}, …]}}; one file a split;
             truth UCF101's testlist0N.txt, HMDB51's split files in a folder, or hmdb51.csv: top-1
             of each split and their mean, and the mean over classes
  localisation    ActivityNet's JSON, {"version", "external_data", "results": {video_id: [{"label",
             "score", "segment": [start, end] in seconds}, …]}}; truth its
             activity_net.v1-3.min.json, and for the 4,728 videos of G-TAD anet_anno_action.json
             or video_info_new.csv: mAP at tIoU 0.5 … 0.95
  spatiotemporal  AVA's CSV of detections, video,second,x1,y1,x2,y2,action,score without a header;
             truth ava_val_v2.2.csv, and if you like the excluded timestamps (a name with
             `excluded`) and the list of classes (.pbtxt): mAP as the official script and as
             SlowFast. A run classifies ground-truth boxes (an upper bound). --boxes FILE classifies
             a detector's boxes instead, CSV of video,second,x1,y1,x2,y2,,score, with a score of at
             least 0.8 (task.detection_score). Build the snapshot with that file, too, so that it
             has the keyframes with only detected people
(trainer/evaluation/*_files.py have the formats in full.)

  svilm-train evaluate --task action --run runs/ucf1 --snapshot snapshots/ucf1-test \\
      --clips 4 --crops 3 --write-predictions split1.csv
  svilm-train evaluate --task spatiotemporal --run runs/ava --snapshot snapshots/ava-val \\
      --boxes ava_val_predicted_boxes.csv --write-predictions detections.csv
  svilm-train evaluate --task qa --predictions answers.json --truth test_qa.json
  svilm-train evaluate --task action --predictions split1.csv split2.csv split3.csv \\
      --truth ucfTrainTestlist/
"""


def add_finetune(commands: Any) -> None:
    """Add the command `svilm-train finetune`."""
    parser = commands.add_parser(
        "finetune",
        help="train a downstream task from a pre-trained run",
        description="Trains retrieval, question answering, action recognition or spatiotemporal "
        "localisation, end to end or on frozen encoders, or continues a run that was interrupted.",
        epilog=_FINETUNE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_finetune, misused=parser.error)
    parser.add_argument("--task", required=True, choices=TRAINED, help="what to train")
    parser.add_argument(
        "--preset", required=True, metavar="NAME", help="recipe to start from: see below"
    )
    parser.add_argument(
        "--run",
        required=True,
        metavar="RUN",
        help="what `svilm-train pretrain --out` wrote, on a disk or gs://BUCKET/FOLDER; its last "
        "checkpoint is started from",
    )
    parser.add_argument(
        "--snapshot",
        required=True,
        action="append",
        metavar="DIR",
        help="the task's training videos, as `svilm-pipelines build` wrote them; may be repeated",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="RUN2",
        help="folder of the run, new or to be continued, on a disk or gs://BUCKET/FOLDER",
    )
    parser.add_argument(
        "--answers",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="(qa) take the classes from the answers of these files, as published, and not of the "
        "snapshot: with train, val and test of MSVD-QA they are the paper's 2,423",
    )
    parser.add_argument(
        "--random-encoder",
        action="store_true",
        help="start with fresh parameters of the run's sizes: what the task learns by itself",
    )
    parser.add_argument(
        "--max-steps",
        type=count(1),
        metavar="N",
        help="stop after N steps, the learning rate's schedule ending there",
    )
    add_loop(parser)
    add_settings(parser, "the configuration or, as task.FIELD, of the task")


def _finetune(arguments: argparse.Namespace) -> int:
    check_loop(arguments)
    refuse_ignored(arguments, ("answers", arguments.task == "qa", "--task qa"))
    settings = settings_of(arguments, "max_steps")
    check_folder(arguments, "out", RUN)

    from trainer.evaluation import qa_accuracy, qa_files
    from trainer.tasks import finetuning

    answers = None
    if arguments.answers:
        questions = [one for path in arguments.answers for one in qa_files.read_truth(path)]
        answers = qa_accuracy.vocabulary([question.answer for question in questions])
    monitoring = begin_loop(arguments)
    if not finetuning.finetune(
        finetuning.TASKS[arguments.task],
        arguments.preset,
        arguments.run,
        arguments.snapshot,
        arguments.out,
        settings,
        answers,
        random_encoder=arguments.random_encoder,
        monitoring=monitoring,
    ):
        progress.say(f"finetune: saved; the same command continues {arguments.out}")
        return ExitCode.RUN_AGAIN
    print(f"finetune: {arguments.out} is trained to its end")
    return 0


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add the options of downstream tasks to `svilm-train evaluate`."""
    parser.add_argument(
        "--task", choices=TASKS, help="measure a downstream task instead (default: none)"
    )
    parser.add_argument(
        "--predictions",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="with --task and --truth: score these files alone; of action recognition one a split",
    )
    parser.add_argument(
        "--write-predictions",
        metavar="FILE",
        help="with --task, --run and --snapshot: write what the run says, as --predictions reads "
        "it (qa: .json, others: .csv)",
    )
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="with --task spatiotemporal and --run: classify the boxes that a detector found, CSV "
        "of video,second,x1,y1,x2,y2,,score (default: those that are annotated)",
    )
    for name, what in (("--clips", "that follow one another"), ("--crops", "along the long side")):
        parser.add_argument(
            name,
            type=count(1),
            metavar="N",
            help=f"with --task action: look at N {name[2:]} of a video, {what} (default: 1)",
        )


def check_evaluate(arguments: argparse.Namespace) -> None:
    """End `svilm-train evaluate` with a usage error if an option is missing or has no effect."""
    task, run = arguments.task, arguments.run
    alone, with_run = (arguments.predictions, arguments.truth), (run, arguments.snapshot)
    if task and not ((all(alone) and not any(with_run)) or (all(with_run) and not any(alone))):
        arguments.misused(
            "--task wants --run and --snapshot, or --predictions and --truth to score files alone"
        )
    if task and run and task not in TRAINED:
        arguments.misused(f"--task {task} scores files: give --predictions and --truth")
    refuse_ignored(
        arguments,
        ("predictions", task, "--task"),
        ("write_predictions", task and run, "a run of a --task"),
        ("boxes", task == "spatiotemporal" and run, "a run of --task spatiotemporal"),
        ("clips", task == "action" and run, "a run of --task action"),
        ("crops", task == "action" and run, "a run of --task action"),
        ("control", not task, "an evaluation without --task"),
        ("allow_seen", run, "a run"),
    )


def evaluate_task(arguments: argparse.Namespace) -> int:
    """Run `svilm-train evaluate --task`: measure a downstream task and print its table."""
    from trainer.evaluation import scoring

    with written(arguments) as unfinished:
        if arguments.predictions:
            figures = scoring.score(arguments.task, arguments.predictions, arguments.truth)
        else:
            figures = _measured(arguments)
        if unfinished:
            unfinished.write_text(as_json(figures), encoding="utf-8")
    print(scoring.SCORERS[arguments.task].table(figures))
    return 0


def _measured(arguments: argparse.Namespace) -> Any:
    """Return the figures of a run on a snapshot, and write its predictions if requested."""
    from trainer.cli.commands import loaded, unseen
    from trainer.data.snapshot import Snapshot
    from trainer.runs.provenance import subject
    from trainer.tasks.finetuning import TASKS
    from trainer.tasks.task import Views

    views = Views(arguments.clips or 1, arguments.crops or 1, arguments.boxes)
    with written(arguments, "write_predictions") as unfinished:
        run, snapshot = loaded(arguments.run), Snapshot.open(arguments.snapshot)
        seen = unseen(run, snapshot, arguments)
        progress.say(f"evaluate: {seen.sentence()}")
        known = (run.task or {}).get("trained_on", {}).get("datasets", [])
        if known and snapshot.manifest.dataset not in known:
            progress.warn(
                f"evaluate: {arguments.run} was trained on {', '.join(known)}, and "
                f"{arguments.snapshot} is of {snapshot.manifest.dataset}"
            )
        with progress.shown("evaluate") as show:
            predictions = TASKS[arguments.task].predict(run, snapshot, show, views)
        if unfinished:
            predictions.write(unfinished)
    return {"subject": subject(run, snapshot, seen), **predictions.figures()}


def as_json(figures: Any) -> str:
    """Return figures as the text of a JSON file."""
    return json.dumps(figures, indent=2, allow_nan=False) + "\n"
