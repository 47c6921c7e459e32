"""The commands of downstream tasks: `finetune` and `evaluate --task`."""

import argparse
import json
from typing import Any

from trainer import progress
from trainer.cli.arguments import add_settings, count, refuse_ignored, settings_of
from trainer.cli.outputs import RUN, check_folder, output_file
from trainer.cli.training_arguments import add_loop, begin_loop, check_loop
from trainer.errors import ExitCode

# Literal names, so that only commands of tasks import their modules. Tests compare the two.
TASKS = ("action", "localisation", "moments", "qa", "retrieval", "spatiotemporal")
TRAINED = ("action", "qa", "retrieval", "spatiotemporal")

_FINETUNE_EPILOG = """\
Presets. Shapes' are small. AVA's are SlowFast's, since the paper has none. All others are from the
paper's tables 8 to 10:
  retrieval       msrvtt, shapes
  qa              msrvtt-qa, msvd-qa, shapes
  action          ucf101, hmdb51 and, with a frozen encoder, ucf101-linear, hmdb51-linear;
                  shapes, shapes-linear
  spatiotemporal  ava, shapes
The model and its input are the pre-trained run's. --set FIELD sets any field of the configuration,
and --set task.FIELD a field of the task (trainer/tasks/TASK/task.py lists them with reasons):
  --set task.frozen=true      train the head alone, on frozen encoders
  --set task.fusion=linear    (qa) the product of two projections instead of BUTD's attention
  --set task.feature=tokens   (action) classify the mean video token, not the mean group token

RUN2 is a run like those of `svilm-train pretrain`, with task.json in addition. The same command
resumes it. Ctrl-C or SIGTERM saves a checkpoint and exits with status 75. `evaluate --task`,
`embed` and `search` accept it as --run.

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
With --task, a downstream task is evaluated instead, by its benchmark's protocol: a run of
`svilm-train finetune` (retrieval, moments: any run) on a test snapshot or, with --predictions, a
file of predictions without a model:
  retrieval
    predictions  similarities: .npy [captions, videos] in the truth's order, or .csv with the header
                 video_id,sentence,VIDEO,VIDEO,… and one row per caption, in any order
    truth        MSRVTT_JSFUSION_test.csv (1k-A) or MSRVTT_data.json (full)
    metrics      R@K and median rank; ties get average ranks (and also optimistic ones)
  qa
    predictions  answers: a JSON array (or JSON Lines) of {"question_id", "answer"}
    truth        test_qa.json
    metrics      exact match over all questions, and by their first word
  action
    predictions  one file per split: .csv, video_id,label or video_id,CLASS,CLASS,… with
                 probabilities and one row per clip or crop; or .json, {"results": {video_id:
                 [{"label", "score"}, …]}}
    truth        UCF101's testlist0N.txt, HMDB51's split files in a folder, or hmdb51.csv
    metrics      top-1 accuracy per split, its mean over splits, and its mean over classes
  localisation
    predictions  ActivityNet's JSON: {"version", "external_data", "results": {video_id: [{"label",
                 "score", "segment": [start, end] in seconds}, …]}}
    truth        activity_net.v1-3.min.json; for G-TAD's 4,728 videos also anet_anno_action.json or
                 video_info_new.csv
    metrics      mAP at tIoU 0.5 … 0.95
  moments
    predictions  JSON Lines of {"vid", "query", "pred_relevant_windows": [[start, end, score], …]},
                 in seconds, one line per sentence, in any order
    truth        ActivityNet Captions' val_1.json or val_2.json; with --run too
    metrics      R@1 and R@5 at IoU 0.3, 0.5 and 0.7, and mIoU, beside those of the best spans that
                 are the same for all videos and texts
    A run searches whole videos zero-shot, and so does a random encoder. Build their sliding windows
    with `svilm-pipelines build activitynet --window 2 --stride 0.5`.
  spatiotemporal
    predictions  AVA's CSV without a header: video,second,x1,y1,x2,y2,action,score
    truth        ava_val_v2.2.csv; optional: excluded timestamps (a name with `excluded`) and the
                 list of classes (.pbtxt)
    metrics      mAP by the official script's rules and by SlowFast's
    A run classifies ground-truth boxes, which gives an upper bound. --boxes FILE classifies a
    detector's boxes of score ≥ 0.8 (task.detection_score) instead. Build the snapshot with the same
    file, so that it includes keyframes with only detected people.
trainer/evaluation/*_files.py specify the formats.

  svilm-train evaluate --task action --run runs/ucf1 --snapshot snapshots/ucf1-test \\
      --clips 4 --crops 3 --write-predictions split1.csv
  svilm-train evaluate --task spatiotemporal --run runs/ava --snapshot snapshots/ava-val \\
      --boxes ava_val_predicted_boxes.csv --write-predictions detections.csv
  svilm-train evaluate --task moments --run runs/paper --snapshot snapshots/anet-windows \\
      --truth val_2.json --write-predictions spans.jsonl
  svilm-train evaluate --task qa --predictions answers.json --truth test_qa.json
  svilm-train evaluate --task action --predictions split1.csv split2.csv split3.csv \\
      --truth ucfTrainTestlist/
"""


def add_finetune(commands: Any) -> None:
    """Add the command `svilm-train finetune`."""
    parser = commands.add_parser(
        "finetune",
        help="fine-tune a pre-trained run on a downstream task",
        description="Fine-tunes a run on retrieval, question answering, action recognition or "
        "spatiotemporal localisation, end to end or with frozen encoders, or resumes an "
        "interrupted run.",
        epilog=_FINETUNE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_finetune, misused=parser.error)
    parser.add_argument("--task", required=True, choices=TRAINED, help="the downstream task")
    parser.add_argument(
        "--preset", required=True, metavar="NAME", help="the task's recipe: see below"
    )
    parser.add_argument(
        "--run",
        required=True,
        metavar="RUN",
        help="the pre-trained run, on a disk or gs://BUCKET/FOLDER; fine-tuning starts from its "
        "last checkpoint",
    )
    parser.add_argument(
        "--snapshot",
        required=True,
        action="append",
        metavar="DIR",
        help="a snapshot of the task's training videos; may be repeated",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="RUN2",
        help="folder of the new run, or of one to resume, on a disk or gs://BUCKET/FOLDER",
    )
    parser.add_argument(
        "--answers",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="(qa) published annotation files whose answers are the classes; train, val and test "
        "of MSVD-QA have the paper's 2,423 (default: the snapshot's answers)",
    )
    parser.add_argument(
        "--random-encoder",
        action="store_true",
        help="use random parameters instead of the run's: a baseline without pre-training",
    )
    parser.add_argument(
        "--max-steps",
        type=count(1),
        metavar="N",
        help="number of steps of the run and of the learning rate schedule (default: the preset's "
        "epochs)",
    )
    add_loop(parser)
    add_settings(parser, "the configuration or, as task.FIELD, of the task")


def _finetune(arguments: argparse.Namespace) -> int:
    check_loop(arguments)
    refuse_ignored(arguments, ("answers", arguments.task == "qa", "--task qa"))
    settings = settings_of(arguments, "max_steps")
    names = {setting.partition("=")[0].strip() for setting in settings}
    if arguments.answers and "task.answers" in names:
        arguments.misused(
            "--answers and --set task.answers both set the classes: leave one out (all answers of "
            "the files become classes)"
        )
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
        progress.say(f"finetune: saved; the same command resumes {arguments.out}")
        return ExitCode.RUN_AGAIN
    print(f"finetune: {arguments.out} is complete")
    return 0


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add the options of downstream tasks to `svilm-train evaluate`."""
    parser.add_argument(
        "--task", choices=TASKS, help="evaluate a downstream task (default: pre-training metrics)"
    )
    parser.add_argument(
        "--predictions",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="with --task and --truth: evaluate these files without a model; action recognition: "
        "one per split",
    )
    parser.add_argument(
        "--write-predictions",
        metavar="FILE",
        help="with --task, --run and --snapshot: file for the run's predictions, in the format of "
        "--predictions (qa: .json, moments: .jsonl, others: .csv) (default: none)",
    )
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="with --task spatiotemporal and --run: a detector's boxes to classify, CSV of "
        "video,second,x1,y1,x2,y2,,score (default: ground-truth boxes)",
    )
    for name, what in (("clips", "consecutive clips"), ("crops", "crops along the long side")):
        parser.add_argument(
            f"--{name}",
            type=count(1),
            metavar="N",
            help=f"with --task action: number of {what} per video (default: 1)",
        )


def check_evaluate(arguments: argparse.Namespace) -> None:
    """End `svilm-train evaluate` with a usage error if an option is missing or has no effect."""
    task, run = arguments.task, arguments.run
    alone, with_run = (arguments.predictions, arguments.truth), (run, arguments.snapshot)
    if task == "moments" and run:  # whose texts and durations are in no snapshot
        if arguments.predictions or not all(with_run) or len(arguments.truth or ()) != 1:
            arguments.misused("--task moments with --run requires --snapshot and one --truth")
    elif task and not ((all(alone) and not any(with_run)) or (all(with_run) and not any(alone))):
        arguments.misused(
            "--task requires either --run and --snapshot, or --predictions and --truth"
        )
    if task and run and task not in (*TRAINED, "moments"):
        arguments.misused(f"--task {task} evaluates files: give --predictions and --truth")
    refuse_ignored(
        arguments,
        ("predictions", task, "--task"),
        ("write_predictions", task and run, "--task with --run"),
        ("boxes", task == "spatiotemporal" and run, "--task spatiotemporal with --run"),
        ("clips", task == "action" and run, "--task action with --run"),
        ("crops", task == "action" and run, "--task action with --run"),
        ("control", not task, "evaluation without --task"),
        ("allow_seen", run, "--run"),
    )


def evaluate_task(arguments: argparse.Namespace) -> int:
    """Run `svilm-train evaluate --task`: measure a downstream task and print its table."""
    from trainer.evaluation import scoring

    with output_file(arguments) as unfinished:
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
    from trainer.cli.commands import check_unseen, load_run
    from trainer.data.snapshot import Snapshot
    from trainer.evaluation import moment_files
    from trainer.runs.provenance import subject
    from trainer.tasks import moments
    from trainer.tasks.finetuning import TASKS
    from trainer.tasks.task import Views

    views = Views(arguments.clips or 1, arguments.crops or 1, arguments.boxes)
    with output_file(arguments, "write_predictions") as unfinished:
        of_moments = arguments.task == "moments"
        truth = moment_files.read_truth(arguments.truth[0]) if of_moments else None
        run = load_run(arguments.run, any_task=not of_moments)
        snapshot = Snapshot.open(arguments.snapshot)
        seen = check_unseen(run, snapshot, arguments)
        progress.say(f"evaluate: {seen.sentence()}")
        known = (run.task or {}).get("trained_on", {}).get("datasets", [])
        if known and snapshot.manifest.dataset not in known:
            progress.warn(
                f"evaluate: {arguments.run} was trained on {', '.join(known)}, but "
                f"{arguments.snapshot} is {snapshot.manifest.dataset}"
            )
        with progress.shown("evaluate") as show:
            if truth:
                predictions = moments.predict(run, snapshot, truth, show)
            else:
                predictions = TASKS[arguments.task].predict(run, snapshot, show, views)
        if unfinished:
            predictions.write(unfinished)
    return {"subject": subject(run, snapshot, seen), **predictions.figures()}


def as_json(figures: Any) -> str:
    """Return figures as the text of a JSON file."""
    return json.dumps(figures, indent=2, allow_nan=False) + "\n"
