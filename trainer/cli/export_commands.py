"""The commands that write features and weights for other programs."""

import argparse
import os
import pathlib
from typing import TYPE_CHECKING, Any

from protos.strict_json import parse_object
from trainer import progress
from trainer.cli.arguments import add_allow_seen, count, on_disk, refuse_ignored
from trainer.cli.commands import add_parser, add_run, check_unseen, load_run, read_metrics
from trainer.cli.outputs import (
    EXPORT,
    FEATURES,
    MODEL,
    ONNX,
    RUN,
    STABLEHLO,
    OutputError,
    check_folder,
)

if TYPE_CHECKING:
    from trainer.runs.checkpoint import Loaded

_EXPORT_EPILOG = """\
With --out, one folder gets the whole model:
  huggingface  AutoModel, AutoProcessor and SentenceTransformer read it with trust_remote_code=True.
               It has all parameters, the tokenizer, the model in PyTorch, and a model card
  stablehlo    programs of both encoders for jax.export.deserialize, for any batch size, with the
               parameters, the tokenizer, and the versions that they need (programs.json)
  onnx         the same for ONNX Runtime; requires the packages of the extra [interop].
               --weights int8 makes video.onnx a third as large. With --eval-snapshot, programs.json
               has the retrieval and the speed of both on this snapshot

--video and --text write one encoder each, in the layouts of ViViT and BERT, for programs that know
these. S-ViLM has no class token, so one of zeros is written. Other implementations attend to it, so
their outputs differ. Their poolers are random: use the last hidden states. `svilm-train pretrain
--video-weights DIR --text-weights DIR` reads both, bit for bit.

examples:
  svilm-train export --run runs/first --out first-hf --metrics metrics.json
  svilm-train export --run runs/first --out first-int8 --format onnx --weights int8 \\
      --eval-snapshot snapshots/test
  svilm-train export --run runs/first --video first-vivit --text first-bert
"""

_IMPORT_EPILOG = """\
RUN can be evaluated, searched, embedded and exported, and `pretrain --start-from RUN` starts from
it. It has no optimizer state, so `pretrain` does not continue it.

example:
  svilm-train import --from first-hf --out runs/imported
"""

_EMBED_EPILOG = """\
OUT gets shards, features-00000-of-….safetensors: one tensor per feature, one row per clip. Each
shard's metadata lists its clips. features.json describes the format (inference/features.py):
  clip     [E] embedding in the joint space of clips and captions, L2-normalized
  groups   [D] mean of the group tokens, the input of `svilm-train localise`
  windows  [Nt, D] mean token of each window of frames, for other tasks
  score    cosine of the clip and its caption, to filter clips by (`svilm-train columns`); NaN if
           the caption is empty

The same command resumes an interrupted one. To share the work, start it N times with
--processes N and --process 0 … N − 1 on one file system, at any times.

examples:
  svilm-train embed --run runs/first --snapshot snapshots/test --out features/test
  svilm-train embed --run runs/first --videos holiday/ --feature windows --out features/holiday
"""


def add_embed(commands: Any) -> None:
    """Add the command `svilm-train embed`."""
    parser = add_parser(
        commands,
        "embed",
        "write video features for other programs",
        "Writes the features of a run's video encoder for the clips of a snapshot or for videos.",
        _EMBED_EPILOG,
    )
    parser.set_defaults(command=_embed)
    add_run(parser)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--snapshot", metavar="DIR", help="a snapshot of `svilm-pipelines build`")
    subject.add_argument(
        "--videos",
        type=on_disk,
        metavar="DIR",
        help="folder of video files, one clip each, with the file name as video id; "
        "svilm-pipelines decodes them into OUT/videos",
    )
    parser.add_argument("--out", type=on_disk, required=True, metavar="OUT", help="output folder")
    parser.add_argument(
        "--feature",
        action="append",
        choices=("clip", "groups", "windows", "score"),
        help="a feature to write; may be repeated (default: clip, groups and windows)",
    )
    parser.add_argument(
        "--random-encoder",
        action="store_true",
        help="use random parameters instead of the run's: a baseline without pre-training",
    )
    add_sharing(parser)


def add_sharing(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command whose processes share the writing of shards."""
    parser.add_argument(
        "--shard-clips",
        type=count(1),
        default=1024,
        metavar="N",
        help="clips per shard (default: 1024)",
    )
    parser.add_argument(
        "--processes",
        type=count(1),
        default=1,
        metavar="N",
        help="number of processes that share the work (default: 1)",
    )
    parser.add_argument(
        "--process",
        type=count(0),
        default=0,
        metavar="I",
        help="index of this process, 0 … N − 1 (default: 0)",
    )


def check_sharing(arguments: argparse.Namespace) -> None:
    """Check the options of `add_sharing`.

    Raises:
      OutputError: there is no such process.
    """
    if arguments.process >= arguments.processes:
        raise OutputError(
            f"--process {arguments.process} of --processes {arguments.processes}: give 0 … "
            f"{arguments.processes - 1}"
        )


def _embed(arguments: argparse.Namespace) -> int:
    from trainer.data.snapshot import Snapshot
    from trainer.inference import features, video_files
    from trainer.runs.provenance import check_joint_space, has_joint_space
    from trainer.tasks.zero_shot import fresh_encoder

    check_sharing(arguments)
    if arguments.videos and arguments.processes > 1:
        raise OutputError(
            f"--videos allows one process, got --processes {arguments.processes}: build a snapshot "
            "of the videos and use --snapshot"
        )
    check_folder(arguments, "out", FEATURES)
    run = load_run(arguments.run, any_task=True)
    if arguments.random_encoder:
        # Fresh parameters have seen none of the run's training videos.
        run = run._replace(params=fresh_encoder(run).params, task=None, folder=None)
    chosen: tuple[features.Feature, ...] = tuple(
        name for name in features.FEATURES if name in (arguments.feature or features.USUAL)
    )
    if "score" in chosen:
        check_joint_space(run.task)
    if run.task is not None and not has_joint_space(run.task) and "clip" in chosen:
        progress.warn(
            f"embed: the run is fine-tuned for {run.task['name']}, which does not train the joint "
            "space: do not compare the features 'clip' with texts"
        )
    snapshot = arguments.snapshot
    if arguments.videos:
        videos = {path.name: path for path in video_files.in_folder(arguments.videos)}
        workers = os.cpu_count() or 1
        snapshot = video_files.build(videos, arguments.out / "videos", run.config, workers)
    clips = Snapshot.open(snapshot)
    if arguments.videos and len(clips) < len(videos):
        progress.warn(
            f"embed: {len(videos) - len(clips)} of {len(videos)} videos cannot be decoded, such as "
            f"{video_files.undecodable(pathlib.Path(snapshot), videos)}: see the reject codes in "
            f"{snapshot}/manifest.json"
        )
    with progress.shown("embed") as show:
        whole = features.write(
            run,
            clips,
            arguments.out,
            chosen,
            show,
            shard_clips=arguments.shard_clips,
            process=arguments.process,
            processes=arguments.processes,
        )
    if whole:
        print(f"embed: {arguments.out}, {len(clips):,} clips")
    else:
        print(f"embed: process {arguments.process} of {arguments.out} is done, others are not")
    return 0


def add_export(commands: Any) -> None:
    """Add the command `svilm-train export`."""
    parser = add_parser(
        commands,
        "export",
        "write a run's model for other programs",
        "Writes a run's model, or one of its encoders, for other programs.",
        _EXPORT_EPILOG,
    )
    parser.set_defaults(command=_export, misused=parser.error)
    add_run(parser)
    parser.add_argument(
        "--out", type=on_disk, metavar="FOLDER", help="folder for the model (default: not written)"
    )
    parser.add_argument(
        "--format",
        choices=("huggingface", "stablehlo", "onnx"),
        default="huggingface",
        help="format of --out (default: huggingface)",
    )
    parser.add_argument(
        "--metrics",
        metavar="JSON",
        help="the metrics that `svilm-train evaluate --out` wrote, for the model card (default: "
        "none)",
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="license of the weights, for the model card, such as cc-by-4.0 (default: not stated)",
    )
    parser.add_argument(
        "--weights",
        choices=("float32", "int8"),
        help="weights of the programs of --format onnx (default: float32)",
    )
    parser.add_argument(
        "--eval-snapshot",
        metavar="DIR",
        help="snapshot on which to measure what --weights int8 loses in retrieval (default: not "
        "measured)",
    )
    add_allow_seen(parser, "measure on a snapshot")
    for name, kind in (("--video", "video"), ("--text", "text")):
        parser.add_argument(
            name,
            type=on_disk,
            metavar="DIR",
            help=f"folder for the {kind} encoder (default: not written)",
        )


def _export(arguments: argparse.Namespace) -> int:
    if not (arguments.out or arguments.video or arguments.text):
        raise OutputError("nothing to export: give a folder with --out, --video or --text")
    card = arguments.out and arguments.format == "huggingface"
    if (arguments.metrics or arguments.license) and not card:
        arguments.misused("--metrics and --license require --out with --format huggingface")
    onnx = arguments.out and arguments.format == "onnx"
    refuse_ignored(
        arguments,
        ("weights", onnx, "--out with --format onnx"),
        ("eval_snapshot", arguments.weights == "int8", "--weights int8"),
        ("allow_seen", arguments.eval_snapshot, "--eval-snapshot"),
    )
    named: dict[pathlib.Path, str] = {}
    for option in ("out", "video", "text"):
        if path := getattr(arguments, option):
            other = named.setdefault(path.resolve(), option)
            if other != option:
                arguments.misused(f"--{other} and --{option} are both {path}: give two folders")
    for option, model_type in (("video", "vivit"), ("text", "bert")):
        if getattr(arguments, option):
            check_folder(arguments, option, EXPORT)
            _check_replaces(getattr(arguments, option), model_type)
    if arguments.out:
        check_folder(arguments, "out", _KINDS[arguments.format])

    from trainer.runs.provenance import has_joint_space
    from trainer.runs.run_lock import held

    run = load_run(arguments.run, any_task=True)
    if arguments.out:
        if "head" in run.params:
            progress.warn("export: the head of the run's task is left out")
        if run.task is not None and not has_joint_space(run.task):
            progress.warn(
                f"export: the run is fine-tuned for {run.task['name']}, which does not train the "
                "joint space: the model's texts and videos cannot be compared"
            )
        with held(arguments.out, "export"):
            _WRITERS[arguments.format](arguments, run)
        print(f"export: model in {arguments.out}")
    _export_encoders(arguments, run)
    return 0


def _write_huggingface(arguments: argparse.Namespace, run: "Loaded") -> None:
    from trainer.runs.provenance import check_same, parameters_sha256
    from trainer.tasks.zero_shot import table
    from trainer.weights import model_card, svilm_format

    figures = subject = None
    if arguments.metrics:
        metrics = read_metrics(arguments.metrics)
        figures, subject = table(metrics), metrics["subject"]
        ours = {"parameters_sha256": parameters_sha256(run.params), "step": run.step}
        check_same(arguments.metrics, subject, subject | ours)
    card = model_card.text(
        run,
        svilm_format.data_of(run),
        figures=figures,
        subject=subject,
        license_id=arguments.license,
    )
    svilm_format.write(arguments.out, run, card)


def _write_stablehlo(arguments: argparse.Namespace, run: "Loaded") -> None:
    from trainer.weights import stablehlo

    stablehlo.write(arguments.out, run)


def _write_onnx(arguments: argparse.Namespace, run: "Loaded") -> None:
    from trainer.data.snapshot import Snapshot
    from trainer.weights import onnx_programs

    snapshot = None
    if arguments.eval_snapshot:
        snapshot = Snapshot.open(arguments.eval_snapshot)
        progress.say(f"export: {check_unseen(run, snapshot, arguments).sentence()}")
    compared = onnx_programs.write(arguments.out, run, arguments.weights or "float32", snapshot)
    if compared is None:
        return
    exact, small = compared["float32"], compared["int8"]
    print(f"export: int8 has {small['bytes'] / exact['bytes']:.0%} of the size of float32")
    if snapshot is None:
        progress.warn("export: the loss by int8 is not measured: give --eval-snapshot")
        return
    for direction in ("t2v_R@1", "v2t_R@1"):
        print(f"export: {direction} {small[direction]:.1f} %, float32 {exact[direction]:.1f} %")


_WRITERS = {
    "huggingface": _write_huggingface,
    "stablehlo": _write_stablehlo,
    "onnx": _write_onnx,
}
_KINDS = {"huggingface": MODEL, "stablehlo": STABLEHLO, "onnx": ONNX}


def _export_encoders(arguments: argparse.Namespace, run: "Loaded") -> None:
    from trainer.runs.run_lock import held
    from trainer.weights import bert, hf_format, param_mapping, video

    if arguments.video:
        layers, sizes = run.params["video"], run.config.video
        files = video.as_vivit(layers, sizes, run.config.input.short_side)
        with held(arguments.video, "export"):
            hf_format.write(arguments.video, *files)
        print(f"export: video encoder in {arguments.video}")
    if arguments.text:
        sizes = run.config.text
        tensors = param_mapping.to_tensors(run.params["text"], bert.places(sizes))
        with held(arguments.text, "export"):
            hf_format.write(arguments.text, bert.settings(sizes), tensors)
            run.tokenizer.save(arguments.text / "vocab.txt", sizes.tokens)
        print(f"export: text encoder in {arguments.text}")


def add_import(commands: Any) -> None:
    """Add the command `svilm-train import`."""
    parser = add_parser(
        commands,
        "import",
        "make a run of an exported model",
        "Makes a run of a folder of `svilm-train export --format huggingface`, bit for bit.",
        _IMPORT_EPILOG,
    )
    parser.set_defaults(command=_import)
    parser.add_argument(
        "--from",
        type=on_disk,
        required=True,
        metavar="FOLDER",
        help="the folder of the export, or one that transformers' save_pretrained wrote",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="RUN",
        help="folder of the new run, on a disk or gs://BUCKET/FOLDER",
    )


def _import(arguments: argparse.Namespace) -> int:
    check_folder(arguments, "out", RUN)

    from trainer.runs.run_folder import checkpoint_steps
    from trainer.runs.run_lock import held
    from trainer.runs.run_path import run_path
    from trainer.weights import run_import

    out = run_path(arguments.out)
    with held(out, "import"):
        if checkpoint_steps(out / "checkpoints"):
            raise OutputError(f"{out} has checkpoints already: give a new folder")
        step = run_import.write_run(getattr(arguments, "from"), out)
    print(f"import: {out}, step {step:,}")
    return 0


def _check_replaces(folder: pathlib.Path, model_type: str) -> None:
    """Refuse a folder with weights other than an earlier export of the same encoder.

    Raises:
      OutputError: the folder has weights of another model, or of another program.
    """
    from trainer.weights import hf_format

    try:
        config = parse_object((folder / hf_format.CONFIG).read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        config = {}
    # transformers writes its version into every config.json.
    if config.get("model_type") != model_type or "transformers_version" in config:
        raise OutputError(
            f"{folder} contains weights of another model ({hf_format.CONFIG}: model_type "
            f"{config.get('model_type')!r}): give another folder"
        )
