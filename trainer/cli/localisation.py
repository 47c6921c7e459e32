"""The arguments and the output of `svilm-train localise`."""

import argparse
import json
import pathlib
from typing import TYPE_CHECKING, Any

from trainer.cli.arguments import add_allow_seen, add_settings, on_disk, refuse_ignored
from trainer.cli.outputs import LOCALISATION, check_folder
from trainer.errors import ExitCode
from trainer.progress import say

if TYPE_CHECKING:
    from trainer.runs.run_lock import Lock

_EPILOG = """\
The encoder stays frozen. `svilm-pipelines build activitynet-tal` cuts the videos into windows, and
`svilm-train embed --feature groups` writes one feature per window. This command trains G-TAD on
them. Each proposal in a test video is predicted with its two most likely classes.

--class-scores reads class scores of whole videos from a file. Published results use CUHK's of 2017,
which are external supervision. The default is a linear classifier on the same features.
predictions.json records the choice.

OUT gets:
  localisation.json, model.safetensors  the model (trainer/tasks/localisation/saved.py)
  metrics.jsonl                         the losses of each epoch
  checkpoints                           the same command resumes from the last one
  predictions.json                      with --test-features: segments in ActivityNet's format
  figures.json                          with --test-features: mAP on ActivityNet's videos and, with
                                        video_info_new.csv or anet_anno_action.json, on G-TAD's;
                                        `chance` is the mAP of as many random predictions
A video without features counts as missed. Ctrl-C or SIGTERM saves a checkpoint and exits with
status 75.

--set sets any field of the configuration: --set epochs=20 --set network.width=128

examples:
  svilm-train embed --run runs/paper --snapshot snapshots/anet-train --feature groups \\
      --out features/train
  svilm-train localise --features features/train --test-features features/val --best-epoch \\
      --truth activity_net.v1-3.min.json video_info_new.csv \\
      --class-scores cuhk_val_simp_share.json --out runs/localisation
"""


def add_localise(commands: Any) -> None:
    """Add the command `svilm-train localise`."""
    parser = commands.add_parser(
        "localise",
        help="train and test temporal action localisation on frozen features",
        description="Trains G-TAD on features of untrimmed videos, and evaluates it by "
        "ActivityNet's protocol.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_localise, misused=parser.error, trains=True)
    parser.add_argument(
        "--preset",
        choices=("activitynet", "shapes"),
        help="sizes and recipe. activitynet: those of G-TAD's authors; shapes: small, minutes on "
        "two cores (default: activitynet)",
    )
    parser.add_argument(
        "--features",
        type=on_disk,
        metavar="DIR",
        help="features of the training videos, from `svilm-train embed` (default: no training; the "
        "model in OUT is tested)",
    )
    parser.add_argument(
        "--test-features",
        type=on_disk,
        metavar="DIR",
        help="features of the test videos (default: no test)",
    )
    parser.add_argument(
        "--truth",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="ActivityNet's JSON file, or G-TAD's anet_anno_action.json with video_info_new.csv",
    )
    parser.add_argument(
        "--class-scores",
        metavar="JSON",
        help="class scores of whole videos, in CUHK's format (default: a linear classifier)",
    )
    parser.add_argument(
        "--best-epoch",
        action="store_true",
        help="keep the epoch with the lowest loss on the test videos, as G-TAD's authors do, "
        "instead of the last; the test set then selects the model",
    )
    add_allow_seen(parser, "test on features")
    parser.add_argument("--out", required=True, type=on_disk, metavar="OUT", help="output folder")
    add_settings(parser)


def _localise(arguments: argparse.Namespace) -> int:
    if not arguments.features and not arguments.test_features:
        arguments.misused("give --features to train on, --test-features to test on, or both")
    if arguments.best_epoch and not (arguments.features and arguments.test_features):
        arguments.misused("--best-epoch requires --features and --test-features")
    refuse_ignored(
        arguments,
        ("preset", arguments.features, "--features"),
        ("settings", arguments.features, "--features"),
        ("class_scores", arguments.test_features, "--test-features"),
        ("allow_seen", arguments.test_features, "--test-features"),
    )

    from trainer.configs.overrides import override
    from trainer.evaluation import segment_files
    from trainer.runs import run_lock
    from trainer.tasks.localisation import training
    from trainer.tasks.localisation.class_scores import read_class_scores
    from trainer.tasks.localisation.features import made_of

    check_folder(arguments, "out", LOCALISATION)
    config = override(training.PRESETS[arguments.preset or "activitynet"], arguments.settings)
    truths = segment_files.read_truths(arguments.truth)
    scores = read_class_scores(arguments.class_scores) if arguments.class_scores else None
    of_train = made_of(arguments.features) if arguments.features else {}
    of_test = made_of(arguments.test_features) if arguments.test_features else {}
    if arguments.features and arguments.test_features:
        _check_encoder(of_train["parameters_sha256"], of_test["parameters_sha256"])
    if of_test:
        _check_unseen(arguments.test_features, of_test["seen"], allowed=arguments.allow_seen)
    with run_lock.held(arguments.out, "localise") as lock:
        return _run(arguments, config, truths, scores, of_train, of_test, lock)


def _run(
    arguments: argparse.Namespace,
    config: Any,
    truths: Any,
    scores: Any,
    of_train: dict[str, Any],
    of_test: dict[str, Any],
    lock: "Lock",
) -> int:
    """Train if features are given, then test. The caller holds the folder's lock."""
    from trainer.data.folder import write_file
    from trainer.evaluation import segment_files
    from trainer.tasks.localisation import saved, training
    from trainer.tasks.localisation.features import read_features

    if arguments.features:
        videos = read_features(arguments.features, config.feature)
        tested = {name for truth in truths for name in truth.videos}
        if both := sorted(videos.keys() & tested):
            raise training.LocalisationError(
                f"{len(both)} training videos are also test videos, such as {both[0]}: leave them "
                "out of --features"
            )
        annotated: dict[str, segment_files.Video] = {}
        for path in arguments.truth:
            if not path.endswith(".csv"):
                annotated |= segment_files.read_annotations(path)
        held_out = None
        if arguments.best_epoch:
            held_out = read_features(arguments.test_features, config.feature)
        lines: list[str] = []

        def log(epoch: int, means: dict[str, float]) -> None:
            # Written whole after training accepted the folder: a refused command changes nothing.
            lock.check()
            lines.append(json.dumps({"epoch": epoch} | means) + "\n")
            write_file(arguments.out / "metrics.jsonl", "".join(lines).encode())
            shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
            say(f"epoch {epoch}/{config.epochs}  {shown}")

        model = training.train(config, videos, annotated, arguments.out, held_out, log)
        if model is None:
            say(f"localise: saved; the same command resumes {arguments.out}")
            return ExitCode.RUN_AGAIN
        model = model._replace(encoder=of_train["parameters_sha256"])
        saved.save(arguments.out, model)
    else:
        model = saved.load(arguments.out)
        _check_encoder(model.encoder, of_test["parameters_sha256"])
    if arguments.test_features:
        test = read_features(arguments.test_features, model.config.feature)
        _test(arguments.out, model, test, truths, scores, arguments.class_scores, of_test)
    return 0


def _check_encoder(trained: str | None, tested: str | None) -> None:
    """Check that the test features and the training features come from the same encoder.

    Raises:
      LocalisationError: the encoders differ. Features without an encoder's hash pass.
    """
    from trainer.tasks.localisation.training import LocalisationError

    if trained and tested and trained != tested:
        raise LocalisationError(
            f"the test features are from another encoder (sha256 {tested[:16]}…) than the training "
            f"features (sha256 {trained[:16]}…): embed both with the same run and step"
        )


def _check_unseen(folder: pathlib.Path, seen: Any, *, allowed: bool) -> None:
    """Refuse test features of videos that their encoder was trained on. Else print the overlap.

    Raises:
      SeenError: the encoder was trained on some of the videos, and `allowed` is false.
    """
    from trainer.runs.seen_clips import Overlap, refuse

    fields = seen if isinstance(seen, dict) else {}
    found = Overlap(
        snapshot=str(folder),
        known=bool(fields.get("known")),
        unknown=tuple(fields.get("unknown", ())),
        videos=fields.get("videos", 0),
        seen_videos=fields.get("seen_videos", 0),
        examples=tuple(fields.get("examples", ())),
        by_id_alone=fields.get("by_id_alone", 0),
    )
    refuse(found, allowed=allowed)
    say(f"localise: {found.sentence()}")


def _test(
    out: pathlib.Path,
    model: Any,
    videos: Any,
    truths: Any,
    scores: Any,
    scores_of: str | None,
    subject: dict[str, Any],
) -> None:
    """Predict segments, score them, and write predictions.json and figures.json."""
    from trainer.evaluation import segment_files
    from trainer.tasks.localisation import training

    if scores_of:
        external = {"used": True, "details": f"class scores of {pathlib.Path(scores_of).name}"}
    else:
        of = f"each {model.config.classify}"
        external = {"used": False, "details": f"class scores: own linear classifier of {of}"}
    results = training.predict(model, videos, scores)
    segment_files.write_predictions(out / "predictions.json", results, external)
    chance = training.by_chance(model, videos)
    found = {
        "subject": subject,  # provenance of the test features
        "sets": [segment_files.figures(results, truth) for truth in truths],
        "external_data": external,
        "chance": [segment_files.figures(chance, truth)["average_mAP"] for truth in truths],
    }
    (out / "figures.json").write_text(
        json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    print(
        segment_files.table(segment_files.Localisation(sets=found["sets"], external_data=external))
    )
    for truth, by_chance in zip(truths, found["chance"], strict=True):
        lost = len(truth.videos.keys() - videos.keys())
        print(
            f"  {truth.name}: {by_chance:.2f} by chance; {lost:,} videos without features",
        )
